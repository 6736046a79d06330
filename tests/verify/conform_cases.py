"""Cases of the conformance table as written in their YAML files. No I/O but reading those.

A case has `case` (its name), `rule` (the row of the specification), `columns` (name to type, in order; `!` behind a
type for required), `rows`, each `[value, columns that are not null]` or a mapping with `key`, `value`, `row`, `letter`
(the reason of a dead letter), `raw` (bytes instead of a value), `message` (Protobuf: another than the case's), `like` (a value whose prefix goes before `raw`),
`invalid` (JSON: not valid by the schema); and what its language needs: `schema`, `key` (a schema), `message`,
`references` (name to schema), `schema_id_header` (`id`, `guid`: the schema's name goes there; `none`: nowhere),
`copies` (of Protobuf's `text` and `descriptor`), `registered` (Protobuf: this text in place of the schema's own),
`compatibility` (the registry's rule for versions), `language` (another than the file's). `table` are further settings of the table,
`comments` comments of columns, `steps` a list of what changes from commit to commit.

Values have tags where YAML has no word: `!hex 00ff`, `!dec 1.50`, `!time 12:30:45`, `!uuid …`, `!branch [name, value]`
(of a union), `!json …` (text that is this JSON, however it is written).
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import pathlib
import uuid

import yaml

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "conformance"
LANGUAGES = {"avro": "AVRO", "protobuf": "PROTOBUF", "json": "JSON", "schemaless": None, "guids": None}


@dataclasses.dataclass(frozen=True)
class Json:
    """Text that is this JSON."""

    value: object


class Loader(yaml.SafeLoader):
    """YAML with the tags above."""


def _constructor(tag, make):
    def construct(loader, node):
        if isinstance(node, yaml.MappingNode):
            return make(loader.construct_mapping(node, deep=True))
        if isinstance(node, yaml.SequenceNode):
            return make(loader.construct_sequence(node, deep=True))
        return make(loader.construct_scalar(node))

    Loader.add_constructor(tag, construct)


_constructor("!hex", bytes.fromhex)
_constructor("!dec", decimal.Decimal)
_constructor("!time", datetime.time.fromisoformat)
_constructor("!uuid", uuid.UUID)
_constructor("!branch", tuple)
_constructor("!json", lambda value: Json(yaml.load(value, Loader) if isinstance(value, str) else value))


@dataclasses.dataclass(frozen=True)
class Row:
    """A record and what it must become."""

    given: dict
    row: dict | None
    letter: str | None

    @classmethod
    def of(cls, written):
        if isinstance(written, list):
            written = dict(zip(("value", "row"), written))
        if "row" not in written and "letter" not in written:
            raise SystemExit(f"a row without `row` or `letter`: {written}")
        return cls(written, written.get("row"), written.get("letter"))


@dataclasses.dataclass(frozen=True)
class Side:
    """What is said of the schema of keys or values."""

    kind: str | None
    schema: object
    registered: str | None
    references: dict
    message: str | None
    header: str | None


@dataclasses.dataclass(frozen=True)
class Step:
    """Records that are written with the same schemas."""

    key: Side | None
    value: Side
    rows: list


class Case:
    """One topic and its table."""

    def __init__(self, written, kind):
        kind = LANGUAGES.get(written.get("language"), kind)
        self.name, self.rule, self.columns = written["case"], written["rule"], written["columns"]
        self.compatibility = written.get("compatibility")
        self.table, self.comments = written.get("table", {}), written.get("comments", {})
        # Protobuf's schemas are registered as text by some clients and as descriptors by others: all rows come as both.
        usual = ["text", "descriptor"] if kind == "PROTOBUF" and "registered" not in written else ["text"]
        self._copies = written.get("copies", usual)
        self.steps = [self._step({**written, **step}, kind) for step in written.get("steps", [{}])]

    def _step(self, written, kind):
        references, header = written.get("references", {}), written.get("schema_id_header")
        side = lambda kind, schema, message: Side(  # noqa: E731
            kind, schema, written.get("registered"), references, message, header
        )
        key = side(kind, written["key"], written.get("key_message")) if "key" in written else None
        value = side(kind if "schema" in written else None, written.get("schema"), written.get("message"))
        return Step(key, value, [Row.of(row) for row in written["rows"]])

    def settings(self):
        """Those of the table; a schema that the configuration gives is the case's."""
        settings = {"value": {"format": "registry"}, **self.table}
        value = self.steps[0].value
        if settings["value"]["format"] in ("avro", "protobuf", "json") and value.kind:
            text = value.schema if value.kind == "PROTOBUF" else json.dumps(value.schema)
            settings["value"] = {**settings["value"], "schema": text}
        return settings

    def writes(self, number):
        """The step and each way of registering its schemas, in the order of writing."""
        return [(step, copy) for step in self.steps[number : number + 1] for copy in self._copies]

    def expected(self):
        """All rows by offset."""
        return [row for number in range(len(self.steps)) for step, _ in self.writes(number) for row in step.rows]


def load(language):
    documents = sorted(FIXTURES.glob(f"{language}*.yaml"))
    cases = [case for file in documents for case in yaml.load(file.read_text(), Loader)]
    return [Case(case, LANGUAGES[language]) for case in cases]
