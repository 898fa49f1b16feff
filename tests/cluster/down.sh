#!/usr/bin/env bash
# Takes down what up.sh brought up: its daemons, whatever else runs on its hosts, their network. Files stay in $CLUSTER_DIR.
set -euo pipefail

cluster=${CLUSTER_DIR:-/tmp/milepost-cluster}

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
for host in login gpu01 gpu02 cpu01; do
    for pid in $(ip netns pids "$host" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns del "$host" 2>/dev/null || true
    ip link del "v-$host" 2>/dev/null || true
done
ip link del milepost0 2>/dev/null || true
