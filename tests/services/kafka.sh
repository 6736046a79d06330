#!/usr/bin/env bash
# A real Apache Kafka (KRaft, loopback only) for tests; jars from Maven Central.
#   kafka.sh fetch                  jars into the cache, and an archive of loaded classes
#   kafka.sh up DIR PORT [NODES]    PORT plaintext, PORT+1 controller; node n at PORT+10*(n-1)
#   kafka.sh start|stop|kill DIR N  one node: start again and wait, clean stop, SIGKILL
#   kafka.sh down DIR               clean stop of all; data stays, the next up goes on with it
# AUTH=1 with up adds SASL_PLAINTEXT on PORT+2, SASL_SSL on PORT+3, SSL on PORT+4 and, asking for the client's
# certificate, on PORT+5; CA in DIR/tls/ca.pem, a client's certificate and key in DIR/tls/client.pem;
# users alice/alice-secret (SCRAM-SHA-256, -512) and bob/bob-secret (PLAIN); ACLs on, open until one is set.
# JAVA (17 or newer) and KAFKA_HEAP (512m) may be set.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
lib=$kafka_lib
auth=${AUTH:-}
archive=(-XX:SharedArchiveFile="$lib/classes.jsa" -Xshare:auto -Xlog:cds=off -Xlog:cds+dynamic=off)
jvm=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.showDateTime=true)

fetch() {
	[[ ! -f $lib/complete ]] || return 0
	mvn -B -q -Dstyle.color=never -f "$here/pom.xml" -P kafka dependency:copy-dependencies -DoutputDirectory="$lib"
	# One throw-away run leaves an archive of loaded classes: later starts take a third of the time.
	local tmp port=39092; tmp=$(mktemp -d)
	while taken $port || taken $((port + 1)); do port=$((port + 2)); done
	archive=(-XX:ArchiveClassesAtExit="$lib/classes.jsa" -Xlog:cds=off -Xlog:cds+dynamic=off)
	up "$tmp" $port 1
	down "$tmp"
	rm -rf "$tmp"
	touch "$lib/complete"
}

tls() { # DIR: a throw-away CA and a server certificate for localhost and 127.0.0.1
	[[ ! -f $1/tls/server.pem ]] || return 0
	mkdir -p "$1/tls"
	(
		cd "$1/tls"
		openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-ca -keyout ca.key -out ca.pem
		openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
		openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.crt \
			-extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1)
		cat server.key server.crt >server.pem
		openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout client.key -out client.csr
		openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out client.crt
		cat client.key client.crt >client.pem
	) 2>"$1/tls.log"
}

