"""A stranger: an ordinary user of the site who wants keys and questions, and to answer in a model's place.

`PROGRAM` runs on a host from before a server is started until after it has ended, with the rights of a user who is
nobody's friend, and tries all that such a user can: it reads what the process list says, takes every port that is named
there before its owner has it, and every port that its owner lets go; it binds beside him with every option that there is;
whoever connects gets the proofs of the true servers, passed on, and forged answers; it asks at every port and socket of
its victim's without a key; and it looks into his files and environments. All that it sees it writes down.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster import CLUSTER, STRANGER_ID, USER_ID, wait_until

FORGED = "this answer is forged"
PROGRAM = r'''
import json, os, re, socket, sys, threading, time
from contextlib import suppress

report, victim, forged = open(sys.argv[1], "a", buffering=1), int(sys.argv[2]), sys.argv[3]
seen, words, theirs, taken, done = set(), set(), {}, {}, set()

def say(what, *more):
    if (what, *more) not in seen:
        seen.add((what, *more))
        report.write(json.dumps([what, *more]) + "\n")

def processes():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == victim:
                yield pid

def look():
    """What the process list, the files in /tmp and the processes' insides tell."""
    for pid in processes():
        with suppress(OSError):
            line = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\0", b" ").decode(errors="replace").strip()
            words.update(line.split())
            say("ps", line)
        for name, attempt in (("environ", open), ("fd", os.listdir), ("cwd/", os.listdir)):
            with suppress(OSError):
                attempt(f"/proc/{pid}/{name}")
                say("read", name, line)
    for name in os.listdir("/tmp"):
        with suppress(OSError):
            if name.startswith("milepost-") and os.stat(f"/tmp/{name}").st_uid == victim:
                say("read", f"/tmp/{name}", os.listdir(f"/tmp/{name}"))

def listening():
    """Ports of this host: who listens there, and at which addresses."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{table}").readlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, _, port = fields[1].rpartition(":")
                ip = socket.inet_ntoa(bytes.fromhex(address[-8:])[::-1]) if table == "tcp" else "::1"
                found.setdefault(int(port, 16), (int(fields[7]), []))[1].append(ip)
    return found

def read(end):
    """One request: its first line, its head, its body."""
    content = b""
    while b"\r\n\r\n" not in content:
        part = end.recv(65536)
        if not part:
            return None, content
        content += part
    head, _, body = content.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        part = end.recv(65536)
        if not part:
            break
        body += part
    return head.split(b" ")[1].decode(), head + b"\r\n\r\n" + body

def ask(address, port, method, path, body=b""):
    """The status of one request without a key, and the body; or nothing."""
    with suppress(OSError, IndexError), socket.create_connection((address, port), 2) as end:
        end.settimeout(2)
        end.sendall(b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                    % (method.encode(), path.encode(), len(body), body))
        content = b""
        with suppress(OSError):
            while part := end.recv(65536):
                content += part
        return content.split(b" ")[1].decode(), content.partition(b"\r\n\r\n")[2]
    return "none", b""

def pose(end, port):
    """Answer as the model's server: the proof is passed on to every server that could make it."""
    with suppress(OSError), end:
        end.settimeout(30)
        while True:
            path, said = read(end)
            if path is None:
                # A handshake of TLS, which tells nothing, or somebody who only looked whether it is open.
                say("heard" if said and said[0] != 0x16 else "met", port, said.decode(errors="replace"))
                return
            say("heard", port, said.decode(errors="replace"))
            proof = b""
            if path.startswith("/milepost/proof"):
                for true, (user, addresses) in listening().items():
                    if user == victim and true != port and not proof:
                        status, proof = ask(addresses[0], true, "GET", path)
                        proof = proof if status == "200" else b""
            text = {"text": forged, "message": {"role": "assistant", "content": forged}, "finish_reason": "stop", "index": 0}
            body = proof or json.dumps({"nonce": "0" * 32, "proof": "0" * 64, "choices": [text], "model": "judge",
                                        "data": [{"id": word} for word in {*words, "judge"}]}).encode()
            end.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

def serve(server, port):
    while True:
        end, _ = server.accept()
        threading.Thread(target=pose, args=(end, port), daemon=True).start()

