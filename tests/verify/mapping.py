"""What columns an Avro schema must become, and what values: written from the documented mapping, not from Frazil's code.

Types are Iceberg's: a primitive is its name, `("struct", {name: type})`, `("list", type)`, `("map", key, value)`.
Schemas are decoded with their logical types stripped, so that every value arrives as Avro wrote it; a converter makes
of it what pyarrow takes for the column's type. No I/O here.
"""

from __future__ import annotations

import decimal
import uuid

import fastavro.schema
import pyarrow as pa

WIDER = {("int", "long"), ("float", "double")}
_EXACT = decimal.Context(prec=60)


EMPTY = ("struct", {})


class Unsupported(ValueError):
    """A schema that has no columns: its records are dead letters."""


class OutOfRange(ValueError):
    """A value that its column cannot hold: its record is a dead letter."""


class Mapping:
    """A writer's schema as columns: `schema` for fastavro, `fields` name to type, `row(value)` the tuple of values."""

    def __init__(self, text, named, names_scheme, atomic_column, time_as=None):
        self._named = dict(named)
        parsed = fastavro.schema.parse_schema(text, named_schemas=self._named)
        bare = {name: _strip(schema) for name, schema in named.items()}
        self.schema = fastavro.schema.parse_schema(_strip(parsed), named_schemas=bare)
        self._tableflow = names_scheme != "kafka"
        self._time_as = time_as or ("time" if self._tableflow else "long")
        parsed = self._resolve(parsed)
        if _is(parsed, "record"):
            columns = self._columns(parsed, (parsed["name"],))
            self.fields = {name: kind for _, name, kind, _ in columns}
            self._steps = [(field, convert) for field, _, _, convert in columns]
        else:
            kind, convert = self._convert(parsed, ())
            self.fields = {atomic_column: kind}
            self._steps = [(None, convert)]

    def row(self, value):
        return [
            None if (v := value if name is None else value[name]) is None else v if convert is None else convert(v)
            for name, convert in self._steps
        ]

    def _resolve(self, schema):
        return self._named.get(schema, schema) if isinstance(schema, str) else schema

    def _convert(self, schema, above):
        """The column type of a schema, and the function for its values that are not null (None: as they are)."""
        schema = self._resolve(schema)
        if isinstance(schema, list):
            branches = [b for b in schema if not _is(b, "null")] or ["null"]
            if len(branches) != 1:
                raise Unsupported("a union of several branches")
            return self._convert(branches[0], above)
        if isinstance(schema, str):
            schema = {"type": schema}
        kind, logical = schema["type"], schema.get("logicalType")
        if isinstance(kind, (dict, list)):
            return self._convert(kind, above)
        if kind in ("record", "error"):
            if schema["name"] in above:
                raise Unsupported("a recursive record")
            return self._record(schema, above + (schema["name"],))
        if kind == "array":
            return self._array(schema, above)
        if kind == "map":
            value, convert = self._convert(schema["values"], above)
            convert = convert or _same
            return ("map", "string", value), lambda v: [(k, None if x is None else convert(x)) for k, x in v.items()]
        return self._primitive(kind, logical, schema)

    def _columns(self, schema, above):
        """Field, column name, type and converter of each field that is stored."""
        columns, taken = [], set()
        for field in schema["fields"]:
            kind, convert = self._convert(field["type"], above)
            if _empty(kind):
                continue
            # Engines compare names without case.
            candidates = [field["name"], *(f"{field['name']}_{n}" for n in range(2, len(schema["fields"]) + 2))]
            name = next(c for c in candidates if c.lower() not in taken)
            taken.add(name.lower())
            columns.append((field["name"], name, kind, convert))
        return columns

    def _record(self, schema, above):
        parts = self._columns(schema, above)
        steps = [(field, name, convert or _same) for field, name, _, convert in parts]
        return (
            ("struct", {name: kind for _, name, kind, _ in parts}),
            lambda v: {name: None if v[field] is None else convert(v[field]) for field, name, convert in steps},
        )

    def _array(self, schema, above):
        items = self._resolve(schema["items"])
        element, convert = self._convert(items, above)
        convert = convert or _same
        entry = _is(items, "record") and {f["name"] for f in items["fields"]} == {"key", "value"}
        marked = entry and (
            schema.get("logicalType") == "map"
            or items.get("connect.internal.type") == "MapEntry"
            or items["name"].rsplit(".", 1)[-1] == "MapEntry"
        )
        if marked:
            parts = element[1]
            return ("map", parts["key"], parts["value"]), lambda v: [tuple(convert(x)[n] for n in ("key", "value")) for x in v]
        return ("list", element), lambda v: [None if x is None else convert(x) for x in v]

    def _primitive(self, kind, logical, schema):
        match kind, logical:
            case "null", _:
                return EMPTY, None
            case "int", "date":
                return "date", None
            case "int", "time-millis":
                return self._time_as, lambda v: self._time(v * 1000)
            case "long", "time-micros":
                return self._time_as, self._time
            case "long", "timestamp-millis":
                return "timestamptz", _micros
            case "long", "timestamp-micros":
                return "timestamptz", None
            case "long", "timestamp-nanos":
                return "timestamptz", lambda v: v // 1000
            case "long", "local-timestamp-millis":
                return "timestamp", _micros
            case "long", "local-timestamp-micros":
                return "timestamp", None
            case "long", "local-timestamp-nanos":
                return "timestamp", lambda v: v // 1000
            case ("bytes" | "fixed"), "decimal":
                return _decimal(schema["precision"], schema.get("scale", 0))
            case "string", "uuid":
                return ("string" if self._tableflow else "uuid"), lambda v: str(uuid.UUID(v))
            case "fixed", "uuid" if schema["size"] == 16:
                return ("string" if self._tableflow else "uuid"), lambda v: str(uuid.UUID(bytes=v))
            case "fixed", _:
                return f"fixed[{schema['size']}]", None
            case "bytes", _:
                return "binary", None
            case ("string" | "enum"), _:
                return "string", None
            case ("boolean" | "int" | "long" | "float" | "double"), _:
                return kind, None
        raise Unsupported(f"avro type {kind}")

    def _time(self, micros):
        if self._time_as == "long":
            return micros
        if not 0 <= micros < 86_400_000_000:
            raise OutOfRange("time of day")
        if self._time_as == "time":
            return micros
        seconds, micros = divmod(micros, 1_000_000)
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micros:06}"


