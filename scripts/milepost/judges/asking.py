"""Asking a judge: only what it was never asked, its reply held to a form, and once more where it cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from milepost.client.client import Reply, RequestError, read_reply
from milepost.endpoints import Endpoint
from milepost.endpoints.calls import Calls
from milepost.endpoints.specs import EndpointSpec
from milepost.errors import CallError, JudgeError
from milepost.judges.fence import without_control_tokens
from milepost.judges.verdict import ChatReply, Reader, Verdict
from milepost.reasoning import strip_reasoning
from milepost.records import Message, Usage
from milepost.store.answers import read_lines

JUDGED = Path("results/judged")
PATH = "/chat/completions"
# So many first questions refused one after the other are no fault of the questions.
REFUSED = 3
SHOWN = 1000  # characters of an unreadable reply that its judge is shown again

Opens = Callable[[EndpointSpec], AbstractAsyncContextManager[Endpoint]]


def kept_calls(judge: str, ckpt: str, task: str) -> Path:
    """The file of the calls to a judge about one checkpoint's answers to one task, from the campaign's folder."""
    return JUDGED / judge / ckpt / f"{task}.jsonl"


@dataclass(frozen=True)
class Question:
    """What a judge is asked for one verdict: the chat, and how its reply is read."""

    messages: list[Message]
    read: Reader


@dataclass(frozen=True)
class Judgement:
    """What came of one question.

    Attributes:
        verdict: The verdict of the last reply; without a value if none could be read.
        replies: Every reply, the last of which counts. Empty where the judge gave none.
        error: Why it gave none.
    """

    verdict: Verdict
    replies: tuple[ChatReply, ...] = ()
    error: CallError | None = None

    @property
    def usage(self) -> Usage:
        """Tokens of all replies."""
        return Usage(
            prompt_tokens=sum(reply["usage"]["prompt_tokens"] for reply in self.replies),
            completion_tokens=sum(reply["usage"]["completion_tokens"] for reply in self.replies),
        )


@dataclass(frozen=True)
class Judge:
    """One endpoint that is asked for verdicts.

    Attributes:
        spec: Who it is.
        forms: What holds a reply to its form, as parts of a request's body, the strictest first; the first that its
            server takes is used. An empty one asks for no form.
        sampling: The rest of the body: `temperature`, `max_tokens`, and what else decides the reply.
        again: How often a question is asked again, with the reason, whose reply cannot be read.
    """

    spec: EndpointSpec
    forms: Sequence[Mapping[str, Any]] = ({},)
    sampling: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "seed": 0, "max_tokens": 512})
    again: int = 3

    async def ask(self, questions: Sequence[Question], kept: Path, opens: Opens) -> list[Judgement]:
        """The judgement on each question.

        The endpoint is opened only if a reply is missing from the kept ones.

        Args:
            questions: What to ask.
            kept: The file of kept calls.
            opens: Opens an endpoint.

        Raises:
            CallError: The endpoint answers nothing, or went away. What it answered is kept.
            EndpointError: It cannot be reached, or is another.
            JudgeError: It has become another one within the campaign, or has cost what it may cost.
        """
        asked = [_Asked(question, self.again) for question in questions]
        form = self._look_up(asked, kept)
        missing = [one for one in asked if not one.settled]
        if missing:
            async with (
                opens(self.spec) as endpoint,
                Calls.of(self.spec, endpoint, kept, folder=judge_folder(kept)) as calls,
            ):
                await self._ask(calls, missing, form)
        return [one.judgement for one in asked]

    def _look_up(self, asked: Sequence[_Asked], kept: Path) -> int | None:
        """Take the replies that are kept; returns the form of reply that was taken last."""
        lines = {line["key"]: line["reply"] for line in read_lines(kept)}
        # Of the calls, only their keys are needed: nobody is called.
        calls = Calls.of(self.spec, Endpoint(url="", key="", model="", name=""), None)
        accepted: int | None = None
        for one in asked:
            found: int | None = 0
            while found is not None and not one.settled:
                chat = one.chat()
                keys = [calls.key(PATH, self._body(chat, form)) for form in range(len(self.forms))]
                found = next((form for form, key in enumerate(keys) if key in lines), None)
                if found is not None:
                    one.take(lines[keys[found]])
                    accepted = found
        return accepted

    async def _ask(self, calls: Calls, asked: Sequence[_Asked], form: int | None) -> None:
        """Ask one after the other until it is known which form of reply the server takes, then all at once."""
        waiting = list(asked)
        refused = 0
        while form is None and waiting:
            one = waiting.pop(0)
            for tried in range(len(self.forms)):
                reply = await self._post(calls, one.chat(), tried, judged=False)
                if not isinstance(reply, CallError):
                    form = tried
                    one.take(reply)
                    waiting.append(one)  # it may have to be asked again
                if not isinstance(reply, CallError) or reply.kind in ("context", "filtered"):
                    break
            else:
                refused += 1
                if isinstance(reply, CallError) and (refused == REFUSED or not waiting):
                    raise reply
            if isinstance(reply, CallError):
                one.error = reply
        if form is not None:
            stopped = await asyncio.gather(*(self._settle(calls, one, form) for one in waiting))
            for error in stopped:
                if error is not None:
                    # Only now: what was under way is paid for, and kept.
                    raise error

    async def _settle(self, calls: Calls, one: _Asked, form: int) -> JudgeError | None:
        """Ask one question to its end; returns why the judge may be asked no more."""
        try:
            while not one.settled:
                reply = await self._post(calls, one.chat(), form)
                if isinstance(reply, CallError):
                    one.error = reply
                else:
                    one.take(reply)
        except JudgeError as error:
            return error
        return None

    async def _post(
        self, calls: Calls, chat: list[Message], form: int, *, judged: bool = True
    ) -> ChatReply | CallError:
        try:
            body = {"model": calls.endpoint.model, **self._body(chat, form)}
            return cast(ChatReply, await calls.post(PATH, body, read_chat_reply, judged=judged))
        except CallError as error:
            # Only what is the fault of one question alone; other failures are the endpoint's.
            if not error.lasting:
                raise
            return error

    def _body(self, chat: list[Message], form: int) -> dict[str, Any]:
        return {"messages": chat, **self.sampling, **self.forms[form]}


def judge_folder(kept: Path) -> Path:
    """The folder of all kept calls to a judge, from one of its files."""
    return kept.parent.parent


@dataclass
class _Asked:
    """A question on its way: its replies so far."""

    question: Question
    again: int
    replies: list[ChatReply] = field(default_factory=list)
    verdict: Verdict | None = None
    error: CallError | None = None

    @property
    def settled(self) -> bool:
        """Whether it need not be asked (again)."""
        read = self.verdict is not None and self.verdict.problem is None
        return read or self.error is not None or len(self.replies) > self.again

    @property
    def judgement(self) -> Judgement:
        """What came of it."""
        if self.verdict is None:
            return Judgement(Verdict(None, problem=f"not answered: {self.error}"), error=self.error)
        return Judgement(self.verdict, tuple(self.replies))

    def take(self, reply: ChatReply) -> None:
        """Read one more reply."""
        self.replies.append(reply)
        verdict = self.question.read(reply)
        if verdict.problem and reply["finish_reason"] == "length":
            problem = f"{verdict.problem} (cut off after {reply['usage']['completion_tokens']} tokens)"
            verdict = Verdict(None, verdict.explanation, problem)
        self.verdict = verdict

    def chat(self) -> list[Message]:
        """What is asked next: the question, and after replies that could not be read, the last of them and why."""
        if not self.replies or self.verdict is None:
            return self.question.messages
        # The last one only: the same words more often help no judge, and fill its context.
        text, _ = strip_reasoning(self.replies[-1]["content"])
        text = without_control_tokens(text.strip())
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} […]"
        why = without_control_tokens(self.verdict.problem or "")
        number = len(self.replies)
        return [
            *self.question.messages,
            Message(role="assistant", content=shown or "(nothing)"),
            Message(
                role="user",
                content=f"No verdict can be read from this reply (number {number}): {why}. Reply once more, with one "
                "verdict only, in the form that was asked for.",
            ),
        ]


async def ask_judges(
    asked: Mapping[str, tuple[Judge, Sequence[Question], Path]], opens: Opens
) -> dict[str, list[Judgement]]:
    """The judgements of several judges by name, all of whom are asked at the same time.

    Args:
        asked: By the judge's name: the judge, what it is asked, and the file of its kept calls.
        opens: Opens an endpoint.

    Raises:
        CallError, EndpointError: As `Judge.ask`, of the first judge that failed; what the others said is kept.
    """
    results = await asyncio.gather(
        *(judge.ask(questions, kept, opens) for judge, questions, kept in asked.values()), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            # Only now: all others have come to their end.
            raise result
    return {name: result for name, result in zip(asked, results, strict=True) if not isinstance(result, BaseException)}


def read_chat_reply(body: Any) -> ChatReply:
    """What is kept of a chat server's reply.

    Raises:
        ValueError: There is no whole answer in it.
    """
    try:
        answer = read_reply(Reply(body, 0.0), "", 0, 0)
    except RequestError as error:
        raise ValueError(error.error["message"]) from None
    usage = answer.get("usage", Usage(prompt_tokens=0, completion_tokens=0))
    reply = ChatReply(content=answer["content"], finish_reason=answer["finish_reason"], usage=usage)
    if logprobs := _logprobs(body):
        reply["logprobs"] = logprobs
    return reply


def _logprobs(body: Any, most: int = 16) -> list[dict[str, float]]:
    """The log-probabilities of the first tokens' alternatives, where they were asked for."""
    try:
        tokens = body["choices"][0]["logprobs"]["content"][:most]
        return [{one["token"]: float(one["logprob"]) for one in token["top_logprobs"]} for token in tokens]
    except (KeyError, IndexError, TypeError, ValueError):
        return []
