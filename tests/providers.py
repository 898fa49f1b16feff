"""A stand-in for other people's servers: each model's name is a way in which providers answer. Import `serve`."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
Reply = tuple[int, dict[str, Any]]


def chat(message: dict[str, Any], finish: str = "stop", **more: Any) -> Reply:
    """A reply of status 200."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    return 200, {"choices": [choice], "usage": USAGE, **more}


def refused(status: int, message: str, **more: Any) -> Reply:
    """A refusal, as OpenAI words it."""
    return status, {"error": {"message": message, "type": "invalid_request_error", **more}}


# By the model's name: what it makes of a request's body and of its number.
MODELS: dict[str, Callable[[dict[str, Any], int], Reply]] = {
    "sound": lambda body, n: chat({"content": body["messages"][-1]["content"]}, model="sound-2024"),
    # vLLM with a reasoning parser that does not fit the model.
    "thinker": lambda body, n: chat({"content": None, "reasoning": f"It is {n}."}),
    # OpenAI's refusals stand beside the content.
    "refuser": lambda body, n: chat({"content": None, "refusal": "I cannot help with that."}),
    # Azure's filter cuts an answer off.
    "filtered": lambda body, n: chat({"content": f"It is {n}"}, "content_filter"),
    "caller": lambda body, n: chat(
        {"content": None, "tool_calls": [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        "tool_calls",
    ),
    "broken": lambda body, n: chat({"content": "!" * (20 + n)}),
    "blank": lambda body, n: chat({"content": ""}),
    "short": lambda body, n: chat({"content": f"It is {n} and"}, "length"),
    "mixed": lambda body, n: chat({"content": body["messages"][-1]["content"]}, model=("mixed", "other")[n % 2]),
    # Whatever it is asked is too long for it, but for a small question.
    "tiny": lambda body, n: chat({"content": "yes"})
    if "Say yes" in body["messages"][-1]["content"]
    else refused(400, "This model's maximum context length is 4 tokens.", code="context_length_exceeded"),
}  # fmt: skip


class Server(ThreadingHTTPServer):
    """The server: `asked` holds the body of each question."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = dict(MODELS)
        self.asked: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    """The model list, and chats."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        """Write no access log."""

    def reply(self, status: int, body: dict[str, Any]) -> None:
        """Send JSON."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """The list of models."""
        self.reply(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        """One answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = self.server.counts[body["model"]]
            self.server.counts[body["model"]] += 1
            self.server.asked.append(body)
        self.reply(*self.server.models[body["model"]](body, number))


@contextmanager
def serve() -> Iterator[Server]:
    """Serve until the `with` block ends."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
