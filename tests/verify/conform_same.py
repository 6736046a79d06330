"""Compares a table's columns and rows, as PyIceberg and DuckDB read them, with a case's."""

from __future__ import annotations

import datetime
import json
import math
import uuid

from pyiceberg.types import ListType, MapType, StructType

import conform_cases

METADATA = ("kafka_", "$$", "cflt_metadata_")
OFFSETS = ("kafka_offset", "$$offset", "cflt_metadata_offset")
ENGINES = ("pyiceberg", "duckdb")


def differences(tables, name, case):
    """Every difference, each a line."""
    table = tables.find(name)
    if table is None:
        return [f"there is no table {name}; dead letters: {sorted(set(_letters(tables, name, 'pyiceberg').values()))}"]
    fields = tables._pyiceberg(table).schema().fields
    columns = {field.name: field for field in fields if not field.name.startswith(METADATA)}
    return [
        *_columns(fields, columns, case),
        *(f"{engine}: {fault}" for engine in ENGINES for fault in _rows(tables, name, table, engine, columns, case)),
    ]


def _columns(fields, columns, case):
    found = {name: f"{_show(field.field_type)}{'!' if field.required else ''}" for name, field in columns.items()}
    faults = []
    if list(found.items()) != list(case.columns.items()):
        wrong = {n: t for n, t in case.columns.items() if found.get(n) != t}
        beside = {n: t for n, t in found.items() if case.columns.get(n) != t}
        what = f"expected {wrong}, found {beside}" if wrong or beside else "in another order"
        faults.append(f"columns are {list(found)}: {what}")
    names = [field.name for field in fields]
    if names != [*columns, *(name for name in names if name.startswith(METADATA))]:
        faults.append(f"metadata is not behind the data: {names}")
    comments = {name: columns[name].doc for name in case.comments if name in columns}
    if comments != case.comments:
        faults.append(f"comments are {comments}, expected {case.comments}")
    return faults


def _show(kind):
    inner = lambda field: _show(field.field_type) + ("!" if field.required else "")  # noqa: E731
    if isinstance(kind, StructType):
        return "struct<" + ",".join(f"{field.name}:{inner(field)}" for field in kind.fields) + ">"
    if isinstance(kind, ListType):
        return f"list<{inner(kind.element_field)}>"
    if isinstance(kind, MapType):
        return f"map<{_show(kind.key_type)},{inner(kind.value_field)}>"
    return str(kind).replace(" ", "")


def _rows(tables, name, table, engine, columns, case):
    rows = {next(row[name] for name in OFFSETS if name in row): row for row in _read(tables, table, engine)}
    letters = _letters(tables, name, engine)
    faults = []
    for offset, expected in enumerate(case.expected()):
        place = f"row {offset} {expected.given}"
        if expected.letter is not None:
            if letters.get(offset) != expected.letter:
                faults.append(f"{place}: expected dead letter {expected.letter}, found {letters.get(offset)}, row {rows.get(offset)}")
        elif offset not in rows:
            faults.append(f"{place}: no row; dead letter: {letters.get(offset)}")
        else:
            unknown = set(expected.row) - set(columns)
            faults += [f"{place}: there is no column {column}" for column in sorted(unknown)]
            for column, field in columns.items():
                wrong = _differs(field.field_type, expected.row.get(column), rows[offset].get(column), column, engine)
                faults += [f"{place}: {fault}" for fault in wrong]
    extra = (set(rows) | set(letters)) - set(range(len(case.expected())))
    return faults + [f"offset {offset} was not expected" for offset in sorted(extra)]


def _read(tables, table, engine):
    connection = tables.connect()
    tables.read(connection, engine, table, "found")
    reader = connection.execute("SELECT * FROM found").to_arrow_table()
    return reader.to_pylist()


def _letters(tables, name, engine):
    """Offset to reason and message; only the reason where it is to be compared."""
    table = tables.find(f"{name}__dead_letters")
    return {row["source_record"]["offset"]: row["error_reason"] for row in _read(tables, table, engine)} if table else {}


def _differs(kind, expected, found, path, engine):
    """Where two values of a type differ."""
    if isinstance(expected, conform_cases.Json):
        return _differs_json(expected.value, found, path)
    if isinstance(kind, ListType) and isinstance(kind.element_type, StructType) and engine == "pyiceberg":
        # PyIceberg reads any null list of structs as an empty one.
        expected, found = expected or [], found or []
    if expected is None or found is None:
        return [] if expected is found else [f"{path}: expected {expected!r}, found {found!r}"]
    shape = dict if isinstance(kind, StructType) else (list, dict) if isinstance(kind, (ListType, MapType)) else object
    if not isinstance(expected, shape) or (isinstance(kind, ListType) and isinstance(expected, dict)):
        return [f"{path}: expected {expected!r}, found {found!r}"]
    if isinstance(kind, StructType):
        unknown = set(expected) - {field.name for field in kind.fields}
        faults = [f"{path}.{name}: no such field" for name in sorted(unknown)]
        for field in kind.fields:
            name = field.name
            faults += _differs(field.field_type, expected.get(name), found.get(name), f"{path}.{name}", engine)
        return faults
    if isinstance(kind, ListType):
        pairs = [(kind.element_type, e, f, f"{path}[{n}]") for n, (e, f) in enumerate(zip(expected, found))]
        return _lengths(expected, found, path) or [fault for pair in pairs for fault in _differs(*pair, engine)]
    if isinstance(kind, MapType):
        expected, found = _entries(expected), _entries(found)
        pairs = [
            pair
            for (ek, ev), (fk, fv) in zip(expected, found)
            for pair in ((kind.key_type, ek, fk, f"{path}'s key"), (kind.value_type, ev, fv, f"{path}[{ek!r}]"))
        ]
        return _lengths(expected, found, path) or [fault for pair in pairs for fault in _differs(*pair, engine)]
    same = _plain(expected) == _plain(found) and _kind(expected) == _kind(found)
    return [] if same else [f"{path}: expected {expected!r}, found {found!r}"]


def _differs_json(expected, found, path):
    try:
        same = json.dumps(json.loads(found), sort_keys=True) == json.dumps(expected, sort_keys=True)
    except (TypeError, ValueError):
        same = False
    return [] if same else [f"{path}: expected JSON {json.dumps(expected)}, found {found!r}"]


def _lengths(expected, found, path):
    return [] if len(expected) == len(found) else [f"{path}: expected {expected!r}, found {found!r}"]


def _entries(value):
    pairs = value.items() if isinstance(value, dict) else value
    return sorted(pairs, key=lambda pair: str(_plain(pair[0])))


def _plain(value):
    """A value as one that equals another exactly where both mean the same."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, datetime.datetime):
        return value.isoformat() if value.tzinfo is None else value.astimezone(datetime.UTC).isoformat()
    return str(value) if isinstance(value, uuid.UUID) else value


def _kind(value):
    """Bytes are no text and true is not 1; a uuid may be its text."""
    return {bool: "bool", bytes: "bytes", uuid.UUID: "str", str: "str"}.get(type(value), "other")
