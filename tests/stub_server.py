"""A stand-in for vLLM's server: the same command line, a guard, instant answers, and faults on demand.

It stands where the interpreter of envs/vllm would (tests copy the workflow and put it there), so that everything else
is real. $STUB_LOG gets a line per event, with the checkpoint's name: START, ASK for each request that came, ANSWER for
each that was answered; the first line of the prompt follows. Faults are lines in the file `stub.faults` of the model's
folder, which is no part of its identity: `fail WORDS` answers 500 to prompts that hold these words, `die WORDS` ends the
server at such a prompt, `slow SECONDS` delays every answer, `hold WORDS` keeps such answers back for as long as it stands there.
"""

import argparse
import hmac
import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

if sys.argv[-1] == "--milepost-asks-what-is-known":
    sys.exit("stub_server.py: error: unrecognized arguments: --milepost-asks-what-is-known")
# vLLM's own arguments stand in a file that `milepost.runtime.launch` reads.
WORDS = json.loads(Path(sys.argv[-1][1:]).read_text()) if sys.argv[-1].startswith("@") else []
parser = argparse.ArgumentParser()
parser.add_argument("-m", dest="module")
parser.add_argument("--model", type=Path)
parser.add_argument("--served-model-name", nargs="+")
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--uds")
ARGS, _ = parser.parse_known_args([*sys.argv[1:], *WORDS])
CKPT = ARGS.served_model_name[-1] if ARGS.served_model_name else ""
KEY = f"Bearer {os.environ['VLLM_API_KEY']}"
LOCK = threading.Lock()


def log(*words: str) -> None:
    """Add a line to the log; short appends of several processes do not mix."""
    with LOCK, open(os.environ["STUB_LOG"], "a") as file:
        file.write(" ".join(words) + "\n")


def faults(kind: str) -> list[str]:
    """The words behind one kind of fault."""
    path = ARGS.model / "stub.faults"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == kind]


def mark(asked: str) -> str:
    """A strict teacher's verdict: right is an answer that holds the answer key."""
    data = json.loads(next(line for line in asked.splitlines() if line.startswith("{")))
    return json.dumps({"evaluation": "as the key says", "score": 100 * (data["answer_key"] in data["student_answer"])})


class Handler(BaseHTTPRequestHandler):
    """Chat, completions, models and health."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = (
        ARGS.uds is None
    )  # as real servers do: a body that waits for its head's receipt takes 40 ms

    def log_message(self, *args: object) -> None:
        """Write no access log."""

    def reply(self, status: int, body: dict[str, object]) -> None:
        """Send JSON."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def allowed(self) -> bool:
        """Whether the key was given; answers 401 otherwise."""
        if hmac.compare_digest(self.headers.get("Authorization", "").encode(), KEY.encode()):
            return True
        self.reply(401, {"error": {"message": "Unauthorized"}})
        return False

    def do_GET(self) -> None:
        """Models and health, and what the guard answers itself."""
        path, _, nonce = self.path.partition("?")
        if path == "/milepost/proof":
            nonce, _, published = nonce.partition("&")
            where, attempt = f"{socket.gethostname()} {self.place()}", os.environ["MILEPOST_ATTEMPT"]
            if published:
                where, attempt = Path(os.environ["MILEPOST_PUBLISHED"]).read_text().strip(), ""
            own = os.urandom(16).hex()
            said = ["milepost proof 2", nonce, own, where, attempt]
            key = os.environ["VLLM_API_KEY"].encode()
            self.reply(200, {"nonce": own, "proof": hmac.new(key, "\n".join(said).encode(), "sha256").hexdigest()})
        elif not self.allowed():
            return
        elif path == "/milepost/usage":
            self.reply(
                200, {"requests": self.server.asked, "busy_s": 0.0, "idle_s": time.monotonic() - self.server.last}
            )
        else:
            self.reply(200, {"data": [{"id": name} for name in ARGS.served_model_name]})

    def place(self) -> str:
        """Where it listens."""
        return str(ARGS.uds or "{}:{}".format(*self.connection.getsockname()))

    def do_POST(self) -> None:
        """One answer, always the same to the same request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        self.server.asked, self.server.last = self.server.asked + 1, time.monotonic()
        asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        subject = asked.partition("\n")[0]
        log("ASK", CKPT, subject, f"seed={body.get('seed')}")
        if any(word in asked for word in faults("die")):
            print("stub: engine died on purpose", flush=True)
            os._exit(7)
        for seconds in faults("slow"):
            time.sleep(float(seconds))
        while any(word in asked for word in faults("hold")):
            time.sleep(0.05)
        if any(word in asked for word in faults("fail")):
            self.reply(500, {"error": {"message": "failed on purpose"}})
            return
        text = mark(asked) if "response_format" in body else f"{subject}, said with seed {body.get('seed')}"
        usage = {"prompt_tokens": len(asked.split()), "completion_tokens": 2}
        choice = {"index": 0, "finish_reason": "stop"}
        message = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        log("ANSWER", CKPT, subject)
        self.reply(200, {"choices": [{**choice, **message}], "usage": usage})


class Server(ThreadingHTTPServer):
    """An HTTP server that answers many connections at once, each in a thread."""

    allow_reuse_port = True  # as vLLM: our own process holds its port
    request_queue_size = 256
    daemon_threads = True
    asked, last = 0, time.monotonic()


class UnixServer(Server):
    """The same at a socket of a path."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Without a look-up of the host's name."""
        self.socket.bind(self.server_address)


if ARGS.module is None:
    sys.exit("stub: this interpreter only stands in for the server")
log("START", CKPT)
(UnixServer(ARGS.uds, Handler) if ARGS.uds else Server((ARGS.host, ARGS.port), Handler)).serve_forever()
