"""The answer key of a task, read from the user's file; and how well a search by meaning would have found its entries."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from milepost.embedding.embedders import Embed, MiniLM, checked_vectors
from milepost.errors import RecordError, ServerError, did_you_mean, listed
from milepost.records import Prompt, read_records, write_record
from milepost.runtime.environments import environment_python
from milepost.text import normalized

ENVIRONMENT = "equator"
NO_CATEGORY = "none"
COLLECTION = "collection"
RETRIEVAL = "retrieval.json"
_WORKER = Path(__file__).with_name("chroma.py")
# Each field under the names that it may have; the second are those of the original's data.
_FIELDS = {
    "id": ("id", "index"),
    "category": ("category",),
    "question": ("question",),
    "answer": ("answer", "human_answer"),
}
TIMEOUT_S = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """One entry of an answer key; `answer` is empty where the user's file has none."""

    id: str
    question: str
    answer: str
    category: str = NO_CATEGORY


@dataclass(frozen=True)
class Retrieval:
    """How often a search for the nearest question finds an item's own key. Scores do not use the search.

    Attributes:
        n: Items that have a key.
        n_found: Those whose nearest question is their own.
        misses: The others: `id`, the id of the `nearest` key, and its cosine `distance`.
        without_key: Ids of the items that have none, or one without an answer: these cannot be scored.
    """

    n: int
    n_found: int
    misses: list[dict[str, Any]]
    without_key: list[str]

    def record(self) -> dict[str, Any]:
        """The content of retrieval.json; `accuracy` is null where no item has a key."""
        return {"accuracy": self.n_found / self.n if self.n else None, **asdict(self)}


def key_id(prompt: Prompt) -> str:
    """The id of an item's key: `meta.answer_key`, or the item's own."""
    return str(prompt.get("meta", {}).get("answer_key", prompt["id"]))


def read_answer_key(path: str | Path) -> list[Key]:
    """Read a user's answer key: JSON Lines, or a JSON list, of `id`, `question`, `answer` and maybe `category`.

    An entry may lack its answer, as some in published keys do: its question is then counted, and not scored.

    Raises:
        RecordError: A missing or empty file, a malformed entry, or an id that stands twice; names the entry.
    """
    by_id: dict[str, Key] = {}
    categories: dict[str, str] = {}
    for number, entry in enumerate(_entries(Path(path)), 1):
        key = _parse(entry, f"{path}, entry {number}")
        # "Maths" and "maths " are one category, by the name that comes first.
        plain = normalized(key.category, ignore_case=False, ignore_punctuation=False)
        key = replace(key, category=categories.setdefault(plain.casefold(), plain))
        if key.id in by_id:
            raise RecordError(f"{path}, entry {number}: the id {key.id!r} stands there already. Give each its own.")
        by_id[key.id] = key
    if not by_id:
        raise RecordError(f"{path} has no entry. An answer key needs id, question and answer for each question.")
    return list(by_id.values())


def prepare_retrieval(keys: Sequence[Key], prompts: Sequence[Prompt], out: Path) -> None:
    """Keep an answer key in a Chroma collection, and write down how well a search for the nearest question finds it.

    Raises:
        EnvironmentMissingError: Chroma or the embedder is not installed.
        ServerError: Chroma failed, or the embedder did.
    """
    with MiniLM() as embed:
        retrieval = build_collection(out / COLLECTION, keys, prompts, embed)
    without = retrieval.without_key
    if without:
        log.warning(
            "%d of %d items have no entry in the answer key, or one without an answer, and will not be scored: %s.",
            len(without),
            len(prompts),
            listed(without),
        )
    log.info("The nearest question is an item's own for %d of %d items.", retrieval.n_found, retrieval.n)
    write_record(out / RETRIEVAL, retrieval.record())


