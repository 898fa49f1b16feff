"""An open endpoint: its address, the model's name there, its key, and how its death is noticed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from milepost.errors import MilepostError


async def never() -> MilepostError:
    """Wait for ever: the default for endpoints that are not watched, since they may go away and come back."""
    import asyncio  # here: steps that ask nobody import this module by the thousand

    await asyncio.Event().wait()
    raise AssertionError("unreachable: nobody sets the event")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server that has proved who it is.

    Attributes:
        url: Base address with `/v1`.
        key: Bearer token; it never enters a log, a record or an argument.
        model: Name to ask for; a server of our own has a nonce in it, so that no other can answer by mistake.
        name: The checkpoint's own name, which the server answers to as well (for harnesses that record it).
        version: The engine's, where only the running server can say it.
        watched: Whether `died` tells of the server's death.
        died: Returns what the server died of, once it has.
    """

    url: str
    key: str
    model: str
    name: str
    version: str | None = field(default=None, compare=False)
    watched: bool = field(default=False, compare=False)
    died: Callable[[], Coroutine[Any, Any, MilepostError]] = field(default=never, compare=False)

    def __repr__(self) -> str:
        """The endpoint's fields without the key, so that no log shows it."""
        return f"Endpoint(url={self.url!r}, model={self.model!r}, name={self.name!r})"
