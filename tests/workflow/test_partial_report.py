"""What is there is shown while a campaign runs and after it failed, and nothing is asked, scored or touched for it."""

from collections.abc import Callable

import pytest
from campaigns import Campaign

Make = Callable[..., Campaign]


def results(campaign: Campaign) -> dict[str, float]:
    """The files of the results with their times of change, those of partial reports aside."""
    paths = (campaign.folder / "results").rglob("*")
    return {
        str(path): path.stat().st_mtime for path in paths if path.is_file() and not {"partial", "store"} & {*path.parts}
    }


@pytest.fixture(scope="class")
def failed(make_campaign: Make) -> Campaign:
    """A campaign of which one task of one checkpoint failed."""
    campaign = make_campaign(checkpoints="m1 m1,m2 m2", tasks=("t1", "t2"))
    campaign.faults("m1", "fail t1 1")
    run = campaign.run()
    assert run.rc == 1
    assert "snakemake partial_report" in run.said
    return campaign


class TestAfterAFailure:
    def test_the_rule_shows_what_is_there(self, failed: Campaign) -> None:
        before = results(failed)
        run = failed.run("partial_report")
        assert (run.rc, run.stub, set(run.rules)) == (0, [], {"partial_report"})
        assert results(failed) == before
        page = (failed.folder / "results/partial/report.html").read_text()
        assert "<title>PARTIAL" in page
        assert "failed on purpose" in page
        assert "3 of 4 scores are there" in run.said

    def test_it_runs_again_each_time(self, failed: Campaign) -> None:
        assert failed.run("partial_report").rules == {"partial_report": 1}


def test_by_hand_while_the_campaign_runs(make_campaign: Make) -> None:
    campaign = make_campaign(checkpoints="m1 m1", tasks=("t1", "t2"))
    assert campaign.run().rc == 0
    campaign.sheet("m1 m1,m2 m2")
    campaign.faults("m2", "slow 30")
    process = campaign.start()
    campaign.wait_for("ASK m2")
    # It holds Snakemake's lock: a second Snakemake is refused.
    step = campaign.step("partial_report")
    said = step.communicate(timeout=120)[0]
    assert step.returncode == 0, said
    assert "PARTIAL: 2 of 4 scores are there; 2 not evaluated" in said
    assert campaign.finish(process).rc == 0
    assert (campaign.folder / "results/report.html").exists()
