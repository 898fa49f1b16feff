"""The loop that asks: every request is put to an endpoint, a bounded number at once, and kept as it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from milepost.client.client import Client, Reply, RequestError, read_reply
from milepost.client.refusals import Fault
from milepost.client.replies import read_choice, who_answered
from milepost.client.shape import line_for
from milepost.endpoints import ENDPOINTS, Endpoint
from milepost.errors import ServerError
from milepost.evaluation.work import Request, unlimited
from milepost.records import Answer

log = logging.getLogger("milepost")
# How long a failure is held back until it is clear that a server which is watched did not die of it.
HINDSIGHT_S = 3.0
# How long an endpoint may answer nothing but that it is asked too fast. Limits of a day end a job, those of minutes do not.
PATIENCE_S = 600.0
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
        known: The name under which the model has answered before, where others serve it.
        met: Gets the name in the first reply, where none is known yet.
    """

    concurrency: int
    timeout_s: float
    retries: int
    kept: str
    path_of: Callable[[Request], str] = _path_of
    busy: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)
    models_own: Mapping[str, Any] = field(default_factory=dict)
    known: str | None = None
    met: Callable[[str], object] = field(default=lambda name: None)

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
        seen = Seen(self.known, self.met)
        # A server of this job's own has no limits but its own speed.
        client = Client.to(
            endpoint,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            retries=self.retries,
            patience_s=None if endpoint.watched else PATIENCE_S,
        )

        async def worker() -> None:
            for request in waiting:
                with self.busy():
                    answer, final = await self._answer(client, endpoint, request, seen)
                keep(request, answer, final)

        async with client:
            workers = [asyncio.create_task(worker()) for _ in range(self.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:
                for task in workers:
                    task.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(self, client: Client, endpoint: Endpoint, request: Request, seen: Seen) -> tuple[Answer, bool]:
        """Ask one request; returns the answer, and whether it is final."""
        try:
            body = {"model": endpoint.model, **request.body_with(self.models_own)}
            reply = await _post(client, self.path_of(request), body, takes_rest=request.takes_rest)
            answer = read_reply(reply, request.id, request.sample, request.seed)
            if not endpoint.watched:  # one of ours has proved who it is
                who = who_answered(reply.body)
                seen.check(who, endpoint, self.kept)
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


class Seen:
    """Who has answered so far: a gateway may pass questions on to another model, and say so in its replies only."""

    def __init__(self, model: str | None, met: Callable[[str], object]) -> None:
        """Begin with the name that is known; `met` gets the first one that is not."""
        self.model, self._met = model, met
        self.fingerprint: str | None = None

    def check(self, who: Mapping[str, str], endpoint: Endpoint, kept: str) -> None:
        """See that the model that answered is the one that answered first.

        Raises:
            ServerError: It is another.
        """
        name, fingerprint = who.get("model"), who.get("fingerprint")
        if name is not None and self.model is None:
            # A name that was asked for may resolve to a dated one.
            self.model = name
            self._met(name)
        if name is not None and name != self.model and name not in endpoint.accepts:
            raise ServerError(
                f"The server at {endpoint.url} answers as {name!r} now, and answered as {self.model!r} before: it has passed"
                f" a question on to another model. That answer was not kept. Write `accepts: [{name}]` into its entry in"
                f" {ENDPOINTS} if both are the same to you, or have it send no question elsewhere. {kept}"
            )
        if fingerprint is not None and fingerprint != self.fingerprint:
            if self.fingerprint is not None:
                log.warning("the model's fingerprint has changed from %s to %s", self.fingerprint, fingerprint)
            self.fingerprint = fingerprint


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
