"""The workshop's page agrees with its files. tests/cluster/test_workshop.py runs it."""

import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "workshop"
PAGE = (FOLDER / "README.md").read_text()
COMMANDS = re.findall(r"^```(?:bash|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("script", COMMANDS)
def test_what_is_typed_is_bash(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_exercises_are_there_and_nothing_else():
    named = {Path(path).parts[0] for path in re.findall(r"~/workshop/([a-e]-[\w./-]+)", PAGE)} | {"e-interval.py"}
    assert named == {path.name for path in FOLDER.iterdir()} - {"README.md", "teacher"}
    assert [heading[1] for heading in re.findall(r"^## (\(.\))", PAGE, re.MULTILINE)] == list("abcde")


class Teacher(BaseHTTPRequestHandler):
    """The teacher's server, at the near end of the tunnel."""

    def reply(self, body):
        status = 200 if self.headers["Authorization"] == "Bearer right" else 401
        content = json.dumps(body if status == 200 else {"error": "Unauthorized"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.reply({"data": [{"id": "judge"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply({"choices": [{"text": " Paris"}]})

    def log_message(self, *said):
        pass


@pytest.mark.parametrize(
    ("key", "code", "words"),
    [
        ("right", 0, 'with the key: judge\nasked: The capital of France is   answered: " Paris"\n'),
        ("yesterday", 1, "with the key: 401\n"),
        ("", 1, "with the key: 401\n"),
    ],
)
def test_a_key_that_the_server_refuses_is_a_status_and_no_traceback(tmp_path, key, code, words):
    (tmp_path / "key").write_text(f"{key}\n")
    server = HTTPServer(("127.0.0.1", 0), Teacher)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {
        **os.environ, "MILEPOST": str(FOLDER.parents[1]), "WORKSHOP_HOST": "login", "WORKSHOP_PORT_FILE": "port",
        "WORKSHOP_KEY_FILE": str(tmp_path / "key"), "TUNNEL_URL": f"http://127.0.0.1:{server.server_port}/v1",
    }  # fmt: skip
    try:
        done = subprocess.run(
            ["bash", FOLDER / "a-tunnel.sh"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert (done.returncode, done.stdout) == (code, f"without the key: 401\n{words}")
