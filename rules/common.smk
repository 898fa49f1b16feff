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
from contextlib import suppress
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Paths of the code are nobody's inputs, so a project or a campaign alone can be moved, and nothing runs again.
CODE = Path(workflow.basedir)
sys.path.insert(0, f"{workflow.basedir}/scripts")

from milepost.campaign.frozen import FROZEN, settings_path, write_settings
from milepost.campaign.identity import CACHE, DigestCache, identify
from milepost.campaign.shown import Current
from milepost.campaign.templates import model_record
from milepost.errors import MilepostError
from milepost.evaluation.collect import is_current, set_aside
from milepost.evaluation.earlier import refuse_beside_others, refuse_unwritable
from milepost.evaluation.work import is_complete
from milepost.nemo.check import check_nemo_tasks
from milepost.preflight.campaign import check_campaign, freeze_campaign, load_campaign, scorer_of
from milepost.preflight.costs import check_budget
from milepost.preflight.decides import asked_digest, code_of, digest_of, scored_digest, shown_record
from milepost.records import read_records
from milepost.runtime.environments import surroundings
from milepost.schemas import check_as_read
from milepost.scorers import scorer_module
from milepost.tasks.data_files import own_files

# Snakemake makes this folder in /tmp at each start, and one that is killed leaves it. It stays empty unless --shared-fs-usage
# says that hosts share less than everything, and is made again then.
with suppress(OSError):
    workflow.snakemake_tmp_dir.rmdir()

# Planning makes millions of objects that stay. Looking through all of them for garbage, over and over, was a tenth of it.
gc.freeze()
gc.set_threshold(50_000, 20, 20)

# Every step runs with the Python that runs Snakemake, and ends when this process is gone. None of it is a parameter, so
# none of it makes anything run again.
# What the user's shell holds for another Python does not get into them.
own = surroundings()
for name in set(os.environ) - set(own):
    del os.environ[name]
os.environ.update(
    own,
    MILEPOST_SCRIPTS=str(CODE / "scripts"),
    MILEPOST_SNAKEMAKE=f"{socket.gethostname()}:{os.getpid()}",
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
)

# A job on SLURM parses the workflow again: what is checked before anything runs need not be checked there, and what was
# planned holds, whatever was edited since.
if IS_MAIN:
    os.environ.pop(FROZEN, None)


def remove_withdrawn_notes():
    """Remove the notes of checkpoints whose answers were found incomplete, so that the next run goes on with them."""
    for mark in Path("results/evaluated").glob("*.withdrawn"):
        mark.with_suffix("").unlink(missing_ok=True)
        mark.unlink()


try:
    if IS_MAIN:
        for path in filter(lambda path: not str(path).endswith(".json"), workflow.configfiles):
            check_as_read(Path(path))
    CAMPAIGN = load_campaign(config if IS_MAIN or FROZEN not in os.environ else None)
    config = CAMPAIGN.config
    if IS_MAIN:
        check_campaign(CAMPAIGN, installed=not workflow.dryrun, fetched=not only_looks({"prefetch"}))
        check_nemo_tasks(CAMPAIGN, installed=not workflow.dryrun)
        check_budget(CAMPAIGN)
        if not workflow.dryrun:
            os.environ[FROZEN] = str(freeze_campaign(CAMPAIGN))
    # The scorer of every task of our own. What it needs, and has of its own, decides which rules are for the task.
    SCORERS = {name: scorer_of(task) for name, task in CAMPAIGN.native.items()}
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


if RUNS:
    if not only_looks({"serve_shared"}):
        try:
            refuse_unwritable()
            refuse_beside_others(logger.info)
        except MilepostError as error:
            raise WorkflowError(f"{type(error).__name__}: {error}") from None
    # A run that was killed could not do it at its end.
    remove_withdrawn_notes()
    remove_unfinished_results()

# What copies answers out of the store, by the kind of a task.
COLLECT = {"native": "collect_answers.py", "nemo": "collect_harness.py"}
CHECKPOINTS = list(CAMPAIGN.checkpoints)
TASKS = list(CAMPAIGN.tasks)
# Beside CSV, Markdown and plain text.
TABLES = [f"results/tables/scores.{kind}" for kind in config["tables"]["formats"]]
DIGESTS = DigestCache(CACHE)
# Planning asks for one checkpoint after the other: writing all that is known each time would cost its square.
atexit.register(DIGESTS.save)
SAVE_EVERY_S = 2.0


def names(tasks):
    """A pattern for these names; one that matches nothing where there are none."""
    return "|".join(map(re.escape, tasks)) or "(?!)"


