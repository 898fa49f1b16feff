# What the rules share. No rules here.
import atexit
import builtins
import gc
import json
import os
import re
import shutil
import socket
import sys
from base64 import urlsafe_b64decode
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The folder of the code, as it is seen from the campaign's: when both are moved together, no job's inputs change.
CODE = Path(os.path.relpath(workflow.basedir))
sys.path.insert(0, f"{workflow.basedir}/scripts")

from milepost.campaign.identity import CACHE, DigestCache, identify
from milepost.code_digest import code_digest
from milepost.endpoints.specs import find_endpoint
from milepost.errors import MilepostError
from milepost.evaluation.work import is_complete
from milepost.nemo.check import check_nemo_tasks
from milepost.preflight.campaign import check_campaign, load_campaign
from milepost.scorers import scorer_module
from milepost.scorers.avert.settings import compared_by
from milepost.scorers.equator.keys import check_answer_keys
from milepost.tasks.lm_eval_files import files_digest

# Planning makes millions of objects that stay. Looking through all of them for garbage, over and over, was a tenth of it.
gc.freeze()
gc.set_threshold(50_000, 20, 20)

# Every step gets the configuration as it was merged here, runs with the Python that runs Snakemake, and ends when this
# process is gone. None of it is a parameter, so none of it makes anything run again.
os.environ.update(
    MILEPOST_CONFIG=json.dumps(config),
    MILEPOST_SNAKEMAKE=f"{socket.gethostname()}:{os.getpid()}",
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
)

# A job on SLURM parses the workflow again; what is checked before anything runs need not be checked there.
IS_MAIN = workflow.is_main_process


def remove_withdrawn_notes():
    """Remove the notes of checkpoints whose answers were found incomplete, so that the next run goes on with them."""
    for mark in Path("results/evaluated").glob("*.withdrawn"):
        mark.with_suffix("").unlink(missing_ok=True)
        mark.unlink()


try:
    CAMPAIGN = load_campaign(config)
    if IS_MAIN:
        check_campaign(CAMPAIGN)
        check_nemo_tasks(CAMPAIGN, installed=not workflow.dryrun)
        check_answer_keys(CAMPAIGN.tasks.values())
except MilepostError as error:
    raise WorkflowError(f"{type(error).__name__}: {error}") from None


def remove_unfinished_results():
    """Remove what a killed run left half made, so that it counts as missing.

    Left to --rerun-incomplete, Snakemake 9.27 makes these files alone, overlooks all that is missing behind an `ancient`
    input, and says that it is done.
    """
    marks = Path(".snakemake/incomplete")
    for mark in [path for path in marks.rglob("*") if path.is_file()]:
        # Snakemake's name of a mark: the file's in base64, a long one cut into folders that begin with @.
        parts = [part.removeprefix("@") for part in mark.relative_to(marks).parts]
        path = Path(urlsafe_b64decode("".join(parts)).decode())
        if path.parts[0] == "results" and path.parts[1:2] != ("store",):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)


if IS_MAIN and not workflow.dryrun and not any(Path(".snakemake/locks").glob("*")):
    # A run that was killed could not do it at its end.
    remove_withdrawn_notes()
    remove_unfinished_results()

CHECKPOINTS = list(CAMPAIGN.checkpoints)
TASKS = list(CAMPAIGN.tasks)
# Beside CSV, Markdown and plain text.
TABLES = [f"results/tables/scores.{kind}" for kind in config.get("tables", {}).get("formats", [])]
DIGESTS = DigestCache(CACHE)
# Planning asks for one checkpoint after the other: writing all that is known each time would cost its square.
atexit.register(DIGESTS.save)
SAVE_EVERY_S = 2.0


def names(tasks):
    """A pattern for these names; one that matches nothing where there are none."""
    return "|".join(map(re.escape, tasks)) or "(?!)"


NATIVE = names(CAMPAIGN.named("native"))
# Scorers that load a model of their own: work for a node, not for a host on which people log in.
BY_MEANING = [task for task in CAMPAIGN.named("native") if CAMPAIGN.tasks[task].spec["scorer"]["name"] == "avert"]
BY_ANSWER_KEY = [task for task in CAMPAIGN.named("native") if CAMPAIGN.tasks[task].spec["scorer"]["name"] == "equator"]
BY_RULE = [task for task in CAMPAIGN.named("native") if task not in [*BY_MEANING, *BY_ANSWER_KEY]]
NEMO = names(CAMPAIGN.named("nemo"))


