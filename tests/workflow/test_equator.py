"""A campaign that is scored by an answer key: a real Chroma collection, the stand-in as an external evaluator."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from campaigns import REPOSITORY, STUB

NEEDED = ("equator", "semantic")
KEY = "a-key-of-the-evaluator"


@pytest.fixture(scope="class")
def evaluator(tmp_path_factory):
    """The stand-in as a server of others: its address, and its log."""
    folder = tmp_path_factory.mktemp("evaluator")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        "-m",
        "stub",
        "--model",
        folder,
        "--served-model-name",
        "teacher",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environment = {**os.environ, "VLLM_API_KEY": KEY, "STUB_LOG": str(folder / "log")}
    with subprocess.Popen([sys.executable, STUB, *options], env=environment) as server:
        url = f"http://127.0.0.1:{port}/v1"
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{url}/models", timeout=5)
            except urllib.error.HTTPError:
                break  # it wants the key: it is up
            except OSError:
                time.sleep(0.1)
        yield url, folder / "log"
        server.terminate()


def marked(log):
    """How many answers the evaluator has marked so far."""
    return sum(line.startswith("ANSWER teacher DATA-") for line in log.read_text().splitlines())


@pytest.fixture(scope="class")
def campaign(make_campaign, evaluator):
    """Two checkpoints and a task with an answer key."""
    campaign = make_campaign(own_code=True, tasks=("t1",))
    for name in NEEDED:
        (campaign.code / "envs" / name).symlink_to(REPOSITORY / "envs" / name)
    write_endpoints(campaign, evaluator[0])
    campaign.write("config/key", KEY)
    (campaign.folder / "config/key").chmod(0o600)
    keys = [("i0", "hello t1 0", "hello t1 0"), ("i1", "hello t1 1", "bye"), ("more", "Another?", "x")]
    lines = [{"id": i, "category": "greetings", "question": q, "answer": a} for i, q, a in keys]
    campaign.write("data/key.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    campaign.task("t1", scorer=scorer())
    return campaign


def scorer(**options):
    return {"name": "equator", "evaluators": ["teacher"], "answer_key": "data/key.jsonl", **options}


def write_endpoints(campaign, url, **options):
    entry = {"provider": "external", "model": "teacher", "url": url, "key_file": "config/key", **options}
    campaign.write("config/endpoints.yaml", json.dumps({"teacher": entry}))


@pytest.mark.skipif(
    not all((REPOSITORY / f"envs/{name}/.venv/bin/python").exists() for name in NEEDED),
    reason="envs/equator or envs/semantic is not installed",
)
class TestEquator:
    def test_from_answers_to_the_table(self, campaign, evaluator):
        run = campaign.run()
        assert run.rc == 0, run.said
        assert (run.rules["prepare_tables"], run.rules["judge_answers"], run.rules["tabulate_task"]) == (
            1,
            2,
            1,
        )
        # Two checkpoints, two items, two samples.
        assert marked(evaluator[1]) == 8
        for ckpt in ("c1", "c2"):
            summary = campaign.summary(ckpt, "t1")
            assert summary["provenance"]["evaluators"]["teacher"]["model"] == "teacher"
            assert (summary["value"], summary["n_items"], summary["n_unscored"], summary["metric"]) == (
                0.5,
                2,
                0,
                "equator",
            )
        results = campaign.folder / "results"
        assert (results / "prepared/t1/collection/chroma.sqlite3").exists()
        assert json.loads((results / "prepared/t1/retrieval.json").read_text())["n_found"] == 2
        tables = results / "equator/t1/t1/tables_and_charts"
        rows = list(csv.DictReader((tables / "by_category.csv").open()))
        assert [(row["student"], row["category"], row["mean_score"]) for row in rows] == [
            (ckpt, category, "50.0") for ckpt in ("c1", "c2") for category in ("all", "greetings")
        ]
        assert "finds the item's own for 2 of 2 items" in (tables / "by_category.md").read_text()
        first = json.loads(
            (results / "equator/t1/t1/auto_eval_outputs/round_1/equator-teacher-stu-c1.json").read_text()
        )
        assert (first["i0"]["score"], first["i1"]["score"], first["i1"]["human_answer"]) == (100.0, 0.0, "bye")
        for kind in ("svg", "png"):
            assert (tables / f"by_category.{kind}").stat().st_size > 1000
        texts = [
            path for path in campaign.folder.rglob("*") if path.suffix in (".json", ".jsonl", ".log", ".html", ".csv")
        ]
        assert not [path for path in texts if KEY in path.read_text(errors="replace")]

    def test_a_second_run_has_nothing_to_do(self, campaign, evaluator):
        run = campaign.run()
        assert (run.rc, run.rules, marked(evaluator[1])) == (0, {}, 8)

    def test_another_label_scores_nothing(self, campaign, evaluator):
        campaign.task("t1", scorer=scorer(label="2025-01-19"))
        run = campaign.run()
        assert (run.rc, run.rules["judge_answers"], run.rules["tabulate_task"]) == (0, 0, 1), run.said
        assert [path.name for path in (campaign.folder / "results/equator/t1").iterdir() if path.name[0] != "."] == [
            "2025-01-19"
        ]

    def test_scores_that_are_lost_cost_no_call(self, campaign, evaluator):
        shutil.rmtree(campaign.folder / "results/scores")
        run = campaign.run()
        assert (run.rc, run.rules["judge_answers"], marked(evaluator[1])) == (0, 2, 8), run.said

    def test_another_evaluator_under_the_name_marks_everything_anew(self, campaign, evaluator):
        write_endpoints(campaign, evaluator[0], revision="2")
        run = campaign.run()
        assert (run.rc, run.rules["judge_answers"], marked(evaluator[1])) == (0, 2, 16), run.said
        assert run.asks == 0

    def test_an_unknown_evaluator_is_an_error_before_anything_runs(self, campaign):
        campaign.task("t1", scorer=scorer(evaluators=["teachr"]))
        run = campaign.run()
        assert run.rc == 1
        assert "asks for endpoint 'teachr'" in run.said
        assert "Did you mean 'teacher'?" in run.said
        assert not run.rules
