"""Do filters give exactly the rows that match? A wrong bound or partition value would hide some.

The least, a middle and the greatest value of each primitive column are put into filters that other engines prune files by; their answers are compared
with the same filters over all rows in memory. Prints as JSON which columns have bounds, how many files there are, and
the faults.
"""

from __future__ import annotations

import json
import math
import operator

import pyiceberg.expressions as ex

import lake
import verify

OPERATORS = {
    "=": (operator.eq, ex.EqualTo),
    "<": (operator.lt, ex.LessThan),
    ">": (operator.gt, ex.GreaterThan),
}


def picked(values):
    """The least, the greatest and one between: what bounds are about."""
    values = sorted(values)
    return values if len(values) < 4 else [values[0], values[len(values) // 2], values[-1]]


def constant(text):
    return "(" + verify.literal(text).replace("\0", "' || chr(0) || '") + ")"


def duckdb_faults(tables, table, columns):
    connection = tables.connect()
    tables.read(connection, "duckdb", table, "memory")
    scan = f"iceberg_scan('{lake._path(table.metadata_location)}')"
    for name in columns:
        column = verify.quote(name)
        kind = connection.execute(f"SELECT typeof({column}) FROM memory LIMIT 1").fetchone()[0]
        # NaN lies outside of bounds by Iceberg's rules and above all numbers by DuckDB's, which does not mind the gap.
        numbers = f"NOT isnan({column})" if kind in ("FLOAT", "DOUBLE") else f"{column} IS NOT NULL"
        rows = connection.execute(f"SELECT {column}::VARCHAR FROM memory WHERE {numbers} GROUP BY {column} ORDER BY {column}")
        literals = [v for (v,) in rows.fetchall()]
        literals = [literals[i] for i in picked(range(len(literals)))]
        wheres = [f"{column} {sign} {constant(v)}::{kind} AND {numbers}" for v in literals for sign in OPERATORS]
        for where in [f"{column} IS NULL", f"{column} IS NOT NULL", *wheres]:
            counts = [connection.execute(f"SELECT count(*) FROM {source} WHERE {where}").fetchone()[0] for source in ("memory", scan)]
            if counts[0] != counts[1]:
                yield f"duckdb: {where}: {counts[1]} rows of {counts[0]}"


def pyiceberg_faults(table, columns):
    everything = table.scan().to_arrow()
    for name in columns:
        values = everything[name].to_pylist()
        # PyIceberg cannot make a literal of an infinity for a float column.
        distinct = {v for v in values if v is not None and not (isinstance(v, float) and not math.isfinite(v))}
        filters = [(ex.IsNull(name), sum(v is None for v in values)), (ex.NotNull(name), sum(v is not None for v in values))]
        for literal in picked(distinct):
            signs = ["="] if isinstance(literal, bool) else OPERATORS
            for sign in signs:
                matches, expression = OPERATORS[sign]
                filters.append((expression(name, literal), sum(v is not None and matches(v, literal) for v in values)))
        for expression, expected in filters:
            # The files that the plan keeps, counted by their rows' own values: pruning alone is what is looked at.
            found = table.scan(row_filter=expression, selected_fields=(name,)).to_arrow().num_rows
            if found != expected:
                yield f"pyiceberg: {expression}: {found} rows of {expected}"


def misread_by_duckdb(table):
    """Columns by whose partition values DuckDB 1.5 leaves out files that it should read.

    It hashes a uuid in its own byte order, and rounds days before 1970 up. That the values themselves are right,
    `partitions.py` shows by PyIceberg's transforms.
    """
    for field in table.spec().fields:
        source = table.schema().find_field(field.source_id)
        kind, transform = str(source.field_type), str(field.transform)
        if (kind == "uuid" and transform.startswith("bucket")) or (kind.startswith("timestamp") and transform == "day"):
            yield source.name


def main():
    options = verify.arguments()
    tables = lake.Lake(options.catalog, options.s3)
    found = tables.find(options.table)
    table = tables._pyiceberg(found)
    misread = set(misread_by_duckdb(table))
    primitive = [f for f in table.schema().fields if f.field_type.is_primitive and f.name not in options.ignore]
    columns = [field.name for field in primitive]
    bounded, tasks = set(), list(table.scan().plan_files())
    for task in tasks:
        bounded |= {f.name for f in primitive if task.file.lower_bounds.get(f.field_id) is not None and task.file.upper_bounds.get(f.field_id) is not None}
    faults = [*duckdb_faults(tables, found, [name for name in columns if name not in misread]), *pyiceberg_faults(table, columns)]
    required = [f.name for f in table.schema().fields if f.required]
    print(json.dumps({"files": len(tasks), "unbounded": sorted(set(columns) - bounded), "required": required, "faults": faults}))


if __name__ == "__main__":
    main()
