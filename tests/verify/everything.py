"""Produces a topic whose Avro schema has every type, with boundary values, encoded by fastavro and framed by hand.

`--part I/N` produces only that part of the rows: as many commits as parts give as many files to prune.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
import urllib.request
import uuid

import confluent_kafka as ck
import fastavro

import mapping

ROWS = 96


def long(*extremes):
    return [0, 1, -1, 7, *extremes]


def decimal(precision, length=None):
    """Unscaled values as bytes, the greatest and least of the precision among them."""
    most = 10**precision - 1
    values = [0, 1, -1, most, -most, 12345 % most, -(12345 % most)]
    size = length or (most.bit_length() + 8) // 8
    return [v.to_bytes(size if length or i % 2 else (v.bit_length() + 8) // 8, "big", signed=True) for i, v in enumerate(values)]


INT, LONG = long(2**31 - 1, -(2**31)), long(2**63 - 1, -(2**63))
FLOAT = [0.0, -0.0, 1.5, -1.5, float("nan"), float("inf"), float("-inf"), 3.4028234663852886e38, 1.401298464324817e-45]
DOUBLE = [*FLOAT[:7], 1.7976931348623157e308, -1.7976931348623157e308, 5e-324]
TEXT = ["", "a", "ß水🦀", "\u0000x", "long " * 40, "\U0010ffff" * 20, "z\U0010ffff", "A" * 16, "A" * 17]
BYTES = [b"", b"\x00", b"\xff" * 40, bytes(range(256)), b"\xff" * 15 + b"\x00", b"\x7f"]
# The first and last day and moment that Python and the engines can say, and those around the epoch.
DATE = [0, -1, 1, -719162, 2932896, 19723, -25567]
SECOND = [0, -1, 1, -62135596800, 253402300799, 1704067200, -2208988800]
MILLIS = [s * 1000 + m for s in SECOND for m in (0, 999)]
MICROS = [s * 10**6 + m for s in SECOND for m in (0, 999_999)]
NANOS = [0, -1, 1, -999, -1000, -1001, 999, 1704067200_123456789, -2208988800_123456789, 2**63 - 1, -(2**63)]
TIME_MILLIS, TIME_MICROS = [0, 1, 86_399_999, 43_200_001], [0, 1, 86_399_999_999, 43_200_000_001]
UUIDS = [uuid.UUID(int=n) for n in (0, 1, 2**128 - 1, 2**127, 2**127 - 1, 0x0123456789ABCDEF0123456789ABCDEF)]


def logical(base, name, **more):
    return {"type": base, "logicalType": name, **more}


def fixed(name, size, **more):
    return {"type": "fixed", "name": name, "size": size, **more}


def primitives():
    """Column -> (schema, values)."""
    return {
        "boolean": ("boolean", [True, False]),
        "int": ("int", INT),
        "long": ("long", LONG),
        "float": ("float", FLOAT),
        "double": ("double", DOUBLE),
        "bytes": ("bytes", BYTES),
        "string": ("string", TEXT),
        "fixed": (fixed("Fixed5", 5), [b"\0" * 5, b"\xff" * 5, b"abcde", b"\x80\0\0\0\0"]),
        "duration": (fixed("Duration", 12, logicalType="duration"), [b"\0" * 12, bytes(range(12)), b"\xff" * 12]),
        "enum": ({"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN", "BLUE"]}, ["RED", "GREEN", "BLUE"]),
        "date": (logical("int", "date"), DATE),
        "time_millis": (logical("int", "time-millis"), TIME_MILLIS),
        "time_micros": (logical("long", "time-micros"), TIME_MICROS),
        "timestamp_millis": (logical("long", "timestamp-millis"), MILLIS),
        "timestamp_micros": (logical("long", "timestamp-micros"), MICROS),
        "timestamp_nanos": (logical("long", "timestamp-nanos"), NANOS),
        "local_millis": (logical("long", "local-timestamp-millis"), MILLIS),
        "local_micros": (logical("long", "local-timestamp-micros"), MICROS),
        "local_nanos": (logical("long", "local-timestamp-nanos"), NANOS),
        "decimal_small": (logical("bytes", "decimal", precision=4, scale=2), decimal(4)),
        "decimal_middle": (logical("bytes", "decimal", precision=18, scale=18), decimal(18)),
        "decimal_wide": (logical("bytes", "decimal", precision=38, scale=10), decimal(38)),
        "decimal_fixed": (fixed("Decimal38", 17, logicalType="decimal", precision=38, scale=0), decimal(38, 17)),
        "uuid": (logical("string", "uuid"), [str(u) for u in UUIDS]),
        "uuid_fixed": (fixed("Uuid", 16, logicalType="uuid"), [u.bytes for u in UUIDS]),
        "unknown_logical": (logical("string", "colour"), TEXT[:3]),
    }


def schema():
    """Every primitive required and optional, and every way to nest."""
    fields = []
    for name, (kind, _) in primitives().items():
        fields.append({"name": name, "type": kind, "doc": f"a {name}"})
        named = kind["name"] if isinstance(kind, dict) and "name" in kind else kind
        fields.append({"name": f"maybe_{name}", "type": ["null", named], "default": None})
    inner = {"type": "record", "name": "Inner", "fields": [
        {"name": "n", "type": "long", "default": 5}, {"name": "text", "type": ["null", "string"], "default": None}]}
    middle = {"type": "record", "name": "Middle", "fields": [
        {"name": "inner", "type": ["null", inner]}, {"name": "flag", "type": "boolean"}]}
    outer = {"type": "record", "name": "Outer", "fields": [
        {"name": "middle", "type": ["null", middle]}, {"name": "again", "type": "Inner"}]}
    entry = {"type": "record", "name": "MapEntry", "fields": [
        {"name": "key", "type": "long"}, {"name": "value", "type": ["null", "string"]}]}
    nothing = {"type": "record", "name": "Nothing", "fields": []}
    fields += [{"name": name, "type": kind} for name, kind in {
        "nested": ["null", outer],
        "null_last": ["string", "null"],
        "one_branch": ["long"],
        "records": {"type": "array", "items": "Inner"},
        "maybe_records": ["null", {"type": "array", "items": ["null", "Inner"]}],
        "arrays": {"type": "array", "items": {"type": "array", "items": ["null", "int"]}},
        "map": {"type": "map", "values": "Inner"},
        "maybe_map": ["null", {"type": "map", "values": ["null", "double"]}],
        "map_of_arrays": {"type": "map", "values": {"type": "array", "items": "string"}},
        "entries": {"type": "array", "items": entry},
        "nothing": nothing,
        "maybe_nothing": ["null", "Nothing"],
        "nothings": {"type": "array", "items": "Nothing"},
        "null": "null",
        "Case": "int",
        "case": "string",
    }.items()]
    return {"type": "record", "name": "Everything", "namespace": "frazil.test", "fields": fields}


def row(n):
    value = {}
    for name, (_, values) in primitives().items():
        # In order of n, so that parts of the rows have ranges of their own.
        value[name] = values[n * len(values) // ROWS]
        value[f"maybe_{name}"] = None if n % 3 == 0 else values[(n * 7 + len(name)) % len(values)]
    inner = {"n": LONG[n % 6], "text": None if n % 2 else TEXT[n % 9]}
    middle = {"inner": None if n % 4 == 0 else inner, "flag": n % 2 == 0}
    return value | {
        "nested": None if n % 5 == 0 else {"middle": None if n % 3 == 0 else middle, "again": inner},
        "null_last": None if n % 2 else TEXT[n % 9],
        "one_branch": n,
        "records": [inner] * (n % 3),
        "maybe_records": [None, [], [None, inner, None]][n % 3],
        "arrays": [[], [[]], [[1, None], [], [INT[n % 6]]]][n % 3],
        "map": {TEXT[i]: inner for i in range(n % 3)},
        "maybe_map": [None, {}, {"": None, "x": DOUBLE[n % 10]}][n % 3],
        "map_of_arrays": {"k": TEXT[: n % 4]},
        "entries": [{"key": LONG[i], "value": [None, "v"][i % 2]} for i in range(n % 4)],
        "nothing": {}, "maybe_nothing": [None, {}][n % 2], "nothings": [{}] * (n % 3), "null": None,
        "Case": n, "case": str(n),
    }


KEYS = {
    "string": ("string", lambda n: f"key {n}"),
    "long": ("long", lambda n: n - 5),
    # `int` is also a field of the value, which wins.
    "record": ({"type": "record", "name": "Key", "fields": [{"name": "int", "type": "int"}, {"name": "region", "type": ["null", "string"]}]},
               lambda n: {"int": -n, "region": None if n % 4 == 0 else f"r{n % 3}"}),
}


class Encoder:
    """A schema registered under a subject; frames what it encodes. The logical types are left out before encoding, so
    that values are what the bytes are to hold."""

    def __init__(self, registry, subject, text):
        body = json.dumps({"schema": json.dumps(text)}).encode()
        request = urllib.request.Request(f"{registry}/subjects/{subject}/versions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            self._number = json.load(answer)["id"]
        self._schema = fastavro.parse_schema(mapping._strip(text))

    def encode(self, value):
        out = io.BytesIO(b"")
        fastavro.schemaless_writer(out, self._schema, value)
        return struct.pack(">bI", 0, self._number) + out.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--bootstrap", required=True)
    add("--registry", required=True)
    add("--topic", required=True)
    add("--key", choices=list(KEYS))
    add("--part", default="0/1")
    options, _ = parser.parse_known_args()
    value = Encoder(options.registry, f"{options.topic}-value", schema())
    kind, make = KEYS.get(options.key, (None, None))
    key = Encoder(options.registry, f"{options.topic}-key", kind) if kind else None
    part, parts = map(int, options.part.split("/"))
    producer = ck.Producer({"bootstrap.servers": options.bootstrap})
    for n in range(ROWS * part // parts, ROWS * (part + 1) // parts):
        producer.produce(
            options.topic, value.encode(row(n)), key.encode(make(n)) if key else None, partition=n % 2,
            timestamp=1_767_225_600_000 + n, headers=[("a", b"1"), ("b", None), ("a", b"")] if n % 3 else None,
        )
    assert producer.flush(60) == 0


if __name__ == "__main__":
    main()
