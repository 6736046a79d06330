"""Prints a table's rows as JSON, a list for each of `duckdb` and `pyiceberg`, ordered.

Takes the verifier's arguments, and `--columns`: SQL over the table's columns.
"""

from __future__ import annotations

import argparse
import json
import sys

import lake
import verify


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--columns", required=True)
    asked, sys.argv[1:] = parser.parse_known_args()
    options = verify.arguments()
    tables = lake.Lake(options.catalog, options.s3)
    rows = {}
    for engine in options.engine:
        connection = tables.connect()
        tables.read(connection, engine, tables.find(options.table), "rows")
        rows[engine] = connection.execute(f'SELECT {asked.columns} FROM "rows" ORDER BY ALL').fetchall()
    print(json.dumps(rows, default=str))


if __name__ == "__main__":
    main()
