import csv
import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml

import partial_report
from milepost.campaign.frozen import FROZEN
from milepost.campaign.identity import CACHE, DigestCache
from milepost.campaign.shown import Shown
from milepost.preflight.campaign import load_campaign
from milepost.preflight.decides import current_digests
from milepost.records import read_prompts, write_record, write_records
from milepost.report.partial import take_snapshot
from milepost.statistics.summary import summarize


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """Two checkpoints of one run on two tasks; nothing was evaluated."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FROZEN, raising=False)
    Path("config/tasks").mkdir(parents=True)
    for task in ("sums", "words"):
        spec = {
            "version": 1,
            "title": task.title(),
            "data": f"{task}.jsonl",
            "samples": 2,
            "scorer": {"name": "exact_match"},
        }
        Path(f"config/tasks/{task}.yaml").write_text(yaml.safe_dump(spec))
        header = {"task": task, "kind": "native", "version": 1, "generation": 1, "samples": 2, "sampling": {}}
        write_records(f"results/prompts/{task}.jsonl", [header, *({"id": f"i{n}", "prompt": "?"} for n in range(12))])
    Path("config/config.yaml").write_text(yaml.safe_dump({"tasks": ["sums", "words"]}))
    Path("config/checkpoints.tsv").write_text("name\tmodel\trun\tstep\na\tm\tr\t1\nb\tm\tr\t2\n")
    return tmp_path


def scored(ckpt, task, value=1.0):
    """Answers, scores and the summary, as the steps write them."""
    prompts = Path(f"results/prompts/{task}.jsonl")
    answers = [{"id": f"i{n}", "sample": k, "content": "x"} for n in range(12) for k in range(2)]
    scores = [
        {"id": a["id"], "sample": a["sample"], "score": value, "metrics": {"exact_match": value}} for a in answers
    ]
    facts = {"model": f"digest of {ckpt}", "prompts": hashlib.sha256(prompts.read_bytes()).hexdigest()}
    facts |= {"asked": shown().current.asked[task], "scored": shown().current.scored[task]}
    summary = summarize(
        ckpt, read_prompts(prompts), answers, scores, scorer="exact_match", metric="exact_match", provenance=facts
    )
    write_record(f"results/models/{ckpt}.json", {"digest": f"digest of {ckpt}"})
    write_records(f"results/answers/{ckpt}/{task}.jsonl", answers)
    write_records(f"results/scores/{ckpt}/{task}.jsonl", scores)
    write_record(f"results/summaries/{ckpt}/{task}.json", summary)


def shown():
    """What decides today's numbers of the campaign."""
    campaign = load_campaign()
    return Shown({}, {}, {}, current_digests(campaign, DigestCache(CACHE)))


def note(ckpt, **tasks):
    write_record(f"results/evaluated/{ckpt}.json", {"ckpt": ckpt, "tasks": tasks, "ledger": {"busy_s": 7200}})


