#!/usr/bin/env bash
# A fault proxy for tests (Toxiproxy); proxies and toxics are made over its HTTP API at PORT.
#   toxiproxy.sh up DIR PORT
#   toxiproxy.sh down DIR
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

up() { # DIR PORT
	mkdir -p "$1"
	[[ -x $toxiproxy ]] || die "no toxiproxy; run tests/services/setup.sh"
	if taken "$2"; then die "port $2 is taken"; fi
	detached "$1/toxiproxy.log" "$1/toxiproxy.pid" "$toxiproxy" -host 127.0.0.1 -port "$2"
	await "$1/toxiproxy" taken "$2"
}

case ${1:-} in
up) up "${2:?DIR}" "${3:?PORT}" ;;
down) end "${2:?DIR}/toxiproxy" ;;
*) sed -n '2,/^set /{/^#/p}' "$0"; exit 2 ;;
esac
