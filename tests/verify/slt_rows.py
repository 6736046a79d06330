"""Produces the two topics that the sqllogictest files ask about: 3,000 readings, and the 40 stations that most of them name.

Every value is a function of the row's number. Fractions are eighths, so that sums of doubles are exact in any order.
`--part I/N` produces only that part of the readings, and the stations with the first.
"""

from __future__ import annotations

import argparse
from datetime import date

import confluent_kafka as ck

import everything

READINGS, STATIONS, PARTITIONS = 3_000, 40, 3
# 2026-01-28T00:00:00Z: the five days from there on end in February.
BEGIN, DAYS = 1_769_558_400_000_000, 5
DAY = 86_400_000_000

INTS = [2**31 - 1, -(2**31), 0, -1]
LONGS = [2**63 - 1, -(2**63), 0, 2**53 + 1]
MOST = 10**38 - 1
WIDES = [MOST, -MOST, 0, 1, -1, 12_345_678_901_234_567_890]
# Per quarter of the rows: NaN lies in files whose other values are small, infinities in others.
EDGES = [
    [0.0, -0.0, float("nan"), 1.5],
    [float("inf"), float("-inf"), -2.5, 2.5],
    [float("nan"), float("nan"), -1.5, 0.25],
    [1.7976931348623157e308, -1.7976931348623157e308, 5e-324, 0.1],
]
NOTES = [
    "", " ", "plain", "Plain", "two words", "ß水🦀", "Straße", "it's", 'a "quoted" one', "100%", "under_score",
    "back\\slash", "tab\there", "line\nbreak", "NULL", "null", "A" * 16, "A" * 17, "\U0010ffff" * 17, "zebra, {x: 1}",
    "e\u0301", "é", "ÅNGSTRÖM", "  padded  ", "0042",
]
# Days around the epoch and leap days, and the first and last ones that all engines can say.
DATES = [date(1, 1, 1), date(9999, 12, 31), date(1969, 12, 31), date(1970, 1, 1), date(2000, 2, 29), date(2026, 1, 31)]
LOCALS = [0, -1, 999_999, -62_135_596_800_000_000, 253_402_300_799_999_999, 1_769_990_399_123_456]
BYTES = [b"", b"\x00", b"\xff\xfe", b"abc"]
LABELS = [{}, {"a": "1"}, {"a": None, "b": "two words"}, {"": "", "ß": "水"}]


def optional(kind):
    return ["null", kind]


def record(name, /, **fields):
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields.items()]}


def logical(base, name, **more):
    return {"type": base, "logicalType": name, **more}


POINT = record("Point", x="double", y=optional("double"))
PLACE = record("Place", city=optional("string"), floor=optional("int"), point=optional(POINT))
PART = record("Part", code="string", weight=optional("double"))
READING = record(
    "Reading",
    id="long",
    station=optional("string"),
    measured_at=optional(logical("long", "timestamp-micros")),
    local_at=optional(logical("long", "local-timestamp-micros")),
    built=optional(logical("int", "date")),
    small=optional("int"),
    big=optional("long"),
    value=optional("double"),
    ratio=optional("float"),
    edge=optional("double"),
    price=optional(logical("bytes", "decimal", precision=12, scale=2)),
    wide=optional(logical("bytes", "decimal", precision=38, scale=10)),
    ok=optional("boolean"),
    note=optional("string"),
    kind={"type": "enum", "name": "Kind", "symbols": ["COLD", "HEAT", "WET"]},
    raw=optional("bytes"),
    place=optional(PLACE),
    parts={"type": "array", "items": PART},
    scores=optional({"type": "array", "items": optional("int")}),
    labels=optional({"type": "map", "values": optional("string")}),
)
STATION = record(
    "Station", code="string", name=optional("string"), country=optional("string"), opened=optional(logical("int", "date")),
    height=optional("int"), budget=optional(logical("bytes", "decimal", precision=9, scale=3)),
)


def unscaled(value):
    return value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True)


