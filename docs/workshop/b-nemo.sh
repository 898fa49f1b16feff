#!/usr/bin/env bash
# Runs NeMo Evaluator against the teacher's server. Exercise (b) of README.md beside it, which says how to call it.
set -euo pipefail
: "${MILEPOST:?is the folder of the project}" "${WORKSHOP_URL:?is set by a-tunnel.sh: call it with this script}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$here/b-results
# NeMo Evaluator keeps answers in its folder, and gives them again, whichever model answers now.
[[ ! -e $out ]] || { echo "$out is there already. To run again: rm -r $out" >&2; exit 1; }
mkdir "$out"

# The key goes by the environment, and only its variable's name stands in the configuration.
WORKSHOP_KEY=$(<"${WORKSHOP_KEY_FILE:-$HOME/.workshop-key}")
export WORKSHOP_KEY
# What is not exported, the harness does not see. Nothing is fetched here: the items are a file.
export HF_HOME=${HF_HOME:-$HOME/.cache/huggingface} HF_HUB_OFFLINE=1
export NEMO_EVALUATOR_TELEMETRY_LEVEL=0 NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
export PATH="$MILEPOST/envs/nemo/.venv/bin:$PATH" PYTHONPATH=$MILEPOST
# Its adapter listens at a port of this host, asks for no key, and is sent yours: this starts it at a port that nobody else
# on this host can take, and that answers nobody else. All runs on a host would share one otherwise, and answer each other.
export ADAPTER_HOST=127.0.0.1 MILEPOST_PORT=ADAPTER_PORT
launch=("$MILEPOST/envs/nemo/.venv/bin/python" "$MILEPOST/scripts/milepost/runtime/launch.py")

cat >"$out/run.yml" <<END
config:
  type: milepost.exact_match
  output_dir: $out
  params:
    temperature: 0.7
    max_new_tokens: 32
    parallelism: 8
    request_timeout: 60
    extra:
      data: $here/d-task/data/arithmetic.jsonl
      samples: 4
      scorer: {name: exact_match, extract: '(\\d+)'}
target:
  api_endpoint:
    url: $WORKSHOP_URL/chat/completions # with the path: a bare /v1 is answered 404
    type: chat
    model_id: ${WORKSHOP_MODEL:-judge}
    api_key_name: WORKSHOP_KEY
END
echo "written: $out/run.yml"
"${launch[@]}" nemo-evaluator run_eval --run_config "$out/run.yml" >"$out/log" 2>&1 || { tail -n 20 "$out/log" >&2; exit 1; }
python3 - "$out/results.yml" <<'END'
import sys
import yaml

for task, found in yaml.safe_load(open(sys.argv[1]))["results"]["tasks"].items():
    score = found["metrics"]["exact_match"]["scores"]["exact_match"]
    print(f"{task}: {score['value']:.3f}, standard error {score['stats']['stderr']:.3f}, over {score['stats']['count']} items")
END
