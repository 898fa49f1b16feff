#!/usr/bin/env bash
# A real instruct model all the way: make its folder, serve it, ask it benchmarks, show the numbers.
# `make demo-instruct` sets up and calls it. Usage: demo/instruct.sh [CAMPAIGN_FOLDER [SNAKEMAKE_OPTION...]]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
campaign=${1:-$root/demo/benchmarks}
shift || true
begun=$SECONDS
unset PYTHONDONTWRITEBYTECODE
export PATH="$root/envs/workflow/.venv/bin:$PATH"

"$root/envs/instruct/.venv/bin/python" "$root/demo/instruct.py"
cd "$campaign"
echo "Asking the model. Every step leaves a log in $campaign/logs." >&2
snakemake --snakefile "$root/Snakefile" --quiet host reason rules "$@"
echo
cat results/tables/scores.txt
echo
echo "Done in $((SECONDS - begun)) s. $(realpath --relative-to="$OLDPWD" .)/results/report.html shows everything on one page."
