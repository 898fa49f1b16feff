#!/usr/bin/env bash
# Takes down what up.sh brought up: its daemons, whatever else runs on its hosts, their network. Files stay in $CLUSTER_DIR.
set -euo pipefail

# shellcheck source=tests/cluster/names.sh
. "$(dirname "${BASH_SOURCE[0]}")/names.sh"

# Whether a process is one that this cluster's up.sh started.
is_ours() { grep -qz "^MILEPOST_CLUSTER=$cluster\$" "/proc/$1/environ" 2>/dev/null; }

# In this order: SLURM writes its last lines to the accounting, which writes them to the database.
for name in slurmd-gpu01 slurmd-gpu02 slurmd-cpu01 sshd-login sshd-gpu01 sshd-gpu02 sshd-cpu01 slurmctld slurmdbd mariadbd munged; do
    pid=$(cat "$cluster/run/$name.pid" 2>/dev/null) || continue
    if is_ours "$pid"; then
        kill "$pid" 2>/dev/null || true
        for ((tries = 30; tries > 0; tries--)); do
            is_ours "$pid" || break
            sleep 0.1
        done
    fi
    rm -f "$cluster/run/$name.pid"
done
for host in "${hosts[@]%:*}"; do
    name=$(namespace_of "$host")
    for pid in $(ip netns pids "$name" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns del "$name" 2>/dev/null || true
    ip link del "$(link_of "$host")" 2>/dev/null || true
done
ip link del "$bridge" 2>/dev/null || true
