# What is a run, and what only looks at one. No rules here.
import re
import sys
from pathlib import Path

IS_MAIN = workflow.is_main_process
# Targets whose own words are all that is to be seen of a run.
LOOKS = {
    "check_endpoint",
    "forget_attempt",
    "forget_refusals",
    "list_evals",
    "plan",
    "prefetch",
    "preflight",
    "preview_prompts",
    "stop_servers",
}
# Targets that make no result of the campaign: they may run beside a run that does.
BESIDE = LOOKS | {"partial_report", "serve_shared"}


def only_looks(looks):
    """Whether nothing but these targets is asked for. While rules are read, only the command line knows."""
    targets = set(workflow.dag_settings.targets) if workflow.dag_settings is not None else set(sys.argv) & looks
    return bool(targets) and targets <= looks


# Options with which Snakemake runs nothing. While rules are read, it does not say itself that a run is a dry one.
NO_RUN = (
    "--dry",
    "--lint",
    "--list",
    "--summary",
    "--detailed-summary",
    "--dag",
    "--rulegraph",
    "--filegraph",
    "--d3dag",
    "--report",
    "--archive",
    "--touch",
    "--unlock",
    "--cleanup",
    "--delete",
    "--containerize",
    "--print",
    "--generate",
)


def runs_nothing(word):
    """Whether a word of the command line is an option with which nothing runs; short ones may stand together (-np)."""
    return word.startswith(NO_RUN) or re.fullmatch("-[npqkFlSDt]*[nlSDt][npqkFlSDt]*", word) is not None


def is_locked():
    """Whether a run holds this folder's lock, or was killed while it did."""
    return any(Path(".snakemake/locks").glob("*"))


# Whether this is the start of a run: no look at what one would do, and none beside another run.
RUNS = (
    IS_MAIN
    and not any(map(runs_nothing, sys.argv[1:]))
    and not only_looks(LOOKS | {"partial_report"})
    and not is_locked()
)
