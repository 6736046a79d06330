"""Prints a dead-letter table as JSON: code, message, partition and offset of each letter, read by DuckDB."""

from __future__ import annotations

import json

import lake
import verify


def main():
    options = verify.arguments()
    tables = lake.Lake(options.catalog, options.s3)
    connection = tables.connect()
    tables.read(connection, "duckdb", tables.find(options.table), "letters")
    columns = "error_code, error_message, source_record.partition, source_record.offset"
    rows = connection.execute(f"SELECT {columns} FROM letters ORDER BY ALL").fetchall()
    print(json.dumps([dict(zip(("code", "message", "partition", "offset"), row)) for row in rows]))


if __name__ == "__main__":
    main()
