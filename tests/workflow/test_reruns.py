"""What a change makes run again: only what it concerns, and nothing that was asked already."""

import json
import re
import shutil
from collections.abc import Callable

import pytest
from campaigns import FOR_READERS, REPOSITORY, Campaign

from milepost.code_digest import SCRIPTS, closure

# Made by the workflow as it was before its package had rooms.
EARLIER = REPOSITORY / "tests/golden/earlier_campaign"


# Steps, and what is planned when the code of one changes: it, and all that rests on its results.
BEHIND = {
    "prepare_prompts.py": {"prepare_prompts", "evaluate_checkpoint", "collect_answers", "score_answers"} | FOR_READERS,
    "collect_answers.py": {"collect_answers", "score_answers"} | FOR_READERS,
    "score_answers.py": {"score_answers"} | FOR_READERS,
    "tabulate.py": FOR_READERS - {"compare"},
}
STEPS = [*BEHIND, "compare.py", "plot.py", "report.py", "check_numbers.py"]
BY_NAME = {"score_answers.py": ("milepost.scorers.exact_match",)}


@pytest.fixture(scope="class")
def campaign(make_campaign: Callable[..., Campaign]) -> Campaign:
    """Two checkpoints, two tasks, all done; an item of t1 has a typo."""
    campaign = make_campaign(own_code=True, tasks=("t1", "t2"))
    campaign.items("t1", "helo", "hello")
    campaign.sheet("c1 m1 first 10, c2 m2 first 20", "name model run step")
    run = campaign.run()
    assert run.cost == (0, 4, 4, {"c1": 1, "c2": 1}, 0), run.said
    return campaign


class TestReruns:
    """Each test leaves everything done; the last one moves the campaign."""

    def test_a_corrected_typo_asks_that_item_alone(self, campaign: Campaign) -> None:
        campaign.items("t1", "hello")
        run = campaign.run()
        assert run.requests == ["c1 hello t1 0"] * 2 + ["c2 hello t1 0"] * 2
        assert (run.rc, run.scores, campaign.stale()) == (0, 2, [])

    def test_another_name_of_the_run_scores_nothing(self, campaign: Campaign) -> None:
        campaign.sheet("c1 m1 second 100, c2 m2 second 200", "name model run step")
        run = campaign.run()
        assert run.rc == 0, run.said
        assert run.starts == {}
        assert set(run.rules) <= FOR_READERS
        table = (campaign.folder / "results/tables/scores.csv").read_text()
        assert "second" in table
        assert "first" not in table

    def test_other_comparisons_and_tables_score_nothing(self, campaign: Campaign) -> None:
        tables = campaign.folder / "results/tables"
        assert "first_last,c1,c2" in (tables / "comparisons.csv").read_text()
        campaign.config |= {"comparisons": {"pairs": [["c2", "c1"]]}, "tables": {"formats": ["tex", "xlsx"]}}
        campaign.select("t1", "t2")
        run = campaign.run()
        assert (run.rc, run.starts, run.scores) == (0, {}, 0), run.said
        assert {"compare", "tabulate"} <= set(run.rules) <= FOR_READERS
        assert "pairs,c2,c1" in (tables / "comparisons.csv").read_text()
        assert "first_last" not in (tables / "comparisons.csv").read_text()
        assert "toprule" in (tables / "scores.tex").read_text()
        assert (tables / "scores.xlsx").stat().st_size > 1000

        campaign.config["comparisons"] = {"against": "c3"}
        campaign.select("t1", "t2")
        run = campaign.run()
        assert run.rc != 0
        assert "compares the checkpoint 'c3' under 'comparisons.against'. Checkpoints: c1, c2." in run.said
        assert not run.rules

        del campaign.config["comparisons"], campaign.config["tables"]
        campaign.select("t1", "t2")
        assert campaign.run().rc == 0
        assert not list(tables.glob("*.tex")) + list(tables.glob("*.xlsx"))

    @pytest.mark.parametrize("name", ["tables/ranking.csv", "tables/scores.md", "figures/t1.png", "figures/all.csv"])
    def test_a_result_that_was_lost_alone_comes_back(self, campaign: Campaign, name: str) -> None:
        lost = campaign.folder / "results" / name
        lost.unlink()
        run = campaign.run()
        assert (run.rc, run.starts, run.scores) == (0, {}, 0), run.said
        assert lost.exists()

    def test_an_inert_option_asks_nothing(self, campaign: Campaign) -> None:
        campaign.profile(vllm_args={"gpu-memory-utilization": 0.5}, concurrency=2)
        run = campaign.run()
        assert run.rc == 0, run.said
        assert run.starts == {}
        assert set(run.rules) <= FOR_READERS

    def test_another_dtype_asks_everything(self, campaign: Campaign) -> None:
        campaign.profile(vllm_args={"gpu-memory-utilization": 0.5, "dtype": "float32"})
        run = campaign.run()
        assert run.cost == (0, 4, 4, {"c1": 1, "c2": 1}, 0), run.said
        assert len(run.requests) == 16

    def test_new_weights_under_the_same_path_are_another_model(self, campaign: Campaign) -> None:
        (campaign.folder / "m2/model.safetensors").write_bytes(b"trained further")
        run = campaign.run()
        assert run.cost == (0, 2, 2, {"c2": 1}, 0), run.said
        assert campaign.stale() == []

    def test_a_tasks_generation_asks_the_task_again(self, campaign: Campaign) -> None:
        before = campaign.stored("c1", "t1")
        campaign.task("t1", generation=2)
        run = campaign.run()
        assert run.cost == (0, 2, 2, {"c1": 1, "c2": 1}, 0), run.said
        assert len(run.requests) == 8
        after = campaign.stored("c1", "t1")
        assert after[: len(before)] == before
        assert len(after) == len(before) + 4

    def test_a_checkpoints_generation_asks_the_checkpoint_again(self, campaign: Campaign) -> None:
        before = campaign.stored("c1", "t2")
        campaign.sheet("c1 m1 second 100 2, c2 m2 second 200 1", "name model run step generation")
        run = campaign.run()
        assert run.cost == (0, 2, 2, {"c1": 1}, 0), run.said
        assert len(run.requests) == 8
        after = campaign.stored("c1", "t2")
        assert after[: len(before)] == before
        assert len(after) == len(before) + 4

    @pytest.mark.parametrize("step", [None, *BEHIND])
    def test_an_edited_module_plans_the_steps_that_import_it(self, campaign: Campaign, step: str | None) -> None:
        importing = {name: set(closure(SCRIPTS / name, *BY_NAME.get(name, ()))) for name in STEPS}
        modules = sorted((SCRIPTS / "milepost").rglob("*.py"))
        # The first one that this step alone imports, or no step does. That it holds for every module, test_code_digest.py says.
        only = [
            path for path in modules if [name for name in STEPS if path in importing[name]] == ([step] if step else [])
        ]
        module = campaign.code / "scripts" / only[0].relative_to(SCRIPTS)
        before = module.read_text()
        module.write_text(f"{before}\nEDITED = True\n")
        run = campaign.run("--dry-run")
        module.write_text(before)
        planned = set(re.findall(r"^(?:local)?rule (\w+):", run.said, re.MULTILINE))
        assert (run.rc, planned) == (0, BEHIND[step] if step else set()), f"{only[0]}: {run.said}"

    def test_a_moved_project_evaluates_and_scores_nothing(self, campaign: Campaign) -> None:
        project = campaign.folder.parent
        campaign.move(project.with_name(f"{project.name}-moved"))
        run = campaign.run()
        assert (run.cost, run.rules) == ((0, 0, 0, {}, 0), {}), run.said

    def test_a_campaign_moved_to_another_depth_runs_nothing(self, campaign: Campaign) -> None:
        elsewhere = campaign.folder.parent / "deep" / "and" / "deeper"
        elsewhere.parent.mkdir(parents=True)
        campaign.folder = campaign.folder.rename(elsewhere)
        run = campaign.run()
        assert (run.cost, run.rules) == ((0, 0, 0, {}, 0), {}), run.said


