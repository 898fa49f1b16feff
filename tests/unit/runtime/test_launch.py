"""Programs that share a port with us: nobody else can take it, and nobody else is answered there."""

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from milepost.runtime import launch
from milepost.runtime.launch import HELD, hold

# As NeMo Evaluator: a port is tried, and a process that is started anew listens there, and knows nothing of sharing.
PROGRAM = """
import multiprocessing, os, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(" ".join(sys.argv).encode())

def serve(port):
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()

def main():
    port = int(os.environ.get("ITS_PORT") or os.environ["MILEPOST_PORT"])
    open(os.path.join(os.environ["PYTHONPATH"], "port"), "w").write(str(port))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    child.start()
    child.join()
"""
# What another user of this host gets there.
ASK = """
import socket, sys
end = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
try:
    end.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(end.makefile("rb").read())
except ConnectionError:
    print(b"")
"""
NOBODY = pwd.getpwnam("nobody").pw_uid


def package(folder, name, function):
    """Packs a module with a command, as an installed package has it."""
    (folder / f"{name}-1.dist-info").mkdir()
    (folder / f"{name}-1.dist-info/METADATA").write_text(f"Name: {name}\nVersion: 1\n")
    (folder / f"{name}-1.dist-info/entry_points.txt").write_text(f"[console_scripts]\n{name}-run = {name}:{function}\n")


@pytest.fixture(params=["here", "there"])
def program(request, tmp_path):
    """A program of a package that is not ours, launched at a port that is held here, or by the launched process; its port."""
    (tmp_path / "program.py").write_text(PROGRAM)
    package(tmp_path, "program", "main")
    (tmp_path / "words").write_text('["--name", "a secret"]')
    port, held = hold()
    env = {**os.environ, HELD: str(port), "PYTHONPATH": str(tmp_path)}
    if request.param == "there":
        env[HELD] = "ITS_PORT"
    command = [sys.executable, launch.__file__, "program-run", f"@{tmp_path}/words"]
    with subprocess.Popen(command, env=env, start_new_session=True) as process:
        try:
            for _ in range(600):
                assert process.poll() is None
                with suppress(OSError, ValueError):
                    port = int((tmp_path / "port").read_text())
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            for one in held:
                one.close()


def ask(port, **who):
    # Another user may not be allowed to read this environment's Python.
    command = ["/usr/bin/python3" if who else sys.executable, "-c", ASK, str(port)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **who).stdout


def test_a_program_at_a_port_that_we_hold_answers_its_own_user_only(program):
    assert "--name a secret" in ask(program)
    if os.geteuid() == 0:
        assert ask(program, user=NOBODY).strip() == "b''"
    assert "--name a secret" in ask(program)


def test_nobody_else_can_take_a_port_that_is_held():
    port, held = hold()
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
            for option in (0, socket.SO_REUSEADDR):
                with socket.socket(family) as other:
                    if option:
                        other.setsockopt(socket.SOL_SOCKET, option, 1)
                    with pytest.raises(OSError, match="in use|assign"):
                        other.bind((address, port))
    finally:
        for one in held:
            one.close()


def test_a_connection_is_known_by_both_of_its_ends():
    """The same ports between other addresses of loopback are another connection, maybe a stranger's."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
        server.accept()[0] as far,
    ):
        begin, end = near.getsockname(), far.getsockname()
        assert launch.is_own(begin, end)
        assert not launch.is_own(("127.0.0.2", begin[1]), end)
        assert not launch.is_own(begin, ("127.0.0.2", end[1]))


def test_a_command_of_a_package_is_started_as_its_script_would_start_it(tmp_path):
    package(tmp_path, "thing", "run")
    (tmp_path / "thing.py").write_text("import sys\n\ndef run():\n    print(sys.argv, __name__)\n    return 7\n")
    command = [sys.executable, launch.__file__, "thing-run", "a", "@b"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (7, "['thing-run', 'a', '@b'] thing"), ran.stderr
