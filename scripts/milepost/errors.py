"""The errors that a user can do something about. Each message is one paragraph: what is wrong, what there is, what to do."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

MINE = "`ls -ld` says whose it is: give yourself the right to it (chmod u+rwX, or ask its owner)."
# What a user can do where a disk says no; anything else is a fault of ours, and keeps its traceback.
DISK = {
    errno.EACCES: MINE,
    errno.EPERM: MINE,
    errno.EROFS: "Its file system takes no writing now: an archived project, a snapshot, or a fault that the site knows.",
    errno.ENOSPC: "Make room on this disk.",
    errno.EDQUOT: "Make room: your quota is used up, of bytes or of files.",
}


class MilepostError(Exception):
    """Base of all errors that are shown as a message, without a traceback."""


class ConfigError(MilepostError):
    """The configuration asks for something that cannot be."""


class UnknownKeyError(ConfigError):
    """The configuration has a key that its schema does not know."""


class UnknownTaskError(ConfigError):
    """The configuration asks for a task that has no file in config/tasks."""


class UnknownScorerError(ConfigError):
    """A task asks for a scorer that does not exist."""


class ModelError(MilepostError):
    """The files of a checkpoint are missing or cannot be used."""


class RecordError(MilepostError):
    """A file of records has a malformed line; the message names file and line."""


class StoreError(MilepostError):
    """The store of answers is in use by another writer, or damaged."""


class ServerError(MilepostError):
    """A model server did not start, died, or is not the one that was started."""


class CallError(MilepostError):
    """A call to a scoring model (embedder, reranker, evaluator, judge) that failed for good.

    Attributes:
        kind: What failed: this call (`refused`, `context`, `filtered`); all calls of its form (`form`) or of any
            (`endpoint`); or `server`, `timeout`, `connection`, which may go away.
        lasting: The same call will always fail, and it is this call's fault.
        status: HTTP status of the last try; None if there was none.
    """

    def __init__(self, message: str, kind: str = "server", lasting: bool = False, status: int | None = None) -> None:
        """Make the error of a call."""
        super().__init__(message)
        self.kind = kind
        self.lasting = lasting
        self.status = status


class JudgeError(MilepostError):
    """A judge that has become another one, or that has cost what it may cost."""


class BudgetError(JudgeError):
    """An endpoint has cost a campaign what it may cost."""


class EndpointError(MilepostError):
    """An endpoint of config/endpoints.yaml does not answer, or not as the model that was named."""


class EnvironmentMissingError(MilepostError):
    """An environment in envs/ is not installed, or cannot run on this machine."""


class ContainerError(MilepostError):
    """A container image, or the program that runs it, is missing or cannot be used."""


class HarnessError(MilepostError):
    """NeMo Evaluator failed, or its results cannot be read."""


class StaleNumberError(MilepostError):
    """A number was made by another configuration than today's."""


class StatsError(MilepostError):
    """A statistic is not defined for its input."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word, or nothing.

    >>> did_you_mean("ifevl", ["ifeval", "mmlu"])
    " Did you mean 'ifeval'?"
    >>> did_you_mean("x", ["ifeval"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def why_unreadable(path: str | Path, error: Exception, wanted: str = "a file") -> str:
    """Say in a sentence why a file cannot be read.

    Args:
        path: The file.
        error: What was raised as it was opened or read.
        wanted: What it should have been.
    """
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist{'' if Path(path).is_absolute() else f' (looked for in {Path.cwd()})'}."
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder, where {wanted} is expected."
    return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names in one line; of a long list the first ones, and how many more there are.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    >>> listed([])
    'none'
    """
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most]) or 'none'}{rest}"


def run_step(main: Callable[[], None]) -> None:
    """Run a step's main function; an error made for users, or of the disk, ends it with its message and exit code 1."""
    try:
        main()
    except MilepostError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except OSError as error:
        advice = DISK.get(error.errno or 0)
        if advice is None or error.filename is None:
            raise
        sys.exit(
            f"StoreError: {os.fsdecode(error.filename)} cannot be read or written: {error.strerror}. What is stored is kept."
            f" {advice} Then run the same command again."
        )
    except KeyboardInterrupt:
        sys.exit(130)
