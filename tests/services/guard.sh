#!/usr/bin/env bash
# Ends what tests have started, whatever becomes of the tests.
#   guard.sh DIR    waits until its standard input closes, which it does when its parent ends in any way at all;
#                   then ends every process with a *.pid file below DIR and removes DIR (FRAZIL_TEST_KEEP=1: leaves it)
set -uo pipefail
dir=${1:?DIR}
trap '' INT TERM HUP
cat >/dev/null

signal() { # SIGNAL
	local file running=1
	while IFS= read -r -d '' file; do
		kill "-$1" "$(<"$file")" 2>/dev/null && running=0
	done < <(find "$dir" -name '*.pid' -not -name postmaster.pid -print0)
	return $running
}

# SIGINT is the quick and clean stop of each of them, Postgres included.
signal INT
for ((i = 0; i < 50; i++)); do signal 0 || break; sleep 0.1; done
signal KILL
[[ -n ${FRAZIL_TEST_KEEP:-} ]] || rm -rf "$dir"