def take(port, why, *addresses):
    """Bind a port, whoever has it, with every option that there is, and answer there."""
    for address in addresses:
        for options in ((), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)):
            with suppress(OSError):
                server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                for option in options:
                    server.setsockopt(socket.SOL_SOCKET, option, 1)
                server.bind((address, port))
                server.listen(64)
                say("took", why, port, address)
                taken[port] = server
                threading.Thread(target=serve, args=(server, port), daemon=True).start()
                break

PATHS = ("/v1/models", "/health", "/milepost/usage", "/v1/chat/completions", "/invocations", "/adapterserver/run-post-hook", "/")

def try_port(port, address):
    """Ask at a port of the victim's without a key."""
    for path in PATHS:
        method = "GET" if path in PATHS[:3] else "POST"
        status, _ = ask(address, port, method, path, b'{"model": "judge", "messages": [{"role": "user", "content": "stranger"}]}')
        say("asked", port, path, status)

def try_sockets():
    for line in open("/proc/net/unix").readlines()[1:]:
        fields = line.split()
        path = fields[7] if len(fields) > 7 else ""
        if re.match("/tmp/milepost-[0-9a-z_]{8,}/", path) and path not in done:
            done.add(path)
            try:
                socket.socket(socket.AF_UNIX).connect(path)
                say("entered", path)
            except OSError as error:
                say("refused", path, str(error))

say("ready")
while True:
    look()
    now = listening()
    named = {int(port) for word in words for port in re.findall(r"(?:^|[:=])(\d{4,5})(?:/|$)", word)}
    for port in named - now.keys() - taken.keys():
        if port not in theirs:
            take(port, "before its owner", "0.0.0.0", "127.0.0.1")
    for port, (user, addresses) in now.items():
        if user == victim:
            if port not in theirs:
                take(port, "beside its owner", *addresses, "0.0.0.0")
                threading.Thread(target=try_port, args=(port, addresses[0]), daemon=True).start()
            theirs[port] = addresses
    for port in theirs.keys() - now.keys() - taken.keys():
        take(port, "after its owner", *theirs[port])
    try_sockets()
    time.sleep(0.1)
'''


class Stranger:
    """The program on some hosts, while the context lasts."""

    def __init__(self, *hosts: str) -> None:
        """Choose where; nothing runs yet."""
        self._folder = Path("/tmp") / f"stranger-{'-'.join(hosts)}"
        self._reports = [self._folder / host for host in hosts]
        self._hosts = hosts
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Stranger:
        """Start it, and wait until it looks around."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        shutil.chown(self._folder, STRANGER_ID, STRANGER_ID)
        who = ["setpriv", "--reuid", str(STRANGER_ID), "--regid", str(STRANGER_ID), "--clear-groups"]
        for host, report in zip(self._hosts, self._reports, strict=True):
            words = ["env", "-i", "PATH=/usr/bin:/bin", "python3", "-c", PROGRAM, report, str(USER_ID), FORGED]
            self._running.append(subprocess.Popen([CLUSTER / "bin" / "on", host, *who, *words]))
        wait_until("the strangers", lambda: len(self.saw("ready")) == len(self._hosts), 20, every_s=0.1)
        return self

    def __exit__(self, *error: object) -> None:
        """End it; what it saw can be read on."""
        failed = [one for one in self._running if one.poll() is not None]
        for one in self._running:
            one.kill()
            one.wait()
        assert not failed, "a stranger's program has failed"

    def saw(self, what: str) -> list[list[Any]]:
        """What it wrote down of one kind."""
        lines = [
            json.loads(line)
            for report in self._reports
            if report.exists()
            for line in report.read_text(errors="replace").splitlines()
        ]
        return [more for kind, *more in lines if kind == what]

    def check(self, secrets: Iterable[str]) -> None:
        """It has got nothing: no connection, no answer without a key, and of what it was sent nothing but our nonces."""
        assert self.saw("ps"), "it saw the victim's processes"
        assert self.saw("entered") == []
        assert self.saw("read") == []
        assert {status for *_, status in self.saw("asked")} <= {"401", "none"}, self.saw("asked")
        for _, request in self.saw("heard"):
            first, _, rest = request.partition("\r\n")
            assert first.startswith("GET /milepost/proof?"), request
            assert "uthorization" not in rest
        written = "\n".join(report.read_text(errors="replace") for report in self._reports)
        assert not [secret for secret in secrets if secret in written]
