"""`snakemake preflight` and `snakemake plan`, as a user calls them: a table, an exit code, and nothing started."""

import json
import struct

import pytest


@pytest.fixture(scope="class")
def campaign(make_campaign):
    made = make_campaign(own_code=True)
    (made.code / "slurm").symlink_to("profiles/slurm")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    for model in ("m1", "m2"):
        content = struct.pack("<Q", len(header)) + header + model.encode() * 2
        (made.folder / model / "model.safetensors").write_bytes(content)
    return made


class TestLooks:
    def test_a_sound_campaign_is_ready_and_nothing_but_the_table_is_said(self, campaign):
        run = campaign.run("preflight")
        assert run.rc == 0
        lines = [line for line in run.said.splitlines() if line.strip()]
        assert lines[-1] == "Ready."
        table = lines[[line.startswith("ok ") for line in lines].index(True) :]
        # A long path goes on in a further line, which is indented.
        assert {line.partition(" ")[0] for line in table[:-1]} <= {"ok", "skipped", ""}, run.said
        assert len(lines) - len(table) <= 1, "Snakemake names the profile that it uses, no more"
        assert run.stub == [], "no server was started"
        assert not (campaign.folder / "results/prompts").exists()

    def test_what_is_missing_fails_it_once_and_says_what_to_do(self, campaign):
        (campaign.folder / "m1/model.safetensors").unlink()
        run = campaign.run("preflight", "--retries", "2")
        assert run.rc != 0
        assert run.said.count("model of c1") == 1
        assert "holds no weights" in run.said
        assert "Error in rule" not in run.said
        assert "1 of " in (campaign.folder / "logs/preflight.log").read_text()

    def test_a_plan_counts_what_is_missing_before_and_after(self, campaign):
        run = campaign.run("plan")
        assert run.rc == 0
        assert "2 jobs, 0 of them on GPUs, for 2 checkpoints of which 0 are complete." in run.said
        assert campaign.run("--until", "evaluate_checkpoint").rc == 0
        assert "Nothing is missing: all 2 checkpoints are complete." in campaign.run("plan").said
        campaign.sheet("c1 m1, c2 m2, c3 m3")
        run = campaign.run("plan")
        assert "1 job, 0 of them on GPUs, for 3 checkpoints of which 2 are complete." in run.said
        assert "2 earlier job(s) of others" in run.said
        assert run.stub == []

    def test_wrong_configuration_is_said_by_its_own_words(self, campaign):
        campaign.select("t1", tittle="x")
        run = campaign.run("plan")
        assert run.rc != 0
        assert "UnknownKeyError" in run.said


def test_looks_leave_what_an_edit_made_outdated(make_campaign):
    campaign = make_campaign(checkpoints="c1 m1", tasks=("t1",))
    assert campaign.run("--omit-from", "plot").rc == 0
    campaign.items("t1", "other")
    before = sorted((campaign.folder / "results").rglob("*"))
    for words in (["--dry-run"], ["-n"], ["-np"], ["--summary"], ["plan"], ["preflight"]):
        campaign.run(*words)
        assert sorted((campaign.folder / "results").rglob("*")) == before, words


def test_looks_beside_a_run_leave_its_lock_and_a_second_run_is_refused(make_campaign):
    campaign = make_campaign(checkpoints="c1 m1", tasks=("t1",))
    campaign.faults("m1", "hold")
    first = campaign.start("--omit-from", "plot")
    campaign.wait_for("ASK")
    locks = sorted((campaign.folder / ".snakemake/locks").iterdir())
    assert locks
    # A mark of a job that another run has finished is taken away by that run alone, at its end.
    withdrawn = campaign.folder / "results/evaluated/c9.json.withdrawn"
    withdrawn.parent.mkdir(exist_ok=True)
    withdrawn.write_text("")
    for words in (["plan"], ["preflight"], ["partial_report"], ["--dry-run"], ["--summary"], ["stop_servers"]):
        look = campaign.look(*words)
        assert sorted((campaign.folder / ".snakemake/locks").iterdir()) == locks, (words, look)
        assert withdrawn.exists(), words
    before = sorted((campaign.folder / "results").rglob("*"))
    refused = campaign.look().partition("LockException:\n")[2].strip().splitlines()
    assert "no other Snakemake process" in refused[0]
    assert "--unlock" in refused[-1]
    assert len(refused) == 3, "one paragraph"
    assert sorted((campaign.folder / "results").rglob("*")) == before
    campaign.faults("m1")
    assert campaign.finish(first).rc == 0
    assert campaign.stale() == []
    assert not any((campaign.folder / ".snakemake/locks").glob("*"))
    # A lock that a killed run left is removed on purpose.
    (campaign.folder / ".snakemake/locks/0.output.lock").write_text("results/report.html\n")
    assert campaign.run("--unlock").rc == 0
    assert not any((campaign.folder / ".snakemake/locks").glob("*"))
