"""The offset verifier: is a table exactly what its topic says, by content?

Reads the topic with a consumer of its own (committed records, every partition up to the last stable offset), decodes it
by the registry's schemas with fastavro, reads the table with other engines, and compares by (topic, partition, offset)
and by the value of every column. Exit code 1, and the first differences, where a row is missing,
doubled, extra or different, a column is missing, unexpected or of another type, or a record that cannot be a row is not
among the dead letters.
"""

from __future__ import annotations

import argparse
import json
import sys

import lake
import mapping
import rest
import topic

IDENTITY = ("@topic", "@partition", "@offset")


def main():
    options = arguments()
    if options.rest:
        tables = rest.Rest(options.rest, options.token, options.s3, options.spark, options.trino)
    else:
        tables = lake.Lake(options.catalog, options.s3)
    registry = topic.Registry(options.registry, options.registry_user) if options.registry else None
    kafka = {"bootstrap.servers": options.bootstrap, **dict(options.kafka)}
    if options.key == "auto":
        known = registry and any(registry.get(f"/subjects/{t}-key/versions/latest") for t in options.topic)
        options.key = "registry" if known else "bytes"
    letters = dead_letters(tables, options)
    expected = topic.expect(kafka, registry, options, set().union(*letters.values()))
    reports = {}
    for engine in letters:
        report = reports[engine] = Report(options.first)
        check_dead_letters(report, letters[engine], expected, options)
        check_rows(report, tables, engine, expected, options)
    show(reports, options)
    return 0 if all(report.good() for report in reports.values()) else 1


class Report:
    """Counts and the first findings of one engine."""

    def __init__(self, first):
        self.counts, self.findings, self._first = {}, [], first

    def fault(self, kind, number, lines=()):
        """Counts a fault of a kind; a number of 0 is none."""
        self.counts[kind] = self.counts.get(kind, 0) + number
        self.findings += [f"{kind}: {line}" for line in list(lines)[: self._first]] if number else []

    def fact(self, kind, number):
        self.counts[kind] = number

    def good(self):
        return not any(number for kind, number in self.counts.items() if kind in FAULTS)


FAULTS = ("columns", "missing", "doubled", "extra", "different", "rejects_unaccounted", "dead_letters_wrong")


def dead_letters(tables, options):
    """Per engine identity -> list of (key, value) of the dead-letter table."""
    found = {engine: {} for engine in options.engine}
    table = tables.find(options.dead_letters) if options.dead_letters else None
    for engine in found if table else ():
        connection = tables.connect()
        tables.read(connection, engine, table, "letters")
        rows = connection.execute(
            "SELECT source_record.topic, source_record.partition, source_record.offset, source_record.key, source_record.value "
            "FROM letters"
        ).fetchall()
        for *identity, key, value in rows:
            found[engine].setdefault(tuple(identity), []).append((key, value))
    return found


def check_dead_letters(report, letters, expected, options):
    report.fact("dead_letters", sum(map(len, letters.values())))
    report.fact("rejects", len(expected.rejects))
    wrong = []
    for identity, found in letters.items():
        if len(found) > 1:
            wrong.append(f"{identity} is there {len(found)} times")
        if identity not in expected.raw:
            wrong.append(f"{identity} is no record of the topic")
        elif found[0] != expected.raw[identity]:
            wrong.append(f"{identity} has another key or value than the record")
    if expected.good != options.good_dead_letters:
        wrong.append(f"{expected.good} of them decode, {options.good_dead_letters} were to")
    report.fault("dead_letters_wrong", len(wrong), wrong)
    if not options.skip_rejects:
        lost = [f"{i} ({why}) is no dead letter" for i, why in sorted(expected.rejects.items()) if i not in letters]
        report.fault("rejects_unaccounted", len(lost), lost)


def plan(expected, options):
    """Column name -> (type, prefixed names in the parts that feed it), by the rules for keys and metadata."""
    keys, values = {}, {}
    for part in expected.parts:
        for fields, into in ((part.key, keys), (part.value, values)):
            for name, kind in fields.items():
                into[name] = mapping.merge(into[name], kind) if name in into else kind
    columns = {}
    atomic = options.key in ("bytes", "string") or list(keys) == ["key"]
    for name, kind in keys.items():
        if name not in values:
            columns[name] = (kind, f"key:{name}")
        elif atomic:
            columns["key_key"] = (kind, f"key:{name}")
    columns |= {name: (kind, f"value:{name}") for name, kind in values.items()}
    for what, kind in topic.metadata_types(options.names, options.include).items():
        columns[topic.column(options.names, what)] = (kind, f"meta:{what}")
    for name, kind in options.typed:
        columns[name] = (kind, columns[name][1])
    return columns


