"""Asking a judge: only what it was never asked, its reply held to a form, and once more where it cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from milepost.campaign.identity import CACHE, DigestCache
from milepost.campaign.templates import opens_reasoning
from milepost.client.client import Reply, RequestError, read_reply
from milepost.endpoints import Endpoint
from milepost.endpoints.calls import Calls
from milepost.endpoints.shared_spec import SharedSpec
from milepost.endpoints.specs import EndpointSpec
from milepost.errors import CallError, JudgeError
from milepost.judges.fence import without_control_tokens
from milepost.judges.verdict import ChatReply, Reader, Verdict
from milepost.reasoning import MARKS, split_reasoning, strip_reasoning
from milepost.records import Message, Usage
from milepost.statistics.outcomes import kind_of
from milepost.store.answers import read_lines

JUDGED = Path("results/judged")
PATH = "/chat/completions"
# So many first questions refused one after the other are no fault of the questions.
REFUSED = 3
# What may stand in place of a judge's reply.
INSTEAD = {
    "refused": "a refusal",
    "filtered": "a content filter stopped it",
    "reasoning_only": "all its text is in its reasoning: its server's reasoning parser does not fit it",
    "tool_calls": "calls of tools, and no text",
}
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
        traces = Traces(opens_traces(self.spec))
        asked = [_Asked(question, self.again, traces) for question in questions]
        form = self._look_up(asked, kept)
        if traces.seen:
            # Only now is it known which of the first replies were cut within a trace.
            form = next((found for found in (self._look_up(asked, kept), form) if found is not None), None)
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
        while form is not None and waiting:
            stopped = await asyncio.gather(*(self._settle(calls, one, form) for one in waiting))
            for error in stopped:
                if error is not None:
                    # Only now: what was under way is paid for, and kept.
                    raise error
            # A reply that was taken may turn out to be cut within a trace, by what others show.
            waiting = [one for one in asked if not one.settled]

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
class Traces:
    """What is known of a judge's reasoning traces.

    Attributes:
        opened: Whether its chat template opens them; None where its template cannot be seen.
        seen: Whether a reply closed a trace that it had not opened.
    """

    opened: bool | None
    seen: bool = False

    def see(self, reply: ChatReply) -> None:
        """Learn from one more reply."""
        self.seen |= self.opened is None and split_reasoning(reply["content"]).unopened

    def whole(self, reply: ChatReply) -> ChatReply:
        """The reply with the mark that its template wrote, where it begins within a trace and was cut there: it has none then.

        A reply that is held to a form has no trace, whatever the template opens.
        """
        held = reply["content"].lstrip().startswith("{")
        if (self.opened or self.seen) and reply["finish_reason"] == "length" and not held:
            return {**reply, "content": f"{MARKS[0][0]}{reply['content']}"}
        return reply


def opens_traces(spec: EndpointSpec) -> bool | None:
    """Whether a judge's chat template opens a reasoning trace; None of one that others serve."""
    if not isinstance(spec, SharedSpec):
        return None
    digests = DigestCache(CACHE)
    found = opens_reasoning(spec.as_checkpoint(), digests)
    digests.save()
    return found


@dataclass
class _Asked:
    """A question on its way: its replies so far."""

    question: Question
    again: int
    traces: Traces
    replies: list[ChatReply] = field(default_factory=list)
    error: CallError | None = None
    _read: tuple[tuple[int, bool], Verdict] | None = None

    @property
    def verdict(self) -> Verdict | None:
        """What the last reply says, by all that is known of the judge's traces now; None before there is one."""
        if not self.replies:
            return None
        state = (len(self.replies), self.traces.seen)
        if self._read is None or self._read[0] != state:
            reply = self.traces.whole(self.replies[-1])
            verdict = self.question.read(reply)
            if verdict.problem and reply["finish_reason"] == "length":
                problem = f"{verdict.problem} (cut off after {reply['usage']['completion_tokens']} tokens)"
                verdict = Verdict(None, verdict.explanation, problem)
            elif verdict.problem and "instead" in reply:
                verdict = Verdict(None, verdict.explanation, f"{verdict.problem} ({reply['instead']})")
            self._read = state, verdict
        return self._read[1]

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
        self.traces.see(reply)

    def chat(self) -> list[Message]:
        """What is asked next: the question, and after replies that could not be read, the last of them and why."""
        verdict = self.verdict
        if verdict is None:
            return self.question.messages
        # The last one only: the same words more often help no judge, and fill its context.
        text, _ = strip_reasoning(self.traces.whole(self.replies[-1])["content"])
        text = without_control_tokens(text.strip())
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} […]"
        why = without_control_tokens(verdict.problem or "")
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
    if kind := INSTEAD.get(kind_of(answer)):
        reply["instead"] = f"{kind}: {answer['refusal'][:200]}" if "refusal" in answer else kind
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
