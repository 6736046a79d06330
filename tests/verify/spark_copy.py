"""Copies tables with Spark out of a REST catalog into Parquet files: `JARS FOLDER TABLE[@SNAPSHOT][+lineage],… KEY=VALUE…`.

With `+lineage` the rows have the two columns that format 3 keeps of their origin.
"""

import glob
import sys

from pyspark.sql import SparkSession


def main():
    jars, folder, tables, *pairs = sys.argv[1:]
    settings = {
        "spark.jars": ",".join(glob.glob(f"{jars}/*.jar")),
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": f"{folder}/work",
        "spark.sql.warehouse.dir": f"{folder}/work",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.catalog.rest": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.rest.type": "rest",
    }
    settings |= {f"spark.sql.catalog.rest.{name}": value for name, value in (pair.split("=", 1) for pair in pairs)}
    builder = SparkSession.builder.master("local[2]").appName("verify")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    for name in tables.split(","):
        plain, lineage, _ = name.partition("+lineage")
        table, _, snapshot = plain.partition("@")
        quoted = ".".join(f"`{part}`" for part in ["rest", *table.split(".")])
        at = f" VERSION AS OF {snapshot}" if snapshot else ""
        more = ", _row_id, _last_updated_sequence_number" if lineage else ""
        spark.sql(f"SELECT *{more} FROM {quoted}{at}").write.parquet(f"{folder}/{name}")
    spark.stop()


if __name__ == "__main__":
    main()
