import json

import pytest
import yaml

from milepost.errors import HarnessError
from milepost.nemo import nel
from milepost.nemo.results import read_metrics, read_samples, run_versions, token_statistics

HARNESS = {
    "eval_type": "lm-evaluation-harness.gsm8k", "endpoint_type": "completions", "adapter": {"custom_system_prompt": "Be brief."},
    "params": {"temperature": 0.7, "max_new_tokens": 12, "limit_samples": 6, "extra": {"num_fewshot": 5, "split": "test"}},
}  # fmt: skip


def test_the_configuration_of_a_run(tmp_path):
    tuning = {"params": {"parallelism": 8, "request_timeout": 60}, "adapter": {}}
    made = nel.run_config(HARNESS, "http://127.0.0.1:9/v1/completions", "c", "A_KEY", tmp_path, tuning)
    (benchmark,) = made["benchmarks"]
    assert made["services"]["model"] == {
        "type": "api", "url": "http://127.0.0.1:9/v1/completions", "protocol": "completions", "model": "c", "api_key": "${A_KEY}",
        "generation": {"temperature": 0.7, "max_tokens": 12}, "proxy": {"request_timeout": 60},
    }  # fmt: skip
    assert benchmark == {
        "name": "lm-eval://gsm8k", "solver": {"type": "simple", "service": "model", "system_prompt": "Be brief."}, "repeats": 1,
        "max_concurrent": 8, "max_problems": 6, "fewshot": 5, "params": {"split": "test"},
    }  # fmt: skip
    assert made["output"] == {"dir": str(tmp_path), "timestamped": False, "report": []}


@pytest.fixture
def left(tmp_path):
    """What a run leaves: four items, one of them cut off."""
    folder = tmp_path / "sums"
    folder.mkdir()
    scores = {
        "failures": {"total_failures": 1, "categories": {"empty_response": {"count": 1}}},
        "runtime": {"finish_reason_counts": {"stop": 3, "length": 1}, "total_completion_tokens": 10},
    }
    bundle = {"sdk_version": "0.3.0", "benchmark": {"name": "sums", "scores": scores}}
    (folder / "eval-20261129T135258Z-sums.json").write_text(json.dumps(bundle))
    rewards = [1.0, 0.0, 1.0, 1.0]
    rows = [
        {"problem_idx": index, "reward": reward, "model_response": f"It is {index}.", "extracted_answer": str(index),
         "scoring_details": {"method": "x", "correct": reward == 1, "lm_eval_metrics": {"f1": reward / 2}}}
        for index, reward in enumerate(rewards)
    ]  # fmt: skip
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    return tmp_path


def test_results_are_read_as_those_of_earlier_versions(left):
    nel.bring_into_form(left)
    numbers = read_metrics(left)
    assert {name: number["value"] for name, number in numbers.items() if "/" not in name} == {
        "reward": 0.75, "correct": 0.75, "f1": 0.375,
    }  # fmt: skip
    assert numbers["reward"]["stderr"] == pytest.approx(0.25)
    pairs = list(read_samples(left, 0, "reward"))
    assert [score["score"] for score, _ in pairs] == [1.0, 0.0, 1.0, 1.0]
    assert pairs[1][0]["metrics"] == {"reward": 0.0, "correct": 0.0, "f1": 0.0}
    assert pairs[1][0]["extracted"] == "1"
    assert pairs[1][1]["content"] == "It is 1."
    assert token_statistics(left) == {"truncated": 0.25, "mean_tokens": 2.5}
    (left / "done.json").write_text("{}")
    assert run_versions(left) == {"nemo-evaluator": "0.3.0"}


def test_an_item_that_could_not_be_asked_is_no_zero(left):
    path = left / "sums" / "eval-20261129T135258Z-sums.json"
    bundle = json.loads(path.read_text())
    bundle["benchmark"]["scores"]["failures"]["categories"]["server_error"] = {"count": 2}
    path.write_text(json.dumps(bundle))
    with pytest.raises(HarnessError, match="server_error 2"):
        nel.bring_into_form(left)
    assert not (left / "results.yml").exists()


def test_a_run_without_results_is_an_error(tmp_path):
    with pytest.raises(HarnessError, match="left no results"):
        nel.bring_into_form(tmp_path)


def test_the_key_stands_in_no_file(tmp_path):
    made = nel.run_config(HARNESS, "http://127.0.0.1:9/v1/completions", "c", "A_KEY", tmp_path, {})
    assert "${A_KEY}" in yaml.safe_dump(made)
