#!/usr/bin/env bash
# Trino with its Iceberg connector alone, for tests: the engine's own jars from Maven Central, in one process.
#   trino.sh ready                whether there is a JDK that it runs on: 25 or newer, with jdk.incubator.vector
#   trino.sh fetch                jars into the cache
#   trino.sh up DIR PORT CATALOG  with the REST catalog at that address as `iceberg`; its tables are local files
#   trino.sh down DIR
# JAVA25: the home of such a JDK; without it, $JAVA_HOME and those installed are tried.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

find_jdk() {
	local home version
	for home in "${JAVA25:-}" "${JAVA_HOME:-}" /usr/lib/jvm/* /opt/homebrew/opt/openjdk*; do
		[[ -x $home/bin/javac ]] || continue
		version=$(java_version "$home/bin/java")
		[[ ${version:-0} -ge 25 ]] || continue
		"$home/bin/java" --list-modules | grep -q jdk.incubator.vector || continue
		echo "$home"
		return
	done
	return 1
}

jdk() { find_jdk || die "no JDK 25 with jdk.incubator.vector found; set JAVA25"; }

fetch() {
	local home
	[[ ! -f $trino/complete ]] || return 0
	home=$(jdk)
	rm -rf "$trino"
	mvn -B -q -Dstyle.color=never -f "$here/pom.xml" -P trino dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$trino/lib"
	"$home/bin/javac" -cp "$trino/lib/*" -d "$trino/classes" "$here/MiniTrino.java"
	touch "$trino/complete"
}

up() { # DIR PORT CATALOG
	local dir home
	[[ -f $trino/complete ]] || die "no trino; run tests/services/setup.sh"
	mkdir -p "$1"; dir=$(cd "$1" && pwd); home=$(jdk)
	if taken "$2"; then die "port $2 is taken"; fi
	# Locations of local files are taken relative to `local.location`.
	printf '%s\n' iceberg.catalog.type=rest iceberg.rest-catalog.uri="$3" iceberg.rest-catalog.view-endpoints-enabled=true \
		fs.native-local.enabled=true local.location=/ fs.hadoop.enabled=false >"$dir/catalog.properties"
	detached "$dir/trino.log" "$dir/trino.pid" "$home/bin/java" -Xmx1g -XX:+UseSerialGC --add-modules=jdk.incubator.vector \
		--sun-misc-unsafe-memory-access=allow --enable-native-access=ALL-UNNAMED -Djdk.attach.allowAttachSelf=true \
		-cp "$trino/classes:$trino/lib/*" MiniTrino "$2" "$dir/catalog.properties"
	await "$dir/trino" grep -q 'trino is ready' "$dir/trino.log"
}

case ${1:-} in
ready) find_jdk >/dev/null ;;
fetch) fetch ;;
up) up "${2:?DIR}" "${3:?PORT}" "${4:?CATALOG}" ;;
down) end "${2:?DIR}/trino" ;;
*) sed -n '2,/^set /{/^#/p}' "$0"; exit 2 ;;
esac
