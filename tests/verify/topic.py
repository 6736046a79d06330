"""What a topic says the table must hold: its records, read committed, decoded by the registry's schemas with fastavro."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict

import confluent_kafka as ck
import fastavro
import pyarrow as pa

import mapping

CHUNK = 65_536
SILENCE = 30
SCHEMES = {
    "kafka": "kafka_{}",
    "tableflow": "$${}",
    "tableflow-portable": "cflt_metadata_{}",
}
METADATA = {
    "topic": "string",
    "partition": "int",
    "headers": None,
    "leader_epoch": "int",
    "offset": "long",
    "timestamp": "timestamptz",
    "timestamp_type": "string",
    "raw_key": "binary",
    "raw_value": "binary",
}
TIMESTAMP_TYPES = {
    ck.TIMESTAMP_NOT_AVAILABLE: "NO_TIMESTAMP_TYPE",
    ck.TIMESTAMP_CREATE_TIME: "CREATE_TIME",
    ck.TIMESTAMP_LOG_APPEND_TIME: "LOG_APPEND_TIME",
}
HEADERS_LIST = ("list", ("struct", {"key": "string", "value": "binary"}))
HEADERS_MAP = ("map", "string", "binary")


class Reject(Exception):
    """A record that cannot be a row."""


class Registry:
    """Schemas by id from a Confluent-like registry; ids that it does not know are remembered as None."""

    def __init__(self, url, user=None):
        self._url, self._user, self._schemas = url.rstrip("/"), user, {}

    def get(self, path):
        request = urllib.request.Request(self._url + path)
        if self._user:
            request.add_header("Authorization", "Basic " + base64.b64encode(self._user.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def schema(self, schema_id):
        """The schema's JSON and the named types that it refers to; None where there is none, or it is not Avro."""
        if schema_id not in self._schemas:
            found = self.get(f"/schemas/ids/{schema_id}")
            avro = found is not None and found.get("schemaType", "AVRO") == "AVRO"
            self._schemas[schema_id] = (json.loads(found["schema"]), self._named(found)) if avro else None
        return self._schemas[schema_id]

    def _named(self, schema):
        named = {}
        for reference in schema.get("references", []):
            subject = urllib.parse.quote(reference["subject"], safe="")
            found = self.get(f"/subjects/{subject}/versions/{reference['version']}")
            named.update(self._named(found))
            fastavro.schema.parse_schema(json.loads(found["schema"]), named_schemas=named)
        return named


class Side:
    """How one side of a record, its key or its value, becomes columns."""

    def __init__(self, form, registry, options, column, struct=False):
        self._form, self._registry, self._column, self._struct = form, registry, column, struct
        self._names, self._time_as = options.names, options.time_as
        self._mappings = {}

    def decode(self, data):
        """The mapping's number, its fields and the values; a null has no fields."""
        if data is None or self._form == "none":
            return 0, {}, []
        if self._form == "bytes":
            return -1, {self._column: "binary"}, [data]
        if self._form == "string":
            try:
                return -2, {self._column: "string"}, [data.decode()]
            except UnicodeDecodeError as error:
                raise Reject("not UTF-8") from error
        return self._avro(data)

    def _avro(self, data):
        if len(data) < 5 or data[0] != 0:
            raise Reject("bad magic byte")
        number = int.from_bytes(data[1:5], "big")
        found = self._mappings.get(number)
        if found is None:
            found = self._mappings[number] = self._mapping(number)
        if isinstance(found, Reject):
            raise found
        stream = io.BytesIO(data)
        stream.seek(5)
        try:
            row = found.row(fastavro.schemaless_reader(stream, found.schema, None))
        except (EOFError, StopIteration, ValueError, LookupError, OverflowError, MemoryError) as error:
            raise Reject(f"does not decode: {type(error).__name__}") from error
        if stream.tell() != len(data):
            raise Reject("trailing bytes")
        if self._struct and list(found.fields) != [self._column]:
            return number, {self._column: ("struct", found.fields)}, [dict(zip(found.fields, row))]
        return number, found.fields, row

    def _mapping(self, number):
        found = self._registry.schema(number)
        if found is None:
            return Reject("unknown schema id")
        try:
            return mapping.Mapping(*found, self._names, self._column, self._time_as)
        except mapping.Unsupported as error:
            return Reject(f"unsupported schema: {error}")


@dataclasses.dataclass
class Part:
    """Rows of one writer's schema of the key and one of the value."""

    key: dict  # name -> type
    value: dict
    rows: pa.Table  # columns `@topic`, `@partition`, `@offset`, then `meta:`, `key:` and `value:` with the names


@dataclasses.dataclass
class Expected:
    """What the table must hold, and the records that cannot be rows."""

    parts: list
    rejects: dict  # (topic, partition, offset) -> reason
    raw: dict  # (topic, partition, offset) -> (key, value), of rejects and of the dead letters asked for
    ends: dict  # (topic, partition) -> the position behind the last stable record
    good: int = 0  # records that are dead letters although they decode


