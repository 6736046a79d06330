"""Prints a table's columns and rows as JSON, in the order of their offsets, as DuckDB and as PyIceberg read them; and with
`--dead-letters` the letters: code, message, partition and offset."""

from __future__ import annotations

import json

import lake
import verify


def main():
    options = verify.arguments()
    tables = lake.Lake(options.catalog, options.s3)
    connection = tables.connect()
    found, engines = tables.find(options.table), {}
    for engine in options.engine:
        tables.read(connection, engine, found, engine)
        rows = connection.execute(f"SELECT * FROM {engine} ORDER BY kafka_partition, kafka_offset")
        columns = [column[0] for column in rows.description]
        engines[engine] = {"columns": columns, "rows": [dict(zip(columns, row)) for row in rows.fetchall()]}
    letters = []
    if options.dead_letters and (table := tables.find(options.dead_letters)):
        tables.read(connection, "pyiceberg", table, "letters")
        columns = "error_code, error_message, source_record.partition, source_record.offset"
        letters = connection.execute(f"SELECT {columns} FROM letters ORDER BY 3, 4").fetchall()
    print(json.dumps({"engines": engines, "letters": letters}, default=str))


if __name__ == "__main__":
    main()