def check_rows(report, tables, engine, expected, options):
    columns = plan(expected, options)
    report.fact("records", sum(part.rows.num_rows for part in expected.parts))
    table = tables.find(options.table)
    if table is None:
        report.fault("columns", 1, [f"there is no table {options.table}"])
        return
    table.snapshot = options.snapshot
    connection = tables.connect()
    actual = tables.columns(connection, table)
    columns = check_columns(report, columns, actual, options)
    load_expected(connection, expected, columns)
    tables.read(connection, engine, table, "everything")
    topic_column = topic.column(options.names, "topic")
    connection.execute(
        f"CREATE VIEW actual AS SELECT {quote(topic_column) if topic_column in actual else literal(options.topic[0])} AS \"@topic\", "
        f"{quote(topic.column(options.names, 'partition'))} AS \"@partition\", "
        f"{quote(topic.column(options.names, 'offset'))} AS \"@offset\", * FROM everything WHERE {options.where}"
    )
    report.fact("rows", connection.execute("SELECT count(*) FROM actual").fetchone()[0])
    compare(report, connection, columns, engine, options)


def check_columns(report, columns, actual, options):
    """Compares names and types; the columns that can be compared further."""
    faults = [f"{name} {mapping.show(kind)} is not there" for name, (kind, _) in columns.items() if name not in actual]
    faults += [f"{name} {mapping.show(kind)} was not expected" for name, kind in actual.items() if name not in columns and name not in options.ignore]
    for name, (kind, _) in columns.items():
        if name in actual and actual[name] != kind:
            faults.append(f"{name} is {mapping.show(actual[name])}, expected {mapping.show(kind)}")
    report.fault("columns", len(faults), faults)
    return {name: feed for name, feed in columns.items() if name in actual}


def load_expected(connection, expected, columns):
    head = '"@topic" VARCHAR, "@partition" INTEGER, "@offset" BIGINT'
    body = "".join(f", {quote(name)} {lake.duckdb_type(kind)}" for name, (kind, _) in columns.items())
    connection.execute(f"CREATE TABLE expected ({head}{body})")
    for part in expected.parts:
        names = set(part.rows.column_names)
        feeds = [
            f"CAST({quote(feed)} AS {lake.duckdb_type(kind)})" if feed in names else "NULL" for kind, feed in columns.values()
        ]
        connection.register("part", part.rows)
        connection.execute(f"INSERT INTO expected SELECT {', '.join([quote(i) for i in IDENTITY] + feeds)} FROM part")
        connection.unregister("part")


def compare(report, connection, columns, engine, options):
    on = '"@topic", "@partition", "@offset"'
    missing = f"FROM expected ANTI JOIN actual USING ({on}) WHERE NOT ({below(options.allow_missing_below)})"
    extra = f"FROM actual ANTI JOIN expected USING ({on})"
    doubled = f"FROM (SELECT {on} FROM actual GROUP BY {on} HAVING count(*) > 1)"
    for kind, source in (("missing", missing), ("doubled", doubled), ("extra", extra)):
        number = connection.execute(f"SELECT count(*) {source}").fetchone()[0]
        if kind == "extra" and options.allow_extra:
            report.fact("extra_allowed", number)
            continue
        rows = connection.execute(f"SELECT {on} {source} ORDER BY ALL LIMIT {report._first}").fetchall() if number else []
        report.fault(kind, number, rows)
    differs = {name: difference(name, kind, engine) for name, (kind, _) in columns.items()}
    joined = f"FROM expected e JOIN actual a USING ({on})"
    counts = connection.execute(f"SELECT {', '.join(f'count(*) FILTER ({d})' for d in differs.values())} {joined}").fetchone()
    for (name, differ), number in zip(differs.items(), counts):
        if number:
            report.fault("different", number, samples(connection, name, differ, joined, report._first))
    report.counts.setdefault("different", 0)


def difference(name, kind, engine):
    e, a = f"e.{quote(name)}", f"CAST(a.{quote(name)} AS {lake.duckdb_type(kind)})"
    structs = kind[0] == "list" and kind[1][0] == "struct"
    if kind in (topic.HEADERS_LIST, topic.HEADERS_MAP) or (structs and engine == "pyiceberg"):
        # A record without headers and one with an empty list of them are the same to Kafka; and PyIceberg reads any null
        # list of structs as an empty one (`ArrowProjectionVisitor.list` builds it anew without its nulls).
        e, a = (f"CASE WHEN len({x}) = 0 THEN NULL ELSE {x} END" if kind[0] == "list" else f"CASE WHEN cardinality({x}) = 0 THEN NULL ELSE {x} END" for x in (e, a))
    return f"{e} IS DISTINCT FROM {a}"


