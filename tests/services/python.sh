#!/usr/bin/env bash
# The Python of the tests (tests/requirements.txt), as a program.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/paths.sh"
[[ -x $venv/bin/python ]] || die "no test environment; run tests/services/setup.sh"
exec "$venv/bin/python" "$@"
