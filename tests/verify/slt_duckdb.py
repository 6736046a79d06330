"""DuckDB behind a pipe, for the sqllogictest files: attached to a REST catalog, it answers what it is asked.

A JSON object a line, both ways: `{"sql": …}` in, `{"arrow": …}` out with the rows as a stream of Arrow in base64, or
`{"error": …}`.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys

import duckdb
import pyarrow as pa

import rest


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest", required=True)
    parser.add_argument("--namespace", required=True, help="that of tables named without one")
    options = parser.parse_args()
    tables = rest.Rest(options.rest)
    connection = tables.connect()
    tables.attach(connection)
    connection.execute(f'USE rest."{options.namespace}"')
    for line in sys.stdin:
        try:
            answer = {"arrow": stream(connection.execute(json.loads(line)["sql"]).to_arrow_table())}
        except duckdb.Error as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue()).decode()


if __name__ == "__main__":
    main()
