"""Does to a table, with PyIceberg, what another tool or a person might, behind Frazil's back.

Takes the verifier's arguments, and after them one of
    --do rollback   set `main` back by one of its snapshots that added rows
    --do append     an empty append, as by another writer
    --do expire     remove every snapshot but the current one, and every tag
    --do drop       drop the table
    --do replace    drop it and make another one of that name
"""

from __future__ import annotations

import sys

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.update import RemoveSnapshotRefUpdate, RemoveSnapshotsUpdate

import lake
import verify


def rollback(catalog, name, table):
    snapshot = table.current_snapshot()
    while int(snapshot.summary.additional_properties.get("added-records", 0)) == 0:
        snapshot = table.snapshot_by_id(snapshot.parent_snapshot_id)
    table.manage_snapshots().rollback_to_snapshot(snapshot.parent_snapshot_id).commit()


def append(catalog, name, table):
    table.append(table.schema().as_arrow().empty_table())


def expire(catalog, name, table):
    tags = [ref for ref in table.metadata.refs if ref != "main"]
    old = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id != table.metadata.current_snapshot_id]
    # Not by `expire_snapshots`, which respects tags: the tools meant here do not.
    updates = [RemoveSnapshotRefUpdate(ref_name=tag) for tag in tags] + [RemoveSnapshotsUpdate(snapshot_ids=old)]
    catalog.commit_table(table, (), tuple(updates))


def drop(catalog, name, table):
    catalog.drop_table(name)


def replace(catalog, name, table):
    catalog.drop_table(name)
    catalog.create_table(name, schema=table.schema(), location=table.location() + "-another")


def main():
    position = sys.argv.index("--do")
    do = sys.argv[position + 1]
    del sys.argv[position : position + 2]
    options = verify.arguments()
    tables = lake.Lake(options.catalog, options.s3)
    catalog = SqlCatalog(tables.find(options.table).catalog, **tables.pyiceberg_properties())
    name = tuple(options.table.split("."))
    {"rollback": rollback, "append": append, "expire": expire, "drop": drop, "replace": replace}[do](
        catalog, name, catalog.load_table(name)
    )


if __name__ == "__main__":
    main()
