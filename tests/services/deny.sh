#!/usr/bin/env bash
# Checks the dependencies by deny.toml with cargo-deny: the one installed, else one built into the cache.
# Advisories need the advisory database, which is a git repository: where it cannot be reached that is said, and
# only the other checks count.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
version=0.20.2

if ! have cargo-deny; then
	export PATH=$cache/cargo/bin:$PATH
	have cargo-deny || {
		echo "deny: building cargo-deny $version into $cache/cargo"
		cargo install --quiet --locked --debug --root "$cache/cargo" "cargo-deny@$version"
	}
fi
cargo deny --all-features check --hide-inclusion-graph bans licenses sources
if cargo deny --all-features fetch db >"$cache/advisories.log" 2>&1; then
	cargo deny --all-features check --disable-fetch --hide-inclusion-graph advisories
else
	echo "deny: advisories NOT checked, their database cannot be fetched: $(grep -m1 -i -E "error|unable|fail" "$cache/advisories.log")"
fi
