"""The worker that checks whether answers follow instructions. Run by following.py with the interpreter of an environment.

Arguments: `ifeval`, or `ifbench` and the folder with its checkers. It reads lines of JSON, `{"item", "prompt", "instructions",
"responses"}`, until its standard input ends, and answers each with a line: for each response and each instruction
`[strict, loose, crashed]`, the last a text or null. Before them comes a line with the versions of what checks. Instead of any
line there may be `{"error": TEXT}`, which is the last.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# A check of one answer that takes so long does not end: some expressions take a time that doubles with each letter.
LIMIT_S = 60
# Where the package that has NLTK's data for us keeps it.
_NLTK_DATA = "llama_index/core/_static/nltk_cache"
_NLTK_PARTS = ("tokenizers/punkt_tab/english", "corpora/stopwords/english")
_LETTER = "letter"

Checkers = Mapping[str, Any]
"""A class for each kind of instruction, by its id."""


class UserError(Exception):
    """Something that the user can mend."""


class EndlessError(Exception):
    """A check that takes too long."""


def load_ifeval(folder: str) -> Checkers:
    """The checks of IFEval in lm-evaluation-harness, without the rest of it, which takes other packages and seconds."""
    del folder
    found = find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise UserError("lm-eval is not installed in envs/benchmarks. Run `envs/setup.sh benchmarks`.")
    path = Path(found.submodule_search_locations[0])
    name = "lm_eval"
    for part in ("", "tasks", "ifeval"):
        path, name = (path / part, f"{name}.{part}") if part else (path, name)
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    return dict(importlib.import_module("lm_eval.tasks.ifeval.instructions_registry").INSTRUCTION_DICT)


def load_ifbench(folder: str) -> Checkers:
    """The checks of a checkout of IFBench: its modules at the top, or in its folder `ifbench`."""
    place = Path(folder)
    name = (
        "ifbench.instructions_registry"
        if (place / "ifbench/instructions_registry.py").is_file()
        else "instructions_registry"
    )
    sources = (place / "ifbench" if "." in name else place).glob("*.py")
    if any("spacy" in source.read_text(encoding="utf-8", errors="replace") for source in sources):
        # Old checkouts have it download a model that they do not use, and would end here where there is no network.
        importlib.import_module("spacy.cli").download = lambda *_, **__: None  # type: ignore[attr-defined]
    sys.path.insert(0, str(place))
    make = Path.mkdir

    def make_if_allowed(path: Path, *args: Any, **kwargs: Any) -> None:
        try:
            make(path, *args, **kwargs)
        except PermissionError:
            pass  # a folder for NLTK's data in a checkout that others own: the data is elsewhere

    Path.mkdir = make_if_allowed  # type: ignore[assignment, method-assign]
    try:
        return dict(importlib.import_module(name).INSTRUCTION_DICT)
    finally:
        Path.mkdir = make  # type: ignore[method-assign]


LIBRARIES = {"ifeval": load_ifeval, "ifbench": load_ifbench}
PACKAGES = ("lm_eval", "nltk", "langdetect", "emoji", "syllapy")


def own_copy(folder: Path) -> Path:
    """Copy the data that comes with the environment: installers link files to their cache, and NLTK reads no linked file."""
    for part in _NLTK_PARTS:
        source = next((found for place in sys.path if (found := Path(place) / _NLTK_DATA / part).exists()), None)
        if source is not None:
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    return folder


def prepare(data: Path) -> None:
    """Have NLTK find its data and download none, and language detection say the same each time."""
    import langdetect
    import nltk

    # Detection draws at random; the benchmark leaves it unseeded, and its numbers differ from run to run.
    langdetect.DetectorFactory.seed = 0
    nltk.data.path.append(str(own_copy(data)))
    # Checkers ask for it as they are imported: on a node without the internet they would wait, and elsewhere a number would
    # depend on what is there to be had today.
    nltk.download = lambda *_, **__: False


def build(checkers: Checkers, ident: str, kwargs: Mapping[str, Any], prompt: str) -> Any:
    """The check of one instruction, with its arguments."""
    # Some draw what they were not told.
    random.seed(0)
    check = checkers[ident](ident)
    check.build_description(**kwargs)
    args = check.get_instruction_args()
    if args and "prompt" in args:
        check.build_description(prompt=prompt)
    letter = kwargs.get(_LETTER)
    if isinstance(letter, str) and len(letter) == 1 and getattr(check, "_letter", letter) != letter.lower():
        # IFEval's check replaces what is no letter, as in "use # four times", by a letter that it draws.
        check._letter = letter.lower()
    return check


def variants(response: str) -> list[str]:
    """The forms of an answer of which one has to follow, for the loose reading: without first and last line, without stars."""
    lines = response.split("\n")
    forms = [response, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))]
    bare = [form.replace("*", "") for form in forms]
    return [response, bare[0], *forms[1:], *bare[1:]]


def verdict(check: Any, response: str) -> list[Any]:
    """Whether an answer follows, strictly and loosely, and what happened where the check crashed: then it does not."""
    found = False
    # What was said of the answer itself need not be asked again, and many forms are the same.
    levels: list[Any] = []
    for forms in ([response], [form for form in dict.fromkeys(variants(response)) if form != response]):
        try:
            signal.alarm(LIMIT_S)
            found = found or any(form.strip() and bool(check.check_following(form)) for form in forms)
        except (Exception, SystemExit) as error:
            _raise_if_ours(error)
            return [*levels, *[False] * (2 - len(levels)), f"{type(error).__name__}: {error}"]
        finally:
            signal.alarm(0)
        levels.append(found)
    return [*levels, None]


def _raise_if_ours(error: BaseException) -> None:
    """What is missing on this machine is no verdict on an answer."""
    text = str(error)
    if isinstance(error, LookupError) and "nltk" in text.lower():
        found = [line.strip() for line in text.splitlines() if line.strip().startswith("Attempted to load")]
        resource = found[0].removeprefix("Attempted to load").strip() if found else "a resource"
        name = resource.strip("/").split("/")[-1]
        raise UserError(
            f"NLTK's data {resource} is not on this machine, and a check needs it. Run `python -m nltk.downloader -d FOLDER "
            f"{name.removesuffix('.pickle')}` where there is internet, and set NLTK_DATA to that folder."
        ) from None
    if isinstance(error, OSError):
        raise UserError(f"A check could not read what it needs: {error}.") from None
    if isinstance(error, ModuleNotFoundError):
        raise UserError(f"A check needs the package {error.name}, which its environment does not have.") from None


def check_item(checkers: Checkers, item: Mapping[str, Any], *, strict_arguments: bool) -> list[list[list[Any]]]:
    """Check all responses to one item."""
    unknown = [one["id"] for one in item["instructions"] if one["id"] not in checkers]
    if unknown:
        raise UserError(
            f"Item {item['item']!r} has an instruction of an unknown kind, {unknown[0]!r}. Kinds: {', '.join(sorted(checkers))}."
        )
    checks: list[Any] = []
    for one in item["instructions"]:
        try:
            checks.append(build(checkers, one["id"], one["kwargs"], item["prompt"]))
        except Exception as error:
            _raise_if_ours(error)
            said = f"{type(error).__name__}: {error}"
            if strict_arguments:
                raise UserError(
                    f"Item {item['item']!r}: the instruction {one['id']} cannot be checked with the arguments {one['kwargs']!r}: {said}."
                ) from None
            checks.append(said)
    return [
        [[False, False, check] if isinstance(check, str) else verdict(check, response) for check in checks]
        for response in item["responses"]
    ]


def versions() -> dict[str, str]:
    """Versions of the packages that decide verdicts, of those that are here."""

    def installed() -> Iterator[tuple[str, str]]:
        for name in PACKAGES:
            try:
                yield name, version(name)
            except PackageNotFoundError:
                continue

    return dict(installed())


def _too_long(number: int, frame: types.FrameType | None) -> None:
    raise EndlessError(f"the check did not end within {LIMIT_S} s")


def main() -> None:
    """Answer requests until standard input ends."""
    # A pipe of our own: what checks print must not get between the verdicts.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # The folder of this file holds modules of other names than ours.
    sys.path = [place for place in sys.path if place and Path(place) != Path(__file__).parent]
    library, folder = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""

    def say(record: Any) -> None:
        replies.write(json.dumps(record) + "\n")
        replies.flush()

    try:
        with tempfile.TemporaryDirectory() as data:
            prepare(Path(data))
            checkers = LIBRARIES[library](folder)
            signal.signal(signal.SIGALRM, _too_long)
            say(versions())
            for line in sys.stdin.buffer:
                say(check_item(checkers, json.loads(line), strict_arguments=library == "ifeval"))
    except UserError as error:
        say({"error": str(error)})
    except (Exception, SystemExit) as error:
        try:
            _raise_if_ours(error)
            say({"error": f"The checks of {library} cannot be loaded or used: {type(error).__name__}: {error}"})
        except UserError as ours:
            say({"error": str(ours)})


if __name__ == "__main__":
    main()