def column(names, what):
    """The name of a metadata column."""
    return SCHEMES[names].format(what.replace("_", "-") if names == "tableflow" else what)


def metadata_types(names, include):
    headers = HEADERS_LIST if names == "kafka" else HEADERS_MAP
    return {what: METADATA[what] or headers for what in include}


def records(config, topics, starts, ends):
    """All committed records of the topics, each partition from its start to the last stable offset, put into `ends`."""
    consumer = ck.Consumer(
        {
            "group.id": "frazil-verify",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "fetch.message.max.bytes": 64 << 20,
            "fetch.max.bytes": 128 << 20,
            "receive.message.max.bytes": (128 << 20) + 1024,
            **config,
        }
    )
    try:
        wanted = []
        for topic in topics:
            known = consumer.list_topics(topic, timeout=30).topics[topic]
            if known.error is not None:
                raise SystemExit(f"topic {topic}: {known.error}")
            for partition in known.partitions:
                low, _ = consumer.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=30)
                wanted.append(ck.TopicPartition(topic, partition, max(low, starts.get(partition, 0))))
        consumer.assign(wanted)
        last = time.monotonic()
        while len(ends) < len(wanted):
            messages = consumer.consume(10_000, timeout=0.1)
            if messages:
                last = time.monotonic()
            elif time.monotonic() > last + SILENCE:
                raise SystemExit(f"no answer from the brokers for {SILENCE} s, {len(ends)} of {len(wanted)} partitions read")
            for message in messages:
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    ends[message.topic(), message.partition()] = message.offset()
                else:
                    raise SystemExit(f"{message.topic()} {message.partition()}: {error}")
    finally:
        consumer.close()


def expect(config, registry, options, dead):
    """Reads the topics. `dead` are the identities found in the dead-letter table: they are not rows."""
    key_side = Side(options.key, registry, options, "key", options.key_struct)
    value_side = Side(options.value, registry, options, "value")
    metadata = metadata_types(options.names, options.include)
    facts = [_headers_map if what == "headers" and options.names != "kafka" else FACTS[what] for what in metadata]
    out = Expected([], {}, {}, {})
    chunks, shapes = defaultdict(list), {}
    for message in records(config, options.topic, options.start, out.ends):
        identity = (message.topic(), message.partition(), message.offset())
        if message.offset() >= options.end.get(message.partition(), message.offset() + 1):
            continue
        key, value = message.key(), message.value()
        try:
            if value is None and key is None:
                raise Reject("null value without a key")
            key_shape, key_fields, key_row = key_side.decode(key)
            value_shape, value_fields, value_row = value_side.decode(value)
        except Reject as reject:
            out.rejects[identity] = str(reject)
            out.raw[identity] = (key, value)
            continue
        if identity in dead:
            out.good += 1
            out.raw[identity] = (key, value)
            continue
        shape = (key_shape, value_shape)
        shapes[shape] = key_fields, value_fields
        chunk = chunks[shape]
        chunk.append((*identity, *[fact(message) for fact in facts], *key_row, *value_row))
        if len(chunk) == CHUNK:
            out.parts.append(_part(chunk, metadata, *shapes[shape]))
            chunk.clear()
    out.parts += [_part(chunk, metadata, *shapes[shape]) for shape, chunk in chunks.items() if chunk]
    return out


def _part(rows, metadata, key, value):
    kinds = {"@topic": "string", "@partition": "int", "@offset": "long"}
    for prefix, fields in (("meta:", metadata), ("key:", key), ("value:", value)):
        kinds.update({prefix + name: kind for name, kind in fields.items()})
    arrays = [pa.array(values, mapping.to_arrow(kind)) for values, kind in zip(zip(*rows), kinds.values())]
    return Part(key, value, pa.Table.from_arrays(arrays, names=list(kinds)))


def _micros(message):
    kind, millis = message.timestamp()
    return None if kind == ck.TIMESTAMP_NOT_AVAILABLE else millis * 1000


def _headers(message):
    return [{"key": key, "value": value} for key, value in message.headers() or []]


def _headers_map(message):
    """The last header of each name, in the order of these."""
    last = {}
    for key, value in message.headers() or []:
        last.pop(key, None)
        last[key] = value
    return list(last.items())


FACTS = {
    "topic": lambda m: m.topic(),
    "partition": lambda m: m.partition(),
    "headers": _headers,
    "leader_epoch": lambda m: m.leader_epoch(),
    "offset": lambda m: m.offset(),
    "timestamp": _micros,
    "timestamp_type": lambda m: TIMESTAMP_TYPES[m.timestamp()[0]],
    "raw_key": lambda m: m.key(),
    "raw_value": lambda m: m.value(),
}
