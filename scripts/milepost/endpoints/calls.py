"""Calls to models that score (embedders, rerankers, evaluators, judges): each reply is kept, and never paid for twice.

A reply is kept under a hash of what was asked and of whom: scoring again, after a crash or with another scorer's options,
sends only what was never answered. The file is append-only JSON Lines, as the store of answers; one process writes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from milepost.campaign.types import EndpointSpec
from milepost.client.bills import Bill
from milepost.client.client import Client, RequestError
from milepost.client.throttle import Throttle
from milepost.endpoints import Endpoint
from milepost.endpoints.limits import PATIENCE_S, Answerer, bill_of, throttle_of
from milepost.errors import CallError
from milepost.store.answers import append, mend, read_places, sync

SYNC_S = 1.0

Read = Callable[[Any], Any]
"""Makes of a reply's body what is kept of it; raises ValueError for a body that is no answer."""


class Calls:
    """JSON calls to one endpoint. Use it as an asynchronous context manager.

    >>> async def score(endpoint, path):  # doctest: +SKIP
    ...     async with Calls(endpoint, path) as calls:
    ...         return await calls.post("/rerank", {"model": endpoint.model, "query": "a", "documents": ["b"]})
    """

    def __init__(
        self,
        endpoint: Endpoint,
        path: Path | None,
        *,
        identity: Mapping[str, Any] | None = None,
        concurrency: int,
        timeout_s: float,
        retries: int,
        pause_s: float = 0.5,
        throttle: Throttle | None = None,
        bill: Bill | None = None,
        patience_s: float | None = None,
        answerer: Answerer | None = None,
    ) -> None:
        """Describe the endpoint and the file; nothing is opened yet.

        Args:
            endpoint: Whom to call.
            path: The file of kept calls, `results/judged/{endpoint}/{ckpt}/{task}.jsonl`; None keeps nothing.
            identity: What of the endpoint decides its answers; its URL and its model's own name if None.
            concurrency: Calls under way at once.
            timeout_s: Seconds that one try may take.
            retries: Further tries after a connection error, a timeout, 408, 409, 429, 5xx or a reply that is no answer.
            pause_s: First pause between tries; doubled by each, and jittered.
            throttle: The pace that all processes of the user keep together.
            bill: What the campaign pays for the calls, and may pay.
            patience_s: Seconds without any answer for which one that refuses for haste is asked again (`Client`).
            answerer: Sees that all replies are by the same model.
        """
        self._answerer = answerer
        self.endpoint = endpoint
        self.path = path
        self._identity = dict(identity) if identity is not None else {"url": endpoint.url, "model": endpoint.name}
        self._client = Client.to(
            endpoint,
            concurrency=concurrency,
            timeout_s=timeout_s,
            retries=retries,
            pause_s=pause_s,
            throttle=throttle,
            bill=bill,
            patience_s=patience_s,
        )
        self._kept: dict[str, tuple[int, int]] = {}
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self._file: int | None = None
        self._synced_at = 0.0

    @classmethod
    def of(
        cls,
        spec: EndpointSpec,
        endpoint: Endpoint,
        path: Path | None,
        *,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> Self:
        """Calls to an endpoint of config/endpoints.yaml that is open: at its pace, on its bill, held to who it is.

        Args:
            spec: Its entry.
            endpoint: Where it answers.
            path: The file of kept calls, or None.
            folder: Where it is kept who replied; None for nowhere, where nobody will be called.
            identity: What decides its answers, if that is more than its entry.
        """
        serving = spec.serving
        return cls(
            endpoint,
            path,
            identity=spec.identity if identity is None else identity,
            concurrency=serving.concurrency,
            timeout_s=serving.request_timeout_s,
            retries=serving.retries,
            throttle=throttle_of(spec),
            bill=bill_of(spec),
            patience_s=None if spec.ours else PATIENCE_S,
            answerer=Answerer(folder, spec) if folder is not None else None,
        )

    async def __aenter__(self) -> Self:
        """Read which calls are kept, and open the connections.

        Raises:
            StoreError: The file is damaged.
        """
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mend(self.path)
            self._kept = {record["key"]: place for place, record in read_places(self.path)}
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up calls that are under way, and close the connections; what was answered is kept."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.__aexit__(kind, error, trace)
        if self._file is not None and self.path is not None:
            try:
                sync(self._file, self.path)
            finally:
                os.close(self._file)
                self._file = None

    async def post(self, path: str, body: Mapping[str, Any], read: Read | None = None, *, judged: bool = True) -> Any:
        """Make a call, or return the kept reply to the same call.

        Args:
            path: What follows the endpoint's URL.
            body: Sent as JSON. Its `model` is no part of the hash: a served name holds a nonce, the identity says who
                answers.
            read: What to keep of the reply; the whole of it if None. Raise the version in the body or the identity if
                you change what it keeps.
            judged: Ask a harmless question where a refusal does not say whose fault it is.

        Returns:
            The reply's parsed body, or what `read` made of it.

        Raises:
            CallError: It was refused, or all tries failed. Nothing is kept of it.
            JudgeError: The endpoint has become another one, or has cost what it may cost.
        """
        key = self.key(path, body)
        if key in self._kept:
            return self._load(key)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(self._ask(key, path, body, read, judged))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        # One who waits may be cancelled while another waits for the same reply.
        return await asyncio.shield(task)

    def key(self, path: str, body: Mapping[str, Any]) -> str:
        """The hash under which a call is kept: of the endpoint's identity and of what is asked."""
        asked = {name: value for name, value in body.items() if name != "model"}
        content = orjson.dumps([self._identity, path, asked], option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    def _done(self, key: str, task: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            # Looked at, so that nothing is logged where all who waited for it are gone.
            task.exception()

    async def _ask(self, key: str, path: str, body: Mapping[str, Any], read: Read | None, judged: bool) -> Any:
        made: list[Any] = []

        def check(reply: Any) -> None:
            if self._answerer is not None:
                self._answerer.see(self.endpoint.model, reply)
            made[:] = [reply if read is None else read(reply)]

        try:
            await self._client.post(path, body, check, judged=judged)
        except RequestError as error:
            raise self._call_error(path, error) from None
        self._keep(key, made[0])
        return made[0]

    def _keep(self, key: str, reply: Any) -> None:
        if self._file is None or self.path is None:
            return
        line = orjson.dumps({"key": key, "reply": reply}, option=orjson.OPT_APPEND_NEWLINE)
        append(self._file, line, self.path)
        # Where this process's own line ended, whoever else appends.
        self._kept[key] = (os.lseek(self._file, 0, os.SEEK_CUR) - len(line), len(line))
        now = asyncio.get_running_loop().time()
        if now - self._synced_at > SYNC_S:
            self._synced_at = now
            sync(self._file, self.path)

    def _load(self, key: str) -> Any:
        begin, length = self._kept[key]
        assert self._file is not None
        return orjson.loads(os.pread(self._file, length, begin))["reply"]

    def _call_error(self, path: str, error: RequestError) -> CallError:
        kind, message = error.error["type"], error.error["message"]
        if self.endpoint.key:
            # Some services repeat the key that they refuse.
            message = message.replace(self.endpoint.key, "(the key)")
        if kind == "form":
            advice = "It refuses every call of this form: ask in another way, or ask another endpoint."
        elif error.status in (401, 402, 403):
            advice = (
                "Check its key (`key_env` or `key_file` in config/endpoints.yaml), and that its account has credit."
            )
        elif kind == "endpoint":
            advice = "Check its URL and model name in config/endpoints.yaml, that it serves this kind of request, and its account."
        elif error.lasting:
            advice = "It will refuse the same request again: change what is asked, or ask another endpoint."
        else:
            advice = "See whether it still runs; what it answered is kept, and the next run asks for the rest only."
        return CallError(
            f"The endpoint {self.endpoint.name!r} ({self.endpoint.url}{path}) failed: {kind}: {message}. {advice}",
            kind,
            error.lasting,
            error.status,
        )
