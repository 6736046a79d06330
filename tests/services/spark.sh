#!/usr/bin/env bash
# Apache Spark with Iceberg, as one of the engines that read tables: PySpark from PyPI, Iceberg's jars from Maven Central.
#   spark.sh fetch                                    into the cache: 0.5 GB
#   spark.sh copy FOLDER NAMESPACE.TABLE[@SNAPSHOT][+lineage],... KEY=VALUE...
#                                                     rows as Parquet files in a folder for each of them, called as they
#                                                     are; the pairs are a REST catalog's: uri, token, s3.access-key-id …
# JAVA or JAVA_HOME: a java from 17 to 21; without them, those installed are tried.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

fetch() {
	[[ ! -f $spark/complete ]] || return 0
	rm -rf "$spark"
	"$venv/bin/pip" install -q --disable-pip-version-check --target "$spark" pyspark==4.1.4
	mvn -B -q -Dstyle.color=never -f "$here/pom.xml" -P spark dependency:copy-dependencies -DoutputDirectory="$spark/iceberg"
	touch "$spark/complete"
}

copy() { # FOLDER TABLES KEY=VALUE...
	local java
	[[ -f $spark/complete ]] || die "no spark; run tests/services/setup.sh"
	java=$(find_java 17 21) || die "no Java from 17 to 21 found; run tests/services/setup.sh"
	export JAVA_HOME=${java%/bin/java} PYTHONPATH=$spark
	# Spark resolves the machine's own name, which need not be possible.
	export SPARK_LOCAL_IP=127.0.0.1 SPARK_LOCAL_HOSTNAME=localhost
	exec "$venv/bin/python" "$here/../verify/spark_copy.py" "$spark/iceberg" "$@"
}

case ${1:-} in
fetch) fetch ;;
copy) copy "${2:?FOLDER}" "${3:?TABLES}" "${@:4}" ;;
*) sed -n '2,/^set /{/^#/p}' "$0"; exit 2 ;;
esac