conf() { # DIR PORT NODES N
	local dir=$1 base=$2 nodes=$3 n=$4 p=$(($2 + 10 * ($4 - 1))) voters='' listeners i l
	local isr=$(((nodes + 1) / 2))
	for ((i = 1; i <= nodes; i++)); do voters+=,$i@127.0.0.1:$((base + 10 * (i - 1) + 1)); done
	listeners=PLAINTEXT://127.0.0.1:$p
	[[ -z $auth ]] || listeners+=,SASL_PLAINTEXT://127.0.0.1:$((p + 2)),SASL_SSL://127.0.0.1:$((p + 3)),SSL://127.0.0.1:$((p + 4)),MTLS://127.0.0.1:$((p + 5))
	cat <<-END
	process.roles=broker,controller
	node.id=$n
	controller.quorum.voters=${voters#,}
	controller.listener.names=CONTROLLER
	inter.broker.listener.name=PLAINTEXT
	listeners=$listeners,CONTROLLER://127.0.0.1:$((p + 1))
	advertised.listeners=$listeners
	listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,MTLS:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
	log.dirs=$dir/node$n
	auto.create.topics.enable=false
	default.replication.factor=$nodes
	offsets.topic.num.partitions=4
	offsets.topic.replication.factor=$nodes
	transaction.state.log.num.partitions=4
	transaction.state.log.replication.factor=$nodes
	transaction.state.log.min.isr=$isr
	share.coordinator.state.topic.num.partitions=4
	share.coordinator.state.topic.replication.factor=$nodes
	share.coordinator.state.topic.min.isr=$isr
	group.initial.rebalance.delay.ms=0
	group.min.session.timeout.ms=1000
	message.max.bytes=33554432
	replica.fetch.max.bytes=33554432
	log.cleaner.dedupe.buffer.size=4194304
	log.cleaner.backoff.ms=500
	log.retention.check.interval.ms=2000
	log.initial.task.delay.ms=500
	num.network.threads=2
	num.io.threads=4
	END
	[[ -n $auth ]] || return 0
	cat <<-END
	authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
	super.users=User:ANONYMOUS
	allow.everyone.if.no.acl.found=true
	ssl.keystore.type=PEM
	ssl.keystore.location=$dir/tls/server.pem
	ssl.truststore.type=PEM
	ssl.truststore.location=$dir/tls/ca.pem
	listener.name.mtls.ssl.client.auth=required
	sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
	END
	for l in listener.name.sasl_plaintext listener.name.sasl_ssl; do
		echo "$l.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
		echo "$l.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
		echo "$l.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_bob=\"bob-secret\";"
	done
}

java=$(find_java 17) || die "no Java 17 or newer found; run tests/services/setup.sh"

launch() { # NODE
	alive "$1" || detached "$1.log" "$1.pid" "$java" -Xms64m -Xmx"${KAFKA_HEAP:-512m}" "${jvm[@]}" "${archive[@]}" \
		-cp "$lib/*" kafka.Kafka "$1.properties"
}

format() { # DIR N
	local scram=()
	[[ -z $auth ]] ||
		scram=(--add-scram 'SCRAM-SHA-256=[name=alice,password=alice-secret]' --add-scram 'SCRAM-SHA-512=[name=alice,password=alice-secret]')
	"$java" "${jvm[@]}" "${archive[@]/-XX:ArchiveClassesAtExit*/-Xshare:auto}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
		-cp "$lib/*" kafka.tools.StorageTool format -t testtesttesttesttesttQ -c "$1/node$2.properties" \
		${scram[@]+"${scram[@]}"} >"$1/format.log" 2>&1 || { cat "$1/format.log" >&2; exit 1; }
}

up() { # DIR PORT NODES
	local dir n p
	mkdir -p "$1"; dir=$(cd "$1" && pwd)
	[[ -z $auth ]] || tls "$dir"
	for ((n = 1; n <= $3; n++)); do
		alive "$dir/node$n" && continue
		p=$(($2 + 10 * (n - 1)))
		if taken $p; then die "port $p is taken"; fi
		conf "$dir" "$2" "$3" $n >"$dir/node$n.properties"
		[[ -f $dir/node$n/meta.properties ]] || format "$dir" $n
		launch "$dir/node$n"
	done
	for ((n = 1; n <= $3; n++)); do await "$dir/node$n" started "$dir/node$n"; done
}

started() { grep -q 'Kafka Server started' "$1.log"; } # NODE

down() { # DIR: signal all first, so that no node waits for a quorum that is going away
	local f
	for f in "$1"/node*.pid; do ! alive "${f%.pid}" || kill "$(<"$f")"; done
	for f in "$1"/node*.pid; do end "${f%.pid}"; done
}

case ${1:-} in
fetch) fetch ;;
up) [[ -f $lib/complete ]] || die "no jars; run tests/services/setup.sh"; up "${2:?DIR}" "${3:?PORT}" "${4:-1}" ;;
start) launch "${2:?DIR}/node${3:?N}"; await "$2/node$3" started "$2/node$3" ;;
stop) end "${2:?DIR}/node${3:?N}" ;;
kill) end "${2:?DIR}/node${3:?N}" KILL ;;
down) down "${2:?DIR}" ;;
*) sed -n '2,/^set /{/^#/p}' "$0"; exit 2 ;;
esac
