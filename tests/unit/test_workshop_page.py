"""The workshop's page agrees with its files. tests/cluster/test_workshop.py runs it."""

import os
import re
import subprocess
import sys
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


# In place of ssh: the teacher's server, at the near end of the tunnel that it is told to make.
SSH = """\
import json, re, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Server(BaseHTTPRequestHandler):
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

(port,) = re.findall(r"127\\.0\\.0\\.1:(\\d+):127", " ".join(sys.argv))
HTTPServer(("127.0.0.1", int(port)), Server).serve_forever()
"""


@pytest.mark.parametrize(
    ("key", "code", "words"),
    [
        ("right", 0, 'with the key: judge\nasked: The capital of France is   answered: " Paris"\n'),
        ("yesterday", 1, "with the key: 401\n"),
        ("", 1, "with the key: 401\n"),
    ],
)
def test_a_wrong_key_is_the_401_of_the_page(tmp_path, key, code, words):
    (tmp_path / "ssh.py").write_text(SSH)
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/ssh.py" "$@"\n')
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "port").write_text("40123\n")
    (tmp_path / "key").write_text(f"{key}\n")
    env = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "WORKSHOP_HOST": "login",
        "WORKSHOP_PORT_FILE": str(tmp_path / "port"), "WORKSHOP_KEY_FILE": str(tmp_path / "key"),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", FOLDER / "a-tunnel.sh"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.partition("without the key: 401\n")[2]) == (code, words)
