"""How old rows are when another engine can first read them: freshness.py CATALOG_URI TABLE SECONDS.

Looks for a new snapshot every 20 ms with PyIceberg, then reads the rows it added with DuckDB. A row's age is the time
when that read has returned less the record's timestamp, which is when it was produced.
"""
import sys
import time

import duckdb
import duckdb_extensions
from pyiceberg.catalog.sql import SqlCatalog

uri, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
for extension in ("avro", "iceberg"):
    duckdb_extensions.import_extension(extension)
engine = duckdb.connect(config={"autoinstall_known_extensions": "false"})
for extension in ("avro", "iceberg"):
    engine.execute(f"LOAD {extension}")
engine.execute("SET unsafe_enable_version_guessing = true")
catalog = SqlCatalog("frazil", uri=uri.replace("sqlite://", "sqlite:///"))
end, seen, newest, ages, reads = time.time() + seconds, None, {}, [], 0
while time.time() < end:
    table = catalog.load_table(name)
    snapshot = table.current_snapshot()
    if snapshot is None or snapshot.snapshot_id == seen:
        time.sleep(0.02)
        continue
    seen, reads = snapshot.snapshot_id, reads + 1
    where = " OR ".join(f"(kafka_partition = {p} AND kafka_offset > {newest.get(p, -1)})" for p in range(4))
    rows = engine.execute(
        f"SELECT kafka_partition, kafka_offset, epoch_ms(kafka_timestamp) FROM iceberg_scan('{table.metadata_location}') WHERE {where}"
    ).fetchall()
    now = time.time() * 1000
    for partition, offset, produced in rows:
        newest[partition] = max(newest.get(partition, -1), offset)
        ages.append(now - produced)
ages.sort()
# What was produced before the reader looked is old through no fault of the table's.
assert len(ages) > 1000, f"only {len(ages)} rows were seen"
at = lambda share: ages[min(len(ages) - 1, int(len(ages) * share))] / 1000
print(
    f"freshness: p50 {at(0.50):.2f} s, p99 {at(0.99):.2f} s, greatest {ages[-1] / 1000:.2f} s from produce to the end of "
    f"DuckDB's read, over {len(ages)} rows of {reads} snapshots; commit_interval 1 s"
)
