"""The table of the mapping as data: what official serializers write must be read as the specification says.

`tests/fixtures/conformance/LANGUAGE.yaml` has one case per topic. `--do plan` prints the tables to configure and in how many
steps records come; `--do produce --step N` makes the topics (in step 0) and writes the records of that step; `--do check` reads
the tables with DuckDB and PyIceberg and prints every difference with its case and row: exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import sys

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import ConfigCompatibilityLevel, ServerConfig
from confluent_kafka.serialization import MessageField

import conform_cases
import conform_same
import conform_write
import lake


def plan(options, cases):
    tables = [{"topic": topic(options, case), "table": table(options, case), **case.settings()} for case in cases]
    print(json.dumps({"tables": tables, "steps": max(len(case.steps) for case in cases)}))


def produce(options, cases):
    if options.step == 0:
        admin = AdminClient({"bootstrap.servers": options.bootstrap})
        topics = [NewTopic(topic(options, case), 1, config={"retention.ms": "-1"}) for case in cases]
        for future in admin.create_topics(topics).values():
            future.result(60)
    producer = ck.Producer({"bootstrap.servers": options.bootstrap})
    registry = conform_write.Registry(options.registry)
    for case in cases:
        if case.compatibility and options.step == 1:
            level = ServerConfig(ConfigCompatibilityLevel(case.compatibility))
            for _, copy in case.writes(options.step):
                registry.set_config(conform_write.subject(topic(options, case), copy, "value"), level)
        for step, copy in case.writes(options.step):
            value = conform_write.writer(registry, step.value, topic(options, case), MessageField.VALUE, copy)
            key = conform_write.writer(registry, step.key, topic(options, case), MessageField.KEY, copy)
            for row in step.rows:
                headers = []
                try:
                    fields = {"key": key(row, "key", headers), "value": value(row, "value", headers)}
                except Exception as error:
                    raise SystemExit(f"{case.name}: {row.given}: {type(error).__name__}: {error}") from error
                producer.produce(topic(options, case), headers=headers, **fields)
                producer.poll(0)
    assert producer.flush(60) == 0


def check(options, cases):
    tables, rows, faults = lake.Lake(options.catalog, None), 0, []
    for case in cases:
        found = conform_same.differences(tables, table(options, case), case)
        faults += [f"{case.name} ({case.rule}): {fault}" for fault in found]
        rows += len(case.expected())
    print("\n".join([*faults, f"{options.language}: {len(cases)} cases, {rows} rows, {len(faults)} differences"]))
    return 1 if faults else 0


def topic(options, case):
    return f"{options.prefix}-{options.language}-{case.name.replace('_', '-')}"


def table(options, case):
    return f"{options.language}.{case.name}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--do", required=True, choices=["plan", "produce", "check"])
    add("--language", required=True, choices=list(conform_cases.LANGUAGES))
    add("--case", action="append", help="only this one")
    add("--prefix", default="conform", help="of the topics' names")
    add("--step", type=int, default=0)
    add("--bootstrap")
    add("--registry")
    add("--catalog")
    options, _ = parser.parse_known_args()
    cases = [case for case in conform_cases.load(options.language) if not options.case or case.name in options.case]
    return {"plan": plan, "produce": produce, "check": check}[options.do](options, cases)


if __name__ == "__main__":
    sys.exit(main())
