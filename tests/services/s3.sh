#!/usr/bin/env bash
# A real S3 server for tests (versitygw): a bucket is a folder below DIR/buckets, an object a plain file in it.
#   s3.sh up DIR PORT BUCKET...   keys frazil / frazil-secret, region us-east-1
#   s3.sh down|kill DIR
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

up() { # DIR PORT BUCKET...
	local dir port=$2 bucket
	mkdir -p "$1/buckets"; dir=$(cd "$1" && pwd)
	[[ -x $versitygw ]] || die "no versitygw; run tests/services/setup.sh"
	for bucket in "${@:3}"; do mkdir -p "$dir/buckets/$bucket"; done
	alive "$dir/s3" && return
	if taken "$port"; then die "port $port is taken"; fi
	detached "$dir/s3.log" "$dir/s3.pid" "$versitygw" --access frazil --secret frazil-secret --region us-east-1 \
		--port "127.0.0.1:$port" --quiet posix "$dir/buckets"
	await "$dir/s3" taken "$port"
}

case ${1:-} in
up) up "${2:?DIR}" "${3:?PORT}" "${@:4}" ;;
down) end "${2:?DIR}/s3" ;;
kill) end "${2:?DIR}/s3" KILL ;;
*) sed -n '2,/^set /{/^#/p}' "$0"; exit 2 ;;
esac
