"""Seconds that DuckDB takes for queries on an Iceberg table: scans.py CATALOG_URI TABLE RUNS QUERY…

The table stands as T in the queries. Each runs RUNS times on one connection, the fastest counts. Prints a JSON list.
"""
import json
import os
import sys
import time

import duckdb
import duckdb_extensions
from pyiceberg.catalog.sql import SqlCatalog

uri, name, runs, queries = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
for extension in ("avro", "iceberg"):
    duckdb_extensions.import_extension(extension)
engine = duckdb.connect(config={"autoinstall_known_extensions": "false", "threads": os.cpu_count()})
for extension in ("avro", "iceberg"):
    engine.execute(f"LOAD {extension}")
location = SqlCatalog("frazil", uri=uri.replace("sqlite://", "sqlite:///")).load_table(name).metadata_location
took = []
for query in queries:
    query = query.replace("FROM T", f"FROM iceberg_scan('{location}')")
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        engine.execute(query).fetchall()
        times.append(time.perf_counter() - begun)
    took.append(min(times))
print(json.dumps(took))
