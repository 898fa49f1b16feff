"""Servers that die, requests that fail, runs that are interrupted: what was answered is kept, and nothing is left behind."""

import json
import os
import signal
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import TIMEOUT_S, Campaign

Make = Callable[..., Campaign]


class TestOneCheckpoint:
    """One campaign that dies, goes on and loses the end of its store."""

    @pytest.fixture(scope="class")
    @staticmethod
    def campaign(make_campaign: Make) -> Campaign:
        campaign = make_campaign(checkpoints="c1 m1", tasks=("t1", "t2"))
        # One request at a time, so that it is certain what came before the fault.
        campaign.profile(concurrency=1)
        return campaign

    def test_a_dying_server_costs_what_was_under_way_only(self, campaign: Campaign) -> None:
        campaign.faults("m1", "die t1 1")
        run = campaign.run()
        assert run.rc != 0
        assert "The server of 'c1' died (exit code 7)" in run.said
        assert "stub: engine died on purpose" in run.said
        assert "Traceback" not in run.said
        kept = campaign.stored("c1", "t1")
        assert [(line["id"], line["sample"]) for line in kept] == [("i0", 0), ("i0", 1)]

        campaign.faults("m1")
        run = campaign.run()
        assert run.requests == ["c1 hello t1 1"] * 2 + ["c1 hello t2 0"] * 2 + ["c1 hello t2 1"] * 2
        assert run.cost == (0, 2, 2, {"c1": 1}, 0), run.said
        assert campaign.stored("c1", "t1")[:2] == kept
        assert campaign.stale() == []

    def test_a_torn_last_line_is_asked_again(self, campaign: Campaign) -> None:
        assert campaign.run().rc == 0
        whole = campaign.stored("c1", "t2")
        store = campaign.folder / "results/store/c1/t2.jsonl"
        os.truncate(store, store.stat().st_size - 20)
        # Collected answers stand for themselves: the store is asked where they are gone.
        assert campaign.run("--forcerun", "evaluate_checkpoint").requests == []
        (campaign.folder / "results/answers/c1/t2.jsonl").unlink()
        run = campaign.run()
        assert run.cost == (0, 1, 1, {"c1": 1}, 0), run.said
        assert run.requests == ["c1 hello t2 1"]
        again = campaign.stored("c1", "t2")
        assert [line["key"] for line in again] == [line["key"] for line in whole]
        assert again[:-1] == whole[:-1]


def test_items_that_fail_in_three_jobs_are_counted_and_never_zero(make_campaign: Make) -> None:
    campaign = make_campaign(checkpoints="c1 m1", tasks=("t1",))
    campaign.faults("m1", "fail t1 1")
    for asked in (4, 2):
        run = campaign.run()
        assert (run.rc, len(run.requests), run.scores) == (1, asked, 0), run.said
        assert "IncompleteError: c1, task 't1': 2 of 4 answers are missing" in run.said
        assert "failed on purpose" in run.said
    run = campaign.run()
    assert (run.rc, len(run.requests), run.scores) == (0, 2, 1), run.said
    note = json.loads((campaign.folder / "results/evaluated/c1.json").read_bytes())
    assert note["tasks"] == {"t1": {"done": 4, "missing": 0}}
    summary = campaign.summary("c1", "t1")
    assert {name: summary[name] for name in ("value", "n_items", "n_samples", "n_errors", "n_unscored")} == {
        "value": 1.0, "n_items": 1, "n_samples": 2, "n_errors": 2, "n_unscored": 0,
    }  # fmt: skip
    assert summary["rates"]["failed"] == 0.5
    run = campaign.run()
    assert run.cost == (0, 0, 0, {}, 0), run.said


def test_a_second_evaluation_of_a_checkpoint_is_refused(make_campaign: Make) -> None:
    campaign = make_campaign(checkpoints="c1 m1", tasks=("t1",))
    campaign.faults("m1", "slow 15")
    model, prompts = "results/models/c1.json", "results/prompts/t1.jsonl"
    assert campaign.run(model, prompts).rc == 0
    options = ["--ckpt", "c1", "--model", model, "--prompts", prompts, "--gpus", "0"]
    both = [
        campaign.step("evaluate_checkpoint", *options, "--log", f"logs/{name}.log", "--out", f"results/{name}.json")
        for name in ("one", "other")
    ]
    said = [process.communicate(timeout=TIMEOUT_S)[0] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], said
    refusal = said[codes.index(1)]
    assert "StoreError: results/store/c1 is being written by process" in refusal
    assert "Traceback" not in refusal
    stub = campaign.stub_lines()
    assert len([line for line in stub if line.startswith("START")]) == 1
    assert len([line for line in stub if line.startswith("ASK")]) == 4


def test_ctrl_c_leaves_no_process_and_keeps_what_was_answered(make_campaign: Make) -> None:
    campaign = make_campaign(checkpoints="c1 m1", tasks=("t1", "t2"))
    campaign.profile(concurrency=1)
    campaign.faults("m1", "slow 2")
    process = campaign.start()
    campaign.wait_for("ANSWER")
    # A terminal sends it to the whole group; the server is in a group of its own.
    os.killpg(process.pid, signal.SIGINT)
    run = campaign.finish(process)  # asserts that nothing is left
    assert run.rc != 0
    assert "Traceback" not in run.said
    kept = len(campaign.stored("c1", "t1"))
    assert 1 <= kept < 4
    assert not list(campaign.folder.glob("results/store/c1/.lease*"))

    campaign.faults("m1")
    run = campaign.run()
    assert (run.rc, len(run.requests)) == (0, 8 - kept), run.said
    assert campaign.stale() == []


def test_what_a_killed_snakemake_left_half_made_holds_nothing_up(make_campaign: Make) -> None:
    campaign = make_campaign(checkpoints="c1 m1", tasks=("t1", "t2"))
    note = "results/evaluated/c1.json"
    assert campaign.run(note).rc == 0
    # What a KILL leaves between a step's end and Snakemake's notice of it: the file, and a mark that it is unfinished.
    mark = campaign.folder / ".snakemake/incomplete" / urlsafe_b64encode(note.encode()).decode()
    mark.write_text("null")
    run = campaign.run()
    assert (run.rc, run.scores, run.starts, run.idle_jobs) == (0, 2, {}, 0), run.said
    assert campaign.stale() == []


def test_a_killed_snakemake_leaves_nothing_in_tmp(
    make_campaign: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    campaign = make_campaign(checkpoints="c1 m1", tasks=("t1",))
    campaign.faults("m1", "slow 60")
    process = campaign.start()
    campaign.wait_for("ASK ")
    process.kill()
    process.wait()
    assert campaign.processes(timeout_s=30) == [], "its steps end by themselves"
    assert list(tmp_path.iterdir()) == []