def samples(connection, name, differ, joined, first):
    rows = connection.execute(
        f'SELECT "@topic", "@partition", "@offset", left(e.{quote(name)}::VARCHAR, 80), left(a.{quote(name)}::VARCHAR, 80) '
        f"{joined} WHERE {differ} ORDER BY ALL LIMIT {first}"
    ).fetchall()
    return [f"{t} {p} {o} {name}: expected {e!r}, found {a!r}" for t, p, o, e, a in rows]


def below(limits):
    return " OR ".join(f'("@partition" = {p} AND "@offset" < {o})' for p, o in limits.items()) or "false"


def quote(name):
    return '"' + name.replace('"', '""') + '"'


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def show(reports, options):
    if options.json:
        out = {engine: {**report.counts, "findings": report.findings, "good": report.good()} for engine, report in reports.items()}
        print(json.dumps(out, default=str))
        return
    for engine, report in reports.items():
        counts = ", ".join(f"{number} {kind}" for kind, number in report.counts.items())
        print(f"{engine}: {'good' if report.good() else 'BAD'}: {counts}")
        for finding in report.findings:
            print(f"  {finding}")


def offsets(text):
    """`0=5,1=100` as a dict; nothing or `earliest` as an empty one."""
    if text in ("", "earliest"):
        return {}
    return {int(p): int(o) for p, o in (pair.split("=") for pair in text.split(","))}


def engines(text):
    """`duckdb,spark` as a list."""
    names = text.split(",")
    if unknown := set(names) - {"duckdb", "pyiceberg", "spark", "trino"}:
        raise argparse.ArgumentTypeError(f"no such engine: {', '.join(sorted(unknown))}")
    return names


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--bootstrap", required=True)
    add("--kafka", action="append", default=[], type=lambda p: tuple(p.split("=", 1)), metavar="PROPERTY=VALUE")
    add("--registry", metavar="URL")
    add("--registry-user", metavar="USER:PASSWORD")
    add("--topic", action="append", required=True)
    add("--table", required=True, metavar="NAMESPACE.TABLE")
    add("--catalog", required=True, metavar="URI", help="sqlite:///abs/path or postgres://…")
    add("--s3", type=json.loads, help='{"endpoint": URL, "region": …, "key": …, "secret": …}')
    add("--rest", metavar="URL", help="read through this Iceberg REST catalog instead of the database")
    add("--token", help="its bearer token")
    add("--spark", metavar="FOLDER", help="where `spark.sh copy` has put the rows that Spark reads there")
    add("--trino", metavar="URL", help="a Trino that has that catalog as `iceberg`")
    add("--snapshot", type=int, metavar="ID", help="the table as it was then, through the REST catalog")
    add("--engine", type=engines, default="duckdb,pyiceberg", metavar="ENGINE,…", help="of duckdb, pyiceberg, spark, trino")
    add("--names", choices=list(topic.SCHEMES), default="kafka")
    add("--include", type=lambda t: t.split(","), help="metadata columns; default: those of the naming scheme")
    add("--key", choices=["auto", "registry", "string", "bytes", "none"], default="auto")
    add("--key-struct", action="store_true", help="a record key is one column `key`")
    add("--time-as", choices=["long", "time", "string"], help="default: as the naming scheme has it")
    add("--value", choices=["registry", "string", "bytes"], default="registry")
    add("--dead-letters", metavar="NAMESPACE.TABLE", help="records that cannot be rows must be there")
    add("--good-dead-letters", type=int, default=0, help="how many records that decode are dead letters all the same")
    add("--skip-rejects", action="store_true", help="records that cannot be rows are left out by policy")
    add("--start", type=offsets, default={}, metavar="P=OFFSET,…", help="where the table starts; default: the topic's start")
    add("--end", type=offsets, default={}, metavar="P=OFFSET,…", help="where the table ends; default: the topic's end")
    add("--allow-missing-below", type=offsets, default={}, metavar="P=OFFSET,…", help="gaps that were given up")
    add("--allow-extra", action="store_true", help="rows whose records the topic no longer has (compaction, retention) are counted")
    add("--where", default="true", help="SQL over the table's columns: which rows to look at")
    add("--ignore", action="append", default=[], metavar="COLUMN", help="a column that may be there and is not compared")
    add("--typed", action="append", default=[], type=lambda t: tuple(t.split("=", 1)), metavar="COLUMN=TYPE", help="a column that another tool made wider")
    add("--first", type=int, default=10, help="findings shown of each kind")
    add("--json", action="store_true")
    options = parser.parse_args()
    if not options.rest and (options.snapshot or {"spark", "trino"} & set(options.engine)):
        parser.error("spark, trino and --snapshot read through the REST catalog: --rest is missing")
    if options.include is None:
        options.include = ["partition", "offset", "timestamp", "headers"] if options.names == "kafka" else list(topic.METADATA)
    return options


if __name__ == "__main__":
    sys.exit(main())
