"""The step score_answers, with what the model's file says of its reasoning."""

import json

import pytest

import score_answers

HEADER = {"task": "t", "kind": "native", "version": 1, "generation": 1, "samples": 1, "sampling": {}}
PROMPT = {"id": "a", "messages": [{"role": "user", "content": "?"}], "target": ["17", "Maybe 17 or 42"]}


@pytest.mark.parametrize(
    ("reasoning", "value", "truncated", "cut"),
    [
        ({"reasoning": {"opened": True}}, 0.0, 1.0, 1.0),
        ({"reasoning": {"opened": False}}, 1.0, 1.0, None),
        ({}, 1.0, 1.0, None),
    ],
)
def test_an_answer_cut_within_a_trace_that_the_template_opens(tmp_path, monkeypatch, reasoning, value, truncated, cut):
    monkeypatch.chdir(tmp_path)
    answer = {"id": "a", "sample": 0, "content": "Maybe 17 or 42", "finish_reason": "length"}
    files = {"model": [{"digest": "d", **reasoning}], "prompts": [HEADER, PROMPT], "answers": [answer]}
    for name, records in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "scoring.json").write_text(json.dumps({"scorer": {"name": "exact_match"}}))
    score_answers.main(
        [
            *("--ckpt", "c", "--task", "t", "--scoring", "scoring.json"),
            *(part for name in files for part in (f"--{name}", f"{name}.jsonl")),
            *("--scores", "scores.jsonl", "--summary", "summary.json"),
        ]
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["value"], summary["rates"]["truncated"]) == (value, truncated)
    assert summary.get("reasoning", {}).get("cut") == cut
