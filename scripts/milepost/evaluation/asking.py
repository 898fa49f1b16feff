"""The loop that asks: every request is put to an endpoint, a bounded number at once, and kept as it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from milepost.client.client import Client, RequestError, read_reply
from milepost.client.refusals import Fault
from milepost.client.replies import read_choice
from milepost.endpoints import Endpoint
from milepost.errors import ServerError
from milepost.evaluation.work import Request
from milepost.records import Answer

# How long a failure is held back until it is clear that a server which is watched did not die of it.
HINDSIGHT_S = 3.0

Keep = Callable[[Request, Answer, bool], None]
"""Keeps the answer to a request; the last says whether it is one for good, or an error that may go away."""


def _path_of(request: Request) -> str:
    return request.path


@dataclass(frozen=True)
class Asking:
    """The settings of the asking loop: how requests are put to an endpoint.

    Attributes:
        concurrency: Requests under way at once.
        timeout_s: Seconds that one try of a request may take.
        retries: Further tries of a request.
        kept: A sentence for errors that end the asking: what becomes of the answers that have come.
        path_of: Where a request is posted, after the endpoint's address.
        busy: Entered while a request is under way.
    """

    concurrency: int
    timeout_s: float
    retries: int
    kept: str
    path_of: Callable[[Request], str] = _path_of
    busy: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)

    async def ask(self, endpoint: Endpoint, work: Iterable[Request], keep: Keep) -> None:
        """Put all requests to the endpoint, in order.

        Args:
            endpoint: The server that is asked.
            work: The requests. They are gone through once, as places become free.
            keep: Gets each answer as it comes.

        Raises:
            ServerError: The endpoint refuses all requests, or is gone. No single request is the cause.
        """
        waiting = iter(work)
        options = {"concurrency": self.concurrency, "timeout_s": self.timeout_s, "retries": self.retries}

        async def worker(client: Client) -> None:
            for request in waiting:
                with self.busy():
                    answer, final = await self._answer(client, endpoint, request)
                keep(request, answer, final)

        async with Client(endpoint.url, endpoint.key, **options) as client:  # type: ignore[arg-type]
            workers = [asyncio.create_task(worker(client)) for _ in range(self.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for task in workers:
                    task.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(self, client: Client, endpoint: Endpoint, request: Request) -> tuple[Answer, bool]:
        """Ask one request; returns the answer, and whether it is final."""
        try:
            reply = await client.post(self.path_of(request), {"model": endpoint.model, **request.body}, read_choice)
            return read_reply(reply, request.id, request.sample, request.seed), True
        except RequestError as failure:
            said = failure.error["message"].rstrip(".")
            if failure.fault is Fault.ENDPOINT:
                raise ServerError(
                    f"The server at {endpoint.url} answered {said}. {_advice(endpoint, failure)} {self.kept}"
                ) from None
            if failure.error["type"] == "connection" and not endpoint.watched:
                # This request is not the cause, and the others would wait for the same server, one after the other.
                raise ServerError(
                    f"The server at {endpoint.url} cannot be reached: {said}. See that it runs, and that this host may reach"
                    f" it. {self.kept}"
                ) from None
            if not failure.lasting and endpoint.watched:
                # A server that dies answers what is under way with errors: its death ends all of this meanwhile.
                await asyncio.sleep(HINDSIGHT_S)
            return Answer(id=request.id, sample=request.sample, seed=request.seed, error=failure.error), failure.lasting


def _advice(endpoint: Endpoint, failure: RequestError) -> str:
    """What to do about an endpoint that refuses all questions."""
    if failure.error["type"] == "form":
        return (
            "It refuses every question that is asked in this way: correct the task's `sampling`, or ask another model."
        )
    if endpoint.watched:
        return "This is not the server that was started: another program answers at its address."
    return f"Correct its address, the model's name {endpoint.model!r} or the key, or see that its account has credit."