NATIVE = names(CAMPAIGN.named("native"))
# Work for a node, not for a host on which people log in.
ON_NODE = [task for task, scorer in SCORERS.items() if scorer.needs().node]
# Judges are asked, and waited for.
JUDGED = [task for task, scorer in SCORERS.items() if scorer.needs().judges and task not in ON_NODE]
BY_RULE = [task for task in SCORERS if task not in [*ON_NODE, *JUDGED]]
# Scorers that report more than scores.
TABULATED = [task for task, scorer in SCORERS.items() if scorer.tabulates]
PREPARED = [task for task, scorer in SCORERS.items() if scorer.prepares]
NEMO = names(CAMPAIGN.named("nemo"))


wildcard_constraints:
    ckpt="[A-Za-z0-9][A-Za-z0-9._-]*",
    task="[A-Za-z0-9][A-Za-z0-9._-]*",


def code(name):
    """What a step's code says, as its parameter: the step runs again when a module that decides its result changes."""
    return code_of(name)


def scorer_code(name):
    """What a step's code says, as its parameter; that of the task's scorer included, which is loaded by its name."""
    return lambda wildcards: code_of(name, scorer_module(SCORERS[wildcards.task].name))


def told(error):
    """An error made for users, as Snakemake shows it."""
    return WorkflowError(f"{type(error).__name__}: {error}")


def settings(value):
    """A file with what a step is told, named by its content: as a parameter, it makes the step run again when that changes."""
    return settings_path(value) if workflow.dryrun else write_settings(value)


@cache
def identity_of(ckpt):
    """Who a checkpoint is."""
    try:
        identity = identify(CAMPAIGN.checkpoints[ckpt], DIGESTS)
    except MilepostError as error:
        raise told(error) from None
    DIGESTS.save(SAVE_EVERY_S)
    return identity


def identity(wildcards):
    """Who a checkpoint is, for its step; a change asks everything of it. And how it marks its reasoning, for scoring."""
    ckpt = CAMPAIGN.checkpoints[wildcards.ckpt]
    record = model_record(identity_of(ckpt.name), ckpt, config, DIGESTS)
    DIGESTS.save(SAVE_EVERY_S)
    return settings(record)


@cache
def asked_of(task):
    """Digest of all that decides what a task asks."""
    try:
        return asked_digest(CAMPAIGN.tasks[task], config.get("limit"), DIGESTS)
    except MilepostError as error:
        raise told(error) from None


def asked(wildcards):
    """Digest of all that decides what a task asks: a change asks the task again."""
    return asked_of(wildcards.task)


@cache
def scored_of(task):
    """Digest of all that decides how a task's answers are scored."""
    try:
        return scored_digest(CAMPAIGN.tasks[task], DIGESTS)
    except MilepostError as error:
        raise told(error) from None


def scored(wildcards):
    """Digest of all that decides how a task's answers are scored: a change scores them again, and asks nothing."""
    return scored_of(wildcards.task)


def today():
    """What decides today's numbers: a step that shows numbers takes no others."""
    return Current(
        asked={task: asked_of(task) for task in TASKS},
        scored={task: scored_of(task) for task in TASKS},
        models={ckpt: identity_of(ckpt)["digest"] for ckpt in CHECKPOINTS},
    )


def shown(*options, numbers=False):
    """What a step that shows results is told of the campaign: checkpoints, tasks, and these options of the config."""
    return lambda wildcards: settings(shown_record(CAMPAIGN, options, today() if numbers else None))


def scorer_files(wildcards):
    """The user's files that a task's scorer reads."""
    return list(SCORERS[wildcards.task].needs().files)


def scoring(wildcards):
    """A task's scorer and headline metric, for the step that scores, without what decides no score."""
    task, scorer = CAMPAIGN.tasks[wildcards.task], SCORERS[wildcards.task]
    return settings({**task.scoring(), "scorer": without_own(task.scorer, scorer)})


def without_own(options, scorer):
    """A scorer's options without those that decide its own tables only."""
    return {key: value for key, value in options.items() if key not in scorer.own_options}


def prepares(wildcards):
    """A task's scorer, for the step that prepares its tables."""
    return settings(without_own(CAMPAIGN.native[wildcards.task].scorer, SCORERS[wildcards.task]))


def tabulates(wildcards):
    """What the step that makes a task's own tables is told: its scorer, its title, all checkpoints."""
    task = CAMPAIGN.tasks[wildcards.task]
    return settings({"scorer": task.scorer, "title": task.title, "ckpts": CHECKPOINTS})


def prepared(wildcards):
    """What was prepared for the tables of a task, where its scorer prepares anything."""
    return f"results/prepared/{wildcards.task}" if wildcards.task in PREPARED else []


