"""Writes to a table with PyIceberg, as an engine beside Frazil would, and prints the snapshot that it has then.

Takes the verifier's arguments, and
    --append ROWS     JSON: a list of objects; columns that an object lacks are null
    --delete FILTER   rows that go, by PyIceberg's row filter; files that have other rows, too, are written anew
With both, the rows take the place of those that go.
"""

from __future__ import annotations

import argparse
import json
import sys

import pyarrow as pa

import lake
import verify


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--append", type=json.loads)
    parser.add_argument("--delete")
    asked, sys.argv[1:] = parser.parse_known_args()
    options = verify.arguments()
    tables = lake.Lake(options.catalog, options.s3)
    table = tables._pyiceberg(tables.find(options.table))
    rows = pa.Table.from_pylist(asked.append or [], schema=table.schema().as_arrow())
    if asked.append and asked.delete:
        table.overwrite(rows, overwrite_filter=asked.delete)
    elif asked.delete:
        table.delete(asked.delete)
    else:
        table.append(rows)
    print(table.refresh().current_snapshot().snapshot_id)


if __name__ == "__main__":
    main()
