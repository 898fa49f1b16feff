"""Asking an evaluator: only what it was never asked, with its reply held to a form as far as its server can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from milepost.client.client import Reply, RequestError, read_reply
from milepost.endpoints import Endpoint
from milepost.endpoints.calls import Calls
from milepost.endpoints.specs import EndpointSpec
from milepost.errors import CallError
from milepost.records import Message, Usage
from milepost.scorers.equator.prompt import Output, evaluator_body
from milepost.store.answers import read_lines

PATH = "/chat/completions"
# So many first answers refused one after the other are no fault of the answers.
REFUSED = 3

Opens = Callable[[EndpointSpec], AbstractAsyncContextManager[Endpoint]]


class ChatReply(TypedDict):
    """What is kept of an evaluator's reply."""

    content: str
    finish_reason: str | None
    usage: Usage


@dataclass(frozen=True)
class Evaluator:
    """One endpoint in the role of the teacher.

    Attributes:
        spec: Who it is.
        outputs: The forms of reply to ask for, the strictest first; the first that its server takes is used.
        seed: Sent with each call.
        max_tokens: Longest reply.
    """

    spec: EndpointSpec
    outputs: Sequence[Output]
    seed: int
    max_tokens: int

    async def mark(self, chats: Sequence[list[Message]], kept: Path, opens: Opens) -> list[ChatReply | CallError]:
        """The reply to each chat; in its place the error, where this one cannot be answered.

        The endpoint is opened only if a reply is missing from the kept ones.

        Args:
            chats: What to ask.
            kept: The file of kept calls.
            opens: Opens an endpoint.

        Raises:
            CallError: The endpoint answers nothing, or went away. What it answered is kept.
            EndpointError: It cannot be reached, or is another.
        """
        replies, accepted = self._look_up(chats, kept)
        missing = [at for at in range(len(chats)) if at not in replies]
        if missing:
            async with opens(self.spec) as endpoint, self._calls(endpoint, kept) as calls:
                replies |= await self._ask(calls, {at: chats[at] for at in missing}, accepted)
        return [replies[at] for at in range(len(chats))]

    def _look_up(
        self, chats: Sequence[list[Message]], kept: Path
    ) -> tuple[dict[int, ChatReply | CallError], Output | None]:
        """The replies that are kept, by place, and the form of reply that was taken last."""
        lines = {line["key"]: line["reply"] for line in read_lines(kept)}
        # Of the calls, only their keys are needed: nobody is called.
        calls = self._calls(Endpoint(url="", key="", model="", name=""), None)
        replies: dict[int, ChatReply | CallError] = {}
        accepted: Output | None = None
        for at, chat in enumerate(chats):
            for output in self.outputs:
                key = calls.key(PATH, self._body(chat, output))
                if key in lines:
                    replies[at], accepted = lines[key], output
                    break
        return replies, accepted

    async def _ask(
        self, calls: Calls, chats: dict[int, list[Message]], accepted: Output | None
    ) -> dict[int, ChatReply | CallError]:
        """Ask one after the other until it is known which form of reply the server takes, then all at once."""
        replies: dict[int, ChatReply | CallError] = {}
        waiting = list(chats)
        refused = 0
        while accepted is None and waiting:
            at = waiting.pop(0)
            for output in self.outputs:
                reply = replies[at] = await self._post(calls, chats[at], output, judged=False)
                if not isinstance(reply, CallError):
                    accepted = output
                if not isinstance(reply, CallError) or reply.kind in ("context", "filtered"):
                    break
            else:
                refused += 1
                if isinstance(reply, CallError) and (refused == REFUSED or not waiting):
                    raise reply
        if accepted is not None:
            rest = await asyncio.gather(*(self._post(calls, chats[at], accepted) for at in waiting))
            replies |= dict(zip(waiting, rest, strict=True))
        return replies

    async def _post(
        self, calls: Calls, chat: list[Message], output: Output, *, judged: bool = True
    ) -> ChatReply | CallError:
        body = {"model": calls.endpoint.model, **self._body(chat, output)}
        try:
            reply: ChatReply = await calls.post(PATH, body, read_chat_reply, judged=judged)
        except CallError as error:
            if not error.lasting:
                raise
            return error
        return reply

    def _body(self, chat: list[Message], output: Output) -> dict[str, Any]:
        return evaluator_body(chat, output=output, seed=self.seed, max_tokens=self.max_tokens)

    def _calls(self, endpoint: Endpoint, kept: Path | None) -> Calls:
        serving = self.spec.serving
        return Calls(
            endpoint,
            kept,
            identity=self.spec.identity,
            concurrency=serving.concurrency,
            timeout_s=serving.request_timeout_s,
            retries=serving.retries,
        )


def read_chat_reply(body: Any) -> ChatReply:
    """What is kept of a chat server's reply.

    Raises:
        ValueError: There is no whole answer in it.
    """
    try:
        answer = read_reply(Reply(body, 0.0), "", 0, 0)
    except RequestError as error:
        raise ValueError(error.error["message"]) from None
    return ChatReply(content=answer["content"], finish_reason=answer["finish_reason"], usage=answer["usage"])
