#!/usr/bin/env bash
# Brings up the test cluster, runs tests on it, takes it down: what `make test-cluster` calls.
# Usage: tests/cluster/run.sh TEST_FILE... [PYTEST_OPTION...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# One at a time in a folder: the second would play on the first one's cluster, and lose it in the middle.
# shellcheck source=tests/cluster/names.sh
. "$here/names.sh"
exec {lock}>"$cluster.lock"
flock --nonblock "$lock" || {
    echo "tests/cluster/run.sh: another one uses the cluster in $cluster. Wait for its end, or give this one a folder of its" \
        "own: CLUSTER_DIR=$cluster-2 make test-cluster" >&2
    exit 1
}

"$here/up.sh" {lock}>&- || { code=$?; ((EUID != 0)) || "$here/down.sh"; exit "$code"; }
trap '"$here/down.sh"' EXIT
"$here/apptainer.sh"
"$root/containers/small.sh" "$root/.images/small.sif" &
"$root/envs/train/.venv/bin/python" "$root/demo/train.py" --out "$root/demo/model" --data-out "$root/demo/data"
wait $!
"$root/envs/workflow/.venv/bin/pytest" --durations=0 --durations-min=1 "$@"
