"""Runs NeMo Evaluator on a task: writes its configuration, starts it beside other tasks, and notes how it ended."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from milepost import __version__
from milepost.campaign.sampling import MODEL, effective
from milepost.client.client import Client
from milepost.endpoints import Endpoint
from milepost.endpoints.seen import Seen
from milepost.errors import HarnessError
from milepost.nemo import nel
from milepost.nemo.catalogue import Interface, read_catalogue
from milepost.nemo.installation import NemoInstallation, own_harnesses, recorded_installation
from milepost.nemo.runs import DONE
from milepost.records import TaskHeader, write_record
from milepost.runtime.containers import Containers, reached_from
from milepost.runtime.images import image_digests
from milepost.runtime.launch import HELD, hold
from milepost.runtime.processes import ProcessGroup, Watchdog, last_lines
from milepost.schemas import defaults, of_schema
from milepost.tasks.lm_eval_files import include_folders, local_files

KEY_VARIABLE = "MILEPOST_ENDPOINT_KEY"
SHUTDOWN_S = 2  # NeMo's own wait after TERM; it must fit into ours
PATHS = {
    "chat": "chat/completions",
    "completions": "completions",
    "completions_logprob": "completions",
    "embedding": "embeddings",
}
MARKS = (".nemo_evaluator_interrupted", ".nemo_evaluator_server_error")
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """The settings of a run that do not change an answer.

    Attributes:
        tokenizer: The checkpoint's: a folder, or a hub name; the supervisor fills it in.
        tuning: `params` and `adapter` settings that change no answer.
        containers: The images of the campaign.
        offline: Whether data and tokenizers come from the caches alone.
        sampling: How the server samples where a request says nothing (`campaign.sampling.bases`); the supervisor fills it
            in, but for an endpoint of others.
        attempt: The supervisor's; stands with each reply.
        others: The job's client of an endpoint of others, and who has answered there; None for a server of ours.
    """

    tokenizer: str = ""
    tuning: Mapping[str, Any] = field(default_factory=dict)
    containers: Containers = field(default_factory=Containers)
    offline: bool = of_schema("config", "offline")
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attempt: str = ""
    others: tuple[Client, Seen] | None = None


def run_seed(task: str, repetition: int) -> int:
    """The seed of a run: different for each run, always the same for one; each request's seed is drawn from it."""
    return int.from_bytes(hashlib.sha256(f"{task}/{repetition}".encode()).digest()[:4], "big") >> 1


def run_config(
    header: TaskHeader, endpoint: Endpoint, folder: Path, setting: Setting, interface: Interface | None = None
) -> dict[str, Any]:
    """NeMo Evaluator's configuration of one run. The key stays in the environment."""
    harness, interface = header.get("harness", {}), interface or Interface()
    url = f"{endpoint.url}/{PATHS[harness['endpoint_type']]}"
    if interface.is_nel:
        return nel.run_config(harness, url, endpoint.name, KEY_VARIABLE, folder, setting.tuning)
    params = {**harness["params"], **setting.tuning.get("params", {})}
    # lm-eval's log-probability tasks need a tokenizer, and fail without; a harness that knows none passes over it.
    if "tokenizer" in harness or harness["endpoint_type"] in ("completions", "completions_logprob"):
        given = {"tokenizer": _path(harness.get("tokenizer", setting.tokenizer)), "tokenizer_backend": "huggingface"}
        params["extra"] = {**given, **params.get("extra", {})}
    adapter = {
        # Its cache merges identical requests, which would make samples of one prompt the same sample.
        "use_caching": defaults("task_nemo", "adapter")["use_caching"],
        **harness.get("adapter", {}),
        **setting.tuning.get("adapter", {}),
    }
    if "custom_system_prompt" in adapter:
        adapter["use_system_prompt"] = True
    return {
        "config": {"type": harness["eval_type"], "output_dir": str(folder.resolve()), "params": params},
        "target": {
            "api_endpoint": {
                "url": url,
                "model_id": endpoint.name,
                "type": harness["endpoint_type"],
                interface.key: KEY_VARIABLE,
                "adapter_config": adapter,
            }
        },
        # With it, the results name the version that made them, in an image as well.
        "metadata": {"versioning": {"milepost": __version__}},
    }


def variables(endpoint: Endpoint, setting: Setting, port: int) -> dict[str, str]:
    """The environment variables of a run: the key, caches, the adapter's port, and no telemetry."""
    home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return {
        KEY_VARIABLE: endpoint.key,
        # Its adapter asks for no key, and the harness sends it the relay's.
        "ADAPTER_HOST": "127.0.0.1",
        "ADAPTER_PORT": str(port),
        HELD: str(port),
        "NEMO_EVALUATOR_SHUTDOWN_TIMEOUT_SECONDS": str(SHUTDOWN_S),
        "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": home,
        # What the site's proxy is for is not the relay beside it.
        **{
            name: ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
            for name in ("NO_PROXY", "no_proxy")
        },
        **{name: os.environ.get(name, "1" if setting.offline else "0") for name in OFFLINE},
    }