wildcard_constraints:
    ckpt="[A-Za-z0-9][A-Za-z0-9._-]*",
    task="[A-Za-z0-9][A-Za-z0-9._-]*",


def script(name):
    """A step's script."""
    return str(CODE / "scripts" / name)


def code(name):
    """What a step's code says, as its parameter: the step runs again when a module that decides its result changes."""
    return code_digest(Path(workflow.basedir) / "scripts" / name)


def scoring_code(wildcards):
    """What the code of score_answers says, the task's scorer included, which is loaded by its name."""
    scorer = scorer_module(CAMPAIGN.tasks[wildcards.task].spec["scorer"]["name"])
    return code_digest(Path(workflow.basedir) / "scripts" / "score_answers.py", scorer)


def identity_digest(wildcards):
    """Who the checkpoint is; a change asks everything of it."""
    try:
        digest = identify(CAMPAIGN.checkpoints[wildcards.ckpt], DIGESTS)["digest"]
    except MilepostError as error:
        raise WorkflowError(f"{type(error).__name__}: {error}") from None
    DIGESTS.save(SAVE_EVERY_S)
    return digest


def questions(wildcards):
    """The part of a task's file that decides what is asked, a harness's task files and their data, the campaign's limit."""
    task = CAMPAIGN.tasks[wildcards.task]
    asked = {**task.questions(), "campaign_limit": config.get("limit")}
    if task.kind == "nemo":
        try:
            asked["files"] = files_digest(task.spec, DIGESTS)
        except MilepostError as error:
            raise WorkflowError(f"{type(error).__name__}: {error}") from None
        DIGESTS.save()
    return asked


def scoring(wildcards):
    """The part of a task's file that decides scores. A change elsewhere in it scores nothing again."""
    task = CAMPAIGN.tasks[wildcards.task]
    return task.scoring() | (compared_by(task.spec["scorer"], task.name) if task.name in BY_MEANING else {})


@cache
def endpoint_identity(name):
    """Who answers at an endpoint. A shared one's files are looked at once, not for each checkpoint."""
    return find_endpoint(name, "A scorer").identity


def marking(wildcards):
    """What decides the scores by an answer key: the scorer's options, and who the evaluators are."""
    decides = scoring(wildcards)
    scorer = {key: value for key, value in decides["scorer"].items() if key != "label"}
    try:
        who = {name: endpoint_identity(name) for name in scorer["evaluators"]}
    except MilepostError as error:
        raise WorkflowError(f"{type(error).__name__}: {error}") from None
    return {**decides, "scorer": scorer, "evaluators": who}


def answer_key_of(wildcards):
    """The user's answer key of a task."""
    return CAMPAIGN.tasks[wildcards.task].spec["scorer"]["answer_key"]


def data_of(wildcards):
    """The items of a task of our own; a harness has its own."""
    return CAMPAIGN.tasks[wildcards.task].spec.get("data", [])


def servers(wildcards):
    """Whether a server will be started: not for a checkpoint whose store is complete, or that others serve. Asked when
    the job is submitted.
    """
    if CAMPAIGN.checkpoints[wildcards.ckpt].endpoint is not None:
        return 0
    return 0 if is_complete(wildcards.ckpt, TASKS) else 1


def gpus(wildcards):
    """GPUs of the server that a job starts: its checkpoint's, if any; without a checkpoint, those of the shared endpoint."""
    if not hasattr(wildcards, "ckpt"):
        return max((spec.serving.gpus for spec in SHARED if SERVED in (None, spec.name)), default=0)
    return servers(wildcards) * CAMPAIGN.checkpoints[wildcards.ckpt].serving.gpus


def model_profile(wildcards):
    """Name of the checkpoint's model profile."""
    return CAMPAIGN.checkpoints[wildcards.ckpt].model_profile


# Snakemake evaluates the resources of a cluster's profile without any names of ours. Which GPUs a site has is said there,
# and it depends on these two which of them a job gets, and whether it gets any.
builtins.gpus, builtins.model_profile = gpus, model_profile


def answers_of(ckpt, task):
    """What a checkpoint answered to a task: a file of ours, or a harness's folder."""
    if CAMPAIGN.tasks[task].kind == "nemo":
        return f"results/harness/{ckpt}/{task}"
    return f"results/answers/{ckpt}/{task}.jsonl"
