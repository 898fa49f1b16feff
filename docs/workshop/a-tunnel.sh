#!/usr/bin/env bash
# Reaches the teacher's server through a tunnel. Exercise (a) of README.md beside it.
# Usage: a-tunnel.sh [COMMAND...]. The tunnel stays open while the command runs, which finds its address in $WORKSHOP_URL.
set -euo pipefail
: "${MILEPOST:?is the folder of the project}"
: "${WORKSHOP_HOST:?is the host that the port is on}" "${WORKSHOP_PORT_FILE:?is the file that holds the port}"
key_file=${WORKSHOP_KEY_FILE:-$HOME/.workshop-key}
model=${WORKSHOP_MODEL:-judge}

# Runs this script again beside the tunnel. `ssh -L` alone would do, until the teacher's server goes away: then anybody on
# that host may take its port, and would be sent the key. Here the server proves on each connection that it knows the key.
if [[ -z ${TUNNEL_URL:-} ]]; then
    exec python3 "$MILEPOST/scripts/open_tunnel.py" --host "$WORKSHOP_HOST" --port-file "$WORKSHOP_PORT_FILE" \
        --key-file "$key_file" ${WORKSHOP_SSH_CONFIG:+--ssh-config "$WORKSHOP_SSH_CONFIG"} -- "$0" "$@"
fi

url=$TUNNEL_URL
echo "without the key: $(curl --silent --output /dev/null --write-out '%{http_code}' "$url/models")"
# The key goes to curl by its standard input: what stands in a command line, everybody on this host can read.
with_key() {
    local said
    said=$(printf 'header = "Authorization: Bearer %s"\n' "$(<"$key_file")" \
        | curl --silent --write-out '\n%{http_code}' --config - "$@") || true
    # The last line is the status: 401 where the key is not the server's, 000 where nobody answers.
    [[ ${said##*$'\n'} == 200 ]] || { echo "with the key: ${said##*$'\n'}" >&2; exit 1; }
    echo "${said%$'\n'*}"
}
models=$(with_key "$url/models")
names=$(python3 -c 'import json, sys; print(*(m["id"] for m in json.load(sys.stdin)["data"]))' <<<"$models")
[[ " $names " == *" $model "* ]] || { echo "no model $model there, but: $names" >&2; exit 1; }
echo "with the key: $model"
question='The capital of France is'
reply=$(with_key "$url/completions" --header 'Content-Type: application/json' \
    --data "{\"model\": \"$model\", \"prompt\": \"$question\", \"max_tokens\": 8, \"temperature\": 0}")
QUESTION=$question python3 -c '
import json, os, sys
answer = json.load(sys.stdin)["choices"][0]["text"]
print("asked:", os.environ["QUESTION"], "  answered:", json.dumps(answer))' <<<"$reply"
if (($# > 0)); then WORKSHOP_URL=$url exec "$@"; fi