def command_of(
    harness: Mapping[str, Any],
    config: Path,
    env: Mapping[str, str],
    setting: Setting,
    interface: Interface | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The command of a run and the environment to start it in, in an environment of envs/ or an image."""
    installation = recorded_installation(harness, setting.containers)
    is_nel = interface is not None and interface.is_nel
    words = ["nel", "eval", "run"] if is_nel else ["nemo-evaluator", "run_eval", "--run_config"]
    needed: list[Path] = []
    if installation.image is None:
        env = {**env, **own_harnesses()}
    else:
        Path(env["HF_HOME"]).mkdir(parents=True, exist_ok=True)
        # Results may lie elsewhere, behind a link.
        needed = [config.resolve().parent, Path(env["HF_HOME"])]
        eval_type, params = harness["eval_type"], harness["params"]
        needed += [*include_folders(params), *(path.parent for path in local_files(eval_type, params))]
        tokenizer = Path(_path(harness.get("tokenizer", setting.tokenizer)))
        if tokenizer.is_dir():
            needed += reached_from(tokenizer)
    return installation.command([*words, str(config.resolve())], env, needed)


async def run(
    header: TaskHeader,
    repetition: int,
    folder: Path,
    endpoint: Endpoint,
    setting: Setting,
    log: Path,
    watchdog: Watchdog,
    told: Callable[[dict[str, Any]], None] = lambda line: None,
) -> None:
    """Run one repetition of a task; a run that was cut short goes on where it was.

    Args:
        header: The task's.
        repetition: Number of the run.
        folder: Its own.
        endpoint: The model's server.
        setting: How it is run.
        log: Where its output goes.
        watchdog: Looks after its processes.
        told: Is given a line for each reply of the server.

    Raises:
        HarnessError: It failed; with its last lines.
        ServerError: The endpoint refuses every question, or another model answers there.
        BudgetError: It has cost what it may cost.
    """
    # Here, because its web server takes longer to import than most steps take, and they import this module.
    from milepost.nemo.relay import Relay, answered, outcomes, sampled

    folder.mkdir(parents=True, exist_ok=True)
    for mark in MARKS:
        (folder / mark).unlink(missing_ok=True)
    # What a cut run left must not pass for this one's.
    (folder / "results.yml").unlink(missing_ok=True)
    record = folder.with_suffix(".requests.jsonl")
    config = folder.with_suffix(".yml")
    models_own = dict(setting.sampling.get(MODEL, {})) if header["harness"].get("sampling") == MODEL else None
    seed = run_seed(header["task"], repetition)
    interface = interface_of(recorded_installation(header["harness"], setting.containers))
    relay = Relay(endpoint, seed, record, told, models_own, setting.attempt, setting.others)
    async with relay as relayed:
        made = run_config(header, relayed, folder, setting, interface)
        config.write_text(yaml.safe_dump(made, sort_keys=False))
        with ExitStack() as holding:
            port, held = hold()
            for one in held:
                holding.enter_context(one)
            env = variables(relayed, setting, port)
            if interface.is_nel:
                env |= {**nel.VARIABLES, "XDG_DATA_HOME": str(folder.resolve())}
            command, around = command_of(header["harness"], config, env, setting, interface)
            group = await ProcessGroup.start(command, env=around, log=log, watchdog=watchdog)
            try:
                ending = asyncio.ensure_future(group.process.wait())
                either: list[asyncio.Future[Any]] = [ending, relay.ended]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if relay.ended.done():
                    # The harness would ask on, and be refused each time.
                    raise relay.ended.result()
                code = ending.result()
            finally:
                ending.cancel()
                await group.stop(SHUTDOWN_S + 1)
    # An exit code of 0 after a signal is possible, so it takes all three.
    if code == 0 and interface.is_nel:
        nel.bring_into_form(folder)
    marks = [mark for mark in MARKS if (folder / mark).exists()]
    if code != 0 or marks or not (folder / "results.yml").is_file():
        how = f"ended with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise HarnessError(
            f"NeMo Evaluator {how} on task {header['task']!r}"
            f"{', and left ' + marks[0] if marks else ''}. The last lines of {log}:\n{last_lines(log)}"
        )
    done = {
        "task": header["task"],
        "run": repetition,
        "eval_type": header["harness"]["eval_type"],
        "requests": answered(record),
        "outcomes": outcomes(record),
        "sampling": [effective(asked, setting.sampling) for asked in sampled(record)],
        "versions": versions(recorded_installation(header["harness"], setting.containers)),
    }
    write_record(folder / DONE, done)


def interface_of(installation: NemoInstallation) -> Interface:
    """How runs are started in an environment or image; as in 0.2 where it does not say what it holds."""
    try:
        return read_catalogue(installation).interface
    except HarnessError as error:
        log.warning("Run as NeMo Evaluator 0.2, because it is not known which one it is. %s", error)
        return Interface()


@cache
def versions(installation: NemoInstallation) -> dict[str, str]:
    """Versions of NeMo Evaluator and its harnesses in an environment or image, and the image's digest.

    Raises:
        ContainerError: No such image.
    """
    found: dict[str, str] = {}
    try:
        found = dict(read_catalogue(installation).versions)
    except HarnessError as error:
        log.warning("The versions behind the runs are not known. %s", error)
    return {**found, **image_digests({"nemo": installation.image})}


def _path(tokenizer: str) -> str:
    """The absolute path of a tokenizer's folder; a hub name is returned as it is."""
    return str(Path(tokenizer).resolve()) if Path(tokenizer).is_dir() else tokenizer
