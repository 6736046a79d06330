"""How other engines read a table through an Iceberg REST catalog: DuckDB, PyIceberg, Spark and Trino."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime
from decimal import Decimal
from urllib.parse import quote

import pyarrow as pa
import requests
from pyiceberg.catalog.rest import RestCatalog

import lake
import mapping


class Rest(lake.Lake):
    """The tables of one REST catalog. `token` and `s3` may be None.

    `spark` is a folder with Spark's copies of the tables, `trino` the address of a Trino that has the catalog: both start
    slowly, so that whoever runs this starts them, once for many tables.
    """

    def __init__(self, uri, token=None, s3=None, spark=None, trino=None):
        super().__init__(None, s3)
        self._uri, self._token, self._spark_folder, self._trino = uri.rstrip("/"), token, spark, trino
        self._metadata = {}

    def find(self, name):
        namespace, _, table = name.rpartition(".")
        path = quote("\x1f".join(namespace.split(".")), safe="") + "/tables/" + quote(table, safe="")
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        answer = requests.get(f"{self._uri}/v1/namespaces/{path}", headers=headers, timeout=30)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        loaded = answer.json()
        self._metadata[name] = loaded["metadata"]
        return lake.Table("rest", namespace, table, loaded["metadata-location"])

    def columns(self, connection, table):
        metadata = self._metadata[f"{table.namespace}.{table.name}"]
        at = metadata["current-schema-id"]
        if table.snapshot:
            at = next(s for s in metadata["snapshots"] if s["snapshot-id"] == table.snapshot)["schema-id"]
        schema = next(s for s in metadata["schemas"] if s["schema-id"] == at)
        return mapping.from_iceberg({"type": "struct", "fields": schema["fields"]})[1]

    def read(self, connection, engine, table, into):
        {"duckdb": self._duckdb, "pyiceberg": self._arrow, "spark": self._spark, "trino": self._trino_rows}[engine](
            connection, table, into
        )

    def attach(self, connection):
        """Makes the catalog known to a DuckDB, as `rest`."""
        access = f"TOKEN '{self._token}'" if self._token else "AUTHORIZATION_TYPE 'none'"
        if self._s3:
            # Else DuckDB makes a secret of what the catalog tells, without keys, and takes it instead of its own.
            access += ", ACCESS_DELEGATION_MODE 'none'"
        connection.execute(f"ATTACH IF NOT EXISTS '' AS rest (TYPE iceberg, ENDPOINT '{self._uri}', {access})")

    def _duckdb(self, connection, table, into):
        self.attach(connection)
        at = f" AT (VERSION => {table.snapshot})" if table.snapshot else ""
        connection.execute(f'CREATE TABLE "{into}" AS SELECT * FROM rest."{table.namespace}"."{table.name}"{at}')

    def _pyiceberg(self, table):
        properties = {"uri": self._uri}
        if self._token:
            properties["token"] = self._token
        if self._s3:
            # Endpoint, region and style are the catalog's to tell.
            properties |= {"s3.access-key-id": self._s3["key"], "s3.secret-access-key": self._s3["secret"]}
        return RestCatalog("rest", **properties).load_table((*table.namespace.split("."), table.name))

    def _arrow(self, connection, table, into):
        self._from_arrow(connection, self._pyiceberg(table).scan(snapshot_id=table.snapshot).to_arrow(), into)

    def _from_arrow(self, connection, rows, into):
        connection.register("rows_of_engine", rows)
        connection.execute(f'CREATE TABLE "{into}" AS SELECT * FROM rows_of_engine')
        connection.unregister("rows_of_engine")

    def _spark(self, connection, table, into):
        at = f"@{table.snapshot}" if table.snapshot else ""
        rows = f"{self._spark_folder}/{table.namespace}.{table.name}{at}/*.parquet"
        connection.execute(f'CREATE TABLE "{into}" AS SELECT * FROM read_parquet(?)', [rows])

    def _trino_rows(self, connection, table, into):
        columns = self.columns(connection, table)
        names = ", ".join('"' + name + '"' for name in columns)
        at = f" FOR VERSION AS OF {table.snapshot}" if table.snapshot else ""
        rows = query(self._trino, f'SELECT {names} FROM iceberg."{table.namespace}"."{table.name}"{at}')
        arrays = [
            pa.array([value(kind, row[index]) for row in rows], mapping.to_arrow(kind))
            for index, kind in enumerate(columns.values())
        ]
        self._from_arrow(connection, pa.Table.from_arrays(arrays, names=list(columns)), into)


def query(url, sql):
    """All rows of a query by Trino's protocol: pages that name the next one."""
    # Without that capability times come cut down to milliseconds.
    headers = {"X-Trino-User": "verify", "X-Trino-Time-Zone": "UTC", "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME"}
    rows = []
    page = requests.post(f"{url}/v1/statement", data=sql.encode(), headers=headers, timeout=60).json()
    while True:
        if page.get("error"):
            raise SystemExit(f"trino failed: {json.dumps(page['error'])[:2000]}")
        rows += page.get("data") or []
        if "nextUri" not in page:
            return rows
        answer = requests.get(page["nextUri"], headers=headers, timeout=60)
        if answer.status_code == 503:
            time.sleep(0.05)
            continue
        page = answer.json()


def value(kind, found):
    """A value of Trino's JSON as pyarrow takes it for the column's type."""
    if found is None:
        return None
    if isinstance(kind, tuple):
        if kind[0] == "struct":
            return {name: value(k, part) for (name, k), part in zip(kind[1].items(), found)}
        if kind[0] == "list":
            return [value(kind[1], part) for part in found]
        return [(value(kind[1], k), value(kind[2], v)) for k, v in found.items()]
    if kind in ("binary",) or kind.startswith("fixed"):
        return base64.b64decode(found)
    if kind.startswith("decimal"):
        return Decimal(found)
    if kind == "timestamptz":
        return datetime.fromisoformat(found.removesuffix(" UTC") + "+00:00")
    if kind in ("timestamp", "date"):
        return datetime.fromisoformat(found)
    if kind in ("float", "double"):
        return float(found)
    return found