def build_collection(folder: Path, keys: Sequence[Key], prompts: Sequence[Prompt], embed: Embed) -> Retrieval:
    """Make the Chroma collection of an answer key, anew, and try how well a search finds the keys of the items.

    Args:
        folder: Where it is to lie; what is there is replaced.
        keys: The answer key.
        prompts: The task's items; their last message, or prompt, is searched for.
        embed: Makes vectors of texts.

    Raises:
        EnvironmentMissingError: Chroma is not installed.
        ServerError: Chroma failed, or the embedder did.
    """
    known = {key.id for key in keys}
    asked = [prompt for prompt in prompts if key_id(prompt) in known]
    texts = [*(key.question for key in keys), *map(_question, asked)]
    vectors = checked_vectors(embed(texts), len(texts)).tolist()
    # Beside it first: a build that was cut off leaves no half collection behind.
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".collection.") as scratch:
        new = Path(scratch) / "new"
        reply = _run_chroma(
            folder=str(new),
            keys=list(map(asdict, keys)),
            vectors=vectors[: len(keys)],
            queries=vectors[len(keys) :],
        )
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
    misses = [
        {"id": prompt["id"], "nearest": nearest, "distance": round(distance, 6)}
        for prompt, (nearest, distance) in zip(asked, reply["nearest"], strict=True)
        if nearest != key_id(prompt)
    ]
    answered = {key.id for key in keys if key.answer}
    without = [prompt["id"] for prompt in prompts if key_id(prompt) not in answered]
    return Retrieval(len(asked), len(asked) - len(misses), misses, without)


def _run_chroma(**asked: Any) -> dict[str, Any]:
    """Start the Chroma worker for one request, and return its reply."""
    environment = os.environ | {"ANONYMIZED_TELEMETRY": "False"}
    # -I: neither this folder's modules nor this environment's PYTHONPATH get into the other one.
    command = [str(environment_python(ENVIRONMENT)), "-I", str(_WORKER)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(asked).encode(),
            capture_output=True,
            env=environment,
            timeout=TIMEOUT_S,
            check=False,
        )
        reply = json.loads(done.stdout)
        if done.returncode == 0:
            return dict(reply)
        last_words = done.stderr
    except subprocess.TimeoutExpired:
        last_words = f"no answer within {TIMEOUT_S:.0f} s".encode()
    except ValueError:
        last_words = done.stderr
    except OSError as error:
        last_words = str(error).encode()
    lines = last_words.decode(errors="replace").strip().splitlines()[-8:] or ["(none)"]
    raise ServerError(
        "Chroma, which searches the answer key, failed. Run `envs/setup.sh equator` to install it anew. Its last lines:\n"
        + "\n".join(lines)
    )


def _entries(path: Path) -> Iterable[Any]:
    try:
        with path.open("rb") as file:
            is_list = file.read(64).lstrip().startswith(b"[")
        # Otherwise line by line, so that an error names the line.
        return list(orjson.loads(path.read_bytes())) if is_list else list(read_records(path))
    except OSError as error:
        raise RecordError(
            f"{path}, a task's answer key, cannot be read: {error.strerror} (from {Path.cwd()}). Correct `answer_key` in the "
            "task's scorer."
        ) from None
    except orjson.JSONDecodeError as error:
        raise RecordError(f"{path} is no JSON: {error}.") from None


def _parse(entry: Any, where: str) -> Key:
    if not isinstance(entry, Mapping):
        raise RecordError(f"{where} is no object: {str(entry)[:60]}. It needs id, question and answer.")
    fields: dict[str, str] = {}
    for field, names in _FIELDS.items():
        given = [entry[name] for name in names if entry.get(name) not in (None, "")]
        if not given:
            if field in ("category", "answer"):
                continue
            raise RecordError(
                f"{where} has no {field!r}. It has: {', '.join(map(str, entry))}.{did_you_mean(field, map(str, entry))}"
            )
        # An id may be a number, as in the original's data; it files results as text.
        value = str(given[0]) if field == "id" and isinstance(given[0], int) else given[0]
        if not isinstance(value, str) or not value.strip():
            raise RecordError(f"{where}: {field!r} is not a text, or empty: {str(value)[:60]!r}.")
        fields[field] = value
    return Key(**{"answer": "", **fields})


def _question(prompt: Prompt) -> str:
    """The text of an item's question, without the system message that may stand before it."""
    return prompt["messages"][-1]["content"] if "messages" in prompt else prompt["prompt"]
