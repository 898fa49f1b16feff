"""The loop that asks: every request is put to an endpoint, a bounded number at once, and kept as it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from milepost.campaign.types import EndpointSpec
from milepost.client.client import Client, Reply, RequestError, read_reply
from milepost.client.refusals import Fault
from milepost.client.replies import read_choice, who_answered
from milepost.client.shape import line_for
from milepost.endpoints import ENDPOINTS, Endpoint
from milepost.endpoints.limits import PATIENCE_S, bill_of, throttle_of
from milepost.endpoints.seen import Seen
from milepost.errors import BudgetError, ServerError
from milepost.evaluation.work import Request, unlimited
from milepost.records import Answer

log = logging.getLogger("milepost")
# How long a failure is held back until it is clear that a server which is watched did not die of it.
HINDSIGHT_S = 3.0
# How servers say that they give no answers of this length, whatever the question.
TOO_LARGE = ("max_tokens", "max_completion_tokens", "completion tokens")

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
        models_own: How to sample where a task takes the model's own settings; nothing leaves that to the endpoint.
        seen: Who has answered so far, where others serve the model.
    """

    concurrency: int
    timeout_s: float
    retries: int
    kept: str
    path_of: Callable[[Request], str] = _path_of
    busy: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)
    models_own: Mapping[str, Any] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    def client(self, endpoint: Endpoint, spec: EndpointSpec | None = None) -> Client:
        """The client that asks, to be opened.

        Args:
            endpoint: The server.
            spec: Its entry in config/endpoints.yaml, where others serve it: what it may cost, and at what pace.
        """
        return Client.to(
            endpoint,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            retries=self.retries,
            # A server of this job's own has no limits but its own speed.
            patience_s=None if endpoint.watched else PATIENCE_S,
            bill=None if spec is None else bill_of(spec),
            throttle=None if spec is None else throttle_of(spec),
        )

    async def ask(self, endpoint: Endpoint, work: Iterable[Request], keep: Keep, client: Client | None = None) -> None:
        """Put all requests to the endpoint, in order.

        Args:
            endpoint: The server that is asked.
            work: The requests. They are gone through once, as places become free.
            keep: Gets each answer as it comes.
            client: One that is open, where others ask the endpoint at the same time; otherwise, one is opened.

        Raises:
            ServerError: The endpoint refuses all requests, or is gone. No single request is the cause.
            BudgetError: It has cost what it may cost; what was under way then is kept as well.
        """
        waiting = iter(work)
        stopped: list[BudgetError] = []

        async def worker() -> None:
            for request in waiting:
                try:
                    with self.busy():
                        answer, final = await self._answer(asking, endpoint, request)
                except BudgetError as error:
                    stopped.append(error)
                    return
                keep(request, answer, final)

        async with self.client(endpoint) if client is None else nullcontext(client) as asking:
            workers = [asyncio.create_task(worker()) for _ in range(self.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for task in workers:
                    task.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        if stopped:
            raise stopped[0]

    async def _answer(self, client: Client, endpoint: Endpoint, request: Request) -> tuple[Answer, bool]:
        """Ask one request; returns the answer, and whether it is final."""
        try:
            body = {"model": endpoint.model, **request.body_with(self.models_own)}
            reply = await _post(client, self.path_of(request), body, takes_rest=request.takes_rest)
            answer = read_reply(reply, request.id, request.sample, request.seed)
            if not endpoint.watched:  # one of ours has proved who it is
                who = who_answered(reply.body)
                self.seen.check(who, endpoint, self.kept)
                answer |= who  # type: ignore[typeddict-item]
            return answer, True
        except RequestError as failure:
            said = failure.error["message"].rstrip(".")
            if failure.fault is Fault.ENDPOINT:
                raise ServerError(
                    f"The server at {endpoint.url} answered {said}. {_advice(endpoint, failure, request)} {self.kept}"
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


async def _post(client: Client, path: str, body: Mapping[str, Any], *, takes_rest: bool) -> Reply:
    """Send a request; where its answer may be cut to what the context leaves, again without a limit if that is less.

    A server that refuses a limit for being too large gives the rest of its context where no limit is named: question and
    limit are too long together, so the rest is less than the limit. A question that is too long by itself is refused again.

    Raises:
        RequestError: It was refused, or all tries failed.
    """
    try:
        return await client.post(path, body, read_choice)
    except RequestError as failure:
        said = failure.error["message"]
        too_large = failure.error["type"] == "context" or any(word in said for word in TOO_LARGE)
        if not takes_rest or body.get("max_tokens") is None or not too_large:
            raise
        return await client.post(path, unlimited(body), read_choice)


def _advice(endpoint: Endpoint, failure: RequestError, request: Request) -> str:
    """What to do about an endpoint that refuses all questions."""
    if failure.error["type"] == "form":
        line = line_for(failure.error["message"], request.body)
        if line and not endpoint.watched:
            return f"It refuses every question that is asked in this way: write `{line}` into its entry in {ENDPOINTS}."
        return (
            "It refuses every question that is asked in this way: correct the task's `sampling`, or ask another model."
        )
    if failure.status == 429 and "nothing was answered" in failure.error["message"]:
        return "Its limit lets nothing through: wait until it is reset, or ask for a higher one."
    if endpoint.watched:
        return "This is not the server that was started: another program answers at its address."
    return f"Correct its address, the model's name {endpoint.model!r} or the key, or see that its account has credit."
