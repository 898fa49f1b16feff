"""List what NeMo Evaluator can run in an environment or image; run by the Python there, so it imports nothing of Milepost.

Arguments: none for everything that is installed, or folders of lm-eval tasks (`--include_path`) to read those alone.
Output, after whatever the imports print: MARK and JSON in one line, `{"harnesses": {...}, "tasks": {harness: {...}}, "options": ...,
"versions": {package: version}}`.
Python gets this file on standard input, in the root folder: beside it lie modules whose names would hide others (`evaluate`).
"""

import json
import re
import sys
from importlib.metadata import distributions
from typing import Any

MARK = "MILEPOST-CATALOGUE "
LM_EVAL = "lm-evaluation-harness"


def ask_harnesses() -> dict[str, Any]:
    """Every harness with its benchmarks, their endpoint types and parameters, and the defaults for tasks that it does not list."""
    from nemo_evaluator.core import input as nemo
    from nemo_evaluator.core.utils import extract_params_from_command

    def describe(evaluation: Any) -> dict[str, Any]:
        standard, extra = extract_params_from_command(evaluation.command)
        params = evaluation.config.params.model_dump(exclude_none=True) if evaluation.config.params else {}
        return {
            "endpoint_types": [
                getattr(kind, "value", kind) for kind in evaluation.config.supported_endpoint_types or []
            ],
            "capabilities": list(evaluation.config.required_capabilities or []),
            "params": params,
            "known_params": sorted(standard - {"task"}),
            "known_extra": sorted(extra),
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


def ask_lm_eval(folders: list[str]) -> dict[str, dict[str, Any]]:
    """The tasks, groups and tags that lm-eval brings, or that the given folders add, with what each asks a model for."""
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import load_yaml_config

    manager = TaskManager(include_path=folders or None, include_defaults=not folders)
    tasks: dict[str, dict[str, Any]] = {}
    for name, entry in manager.task_index.items():
        config = load_yaml_config(entry["yaml_path"], mode="simple") if entry["yaml_path"] != -1 else {}
        members = entry["task"] if isinstance(entry.get("task"), list) else config.get("task")
        if entry["type"] in ("task", "python_task"):
            asks = config.get("output_type", "generate_until") if entry["type"] == "task" else None
            tasks[name] = {"kind": "task", "asks": asks}
        else:
            named = [one if isinstance(one, str) else one.get("task", one.get("group")) for one in members or []]
            tasks[name] = {"kind": entry["type"], "members": [one for one in named if isinstance(one, str)]}
    return tasks


def ask_lm_eval_options() -> list[str]:
    """The options of lm-eval's command line; lm-eval ignores unknown ones without a word, so they are checked against these."""
    from lm_eval.__main__ import setup_parser

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
    answer: dict[str, Any] = {"harnesses": {}, "tasks": {}, "options": {}, "versions": {}}
    if not folders:
        answer["harnesses"] = ask_harnesses()
        answer["versions"] = ask_versions()
    try:
        answer["tasks"][LM_EVAL] = ask_lm_eval(folders)
        if not folders:
            answer["options"][LM_EVAL] = ask_lm_eval_options()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lm_eval":
            raise
    print("\n" + MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
