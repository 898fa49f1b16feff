"""Where a model answers. A hosted model is served by vLLM in this very job's allocation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server that has proved who it is.

    Attributes:
        url: Base address with `/v1`.
        key: Bearer token; it never enters a log, a record or an argument.
        model: Name to ask for; holds a nonce, so that no other server can answer by mistake.
        name: The checkpoint's own name, which the server answers to as well (for harnesses that record it).
    """

    url: str
    key: str
    model: str
    name: str

    def __repr__(self) -> str:
        """Without the key."""
        return f"Endpoint(url={self.url!r}, model={self.model!r}, name={self.name!r})"
