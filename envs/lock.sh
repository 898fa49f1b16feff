#!/usr/bin/env bash
# Writes envs/NAME/requirements.lock from envs/NAME/requirements.in, for every environment: make lock.
#
# Pins that still fit are kept; `envs/lock.sh --upgrade` moves all of them, `--upgrade-package NAME` one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# A local folder of wheels is no source that others have.
unset UV_FIND_LINKS

# One version of each package for every Python, so that numbers do not depend on which one a machine has.
compile=(uv pip compile --quiet --universal --fork-strategy fewest --generate-hashes
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" "$@")
# The oldest Python of an environment for which 3.11 is too old.
declare -A pythons=([nemo-0.3]=3.12)

for name in workflow vllm nemo nemo-0.1 nemo-0.1.95 nemo-0.3 lm-eval nemo-simple-evals train semantic equator benchmarks ifbench instruct; do
    options=(--python-version "${pythons[$name]:-3.11}")
    if [[ -e $name/overrides.txt ]]; then options+=(--overrides "$name/overrides.txt"); fi
    "${compile[@]}" "${options[@]}" --output-file "$name/requirements.lock" "$name/requirements.in" >/dev/null
done
"${compile[@]}" --python-version 3.11 --constraints workflow/requirements.lock --output-file dev/requirements.lock dev/requirements.in >/dev/null
