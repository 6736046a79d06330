"""What Iceberg's format 3 has beyond format 2, as other engines read it: instants of nanoseconds, defaults of columns
that were added, row ids. JSON, an empty list of `faults` where all is well.

Takes the verifier's arguments, and after them one of
    --do rows --engine ENGINE,…
                            rows by DuckDB, PyIceberg, and with `--spark FOLDER` by Spark
    --do lineage --spark FOLDER --before SNAPSHOT
                            Spark's `_row_id` and `_last_updated_sequence_number`, at that snapshot and now
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal

import duckdb

import lake
import verify

# As `tests/it/format3.rs` produces them: 100 of the first version, 100 of the second, 20 more of the first.
OLD, NEW, LATE = 100, 100, 20
EPOCH_NANOS = 1_767_225_600_000_000_000
# The table without instants: of the three engines PyIceberg alone reads those of nanoseconds.
PLAIN = "shop.plain"
INSTANTS = ("at", "local_at")


def expected(n):
    """`id`, nanoseconds of `at` and of `local_at`, then the columns that were added: `grade`, `label`, `price`, `extra`."""
    nanos = EPOCH_NANOS + n * 1_000_000_007
    if OLD <= n < OLD + NEW:
        return (n, nanos, nanos + 1, n, f"label {n}", Decimal(n) / 100, None if n % 2 else f"extra {n}")
    return (n, nanos, nanos + 1, 7, "none", Decimal("-2.00"), None)


def with_numbers(arrow):
    """Instants as numbers: DuckDB's have microseconds."""
    for name in INSTANTS:
        at = arrow.schema.get_field_index(name)
        if at >= 0:
            assert arrow.column(at).type.unit == "ns", arrow.schema
            arrow = arrow.set_column(at, name, arrow.column(at).cast("int64"))
    return arrow


def rows(options, asked):
    tables = lake.Lake(options.catalog, options.s3)
    found = tables.find(options.table)
    instants = () if options.table == PLAIN else INSTANTS
    wanted = {n: expected(n) for n in range(OLD + NEW + LATE)}
    if not instants:
        wanted = {n: row[:1] + row[3:] for n, row in wanted.items()}
    columns = ", ".join(f'"{name}"' for name in ("id", *instants, "grade", "label", "price", "extra"))
    faults = []
    for engine in options.engine:
        connection = tables.connect()
        if engine == "spark":
            folder = f"{asked['--spark']}/{options.table}/*.parquet"
            connection.execute(f"CREATE TABLE everything AS SELECT * FROM read_parquet('{folder}')")
        elif engine == "pyiceberg":
            connection.register("everything", with_numbers(tables._pyiceberg(found).scan().to_arrow()))
        else:
            tables.read(connection, engine, found, "everything")
        read = {row[0]: row for row in connection.execute(f"SELECT {columns} FROM everything").fetchall()}
        wrong = [(n, wanted.get(n), read.get(n)) for n in wanted.keys() | read.keys() if wanted.get(n) != read.get(n)]
        if wrong:
            faults.append(f"{engine}: {len(wrong)} of {len(wanted)} rows differ: {wrong[:2]}")
    print(json.dumps({"faults": faults}, default=str))


def lineage(options, asked):
    def read(name):
        folder = f"{asked['--spark']}/{name}/*.parquet"
        columns = "id, _row_id, _last_updated_sequence_number"
        found = duckdb.execute(f"SELECT {columns} FROM read_parquet('{folder}')").fetchall()
        return {id: (row_id, number) for id, row_id, number in found}

    before, now = read(f"{options.table}@{asked['--before']}+lineage"), read(f"{options.table}+lineage")
    faults = []
    if len(before) != OLD + NEW + LATE or any(name is None for pair in before.values() for name in pair):
        faults.append(f"{len(before)} rows before, some without ids: {list(before.items())[:3]}")
    if len({row_id for row_id, _ in now.values()}) != len(now):
        faults.append("rows share their ids")
    if moved := {id: (before.get(id), name) for id, name in now.items() if before.get(id) != name}:
        faults.append(f"{len(moved)} rows are called otherwise: {list(moved.items())[:3]}")
    numbers = sorted({number for _, number in now.values()})
    print(json.dumps({"faults": faults, "numbers": numbers}))


def main():
    position = sys.argv.index("--do")
    arguments = sys.argv[position:]
    del sys.argv[position:]
    asked = dict(zip(arguments[::2], arguments[1::2]))
    if "--engine" in asked:
        sys.argv += ["--engine", asked["--engine"], "--rest", "unused"]
    options = verify.arguments()
    {"rows": rows, "lineage": lineage}[asked["--do"]](options, asked)


if __name__ == "__main__":
    main()
