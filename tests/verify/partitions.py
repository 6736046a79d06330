"""Are the partition values those that PyIceberg's own transforms give? Every row of every file against its file's value.

Prints as JSON the number of files and of distinct partition values, the faults, and whether rows inside the files are in
the table's sort order.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import PyArrowFileIO

import lake
import verify


def internal(column, kind):
    """Values as PyIceberg's transforms take them."""
    name = str(kind)
    if name in ("date", "int"):
        column = column.cast(pa.int32())
    elif name in ("timestamp", "timestamptz", "time", "long"):
        column = column.cast(pa.int64())
    return column.combine_chunks().to_pylist()


def main():
    options = verify.arguments()
    tables = lake.Lake(options.catalog, options.s3)
    table = tables._pyiceberg(tables.find(options.table))
    schema, spec = table.schema(), table.spec()
    files, values, faults = list(table.scan().plan_files()), set(), []
    order = [schema.find_column_name(field.source_id) for field in table.sort_order().fields]
    unsorted = 0
    io = PyArrowFileIO(table.io.properties)
    for task in files:
        with io.new_input(task.file.file_path).open() as stream:
            rows = pq.read_table(stream)
        stated = tuple(task.file.partition)
        values.add(stated)
        for position, field in enumerate(spec.fields):
            source = schema.find_field(field.source_id)
            transform = field.transform.transform(source.field_type)
            for value in set(internal(rows[source.name], source.field_type)):
                if transform(value) != stated[position]:
                    faults.append(f"{field.name}: {value!r} is in {stated[position]!r}, not {transform(value)!r}")
        keys = list(zip(*[[(v is not None, v) for v in rows[name].to_pylist()] for name in order]))
        unsorted += any(a > b for a, b in zip(keys, keys[1:]))
    print(json.dumps({
        "files": len(files), "values": len(values), "faults": faults[:20], "order": order, "unsorted": unsorted,
        "fields": [f"{field.transform}({schema.find_column_name(field.source_id)})" for field in spec.fields],
    }))


if __name__ == "__main__":
    main()