def days(day):
    return day.toordinal() - date(1970, 1, 1).toordinal()


def some(condition, value):
    """The value, or null where the condition does not hold."""
    return value if condition else None


def pick(values, n):
    return values[n % len(values)]


def reading(n):
    point = some(n % 7, {"x": n % 16 / 8, "y": some(n % 3, n % 40 / 4)})
    place = {"city": some(n % 4, pick(["Oslo", "Bern", "", "São Paulo"], n // 4)), "floor": some(n % 6, n % 9 - 2), "point": point}
    return {
        "id": n,
        # The last five of these codes name no station.
        "station": some(n % 17, f"st-{n * 7 % 45:02}"),
        "measured_at": some(n % 211 != 5, BEGIN + n * 7_919_001_001 % (DAYS * DAY)),
        "local_at": some(n % 8 == 0, pick(LOCALS, n // 8)),
        "built": some(n % 9 == 0, days(pick(DATES, n // 9))),
        "small": some(n % 5, pick(INTS, n // 100) if n % 100 == 1 else n * 31 % 200 - 100),
        "big": some(n % 6, pick(LONGS, n // 100) if n % 100 == 1 else n * 1_000_003 - 10**9),
        "value": some(n % 11, n * 37 % 1601 / 8 - 100),
        "ratio": some(n % 13, n % 64 / 16 - 1),
        "edge": some(n % 10 == 0, pick(EDGES[n * 4 // READINGS], n // 10)),
        "price": some(n % 7 != 3, unscaled(n * 7_907 % 2_000_000 - 500_000)),
        "wide": some(n % 50 == 2, unscaled(pick(WIDES, n // 50))),
        "ok": [True, False, None][n % 3],
        "note": some(n % 4 == 1, pick(NOTES, n // 4)),
        "kind": ["COLD", "HEAT", "WET"][n * n % 7 % 3],
        "raw": some(n % 12 == 0, pick(BYTES, n // 12)),
        "place": some(n % 5, place),
        "parts": [{"code": f"p{n % 4}{i}", "weight": some(i != 1, (n % 10 + i) / 4)} for i in range(n % 4)],
        "scores": [None, [], [n % 5], [n % 3, None, 7]][n % 4],
        "labels": some(n % 5 == 0, pick(LABELS, n // 5)),
    }


def station(n):
    return {
        "code": f"st-{n:02}",
        "name": some(n % 10 != 9, f"Station {n % 30}"),
        "country": pick(["NO", "CH", None, "BR", "DE"], n),
        "opened": some(n % 6, days(date(1990 + n, n % 12 + 1, n % 28 + 1))),
        "height": some(n % 8, n * 53 % 400 - 20),
        "budget": some(n % 5 != 2, unscaled(n * 123_457 % 1_000_000 - 250_000)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--bootstrap", required=True)
    add("--registry", required=True)
    add("--topic", required=True, help="that of the readings; that of the stations ends in -stations")
    add("--part", default="0/1")
    options, _ = parser.parse_known_args()
    readings, stations = options.topic, f"{options.topic}-stations"
    part, parts = map(int, options.part.split("/"))
    producer = ck.Producer({"bootstrap.servers": options.bootstrap})
    value = everything.Encoder(options.registry, f"{readings}-value", READING)
    for n in range(READINGS * part // parts, READINGS * (part + 1) // parts):
        # A minute and a bit between two records, as the brokers see them.
        producer.produce(
            readings, value.encode(reading(n)), some(n % 3, f"key {n % 10}"), partition=n % PARTITIONS,
            timestamp=BEGIN // 1000 + n * 61_007,
        )
        producer.poll(0)
    if part == 0:
        value = everything.Encoder(options.registry, f"{stations}-value", STATION)
        for n in range(STATIONS):
            producer.produce(stations, value.encode(station(n)), partition=0, timestamp=BEGIN // 1000 + n)
    assert producer.flush(60) == 0


if __name__ == "__main__":
    main()