def data_of(wildcards):
    """The user's file with the items of a task of our own; a harness has its own."""
    task = CAMPAIGN.native.get(wildcards.task)
    return own_files(task.data) if task else []


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


def is_collected(ckpt, task):
    """Whether answers to a task are there, and answer today's questions by today's model."""
    collected = Path(answers_of(ckpt, task))
    # The identity is looked up last: it takes a look at the model's files.
    return collected.exists() and is_current(
        collected, asked_of(task), identity_of(ckpt)["digest"], code_of(COLLECT[CAMPAIGN.tasks[task].kind])
    )


def awaited(kind, suffix=""):
    """A pattern for checkpoints that fits only where answers to a task must be collected: not where they are there, and
    answer today's questions by today's model.

    Snakemake looks at nothing that lies behind a job that runs, and does not go on over `ancient`. So no finished answers
    may lie behind a checkpoint's evaluation: without a rule that makes them, they are files like any others.
    """
    name = "[A-Za-z0-9][A-Za-z0-9._-]*"
    if not IS_MAIN:
        return name
    there, missing = {}, {}
    for ckpt in CHECKPOINTS:
        for task in CAMPAIGN.named(kind):
            collected = is_collected(ckpt, task)
            (there if collected else missing).setdefault(ckpt, []).append(task)
            # Answers to other questions would count as there, behind an evaluation that runs.
            if RUNS and not collected and Path(answers_of(ckpt, task)).exists():
                set_aside(Path(answers_of(ckpt, task)))
    if RUNS:
        withdraw_wrong_notes(missing)
    either = min(
        (pairs_pattern(there), f"(?!{{}}{suffix}$)"),
        (pairs_pattern(missing), f"(?={{}}{suffix}$)"),
        key=lambda each: len(each[0]),
    )
    return either[1].replace("{}", either[0]) + name


def scores_of_collected(wildcards):
    """The scores and numbers of all answers that are there: what can be made without a checkpoint's server."""
    pairs = [(ckpt, task) for ckpt in CHECKPOINTS for task in TASKS if is_collected(ckpt, task)]
    return [
        path
        for ckpt, task in pairs
        for path in (f"results/scores/{ckpt}/{task}.jsonl", f"results/summaries/{ckpt}/{task}.json")
    ]


def pairs_pattern(pairs):
    """A pattern for CHECKPOINT/TASK; checkpoints with the same tasks stand together.

    Every job's files are matched with it, so it should be short.
    """
    by_tasks = {}
    for ckpt, tasks in pairs.items():
        by_tasks.setdefault(tuple(tasks), []).append(ckpt)
    alternatives = [f"(?:{names(ckpts)})/(?:{names(tasks)})" for tasks, ckpts in by_tasks.items()]
    return f"(?:{'|'.join(alternatives) or '(?!)'})"


def evaluation_of(wildcards):
    """The note that an evaluation leaves, where the store lacks answers to a task; nothing where they only have to be copied.

    Where the evaluation runs all the same, for another task, Snakemake would not look at a copy that lies behind its note.
    """
    ckpt, task = wildcards.ckpt, wildcards.task
    today = says(f"results/prompts/{task}.jsonl", "asked", asked_of(task))
    if (
        today
        and says(f"results/models/{ckpt}.json", "digest", identity_of(ckpt)["digest"])
        and is_complete(ckpt, [task])
    ):
        return []
    return ancient(f"results/evaluated/{ckpt}.json")


def withdraw_wrong_notes(missing):
    """Remove the notes of checkpoints whose store lacks what their note says was answered, so that it is asked for."""
    for ckpt, tasks in missing.items():
        note = Path(f"results/evaluated/{ckpt}.json")
        if note.exists() and not is_complete(ckpt, tasks):
            note.unlink()


def says(path, key, value):
    """Whether the first line of a file, a record, has a value; not where it cannot be read."""
    try:
        return next(read_records(path), {}).get(key) == value
    except MilepostError:
        return False


def remove_others():
    """Remove questions and identities that are not today's, so that they count as missing.

    Snakemake knows by itself that their parameters changed, but not where its memory of earlier runs is lost.
    """
    prompts = [(f"results/prompts/{task}.jsonl", "asked", asked_of(task)) for task in TASKS]
    models = [(f"results/models/{ckpt}.json", "digest", identity_of(ckpt)["digest"]) for ckpt in CHECKPOINTS]
    for path, key, value in prompts + models:
        if Path(path).exists() and not says(path, key, value):
            Path(path).unlink()


if RUNS:
    remove_others()
