#!/usr/bin/env bash
# Reaches the teacher's server by a tunnel made by hand. Exercise (a) of README.md beside it.
# Usage: a-tunnel.sh [COMMAND...]. The tunnel stays open while the command runs, which finds its address in $WORKSHOP_URL.
set -euo pipefail
: "${WORKSHOP_HOST:?is the host that the port is on}" "${WORKSHOP_PORT_FILE:?is the file that holds the port}"
key_file=${WORKSHOP_KEY_FILE:-$HOME/.workshop-key}
model=${WORKSHOP_MODEL:-judge}

port=$(<"$WORKSHOP_PORT_FILE")
[[ $port =~ ^[0-9]+$ ]] || { echo "$WORKSHOP_PORT_FILE holds no port" >&2; exit 1; }
# A port that is free here; ssh ends at once if it was taken meanwhile.
here=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# shellcheck disable=SC2086 # options are words
ssh ${WORKSHOP_SSH_OPTIONS:-} -o BatchMode=yes -o ExitOnForwardFailure=yes -N -L "127.0.0.1:$here:127.0.0.1:$port" \
    -- "$WORKSHOP_HOST" &
tunnel=$!
trap 'kill $tunnel' EXIT
for ((tries = 0; tries < 100; tries++)); do
    kill -0 $tunnel 2>/dev/null || { trap - EXIT; echo "ssh has ended: see above" >&2; exit 1; }
    (exec 3<>"/dev/tcp/127.0.0.1/$here") 2>/dev/null && break
    sleep 0.1
done
echo "port $port of $WORKSHOP_HOST leads here as port $here"

url=http://127.0.0.1:$here/v1
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
if (($# > 0)); then WORKSHOP_URL=$url "$@"; fi
