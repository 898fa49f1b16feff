#!/usr/bin/env bash
# Brings up the test cluster, runs tests on it, takes it down: what `make test-cluster` calls.
# Usage: tests/cluster/run.sh TEST_FILE... [PYTEST_OPTION...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

"$here/up.sh" || { code=$?; ((EUID != 0)) || "$here/down.sh"; exit "$code"; }
trap '"$here/down.sh"' EXIT
"$here/apptainer.sh"
"$root/containers/small.sh" "$root/.images/small.sif" &
"$root/envs/train/.venv/bin/python" "$root/demo/train.py" --out "$root/demo/model" --data-out "$root/demo/data"
wait $!
"$root/envs/workflow/.venv/bin/pytest" --durations=0 --durations-min=1 "$@"
