#!/usr/bin/env bash
# A real schema registry for tests: Apicurio Registry, which serves the Confluent REST API below
# http://127.0.0.1:PORT/apis/ccompat/v7 (and v8); the distribution comes from Maven Central.
#   registry.sh fetch           unpack into the cache
#   registry.sh up DIR PORT     PORT+1 is its health; prints the base URL
#   registry.sh down DIR        clean stop; data stays in DIR, the next up goes on with it
# AUTH=1 asks for basic auth (alice:alice-secret); COMPAT (BACKWARD) is the global level.
# JAVA: a java 21 or newer; without it, those installed and the test environment's are tried.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

fetch() {
	[[ -f $registry_lib/quarkus-run.jar ]] || mvn -B -q -Dstyle.color=never -f "$here/pom.xml" -P registry dependency:unpack-dependencies \
		-DoutputDirectory="$registry_lib" -DmarkersDirectory="$registry_lib/.unpacked"
}

up() { # DIR PORT
	local dir java opts url=http://127.0.0.1:$2/apis/ccompat/v7
	[[ -f $registry_lib/quarkus-run.jar ]] || die "no registry; run tests/services/setup.sh"
	mkdir -p "$1"; dir=$(cd "$1" && pwd)
	if ! alive "$dir/registry"; then
		if taken "$2"; then die "port $2 is taken"; fi
		java=$(find_java 21) || die "no Java 21 or newer found; run tests/services/setup.sh"
		opts=(
			-Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$2"
			-Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port=$(($2 + 1))
			-Dquarkus.http.access-log.enabled=false
			-Dapicurio.datasource.jdbc.initial-size=2 -Dapicurio.datasource.jdbc.min-size=2 -Dapicurio.datasource.jdbc.max-size=20
			-Dapicurio.rules.global.compatibility="${COMPAT:-BACKWARD}" -Dapicurio.datasource.url="jdbc:h2:file:$dir/db"
		)
		[[ -z ${AUTH:-} ]] || opts+=(
			-Dquarkus.http.auth.basic=true -Dquarkus.security.users.embedded.plain-text=true
			-Dquarkus.security.users.embedded.users.alice=alice-secret -Dquarkus.security.users.embedded.roles.alice=sr-admin
		)
		detached "$dir/registry.log" "$dir/registry.pid" "$java" -Xms64m -Xmx"${REGISTRY_HEAP:-256m}" -XX:+UseSerialGC \
			-XX:TieredStopAtLevel=1 "${opts[@]}" -jar "$registry_lib/quarkus-run.jar"
	fi
	await "$dir/registry" grep -q 'started in .*Listening on' "$dir/registry.log"
	echo "$url"
}

case ${1:-} in
fetch) fetch ;;
up) up "${2:?DIR}" "${3:?PORT}" ;;
down) end "${2:?DIR}/registry" ;;
*) sed -n '2,/^set /{/^#/p}' "$0"; exit 2 ;;
esac
