#!/usr/bin/env bash
# The main job on embedded defaults: train a small model, serve its checkpoints, score them, show the numbers.
# `make demo` sets up and calls it. Usage: demo/run.sh [CAMPAIGN_FOLDER [SNAKEMAKE_OPTION...]]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
campaign=${1:-$root/demo}
shift || true
begun=$SECONDS
# Compiled files make servers start twice as fast.
unset PYTHONDONTWRITEBYTECODE
export PATH="$root/envs/workflow/.venv/bin:$PATH"

# Held by this script and by Snakemake, by nothing else: while it is free, a lock of Snakemake's is a stale one.
exec 9>"$campaign/.demo.lock"
if ! flock --nonblock 9; then
    echo "Another demo is running in $campaign. Wait for it, or end it." >&2
    exit 1
fi

"$root/envs/train/.venv/bin/python" "$root/demo/train.py" --out "$root/demo/model" --data-out "$root/demo/data"

cd "$campaign"
if compgen -G '.snakemake/locks/*' >/dev/null; then
    echo "An earlier demo was cut short; removing its lock. What it stored is used." >&2
    snakemake --snakefile "$root/Snakefile" --unlock --quiet all 2>/dev/null
fi
echo "Evaluating the checkpoints. Every step leaves a log in $campaign/logs." >&2
snakemake --snakefile "$root/Snakefile" --quiet host reason rules "$@"

here=$(realpath --relative-to="$OLDPWD" .)
echo
cat results/tables/scores.txt
echo
echo "Done in $((SECONDS - begun)) s. To look at:"
echo "  $here/results/report.html           everything on one page"
echo "  $here/results/figures/all.png       all training curves on one sheet; one per task beside it"
echo "  $here/results/tables/scores.md      the tables; scores.csv for a program"
