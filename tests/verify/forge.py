"""Writes with PyIceberg the table that a topic should become, or spoils it in one way: to test the verifier itself.

Takes the verifier's arguments, and `--warehouse LOCATION --spoil WAY`.
"""

from __future__ import annotations

import sys
import uuid

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog.sql import SqlCatalog

import lake
import mapping
import topic
import verify


def arrow(kind):
    """The Arrow type that PyIceberg makes a column of `kind` of."""
    if kind == "uuid":
        return pa.uuid()
    if isinstance(kind, str) and kind.startswith("fixed"):
        return pa.binary(int(kind[6:-1]))
    return mapping.to_arrow(kind)


def expected_rows(options):
    registry = topic.Registry(options.registry, options.registry_user)
    expected = topic.expect({"bootstrap.servers": options.bootstrap}, registry, options, set())
    columns = verify.plan(expected, options)
    tables = []
    for part in expected.parts:
        rows, arrays = part.rows, []
        for kind, feed in columns.values():
            if feed not in rows.column_names:
                arrays.append(pa.nulls(rows.num_rows, arrow(kind)))
            elif kind == "uuid":
                arrays.append(pa.array([v and uuid.UUID(v).bytes for v in rows[feed].to_pylist()], pa.binary(16)).cast(arrow(kind)))
            else:
                arrays.append(rows[feed].cast(arrow(kind)))
        tables.append(pa.Table.from_arrays(arrays, names=list(columns)))
    return pa.concat_tables(tables)


def replaced(rows, name, column):
    return rows.set_column(rows.schema.get_field_index(name), name, column)


SPOIL = {
    "nothing": lambda rows: rows,
    "change": lambda rows: replaced(
        rows, "country", pc.if_else(pc.equal(rows["order_id"], 123), pa.scalar(None, pa.string()), rows["country"])
    ),
    "header": lambda rows: replaced(
        rows, "kafka_headers", pc.if_else(pc.equal(rows["order_id"], 120), rows["kafka_headers"][1], rows["kafka_headers"])
    ),
    "drop": lambda rows: rows.filter(pc.not_equal(rows["order_id"], 77)),
    "double": lambda rows: pa.concat_tables([rows, rows.slice(5, 1)]),
    "extra": lambda rows: pa.concat_tables(
        [rows, replaced(rows.slice(5, 1), "kafka_offset", pa.array([1_000_000], pa.int64()))]
    ),
    "type": lambda rows: replaced(rows, "quantity", rows["quantity"].cast(pa.int64())),
}


def main():
    position = sys.argv.index("--warehouse")
    warehouse, spoil = sys.argv[position + 1], sys.argv[position + 3]
    del sys.argv[position : position + 4]
    options = verify.arguments()
    rows = SPOIL[spoil](expected_rows(options))
    tables = lake.Lake(options.catalog, options.s3)
    catalog = SqlCatalog("frazil", warehouse=warehouse, **(tables.pyiceberg_properties() | {"init_catalog_tables": "true"}))
    namespace, name = options.table.rsplit(".", 1)
    catalog.create_namespace_if_not_exists(namespace)
    catalog.create_table((namespace, name), schema=rows.schema).append(rows)


if __name__ == "__main__":
    main()
