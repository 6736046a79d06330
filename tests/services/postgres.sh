#!/usr/bin/env bash
# A real Postgres for tests, loopback only, user `frazil` without a password.
#   postgres.sh up DIR PORT         the folder is made; the next up goes on with it
#   postgres.sh create PORT NAME    makes a database
#   postgres.sh down DIR            fast stop (SIGINT); kill DIR is an immediate one
# As root it runs as `nobody`, since Postgres refuses root: the folders above DIR must be open to it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
bin=$(find_postgres) || die "no initdb found; run tests/services/setup.sh"

as=()
[[ $(id -u) -ne 0 ]] || as=(setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups)
unprivileged() { ${as[@]+"${as[@]}"} "$@"; }

up() { # DIR PORT
	local dir
	mkdir -p "$1"; dir=$(cd "$1" && pwd)
	[[ $(id -u) -ne 0 ]] || chown nobody "$dir"
	if taken "$2"; then die "port $2 is taken"; fi
	[[ -d $dir/data ]] || (cd "$dir" && unprivileged "$bin/initdb" -D "$dir/data" -U frazil -A trust --no-sync -E UTF8 --locale=C >"$dir/initdb.log")
	# The program itself, not pg_ctl: its process id is the one to signal.
	detached "$dir/postgres.log" "$dir/postgres.pid" ${as[@]+"${as[@]}"} "$bin/postgres" -D "$dir/data" -p "$2" \
		-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=200
	await "$dir/postgres" "$bin/pg_isready" -q -h 127.0.0.1 -p "$2" -U frazil
}

case ${1:-} in
up) up "${2:?DIR}" "${3:?PORT}" ;;
create) "$bin/createdb" -h 127.0.0.1 -p "${2:?PORT}" -U frazil "${3:?NAME}" ;;
down) end "${2:?DIR}/postgres" INT ;;
kill) end "${2:?DIR}/postgres" QUIT ;;
*) sed -n '2,/^set /{/^#/p}' "$0"; exit 2 ;;
esac
