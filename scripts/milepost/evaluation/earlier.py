"""What keeps a run from beginning: results that it cannot write, and jobs of an earlier run that still work here.

Their Snakemake was killed, or its host went down, and they go on. A run beside them would submit the same jobs once more,
whose servers would find the stores taken, and fail.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from milepost.errors import MINE, StoreError, listed
from milepost.runtime.slurm_site import SiteUnknownError, ask
from milepost.store.answers import STORE
from milepost.store.lease import MISSED_S, STALE_S, describe, file_age, has_ended, read_lease

# Neither asks nor writes anything that a run does: jobs join such a server.
JOINED = "rule_serve_shared"
FIELDS = "%i|%T|%e|%k|%j"
LOGS = Path(".snakemake/log")
HEAD = 1 << 16  # bytes of a log: what it says of itself stands at its beginning


def refuse_unwritable(results: Path = Path("results")) -> None:
    """Refuse to run where results cannot be written: every step would fail by itself, and Snakemake without a word of ours.

    Raises:
        StoreError: Names the folders, and what to do.
    """
    # Deeper down there are thousands of folders, and who takes the right to one takes that to all.
    closed = [
        str(path) for path in [results, *results.glob("*")] if path.is_dir() and not os.access(path, os.W_OK | os.X_OK)
    ]
    if closed:
        why = "read-only file system" if os.statvfs(closed[0]).f_flag & os.ST_RDONLY else "you have no right to"
        raise StoreError(
            f"This run cannot write to {listed(closed)} ({why}). Nothing was run. {MINE} Where the whole file system became"
            " read-only, ask the site. Then run the same command again; `snakemake plan` and `preflight` work meanwhile."
        )


def refuse_beside_others(say: Callable[[str], None]) -> None:
    """Refuse to run beside jobs of an earlier run.

    Args:
        say: Called with a line that says what is waited for.

    Raises:
        StoreError: They wait or run in SLURM, or write to a store from wherever; says when to come back.
    """
    jobs = dict(jobs_of_earlier_runs())
    if jobs:
        many = len(jobs) > 1
        raise StoreError(
            f"{len(jobs)} job{'s' if many else ''} of an earlier run of this campaign {'are' if many else 'is'} still in SLURM's"
            f" queue: {listed(jobs.values())}. Nothing was submitted, and what they answer is kept. Run the same command when"
            f" `squeue --me` shows them no more, or end them first: scancel {' '.join(jobs)}"
        )
    writers = beating(sorted(STORE.glob("*/.lease")), say)
    if writers:
        raise StoreError(
            f"Others write to this campaign's stores: {listed(writers)}. Nothing was submitted, and what they answer is"
            " kept. Run the same command when they have ended."
        )


def jobs_of_earlier_runs() -> Iterator[tuple[str, str]]:
    """This campaign's jobs in the cluster's queue, by id, each in words; none where SLURM does not answer."""
    try:
        listing = ask("squeue", "--me", "--noheader", f"--format={FIELDS}")
    except SiteUnknownError:
        return
    queue = [line.split("|", 4) for line in listing.splitlines() if line.count("|") >= 4]
    jobs = [job for job in queue if job[3].startswith("rule_") and job[3] != JOINED]
    ours = earlier_runs() if jobs else set()
    for ident, state, end, comment, name in jobs:
        if name in ours:
            step = comment.removeprefix("rule_").replace("_wildcards_", " ")
            until = f", until {end} at most" if state == "RUNNING" and end[:1].isdigit() else ""
            yield ident, f"{ident} ({step}, {state}{until})"


def earlier_runs() -> set[str]:
    """What the runs in this folder called their jobs on SLURM: Snakemake's logs say it."""
    found = set()
    for path in LOGS.glob("*.log"):
        with path.open(errors="replace") as log:
            found.update(re.findall(r"^SLURM run ID: (\S+)", log.read(HEAD), re.MULTILINE))
    return found


def beating(leases: list[Path], say: Callable[[str], None]) -> list[str]:
    """The writers on other hosts whose hearts beat: each lease, in words."""
    watched = {}
    for lease in leases:
        try:
            holder, age = read_lease(lease), file_age(lease)
        except OSError:
            continue  # whoever wants to write there will say so
        # Steps of this host end with their Snakemake, and a job waits for that.
        if age is None or age >= STALE_S or holder.get("host") == socket.gethostname() or has_ended(holder, age):
            continue
        watched[lease] = (lease.stat().st_mtime, f"{lease.parent} by {describe(holder)}")
    if watched:
        say(
            f"waiting {MISSED_S:.0f} s to see whether others write here: {listed(words for _, words in watched.values())}"
        )
        time.sleep(MISSED_S)
    return [words for lease, (beat, words) in watched.items() if lease.exists() and lease.stat().st_mtime > beat]
