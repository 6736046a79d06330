"""How other engines read a table: DuckDB from the metadata file on, PyIceberg by the catalog's own database."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from urllib.parse import urlsplit

import duckdb
import duckdb_extensions
import psycopg2
from pyiceberg.catalog.sql import SqlCatalog

import mapping


@dataclasses.dataclass
class Table:
    """Where a table is: its row in the catalog's database; and which of its snapshots is meant, if not the current one."""

    catalog: str
    namespace: str
    name: str
    metadata_location: str
    snapshot: int | None = None


class Lake:
    """The tables of one SQL catalog. `s3` has endpoint, region, key and secret, or is None."""

    def __init__(self, uri, s3):
        self._uri, self._s3 = uri, s3

    def find(self, name):
        """The table `namespace.table`; None where the catalog has none."""
        namespace, _, table = name.rpartition(".")
        query = "select catalog_name, metadata_location from iceberg_tables where table_namespace = {0} and table_name = {0}"
        if self._uri.startswith("sqlite:"):
            if not os.path.exists(self._path()):
                return None
            connection = sqlite3.connect(f"file:{self._path()}?mode=ro", uri=True, timeout=30)
            found = connection.execute(query.format("?"), (namespace, table)).fetchall()
        else:
            connection = psycopg2.connect(self._uri)
            with connection.cursor() as cursor:
                cursor.execute(query.format("%s"), (namespace, table))
                found = cursor.fetchall()
        connection.close()
        if len(found) > 1:
            raise SystemExit(f"{name} is in {len(found)} catalogs of {self._uri}")
        return Table(found[0][0], namespace, table, found[0][1]) if found else None

    def connect(self):
        """A DuckDB that can read the tables."""
        for extension in ("avro", "httpfs", "iceberg"):
            duckdb_extensions.import_extension(extension)
        connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
        for extension in ("avro", "httpfs", "iceberg"):
            connection.execute(f"LOAD {extension}")
        connection.execute("SET TimeZone = 'UTC'")
        if self._s3:
            endpoint = urlsplit(self._s3["endpoint"])
            connection.execute(
                "CREATE SECRET s3 (TYPE s3, KEY_ID ?, SECRET ?, ENDPOINT ?, REGION ?, USE_SSL ?, URL_STYLE 'path')",
                [self._s3["key"], self._s3["secret"], endpoint.netloc, self._s3["region"], endpoint.scheme == "https"],
            )
        return connection

    def columns(self, connection, table):
        """Name to type of a table's columns, as its metadata file has them."""
        text = connection.execute("SELECT content FROM read_text(?)", [_path(table.metadata_location)]).fetchone()[0]
        metadata = json.loads(text)
        schema = next(s for s in metadata["schemas"] if s["schema-id"] == metadata["current-schema-id"])
        return mapping.from_iceberg({"type": "struct", "fields": schema["fields"]})[1]

    def read(self, connection, engine, table, into):
        """Copies the table's current rows into the DuckDB table `into`."""
        if engine == "duckdb":
            connection.execute(f'CREATE TABLE "{into}" AS SELECT * FROM iceberg_scan(?)', [_path(table.metadata_location)])
            return
        rows = self._pyiceberg(table).scan().to_arrow()
        connection.register("rows_of_pyiceberg", rows)
        connection.execute(f'CREATE TABLE "{into}" AS SELECT * FROM rows_of_pyiceberg')
        connection.unregister("rows_of_pyiceberg")

    def pyiceberg_properties(self):
        """How PyIceberg's SqlCatalog opens the same database and storage."""
        if self._uri.startswith("sqlite:"):
            uri = f"sqlite:///{self._path()}"
        else:
            uri = "postgresql+psycopg2://" + self._uri.split("://", 1)[1]
        properties = {"uri": uri, "init_catalog_tables": "false"}
        if self._s3:
            properties |= {
                "s3.endpoint": self._s3["endpoint"],
                "s3.region": self._s3["region"],
                "s3.access-key-id": self._s3["key"],
                "s3.secret-access-key": self._s3["secret"],
            }
        return properties

    def _pyiceberg(self, table):
        catalog = SqlCatalog(table.catalog, **self.pyiceberg_properties())
        return catalog.load_table((*table.namespace.split("."), table.name))

    def _path(self):
        """The file of `sqlite:///abs/path`, `sqlite://path` and `sqlite:path`."""
        return self._uri.removeprefix("sqlite:").removeprefix("//")


def _path(location):
    """A location as DuckDB takes it."""
    return location.removeprefix("file://") if location.startswith("file:///") else location.removeprefix("file:")


def duckdb_type(kind):
    """The DuckDB type that values of a column are compared in; a uuid as its text."""
    if isinstance(kind, tuple):
        if kind[0] == "struct":
            return "STRUCT(" + ", ".join(f'"{n}" {duckdb_type(k)}' for n, k in kind[1].items()) + ")"
        if kind[0] == "list":
            return duckdb_type(kind[1]) + "[]"
        return f"MAP({duckdb_type(kind[1])}, {duckdb_type(kind[2])})"
    if kind.startswith("decimal"):
        return kind
    if kind.startswith("fixed"):
        return "BLOB"
    return {
        "boolean": "BOOLEAN",
        "int": "INTEGER",
        "long": "BIGINT",
        "float": "FLOAT",
        "double": "DOUBLE",
        "date": "DATE",
        "time": "TIME",
        "timestamp": "TIMESTAMP",
        "timestamptz": "TIMESTAMPTZ",
        "string": "VARCHAR",
        "uuid": "VARCHAR",
        "binary": "BLOB",
    }[kind]
