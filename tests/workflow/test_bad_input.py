"""Mistakes in a campaign's files are found before anything runs, and each message says what to do."""

import json
import shutil
from collections.abc import Callable

import pytest
from campaigns import Campaign

ITEM = json.dumps({"id": "i0", "prompt": "hello"})


def tokenizer_without_template(campaign: Campaign) -> None:
    campaign.write("m2/tokenizer_config.json", "{}")


def add(campaign: Campaign, line: str) -> None:
    campaign.write("config/config.yaml", f"{(campaign.folder / 'config/config.yaml').read_text()}{line}\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(
            lambda c: add(c, "limit: 1\nlimit: 2"),
            ["ConfigError: config/config.yaml", "'limit' stands twice"],
            id="a key of the configuration twice",
        ),
        pytest.param(
            lambda c: add(c, "walltime_margin_s: 1:30"),
            ["ConfigError: config/config.yaml", "walltime_margin_s is 1:30", "takes for the number 90"],
            id="what old YAML takes for a number",
        ),
        pytest.param(
            lambda c: add(c, "title: &x [*x]"),
            ["ConfigError: config/config.yaml", "stands within what it stands for"],
            id="an alias within itself",
        ),
        pytest.param(
            lambda c: c.select("t1", tittle="x"),
            ["UnknownKeyError: config/config.yaml", "'tittle'", "Did you mean 'title'?"],
            id="unknown key of the configuration",
        ),
        pytest.param(
            lambda c: c.task("t1", sample=3),
            ["UnknownKeyError: config/tasks/t1.yaml", "'sample'", "Did you mean 'samples'?"],
            id="unknown key of a task",
        ),
        pytest.param(
            lambda c: c.sheet("c1 m1 1, c2 m2 2", "name model stepp"),
            ["UnknownKeyError: config/checkpoints.tsv, row 'c1'", "'stepp'", "Did you mean 'step'?"],
            id="unknown column",
        ),
        pytest.param(
            lambda c: c.select("t1", "tt2"),
            ["UnknownTaskError", "'tt2'", "t1, t2, t3", "add config/tasks/tt2.yaml"],
            id="unknown task",
        ),
        pytest.param(
            lambda c: c.task("t1", scorer={"name": "exact_mach"}),
            ["UnknownScorerError: config/tasks/t1.yaml", "'exact_mach'", "Did you mean 'exact_match'?"],
            id="unknown scorer",
        ),
        pytest.param(
            lambda c: c.task("t1", scorer={"name": "exact_match", "ignorecase": True}),
            ["UnknownKeyError: config/tasks/t1.yaml, scorer", "'ignorecase'", "Did you mean 'ignore_case'?"],
            id="unknown option of a scorer",
        ),
        pytest.param(
            lambda c: c.task("t1", samples="many"),
            ["ConfigError: config/tasks/t1.yaml", "samples", "'many'", "Answers per item"],
            id="wrong kind of value",
        ),
        pytest.param(
            lambda c: shutil.rmtree(c.folder / "m2"),
            ["ModelError", "'c2'", "m2 does not exist", "Correct the column 'model'"],
            id="missing model folder",
        ),
        pytest.param(
            tokenizer_without_template,
            ["ModelError", "'c2'", "no chat template", "--chat-template"],
            id="no chat template",
        ),
        pytest.param(
            lambda c: c.write("data/t1.jsonl", ""),
            ["RecordError: data/t1.jsonl is empty", "'messages' or 'prompt'"],
            id="no items",
        ),
        pytest.param(
            lambda c: c.write("data/t1.jsonl", f"{ITEM}\n{{not JSON\n"),
            ["RecordError: data/t1.jsonl, line 2", "JSON"],
            id="malformed line",
        ),
        pytest.param(
            lambda c: c.write("data/t1.jsonl", f"{ITEM}\n"),
            ["RecordError: config/tasks/t1.yaml", "Item 'i0' has no `target`", "Add one to the task's data"],
            id="no target",
        ),
        pytest.param(
            lambda c: c.write("data/t1.jsonl", json.dumps({"id": "i0", "prompt": "hello", "meta": ["x"]}) + "\n"),
            ["RecordError: data/t1.jsonl, line 1", "'meta' of item 'i0' is a list"],
            id="meta that is a list",
        ),
        pytest.param(
            lambda c: c.task("t1", scorer={"name": "constraints"}),
            ["RecordError: config/tasks/t1.yaml", "Item 'i0' has no constraints", "meta.constraints"],
            id="no constraints",
        ),
        pytest.param(
            lambda c: c.task("t1", scorer={"name": "avert"}),
            ["ConfigError: config/tasks/t1.yaml", "no wrong answers", "'i0'", "meta.wrong"],
            id="no wrong answers",
        ),
        pytest.param(
            lambda c: c.task("t1", scorer={"name": "exact_match", "extract": "(x"}),
            ["ConfigError: config/tasks/t1.yaml", "cannot use `extract: (x`", "Write a Python regular expression"],
            id="no regular expression",
        ),
        pytest.param(
            lambda c: c.task("t1", beside=["exact_mtch"]),
            ["ConfigError: config/tasks/t1.yaml", "metric 'exact_mtch'", "Did you mean 'exact_match'?"],
            id="a number that the scorer does not make",
        ),
        pytest.param(
            lambda c: c.write("data/t1.jsonl", f"{ITEM}\n{ITEM}\n"),
            ["RecordError: data/t1.jsonl, line 2", "'i0' stands in line 1", "give each item its own"],
            id="id that stands twice",
        ),
        pytest.param(
            lambda c: c.sheet("c1 m1, c1 m2"),
            ["ConfigError: config/checkpoints.tsv", "'c1' twice", "rename one"],
            id="checkpoint named twice",
        ),
        pytest.param(
            lambda c: c.sheet("c1 m1 large, c2 m2 default", "name model model_profile"),
            ["ConfigError: config/checkpoints.tsv, row 'c1'", "'large'", "Profiles in config/config.yaml: default"],
            id="unknown profile",
        ),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    make_campaign: Callable[..., Campaign], spoil: Callable[[Campaign], object], words: list[str]
) -> None:
    campaign = make_campaign()
    spoil(campaign)
    run = campaign.run("--dry-run")
    assert run.rc != 0
    assert "Traceback" not in run.said
    # One paragraph: Snakemake's line that says where, then ours.
    (message,) = [line for line in run.said.splitlines() if line.startswith(words[0].split(":")[0])]
    for word in words:
        assert word in message
    assert "jobid" not in run.said
    assert not (campaign.folder / "results").exists()