def test_a_checkpoint_that_comes_back_after_its_task_changed(make_campaign: Callable[..., Campaign]) -> None:
    campaign = make_campaign(tasks=("t1",))
    assert campaign.run().rc == 0
    campaign.sheet("c1 m1")
    campaign.task("t1", version=2)
    assert campaign.run().rc == 0
    # Its answers of before are there, behind an evaluation that the changed task makes run.
    campaign.sheet("c1 m1, c2 m2")
    run = campaign.run()
    assert (run.rc, run.asks, campaign.stale()) == (0, 0, []), run.said
    assert campaign.summary("c2", "t1")["task_version"] == 2


def test_a_limit_is_marked_and_what_it_asked_is_kept(make_campaign: Callable[..., Campaign]) -> None:
    campaign = make_campaign(checkpoints="c1 m1", tasks=("t1",))
    campaign.select("t1", limit=1)
    run = campaign.run()
    assert (run.rc, len(run.requests)) == (0, 2), run.said
    summary = campaign.summary("c1", "t1")
    assert summary["partial"] == {"limit": 1, "of": 2}
    assert "PARTIAL" in (campaign.folder / "results/tables/scores.md").read_text()

    del campaign.config["limit"]
    campaign.select("t1")
    rest = campaign.run()
    assert (rest.rc, len(rest.requests)) == (0, 2), rest.said
    assert set(run.requests).isdisjoint(rest.requests)
    assert "partial" not in campaign.summary("c1", "t1")
    assert "PARTIAL" not in (campaign.folder / "results/tables/scores.md").read_text()


def test_a_campaign_of_an_earlier_version_is_taken_up(make_campaign: Callable[..., Campaign]) -> None:
    campaign = make_campaign(tasks=("t1", "t2"))
    shutil.copytree(EARLIER, campaign.folder, dirs_exist_ok=True)
    run = campaign.run("--omit-from", "plot")
    assert (run.rc, run.requests, run.starts) == (0, [], {}), run.said
    for path in sorted(EARLIER.glob("results/summaries/*/*.json")):
        old = json.loads(path.read_bytes())
        new = campaign.summary(old["ckpt"], old["task"])
        numbers = (
            "value",
            "stderr",
            "ci95",
            "n_items",
            "n_samples",
            "n_errors",
            "n_unscored",
            "mean_tokens",
            "variance",
        )
        assert {key: new[key] for key in numbers} == {key: old[key] for key in numbers}
        assert (campaign.folder / f"results/answers/{old['ckpt']}/{old['task']}.jsonl").read_bytes() == (
            EARLIER / f"results/answers/{old['ckpt']}/{old['task']}.jsonl"
        ).read_bytes()
