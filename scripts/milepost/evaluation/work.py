"""The requests that are asked of a model, with their keys, and which of them the store has not answered yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from milepost.campaign.identity import request_key
from milepost.campaign.sampling import AT_MOST, MODEL, REST, SOURCE
from milepost.errors import RecordError
from milepost.nemo.runs import missing_runs
from milepost.records import Prompt, PromptSet, TaskHeader, read_prompts, read_record, record_line, write_record
from milepost.store.answers import STORE, read_settled

MODELS = Path("results/models")
PROMPTS = Path("results/prompts")
COMPLETE = ".complete.json"


@dataclass(frozen=True, slots=True)
class Request:
    """One sample of one item of one task. There may be millions of them, so its body is made only when it is sent."""

    header: TaskHeader
    prompt: Prompt
    sample: int
    seed: int
    key: str

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.header["task"]

    @property
    def id(self) -> str:
        """Id of the item."""
        return self.prompt["id"]

    @property
    def path(self) -> str:
        """The path of the request, after the server's address."""
        return question_of(self.prompt)[0]

    @property
    def body(self) -> dict[str, Any]:
        """The body of the request, without the model's served name."""
        return self.body_with({})

    def body_with(self, models_own: Mapping[str, Any]) -> dict[str, Any]:
        """What is sent, with the model's own settings where the task takes them and says nothing itself."""
        body = body_of(self.header, self.prompt, self.seed)
        if self.takes_rest:
            body["max_tokens"] = body.pop(AT_MOST, None)
            body = body if body["max_tokens"] else unlimited(body)
        return {**models_own, **body} if body.pop(SOURCE, None) == MODEL else body

    @property
    def takes_rest(self) -> bool:
        """Whether its answer may have as many tokens as the model's context leaves, if that is less than what is sent."""
        return self.header["sampling"].get("max_tokens") == REST


def unlimited(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body that asks for as many tokens as the model's context leaves.

    >>> unlimited({"messages": [], "max_tokens": 9}), unlimited({"prompt": "", "max_tokens": 9})
    ({'messages': []}, {'prompt': '', 'max_tokens': None})
    """
    rest = {name: value for name, value in body.items() if name != "max_tokens"}
    # A text to go on from gets 16 tokens where nothing is said.
    return {**rest, "max_tokens": None} if "prompt" in rest else rest


def requests_of(prompts: PromptSet, digest: str) -> Iterator[Request]:
    """Yield all requests of a task, samples of one prompt side by side so that its prefix is cached.

    Args:
        prompts: The task's.
        digest: Of the model that is asked.
    """
    header = prompts.header
    base = header["sampling"]["seed"]
    for prompt in prompts.prompts:
        for sample in range(header["samples"]):
            seed = sample_seed(base, prompt["id"], sample)
            key = request_key(digest, body_of(header, prompt, seed), sample, header["generation"])
            yield Request(header, prompt, sample, seed, key)


def body_of(header: TaskHeader, prompt: Prompt, seed: int) -> dict[str, Any]:
    """The request's body, as its key takes it: the question, how to sample, and this sample's own seed in place of the task's."""
    return {**question_of(prompt)[1], **header["sampling"], "seed": seed}


def question_of(prompt: Prompt) -> tuple[str, dict[str, Any]]:
    """Path and part of the request's body: a chat, or a text to go on from."""
    if "messages" in prompt:
        return "/chat/completions", {"messages": prompt["messages"]}
    return "/completions", {"prompt": prompt["prompt"]}


def sample_seed(base: int, ident: str, sample: int) -> int:
    """The seed of one sample: different for each sample, always the same for one, and of 31 bits, which every server takes."""
    return int.from_bytes(hashlib.sha256(f"{base}/{ident}/{sample}".encode()).digest()[:4], "big") >> 1


def store_file(ckpt: str, task: str) -> Path:
    """Where the answers of a checkpoint to a native task are stored."""
    return STORE / ckpt / f"{task}.jsonl"


def is_complete(ckpt: str, tasks: Iterable[str]) -> bool:
    """Whether a checkpoint's store answers everything that is asked; tasks that are not prepared yet count as unanswered.

    Planning asks this of every checkpoint, so a task that was found complete is remembered with what was asked.
    """
    try:
        digest = str(read_record(MODELS / f"{ckpt}.json")["digest"])
    except (RecordError, KeyError):
        return False
    remembered = _read_complete(ckpt)
    for task in tasks:
        path = PROMPTS / f"{task}.jsonl"
        if not path.exists():
            return False
        known = remembered.get(task)
        if (known is None or known != _state(ckpt, task, digest, file_digest(path))) and not _answers_all(
            ckpt, path, digest
        ):
            return False
    return True


def remember_complete(ckpt: str, asked: Iterable[PromptSet], digest: str) -> None:
    """Note that nothing is missing of these tasks as they were asked; their files may say something else by now."""
    found = {
        prompts.header["task"]: _state(ckpt, prompts.header["task"], digest, written_as(prompts)) for prompts in asked
    }
    write_record(STORE / ckpt / COMPLETE, {**_read_complete(ckpt), **found})


def _answers_all(ckpt: str, path: Path, digest: str) -> bool:
    prompts = read_prompts(path)
    if prompts.header["kind"] == "nemo":
        return not missing_runs(STORE / ckpt, digest, prompts.header)
    store = store_file(ckpt, prompts.header["task"])
    if not store.exists():
        return False
    settled = read_settled(store)
    return all(request.key in settled for request in requests_of(prompts, digest))


def _state(ckpt: str, task: str, digest: str, asked: str) -> dict[str, Any] | None:
    """The facts under which a complete store is remembered: prompts, model, and the store's size, as one that shrank is read again."""
    store = store_file(ckpt, task)
    if not store.exists():
        # A NeMo task is complete by its folders, which are quick to look at.
        return None
    return {"model": digest, "asked": asked, "size": store.stat().st_size}


def written_as(prompts: PromptSet) -> str:
    """Digest of the file that holds these prompts."""
    digest = hashlib.sha256()
    for record in (prompts.header, *prompts.prompts):
        digest.update(record_line(record))
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Digest of a prompts file as it is now."""
    changed = path.stat()
    return _file_digest(path, changed.st_size, changed.st_mtime_ns)


@lru_cache
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_complete(ckpt: str) -> dict[str, Any]:
    try:
        states = json.loads((STORE / ckpt / COMPLETE).read_bytes())
    except (OSError, ValueError):
        return {}
    return states if isinstance(states, dict) else {}
