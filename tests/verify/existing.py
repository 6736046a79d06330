"""A table of orders as another tool makes it, with PyIceberg, before Frazil comes; and whether it is kept as it was.

Takes the verifier's arguments, and after them one of
    --do make --kind fits|misfit --warehouse LOCATION
    --do check      what there was before is there still, by PyIceberg's and DuckDB's reading: JSON, empty `faults`
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import NullOrder
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform, TruncateTransform
from pyiceberg.types import (
    BooleanType, DateType, DecimalType, DoubleType, LongType, NestedField, StringType, StructType, TimestamptzType,
)

import lake
import verify

ROWS = 30
PROPERTIES = {"owner": "the warehouse team", "write.parquet.compression-codec": "gzip"}


def schema(kind):
    """Not all columns of an order, in another order, one wider than it must be, and some that no record has."""
    fields = [
        NestedField(11, "country", StringType()),
        NestedField(12, "theirs", DateType(), doc="nobody else fills it"),
        NestedField(13, "order_id", LongType(), required=True),
        NestedField(14, "quantity", LongType()),
        NestedField(15, "price", DecimalType(12, 2)),
        NestedField(16, "created_at", TimestamptzType()),
        NestedField(17, "their_place", StructType(NestedField(18, "shelf", StringType()), NestedField(19, "row", LongType()))),
        NestedField(20, "discount", DoubleType()),
    ]
    if kind == "misfit":
        fields += [
            NestedField(21, "product", BooleanType()),
            NestedField(22, "theirs_always", LongType(), required=True),
            NestedField(23, "note", StringType(), required=True),
            NestedField(24, "kafka_offset", StringType()),
        ]
    return Schema(*fields, identifier_field_ids=[13])


def row(n, kind):
    made = {
        "country": ["DE", "US", None][n % 3],
        "theirs": datetime.date(2020, 1, 1 + n % 28),
        "order_id": 1_000_000 + n,
        "quantity": 5_000_000_000 + n,
        "price": Decimal(n) / 4,
        "created_at": datetime.datetime(2020, 1, 1 + n % 28, tzinfo=datetime.timezone.utc),
        "their_place": None if n % 5 == 0 else {"shelf": f"shelf {n}", "row": n},
        "discount": n / 8,
    }
    if kind == "misfit":
        made |= {"product": True, "theirs_always": n, "note": "always", "kafka_offset": "none"}
    return made


def make(options, kind, warehouse):
    tables = lake.Lake(options.catalog, options.s3)
    catalog = SqlCatalog("frazil", warehouse=warehouse, **(tables.pyiceberg_properties() | {"init_catalog_tables": "true"}))
    namespace, name = options.table.rsplit(".", 1)
    catalog.create_namespace_if_not_exists(namespace)
    made = schema(kind)
    # PyIceberg gives ids anew, so that they are not those above; columns keep their order.
    table = catalog.create_table((namespace, name), schema=made, properties=PROPERTIES)
    with table.update_spec() as update:
        update.add_field("country", IdentityTransform(), "country")
    arrow = table.schema().as_arrow()
    for part in range(0, ROWS, 10):
        table.append(pa.Table.from_pylist([row(n, kind) for n in range(part, part + 10)], schema=arrow))
    if kind == "fits":
        add_file(table, warehouse)
    # What comes next is laid out otherwise than what is there.
    with table.update_spec() as update:
        update.remove_field("country")
        update.add_field("order_id", BucketTransform(3), "bucket_of_id")
        update.add_field("created_at", DayTransform(), "day")
        update.add_field("country", TruncateTransform(1), "letter")
    with table.update_sort_order() as update:
        update.desc("created_at", DayTransform(), NullOrder.NULLS_LAST)
        update.asc("order_id", IdentityTransform(), NullOrder.NULLS_FIRST)


def add_file(table, warehouse):
    """A Parquet file without field ids, found by names: `their_place` is missing in it."""
    rows = [row(n, "fits") for n in range(ROWS, ROWS + 4)]
    names = [name for name in rows[0] if name != "their_place"]
    arrow = pa.schema([table.schema().as_arrow().field(name).remove_metadata() for name in names])
    rows = pa.Table.from_pylist([{name: one[name] for name in names} | {"country": "FR"} for one in rows], schema=arrow)
    path = os.path.join(warehouse, "imported.parquet")
    pq.write_table(rows, path)
    table.add_files([path])


def expected(kind):
    rows = [row(n, kind) for n in range(ROWS)]
    return rows + [row(n, kind) | {"country": "FR", "their_place": None} for n in range(ROWS, ROWS + 4)]


def check(options):
    """Rows without offset are those of before; table and columns are as they were."""
    tables = lake.Lake(options.catalog, options.s3)
    found = tables.find(options.table)
    table = tables._pyiceberg(found)
    names = list(row(0, "fits"))
    faults = []
    # Times without zone: DuckDB gives Python those with one only where it has another library.
    by_id = {one["order_id"]: one | {"created_at": one["created_at"].replace(tzinfo=None)} for one in expected("fits")}
    for engine in ("pyiceberg", "duckdb"):
        connection = tables.connect()
        tables.read(connection, engine, found, "everything")
        plain = {"created_at": "timezone('UTC', created_at)"}
        columns = ", ".join(plain.get(name, f'"{name}"') for name in names)
        read = connection.execute(f"SELECT {columns} FROM everything WHERE kafka_offset IS NULL").fetchall()
        rows = {one["order_id"]: one for one in (dict(zip(names, values)) for values in read)}
        if len(read) != len(rows) or rows != by_id:
            wrong = [(id, by_id.get(id), rows.get(id)) for id in by_id.keys() | rows.keys() if by_id.get(id) != rows.get(id)]
            faults.append(f"{engine} reads {len(read)} rows of before: {wrong[:2]}")
    fields = {field.name: field for field in table.schema().fields}
    order = [name for name in fields if name in names]
    facts = {
        "order of columns": (order, names),
        "identifier": (list(table.schema().identifier_field_names()), ["order_id"]),
        "required": ([name for name, field in fields.items() if field.required], ["order_id"]),
        "quantity": (str(fields["quantity"].field_type), "long"),
        "comment": (fields["theirs"].doc, "nobody else fills it"),
        "partitioning": ([str(f.transform) for f in table.spec().fields], ["bucket[3]", "day", "truncate[1]"]),
        "sorting": ([(str(f.transform), f.direction.name) for f in table.sort_order().fields], [("day", "DESC"), ("identity", "ASC")]),
        "version": (table.metadata.format_version, 2),
        "properties": ({name: table.properties.get(name) for name in PROPERTIES}, PROPERTIES),
        "mapping": (table.properties.get("frazil.mapping.version"), "1"),
    }
    faults += [f"{name}: {is_!r}, not {was!r}" for name, (is_, was) in facts.items() if is_ != was]
    print(json.dumps({"faults": faults}, default=str))


def main():
    position = sys.argv.index("--do")
    arguments = sys.argv[position:]
    del sys.argv[position:]
    options = verify.arguments()
    asked = dict(zip(arguments[::2], arguments[1::2]))
    if asked["--do"] == "make":
        make(options, asked["--kind"], asked["--warehouse"])
    else:
        check(options)


if __name__ == "__main__":
    main()
