"""Bytes of records by the official serializers of each language, their schemas registered by these."""

from __future__ import annotations

import base64
import json
import pathlib
import tempfile

import grpc_tools
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from grpc_tools import protoc

import conform_cases

SITE = pathlib.Path(grpc_tools.__file__).parent
INCLUDES = [conform_cases.FIXTURES / "include", SITE / "_proto", SITE.parent]


class Registry(SchemaRegistryClient):
    """The client; registers the text of a `.proto` file in place of the descriptor where it has been given one, as
    clients of other languages do."""

    def __init__(self, url):
        super().__init__({"url": url})
        self.texts = {}

    def _said(self, schema):
        text = self.texts.get(schema.schema_str)
        return Schema(text, schema.schema_type, schema.references) if text else schema

    def register_schema(self, subject_name, schema, normalize_schemas=False):
        return super().register_schema(subject_name, self._said(schema), normalize_schemas)

    def register_schema_full_response(self, subject_name, schema, normalize_schemas=False):
        return super().register_schema_full_response(subject_name, self._said(schema), normalize_schemas)

    def lookup_schema(self, subject_name, schema, *further, **named):
        return super().lookup_schema(subject_name, self._said(schema), *further, **named)


def writer(registry, side, topic, field, copy):
    """A function from a row, `key` or `value`, and a list that headers go into, to bytes."""
    if side is None or side.kind is None:
        return lambda row, name, headers: _plain(row.given, name)
    serialize = {"AVRO": _avro, "PROTOBUF": _protobuf, "JSON": _json}[side.kind](registry, side, topic, copy)

    def write(row, name, headers):
        if "raw" in row.given and name == "value":
            return _framed(row.given["raw"], serialize, row, SerializationContext(topic, field, []))
        if row.given.get(name) is None:
            return None
        context = SerializationContext(topic, field, headers)
        written = serialize(row.given, row.given[name], context)
        if side.header in (None, "guid"):
            return written
        end = 5 if side.kind != "PROTOBUF" else 5 + _indexes(written[5:])
        if side.header == "id":
            # The prefix as the header: the form of registries without GUIDs.
            headers.append((f"__{field}_schema_id", written[:end]))
        return written[end:]

    return write


def _indexes(payload):
    """The number of bytes of the message indexes, each of one byte here."""
    return 1 + payload[0] // 2


def _framed(raw, serialize, row, context):
    """Bytes as they are; behind the prefix of another value's where one is given."""
    return serialize(row.given, row.given["like"], context)[:5] + raw if "like" in row.given else raw


def _plain(given, name):
    if name == "value" and "raw" in given:
        return given["raw"]
    value = given.get(name)
    if value is None or isinstance(value, bytes):
        return value
    return value.value.encode() if isinstance(value, conform_cases.Json) else json.dumps(value).encode()


def _register_references(registry, side, topic):
    """Registers what a schema refers to, in order, each able to refer to those before."""
    references = []
    for name, schema in side.references.items():
        subject = f"{topic}-{name}".replace("/", "-")
        registry.register_schema(subject, Schema(json.dumps(schema), side.kind, list(references)))
        version = registry.get_latest_version(subject).version
        references.append(SchemaReference(name, subject, version))
    return references


def _schema(registry, side, topic):
    return Schema(json.dumps(side.schema), side.kind, _register_references(registry, side, topic))


def _avro(registry, side, topic, copy):
    serializer = AvroSerializer(registry, _schema(registry, side, topic), conf=_conf(side))
    return lambda given, value, context: serializer(value, context)


def _json(registry, side, topic, copy):
    schema = _schema(registry, side, topic)
    checked = JSONSerializer(schema, registry, conf=_conf(side))
    unchecked = JSONSerializer(schema, registry, conf={**_conf(side), "validate": False})
    return lambda given, value, context: (unchecked if given.get("invalid") else checked)(value, context)


def _protobuf(registry, side, topic, copy):
    pool = _compile(registry, side, copy)
    serializers = {}

    def serialize(given, value, context):
        name = given.get("message") or side.message
        if name not in serializers:
            descriptor = pool.FindFileByName("value.proto").message_types_by_name if name is None else None
            descriptor = next(iter(descriptor.values())) if descriptor else pool.FindMessageTypeByName(name)
            kind = message_factory.GetMessageClass(descriptor)
            serializers[name] = kind, ProtobufSerializer(kind, registry, conf=_conf(side, copy))
        kind, serializer = serializers[name]
        return serializer(text_format.Parse(value, kind(), descriptor_pool=pool), context)

    return serialize


def _compile(registry, side, copy):
    """What protoc makes of the files, in a pool of their own."""
    files = {**side.references, "value.proto": side.schema}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        out = pathlib.Path(folder, "out.bin")
        includes = [f"-I{include}" for include in [folder, *INCLUDES]]
        arguments = ["protoc", *includes, "--include_imports", f"--descriptor_set_out={out}", *files]
        if protoc.main(arguments) != 0:
            raise SystemExit(f"protoc does not take:\n{side.schema}")
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in descriptors.file:
        pool.Add(file)
    if copy == "text":
        for name, text in files.items():
            serialized = pool.FindFileByName(name).serialized_pb
            registry.texts[base64.standard_b64encode(serialized).decode("ascii")] = (
                side.registered or text
            )
    else:
        registry.texts.clear()
    return pool


def subject(topic, copy, field):
    """The other form of a schema is no new version of the subject."""
    return f"{topic}-{field}" if copy == "text" else f"{topic}-{copy}-{field}"


def _conf(side, copy="text"):
    conf = {"subject.name.strategy": topic_subject_name_strategy}
    if copy != "text":
        conf["subject.name.strategy"] = lambda context, record: subject(context.topic, copy, context.field)
    if side.header == "guid":
        conf["schema.id.serializer"] = header_schema_id_serializer
    return conf
