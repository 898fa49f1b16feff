"""List what NeMo Evaluator can run in an environment or image; run by the Python there, so it imports nothing of Milepost.

Arguments: none for everything that is installed, or folders of lm-eval tasks (`--include_path`) to read those alone.
Output, after whatever the imports print: MARK and JSON in one line, `{"harnesses": {...}, "tasks": {harness: {...}}, "options": ...,
"versions": {package: version}, "interface": {"program": command, "key": field}}`.
NeMo Evaluator up to 0.2 and from 0.3 are two programs; which one it is, and what its fields are called, is seen by looking,
not by version.
Python gets this file on standard input, in the root folder: beside it lie modules whose names would hide others (`evaluate`).
"""

import inspect
import json
import re
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import Any

MARK = "MILEPOST-CATALOGUE "
LM_EVAL = "lm-evaluation-harness"
# NeMo Evaluator's own benchmarks, from 0.3 on.
BUILT_IN = "nemo-evaluator"
PARAMETER = re.compile(r"\bconfig\.params\.(extra\.)?(\w+)")
# What a task's `params` become from 0.3 on: `milepost.nemo.nel`.
NEL_PARAMS = (
    "limit_samples",
    "max_new_tokens",
    "max_retries",
    "parallelism",
    "request_timeout",
    "temperature",
    "top_p",
)


def ask_harnesses() -> dict[str, Any]:
    """Every harness with its benchmarks, their endpoint types and parameters, and the defaults for tasks that it does not list."""
    from nemo_evaluator.core import input as nemo

    def describe(evaluation: Any) -> dict[str, Any]:
        used = {(bool(extra), name) for extra, name in PARAMETER.findall(evaluation.command)}
        params = evaluation.config.params.model_dump(exclude_none=True) if evaluation.config.params else {}
        return {
            "endpoint_types": [
                getattr(kind, "value", kind) for kind in evaluation.config.supported_endpoint_types or []
            ],
            # Early versions do not say what is required.
            "capabilities": list(getattr(evaluation.config, "required_capabilities", None) or []),
            "params": params,
            "known_params": sorted(name for extra, name in used if not extra and name not in ("task", "extra")),
            "known_extra": sorted(name for extra, name in used if extra),
            # A command line that has an option for each type of endpoint can use no other type.
            "told_apart": sorted(set(re.findall(r"api_endpoint\.type\s*==\s*[\"'](\w+)", evaluation.command))),
        }

    listed, defaults, _ = nemo.get_available_evaluations()
    return {
        harness: {
            "benchmarks": {name: describe(evaluation) for name, evaluation in benchmarks.items()},
            "defaults": describe(nemo.Evaluation(**defaults[harness])),
        }
        for harness, benchmarks in listed.items()
    }


def ask_key_field() -> str:
    """The field of an endpoint that names the variable of its key: another one up to 0.1.48."""
    from nemo_evaluator.api.api_dataclasses import ApiEndpoint

    return "api_key_name" if "api_key_name" in ApiEndpoint.model_fields else "api_key"


def ask_built_in() -> dict[str, Any]:
    """The harnesses from 0.3 on: its own benchmarks with what each may be told, and lm-eval, whose tasks have a list of their own."""
    from nemo_evaluator.environments import registry

    def describe(extra: list[str]) -> dict[str, Any]:
        return {
            "endpoint_types": ["chat", "completions"], "capabilities": [], "params": {}, "told_apart": [],
            "known_params": list(NEL_PARAMS), "known_extra": sorted({"num_fewshot", *extra}),
        }  # fmt: skip

    def options(benchmark: Any) -> list[str]:
        names = inspect.signature(benchmark.__init__).parameters
        return [name for name in names if name not in ("self", "num_examples", "args", "kwargs")]

    own = {name: describe(options(registry._REGISTRY[name])) for name in registry.list_environments()}
    harnesses = {BUILT_IN: {"benchmarks": own, "defaults": describe([])}}
    if find_spec("lm_eval"):
        harnesses[LM_EVAL] = {"benchmarks": {}, "defaults": describe([])}
    return harnesses


def ask_lm_eval(folders: list[str]) -> dict[str, dict[str, Any]]:
    """The tasks, groups and tags that lm-eval brings, or that the given folders add, with what each asks a model for."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=folders or None, include_defaults=not folders)
    tasks: dict[str, dict[str, Any]] = {}
    for name, entry in manager.task_index.items():
        kind, config, members = _read_early(entry) if isinstance(entry, dict) else _read_entry(entry)
        if kind in ("task", "python_task", "py_task"):
            tasks[name] = {
                "kind": "task",
                "asks": config.get("output_type", "generate_until") if kind == "task" else None,
            }
        else:
            named = [one if isinstance(one, str) else one.get("task", one.get("group")) for one in members or []]
            tasks[name] = {"kind": kind, "members": [one for one in named if isinstance(one, str)]}
    return tasks


def _read_early(entry: dict[str, Any]) -> tuple[str, dict[str, Any], Any]:
    """Kind, file and members of an entry of lm-eval's list up to 0.4.9, which the wheels of NVIDIA hold."""
    from lm_eval.utils import load_yaml_config

    config = load_yaml_config(entry["yaml_path"], mode="simple") if entry["yaml_path"] != -1 else {}
    members = entry["task"] if isinstance(entry.get("task"), list) else config.get("task")
    return entry["type"], config, members


def _read_entry(entry: Any) -> tuple[str, dict[str, Any], Any]:
    """Kind, file and members of an entry of lm-eval's list from 0.4.10 on."""
    config = entry.cfg or {}
    return entry.kind.name.lower(), config, sorted(entry.tags) if entry.kind.name == "TAG" else config.get("task")


def ask_lm_eval_options() -> list[str]:
    """The options of lm-eval's command line; lm-eval ignores unknown ones without a word, so they are checked against these."""
    try:
        from lm_eval.__main__ import setup_parser
    except ImportError:  # from 0.4.10 on
        from lm_eval._cli import HarnessCLI

        commands = [action for action in HarnessCLI()._parser._actions if isinstance(action.choices, dict)]
        return sorted(commands[0].choices["run"]._option_string_actions)
    return sorted(setup_parser()._option_string_actions)


def ask_versions() -> dict[str, str]:
    """Versions of NeMo Evaluator and of the packages that its harnesses came in."""
    versions = {}
    for package in distributions():
        name = str(package.metadata["Name"]).lower().replace("_", "-")
        harness = any(str(file).startswith("core_evals/") for file in package.files or [])
        if harness or name in ("nemo-evaluator", "lm-eval"):
            versions[name] = package.version
    return versions


def main() -> None:
    """Collect the answers and print them as one line."""
    folders = sys.argv[1:]
    answer: dict[str, Any] = {"harnesses": {}, "tasks": {}, "options": {}, "versions": {}, "interface": {}}
    early = find_spec("nemo_evaluator.core") is not None
    if not folders:
        answer["harnesses"] = ask_harnesses() if early else ask_built_in()
        answer["versions"] = ask_versions()
        answer["interface"] = {"program": "nemo-evaluator", "key": ask_key_field()} if early else {"program": "nel"}
    try:
        answer["tasks"][LM_EVAL] = ask_lm_eval(folders)
        if not folders and early:
            answer["options"][LM_EVAL] = ask_lm_eval_options()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lm_eval":
            raise
    print("\n" + MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
