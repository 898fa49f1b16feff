"""Load tasks and models as a run will; run by the Python of an environment or image, so it imports nothing of Milepost.

Argument: JSON, `{"tasks": [{"name", "folders"}], "models": [{"name", "revision", "weights", "code"}]}`; among the models also
files of data sets, `{"name", "revision", "file"}`. The environment says whether the hub may be asked (HF_HUB_OFFLINE); once it
cannot be reached, no more is tried. Output, after whatever else is printed: a line of MARK and JSON for each
of them, in that order, `{"name", "said"}` or `{"name", "error", "kind"}` with kind hub, refused or other.
Python gets this file on standard input.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

MARK = "MILEPOST-PREFETCH "
TOKENIZER_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py"]
# The same weights in the formats of other libraries.
OTHER_FORMATS = ["original/*", "*.bin", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf"]


def load_task(name: str, folders: list[str]) -> str:
    """Load an lm-eval task with its data, as a run does before it asks a model."""
    from lm_eval.tasks import TaskManager, get_task_dict

    counts: list[int] = []

    def count(loaded: dict[Any, Any]) -> None:
        for task in loaded.values():
            if isinstance(task, dict):
                count(task)
            elif isinstance(task, tuple):  # (group, task), as older versions have it
                counts.append(len(task[1].eval_docs))
            elif task is not None:
                counts.append(len(task.eval_docs))

    count(get_task_dict([name], TaskManager(include_path=folders or None)))
    if not counts or not sum(counts):
        raise ValueError(f"lm-eval loaded no items for {name}")
    return f"{sum(counts)} items" + (f" of {len(counts)} tasks" if len(counts) > 1 else "")


def load_model(name: str, revision: str | None, weights: bool, code: bool) -> str:
    """Fetch a model's snapshot, or the files of its tokenizer alone, and load the tokenizer from it."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from transformers import AutoTokenizer

    patterns = {"ignore_patterns": OTHER_FORMATS} if weights else {"allow_patterns": TOKENIZER_FILES}
    if weights and not constants.HF_HUB_OFFLINE:
        files = [file.rfilename for file in HfApi().model_info(name, revision=revision).siblings or []]
        if not any(file.endswith(".safetensors") for file in files):
            patterns = {}
    folder = Path(snapshot_download(name, revision=revision, **patterns))
    AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=code)
    if not weights:
        return f"tokenizer in {folder}"
    indices = list(folder.glob("*.index.json"))
    wanted = {file for index in indices for file in json.loads(index.read_bytes())["weight_map"].values()}
    missing = sorted(file for file in wanted if not (folder / file).exists())
    there = [
        file
        for pattern in ("*.safetensors", "*.bin", "*.pt", "*.gguf")
        for file in folder.glob(pattern)
        if file.exists()
    ]
    if missing or not there:
        raise FileNotFoundError(
            f"of the weights of {name}, {missing[0] if missing else 'all files'} are missing in {folder}"
        )
    return f"{sum(file.stat().st_size for file in there) / 2**30:.1f} GiB of weights in {folder}"


def load_file(name: str, revision: str | None, file: str) -> str:
    """Fetch one file of a data set."""
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(name, file, repo_type="dataset", revision=revision))


def kind_of(error: BaseException) -> str:
    """Classify why something could not be loaded: `hub` (not reachable), `refused`, or `other`."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    for one in chain:
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status in (401, 403) or type(one).__name__ in ("GatedRepoError", "RepositoryNotFoundError"):
            return "refused"
    names = {kind.__name__ for one in chain for kind in type(one).__mro__}
    if names & {"ConnectionError", "ConnectError", "ConnectTimeout", "LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        return "hub"
    return "other"


def main() -> None:
    """Load the tasks and models one after the other; one that fails does not stop the others."""
    # The folder that it is started in holds a campaign's folders, not modules.
    sys.path = [folder for folder in sys.path if folder]
    wanted = json.loads(sys.argv[1])
    jobs = [(load_task, task) for task in wanted["tasks"]] + [
        (load_file if "file" in model else load_model, model) for model in wanted["models"]
    ]
    unreachable = ""
    for load, options in jobs:
        answer: dict[str, Any] = {"name": options["name"]}
        try:
            if unreachable:
                raise ConnectionError(unreachable)
            answer["said"] = load(**options)
        except Exception as error:  # any error that a harness may raise: it is reported, and the next one is loaded
            answer |= {"error": f"{type(error).__name__}: {error}", "kind": kind_of(error)}
            if answer["kind"] == "hub" and os.environ.get("HF_HUB_OFFLINE") != "1":
                unreachable = str(error)  # each further one would wait for half a minute
        print("\n" + MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
