"""A campaign's life, event by event: what each asks, scores and starts, and no more than that.

Each event is a test of its own. They build on each other, so an event is played when its own test or a later one needs
it, and never twice; one that goes wrong fails its own test, and later ones still run on what it left.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from campaigns import Campaign, Run

SCORER = "scripts/milepost/scorers/exact_match.py"


def scorer_code_changes(campaign: Campaign, line: str) -> None:
    with (campaign.code / SCORER).open("a") as file:
        file.write(f"{line}\n")


@dataclass(frozen=True)
class Event:
    """What the user does, and what the next run of Snakemake may cost."""

    name: str
    change: Callable[[Campaign], object] = lambda _: None
    options: tuple[str, ...] = ()
    asks: int = 0  # pairs of checkpoint and task
    scores: int = 0
    starts: tuple[str, ...] = ()  # checkpoints whose server starts, once each
    idle_jobs: int = 0  # evaluations that find nothing missing and start no server
    rc: int = 0


C12, C13, C14 = ("c1", "c2"), ("c1", "c2", "c3"), ("c1", "c2", "c3", "c4")
EVENTS = [
    Event("fresh", asks=4, scores=4, starts=C12),
    Event("again"),
    Event("a task more", lambda c: c.select("t1", "t2", "t3"), asks=2, scores=2, starts=C12),
    Event("one task's prompts changed", lambda c: c.items("t2", "hi"), asks=2, scores=2, starts=C12),
    Event("one task's scoring changed", lambda c: c.task("t1", scorer={"name": "exact_match"}), scores=2),
    Event("a task file touched", lambda c: (c.folder / "config/tasks/t1.yaml").touch()),
    Event("a checkpoint more", lambda c: c.sheet("c1 m1, c2 m2, c3 m3"), asks=3, scores=3, starts=("c3",)),
    Event("another model under a name", lambda c: c.sheet("c1 m1b, c2 m2, c3 m3"), asks=3, scores=3, starts=("c1",)),
    Event("a task less", lambda c: c.select("t2", "t3")),
    Event("and back", lambda c: c.select("t1", "t2", "t3")),
    Event("a comment in the scorer's code", lambda c: scorer_code_changes(c, "# changed")),
    Event("scorer code changed", lambda c: scorer_code_changes(c, "CHANGED = True"), scores=9),
    Event(
        "a new checkpoint, one task fails",
        lambda c: (c.sheet("c1 m1b, c2 m2, c3 m3, c4 m4"), c.faults("m4", "fail t2")),
        asks=2, scores=2, starts=("c4",), rc=1,
    ),
    Event("the failure's cause removed", lambda c: c.faults("m4"), asks=1, scores=1, starts=("c4",)),
    Event("redo forced", options=("-R", "evaluate_checkpoint")),
    Event("again after redo"),
    Event(
        "prompts changed, one checkpoint fails on them",
        lambda c: (c.items("t3", "hey"), c.faults("m1b", "fail t3")),
        asks=3, scores=3, starts=C14, rc=1,
    ),
    Event("the checkpoint's failure removed", lambda c: c.faults("m1b"), asks=1, scores=1, starts=("c1",)),
    Event(
        "prompts changed, one server dies",
        lambda c: (c.items("t1", "yo"), c.faults("m2", "die t1")),
        asks=3, scores=3, starts=C14, rc=1,
    ),
    Event("the death's cause removed", lambda c: c.faults("m2"), asks=1, scores=1, starts=("c2",)),
    Event("again at the end"),
]  # fmt: skip


class Life:
    """One campaign, and the events that were played so far."""

    def __init__(self, campaign: Campaign, options: tuple[str, ...]) -> None:
        self.campaign, self.options = campaign, options
        self.played: list[tuple[Run, list[str]] | Exception] = []

    def play(self, number: int) -> tuple[Run, list[str]]:
        """Play all events up to this one that were not played yet: its run, and the results that were stale after it."""
        for event in EVENTS[len(self.played) : number + 1]:
            try:
                event.change(self.campaign)
                self.played.append((self.campaign.run(*event.options, *self.options), self.campaign.stale()))
            except Exception as error:
                self.played.append(error)
        played = self.played[number]
        if isinstance(played, Exception):
            raise played
        return played


@pytest.fixture(scope="class")
def life(request: pytest.FixtureRequest, make_campaign: Callable[..., Campaign]) -> Life:
    # A copy of the code of its own, because one event changes it.
    campaign = make_campaign(padding=request.cls.padding, cores=request.cls.cores, own_code=True)
    campaign.select("t1", "t2")
    return Life(campaign, request.cls.options)


class Events:
    """The events, with prompts of one size and one number of cores."""

    padding: int
    cores: int
    options: tuple[str, ...] = ()

    @pytest.mark.parametrize("number", range(len(EVENTS)), ids=[event.name.replace(" ", "_") for event in EVENTS])
    def test_event(self, life: Life, number: int) -> None:
        event = EVENTS[number]
        run, stale = life.play(number)
        expected = (event.rc, event.asks, event.scores, dict.fromkeys(event.starts, 1), event.idle_jobs)
        assert run.cost == expected, (
            f"(exit code, asks, scores, server starts, idle jobs) after {event.name!r}:\n{run.said}"
        )
        if event.rc == 0:
            assert stale == [], "results that do not belong to what is asked now"


class TestSmallFilesFourCores(Events):
    padding, cores = 0, 4


# Figures take longer than all else and are no subject here: drawn in one of the four lives only.
NO_FIGURES = ("--omit-from", "plot")


class TestLargeFilesOneCore(Events):
    # Above 1 MB, Snakemake goes by the time of a file, no longer by its checksum.
    padding, cores, options = 600_000, 1, NO_FIGURES


class TestSmallFilesOneCore(Events):
    padding, cores, options = 0, 1, NO_FIGURES


class TestLargeFilesFourCores(Events):
    padding, cores, options = 600_000, 4, NO_FIGURES