def merge(a, b):
    """The type that holds both; raises where there is none. Used along the versions of one subject."""
    if a == b:
        return a
    if isinstance(a, str) and isinstance(b, str):
        if (a, b) in WIDER:
            return b
        if (b, a) in WIDER:
            return a
    if a[0] == b[0] == "struct":
        both = dict(a[1])
        for name, kind in b[1].items():
            both[name] = merge(both[name], kind) if name in both else kind
        return ("struct", both)
    if a[0] == b[0] == "list":
        return ("list", merge(a[1], b[1]))
    if a[0] == b[0] == "map":
        return ("map", merge(a[1], b[1]), merge(a[2], b[2]))
    raise Unsupported(f"no type holds {show(a)} and {show(b)}")


def from_iceberg(kind):
    """A type of a metadata file in the form used here."""
    if isinstance(kind, str):
        return kind.replace(" ", "")
    if kind["type"] == "struct":
        return ("struct", {f["name"]: from_iceberg(f["type"]) for f in kind["fields"]})
    if kind["type"] == "list":
        return ("list", from_iceberg(kind["element"]))
    return ("map", from_iceberg(kind["key"]), from_iceberg(kind["value"]))


def show(kind):
    if isinstance(kind, str):
        return kind
    if kind[0] == "struct":
        return "struct<" + ",".join(f"{n}:{show(k)}" for n, k in kind[1].items()) + ">"
    return f"{kind[0]}<" + ",".join(show(k) for k in kind[1:]) + ">"


def to_arrow(kind):
    """The Arrow type that expected values of a column are built in; a uuid is its text."""
    if isinstance(kind, tuple):
        if kind[0] == "struct":
            return pa.struct([pa.field(n, to_arrow(k)) for n, k in kind[1].items()])
        if kind[0] == "list":
            return pa.list_(to_arrow(kind[1]))
        return pa.map_(to_arrow(kind[1]), to_arrow(kind[2]))
    if kind.startswith("decimal"):
        precision, scale = kind[len("decimal(") : -1].split(",")
        return pa.decimal128(int(precision), int(scale))
    if kind.startswith("fixed"):
        return pa.binary()
    return {
        "boolean": pa.bool_(),
        "int": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", tz="UTC"),
        "string": pa.string(),
        "uuid": pa.string(),
        "binary": pa.binary(),
    }[kind]


def _empty(kind):
    """Whether there is nothing to store: nulls, values of no bytes, records without fields, collections of these."""
    return kind in (EMPTY, "fixed[0]") or (kind[0] in ("list", "map") and _empty(kind[-1]))


def _same(value):
    return value


def _micros(millis):
    micros = millis * 1000
    if not -(2**63) <= micros < 2**63:
        raise OutOfRange("timestamp")
    return micros


def _decimal(precision, scale):
    if precision > 38:
        raise Unsupported("a decimal of more than 38 digits")
    limit = 10**precision

    def convert(raw):
        unscaled = int.from_bytes(raw, "big", signed=True)
        if abs(unscaled) >= limit:
            raise OutOfRange("decimal")
        return decimal.Decimal(unscaled).scaleb(-scale, _EXACT)

    return f"decimal({precision},{scale})", convert


def _is(schema, kind):
    return schema == kind or (isinstance(schema, dict) and schema["type"] == kind)


def _strip(schema):
    """The schema without logical types."""
    if isinstance(schema, list):
        return [_strip(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: v for k, v in schema.items() if k != "logicalType" and not k.startswith("__")}
    for key in ("type", "items", "values"):
        if key in out and not isinstance(out[key], str):
            out[key] = _strip(out[key])
    if "fields" in out:
        out["fields"] = [{**f, "type": _strip(f["type"])} for f in out["fields"]]
    return out
