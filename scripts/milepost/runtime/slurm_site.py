"""What a SLURM cluster offers, as its own commands report it on a login host. Nothing is changed or submitted."""

from __future__ import annotations

import getpass
import re
import subprocess
from dataclasses import dataclass
from functools import cache

TIMEOUT_S = 15.0  # limit for one command: nobody is kept waiting by a controller that is busy for longer
DOWN = ("down", "drain", "fail", "maint", "powered_down", "powering_down", "unknown", "error", "planned_down", "inval")


class SiteUnknownError(Exception):
    """A SLURM command is missing, failed or took too long; the message says which one, and how."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one partition that are alike.

    Attributes:
        partition: Its name.
        default: Whether jobs that name no partition go there.
        up: Whether the partition takes and starts jobs.
        limit_min: Its longest walltime in minutes; None is unlimited.
        gpus: GPUs of each node by type; a site that names no type has them under "".
        features: What a constraint can ask for.
        count: How many nodes.
        usable: Whether they take jobs now.
        memory_mb: Memory of each node.
    """

    partition: str
    default: bool
    up: bool
    limit_min: float | None
    gpus: dict[str, int]
    features: frozenset[str]
    count: int
    usable: bool
    memory_mb: int


@dataclass(frozen=True)
class Association:
    """What a user may use: an account, on one partition (or "" for all), with its longest walltime in minutes."""

    account: str
    partition: str
    limit_min: float | None


def ask(*command: str, words: bool = False) -> str:
    """Run a SLURM command and return its standard output; with `words`, its standard error as well.

    Raises:
        SiteUnknownError: It is not here, failed, or took longer than TIMEOUT_S.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise SiteUnknownError(f"there is no {command[0]} on this host: look again on a login host") from None
    except subprocess.TimeoutExpired:
        raise SiteUnknownError(f"{command[0]} did not answer within {TIMEOUT_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        message = " ".join((error.stderr or error.stdout or "nothing").split())
        raise SiteUnknownError(f"{command[0]} failed and said: {message[:200]}") from None
    except OSError as error:
        raise SiteUnknownError(f"{command[0]} cannot be run: {error.strerror}") from None
    return done.stdout + done.stderr * words


@cache
def nodes() -> tuple[Nodes, ...]:
    """All nodes of the cluster, also in partitions that this user does not see by default."""
    text = ask("sinfo", "--all", "--noheader", "-o", "%P|%a|%l|%D|%T|%m|%f|%G")
    return tuple(parse_nodes(line) for line in text.splitlines() if line.count("|") >= 7)


def parse_nodes(line: str) -> Nodes:
    """Read one line of sinfo's output.

    >>> parse_nodes("main*|up|1-00:00:00|1|idle|64000|A40,GPU|gpu:A40:2(S:0-1)").gpus
    {'A40': 2}
    """
    name, state, limit, count, node_state, memory, features, gres = line.strip().split("|", 7)
    return Nodes(
        partition=name.removesuffix("*"),
        default=name.endswith("*"),
        up=state == "up",
        limit_min=parse_minutes(limit),
        gpus=parse_gpus(gres),
        features=frozenset() if features == "(null)" else frozenset(features.split(",")),
        count=int(count),
        usable=not node_state.rstrip("*~#!%$@^-+").lower().startswith(DOWN) and "*" not in node_state,
        memory_mb=int(re.sub(r"\D", "", memory) or 0),
    )


def parse_gpus(gres: str) -> dict[str, int]:
    """Read the number of GPUs by type from SLURM's list of generic resources.

    >>> parse_gpus("gpu:A40:2(S:0,1),shard:8")
    {'A40': 2}
    >>> parse_gpus("gpu:4"), parse_gpus("(null)")
    ({'': 4}, {})
    """
    gpus: dict[str, int] = {}
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        words = part.split(":")
        if words[0] == "gpu":
            number = int(words[-1]) if len(words) > 1 and words[-1].isdigit() else 1
            kind = words[1] if len(words) > 2 or (len(words) == 2 and not words[1].isdigit()) else ""
            gpus[kind] = gpus.get(kind, 0) + number
    return gpus


def parse_minutes(text: str) -> float | None:
    """Read a time limit of SLURM as minutes; None where there is no limit.

    >>> parse_minutes("1-00:00:00"), parse_minutes("30:00"), parse_minutes("infinite"), parse_minutes("2-12")
    (1440.0, 30.0, None, 3600.0)
    """
    days, dash, rest = text.strip().rpartition("-")
    if not re.fullmatch(r"[0-9]+(-[0-9]+)?(:[0-9]+){0,2}", text.strip()):
        return None
    parts = [int(part) for part in rest.split(":")]
    if dash:  # D-H, D-H:M, D-H:M:S
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:  # M, M:S
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60) + minutes + seconds / 60


@cache
def associations() -> tuple[Association, ...]:
    """The accounts and partitions that this user may use; none where the site keeps no accounts."""
    text = ask(
        "sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={getpass.getuser()}",
        "format=account,partition,maxwall",
    )  # fmt: skip
    allowed = []
    for line in text.splitlines():
        account, partition, limit = (*line.split("|"), "", "")[:3]
        if account:
            allowed.append(Association(account, partition, parse_minutes(limit) if limit else None))
    return tuple(allowed)


@cache
def partition_options(name: str) -> dict[str, str]:
    """The properties of a partition that scontrol shows: AllowAccounts, DenyAccounts, State, MaxTime, ..."""
    words = ask("scontrol", "--oneliner", "show", "partition", name).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def try_submission(options: list[str]) -> str:
    """Ask SLURM whether it would accept a job, without submitting it; returns when the job would start.

    Raises:
        SiteUnknownError: SLURM would not accept it, or cannot be asked; the message has SLURM's own words.
    """
    reply = ask("sbatch", "--test-only", *options, "--wrap", "true", words=True)
    return next((match[1] for match in re.finditer(r"to start at (\S+)", reply)), "a time that it does not tell")


def fits_constraint(constraint: str, features: frozenset[str]) -> bool:
    """Whether nodes with these features fulfil a constraint; of one with counts or brackets, only the names are compared.

    >>> fits_constraint("A40&IB", frozenset({"A40", "IB"})), fits_constraint("A40|A100", frozenset({"A100"}))
    (True, True)
    >>> fits_constraint("NOGPU", frozenset({"A40"}))
    False
    """
    if re.search(r"[\[\](){}*]", constraint):
        return any(word in features for word in words_of(constraint))
    return any(
        all(word in features for word in words_of(alternative)) for alternative in constraint.split("|") if alternative
    )


def words_of(constraint: str) -> list[str]:
    """The features that a constraint names.

    >>> words_of("[rack1*2&rack2*4]|A40")
    ['rack1', 'rack2', 'A40']
    """
    if re.search(r"[\[\](){}*]", constraint):
        return re.findall(r"[A-Za-z_][\w.+-]*", constraint)
    return [word for word in re.split(r"[&|,]", constraint) if word]
