"""IFEval and IFBench in one campaign: the numbers are those that follow from the answers by a few lines of our own."""

import csv
import json
import re
import shutil

import pytest
from campaigns import REPOSITORY

NEEDED = ("benchmarks", "ifbench")
pytestmark = pytest.mark.skipif(
    not all((REPOSITORY / "envs" / name / ".venv/bin/python").exists() for name in NEEDED),
    reason="environments are not installed: `envs/setup.sh benchmarks ifbench`",
)
# The stand-in's answers end with their seed, so what is asked of its digits holds of some answers only.
SEVENS = ("keywords:letter_frequency", {"letter": "7", "let_relation": "at least", "let_frequency": 2})
IFEVAL = [
    {"key": n, "prompt": f"hello ifeval-{n}", "instruction_id_list": [name for name, _ in some], "kwargs": [kw for _, kw in some]}
    for n, some in enumerate([[SEVENS], [SEVENS, ("punctuation:no_comma", {})], [SEVENS], [SEVENS], [("detectable_format:title", {})]])
]  # fmt: skip
IFBENCH = [
    {
        "key": n, "prompt": f"hello ifbench-{n}", "instruction_id_list": ["format:end_with", "count:at_most"],
        "kwargs": [{"end_phrase": str(n), "N": None}, {"max_words": 7}],
    }
    for n in range(10)
]  # fmt: skip


def sevens(text):
    return text.count("7") >= 2


def ifeval(row, text):
    """Which instructions of a row an answer follows."""
    checks = {
        "keywords:letter_frequency": sevens,
        "punctuation:no_comma": lambda said: "," not in said,
        "detectable_format:title": lambda said: re.search("<<.+>>", said) is not None,
    }
    return [checks[name](text) for name in row["instruction_id_list"]]


def ifbench(row, text):
    return [text.endswith(row["kwargs"][0]["end_phrase"]), len(text.split()) <= 7]


def expected(rows, answers, follows):
    """Shares of prompts and of instructions, each answer's instructions counted."""
    held = [follows(rows[int(answer["id"])], answer["content"]) for answer in answers]
    flat = [one for some in held for one in some]
    return {"prompt": sum(map(all, held)) / len(held), "instruction": sum(flat) / len(flat)}


def test_a_campaign_of_both(make_campaign):
    campaign = make_campaign(checkpoints="c1 m1", tasks=(), own_code=True)
    code = campaign.code
    for name in NEEDED:
        (code / "envs" / name).mkdir(parents=True, exist_ok=True)
        (code / "envs" / name / ".venv").symlink_to(REPOSITORY / "envs" / name / ".venv")
    shutil.copytree(REPOSITORY / "demo/benchmarks/checkers", campaign.folder / "IFBench/ifbench")
    registry = campaign.folder / "IFBench/ifbench/instructions_registry.py"
    registry.write_text(registry.read_text().replace("import instructions", "from ifbench import instructions"))
    for name, rows in (("ifeval", IFEVAL), ("ifbench", IFBENCH)):
        campaign.write(f"data/{name}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    sampling = {"max_tokens": "rest", "at_most": 64}
    campaign.task(
        "ifeval", format="ifeval", samples=4, sampling=sampling, scorer={"name": "ifeval"}, k=[2], beside=["pass@2"]
    )
    campaign.task(
        "ifbench", format="ifbench", samples=2, sampling=sampling, scorer={"name": "ifbench", "ifbench_dir": "IFBench"}
    )
    campaign.select("ifeval", "ifbench")
    run = campaign.run()
    assert run.rc == 0, run.said

    for name, rows, follows in (("ifeval", IFEVAL, ifeval), ("ifbench", IFBENCH, ifbench)):
        file = campaign.folder / f"results/answers/c1/{name}.jsonl"
        numbers = expected(rows, [json.loads(line) for line in file.read_text().splitlines()], follows)
        metrics = campaign.summary("c1", name)["metrics"]
        assert 0 < numbers["prompt"] < numbers["instruction"] < 1
        for level in ("strict", "loose"):
            for what, value in numbers.items():
                assert metrics[f"{what}_{level}"]["value"] == pytest.approx(value), (name, what, level)
        assert metrics["crashed"]["value"] == 0
    with open(campaign.folder / "results/figures/ifeval.csv") as drawn:
        assert {row["metric"] for row in csv.DictReader(drawn)} >= {"prompt_strict", "pass@2"}

    # A checker that changes scores its task again, and asks nothing.
    checkers = campaign.folder / "IFBench/ifbench/instructions.py"
    checkers.write_text(checkers.read_text().replace('<= self.kwargs["max_words"]', "<= 0"))
    run = campaign.run()
    assert (run.rc, run.rules["score_answers"], run.starts) == (0, 1, {}), run.said
    assert campaign.summary("c1", "ifbench")["value"] == 0