def log(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def missing(folder="there"):
    rows = take_snapshot(load_campaign(), shown(), Path(folder), Path("results"), Path("logs"))
    return {(row.ckpt, row.task): (row.state, row.reason) for row in rows}


def contents(folder):
    return {
        path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and "partial" not in path.parts
    }


def test_each_state_is_told_with_its_reason(campaign):
    def state(ckpt="b", task="words"):
        # A folder for each look: a snapshot is of one moment.
        return missing(f"there-{len(list(Path().glob('there-*')))}")[ckpt, task]

    assert state() == ("not evaluated", None)
    log("logs/evaluate_checkpoint/b.log", "10:00:00 [b] starting the server\n\n")
    assert state() == ("not evaluated", "The log of its evaluation ends: 10:00:00 [b] starting the server")
    log("results/store/b/words.jsonl", "{}\n{}\n")
    assert state() == ("not finished", "2 answers stored so far")
    log("logs/collect_answers/b/words.log", "IncompleteError: b, task 'words': 2 answers are missing.\n")
    assert state() == (
        "not finished",
        "2 answers stored so far. At the last try: IncompleteError: b, task 'words': 2 answers are missing.",
    )
    note("b", words={"done": 22, "missing": 2, "error": "server: it failed"})
    assert state() == ("evaluated, incomplete", "2 of 24 answers are missing. server: it failed")
    note("b", words={"done": 24, "missing": 0})
    log("logs/collect_answers/b/words.log", "")
    assert state() == ("evaluated, not collected", None)
    write_records("results/answers/b/words.jsonl", [{}])
    log("logs/score_answers/b/words.log", "ConfigError: no such metric\n")
    assert state() == ("collected, not scored", "ConfigError: no such metric")
    scored("b", "words")
    assert ("b", "words") not in missing()


def test_what_answers_other_questions_than_todays_is_not_shown(campaign):
    scored("a", "sums")
    scored("b", "sums")
    scored("a", "words")
    scored("b", "words")
    assert missing() == {}
    write_record("results/models/a.json", {"digest": "another"})
    with Path("results/prompts/words.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "prompt": "?"}) + "\n")
    found = missing("again")
    assert found["a", "sums"] == ("outdated", "scored for another model than today's; run the campaign to make it anew")
    assert found["b", "words"][1].startswith("scored for other prompts than today's")
    assert ("b", "sums") not in found
    assert not Path("again/summaries/b/words.json").exists()
    assert not Path("again/scores/b/words.jsonl").exists()
    spec = yaml.safe_load(Path("config/tasks/sums.yaml").read_text())
    Path("config/tasks/sums.yaml").write_text(yaml.safe_dump({**spec, "version": 2}))
    assert "version 1 of the task, which is now 2" in missing("later")["b", "sums"][1]


@pytest.mark.parametrize(
    ("break_it", "state"),
    [
        (lambda summary, scores: summary.write_text('{"ckpt": "a", "ta'), "cannot be read"),
        (lambda summary, scores: summary.write_text("{}"), "cannot be read"),
        (lambda summary, scores: summary.write_text(""), "cannot be read"),
        (lambda summary, scores: summary.unlink(), "collected, not scored"),
        (lambda summary, scores: scores.unlink(), "collected, not scored"),
    ],
)
def test_half_written_and_vanished_files_are_missing(campaign, break_it, state):
    scored("a", "sums")
    break_it(Path("results/summaries/a/sums.json"), Path("results/scores/a/sums.jsonl"))
    assert missing()["a", "sums"][0] == state
    assert list(Path("there").rglob("*.json*")) == []


def test_files_that_vanish_later_stay_in_the_snapshot(campaign):
    scored("a", "sums")
    take_snapshot(load_campaign(), shown(), Path("there"), Path("results"), Path("logs"))
    kept = Path("results/scores/a/sums.jsonl").read_bytes()
    # A step's outputs are removed before it begins, and appear whole again.
    Path("results/scores/a/sums.jsonl").unlink()
    write_records("results/scores/a/sums.jsonl", [{}])
    assert Path("there/scores/a/sums.jsonl").read_bytes() == kept


def test_the_account_of_a_run_under_way_comes_from_the_store(campaign):
    scored("a", "sums")
    line = {"attempt": "x", "gpus": 2, "start_s": 10.0, "busy_s": 20.0, "idle_s": 0.0, "requests": 5}
    write_record("results/store/b/.ledger.jsonl", line)
    partial_report.main([])
    page = Path("results/partial/report.html").read_text()
    costs = page[page.index("server start") :]
    assert re.search(r">b<.*?10\.0 s.*?20\.0 s.*?</tr>", costs, re.S)


def test_it_makes_tables_figures_comparisons_and_a_report_of_what_is_there(campaign, capsys):
    scored("a", "sums", 0.0)
    scored("b", "sums", 1.0)
    scored("a", "words")
    note("b", words={"done": 20, "missing": 4, "error": "out of <memory>"})
    before = contents("results")
    partial_report.main([])
    assert contents("results") == before
    assert [path.name for path in Path("results").iterdir() if path.name.startswith(".")] == []
    made = Path("results/partial")
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert {"report.html", "missing.csv", "figures/all.svg", "figures/words.png", "tables/comparisons.csv"} <= files
    page = (made / "report.html").read_text()
    for words in ["<title>PARTIAL", "1 of 4 scores are missing", "4 of 24 answers are missing. out of &lt;memory&gt;"]:
        assert words in page
    with (made / "tables/steps.csv").open(newline="") as file:
        steps = {(line["ckpt"], line["task"]): line for line in csv.DictReader(file)}
    assert float(steps["b", "sums"]["delta"]) == 1.0
    assert steps["b", "sums"]["first_better"] == "true"
    assert (made / "tables/scores.md").read_text().startswith("PARTIAL: 3 of 4 scores are there")
    assert "PARTIAL: 1 of 2 checkpoints" in (made / "figures/words.svg").read_text()
    assert "PARTIAL" not in (made / "figures/sums.svg").read_text()
    assert "3 of 4 scores are there; 1 evaluated, incomplete" in capsys.readouterr().err


def test_it_is_made_anew_and_says_when_all_is_there(campaign, capsys):
    for ckpt in "ab":
        for task in ("sums", "words"):
            scored(ckpt, task)
    log("results/partial/figures/old.svg", "of a task that was taken out")
    partial_report.main([])
    assert not Path("results/partial/figures/old.svg").exists()
    assert "PARTIAL" not in Path("results/partial/report.html").read_text()
    assert "Complete: 4 of 4" in capsys.readouterr().err


def test_nothing_scored_yet_is_said_with_the_reasons(campaign):
    note("b", words={"done": 20, "missing": 4, "error": "no room"})
    log("results/partial/report.html", "an earlier one")
    with pytest.raises(SystemExit, match="Nothing is scored yet: 3 not evaluated, 1 evaluated, incomplete"):
        partial_report.main([])
    assert "no room" in Path("results/partial/missing.csv").read_text()
    assert not Path("results/partial/report.html").exists()


def test_another_config_can_be_named(campaign):
    Path("config/other.yaml").write_text(yaml.safe_dump({"tasks": ["sums"], "title": "Other"}))
    with pytest.raises(SystemExit, match="Nothing is scored yet: 2 not evaluated"):
        partial_report.main(["--configfile", "config/other.yaml", "--out", "elsewhere/partial"])
    assert "words" not in Path("elsewhere/partial/missing.csv").read_text()


def test_a_number_of_another_scorer_option_is_outdated(campaign):
    scored("a", "sums")
    spec = yaml.safe_load(Path("config/tasks/sums.yaml").read_text())
    spec["scorer"]["ignore_case"] = True
    Path("config/tasks/sums.yaml").write_text(yaml.safe_dump(spec))
    state, reason = missing()["a", "sums"]
    assert state == "outdated"
    assert "its scorer, the scorer's options or code, or who judges changed since it was scored" in reason
