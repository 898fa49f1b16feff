"""exact_match with `compat: lm-eval` against lm-eval's own function, on drawn texts."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from milepost.scorers import load_scorer

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "envs/nemo/.venv/bin/python"
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="lm-eval is not installed: `envs/setup.sh nemo`")

CASES = 4000
# Letters of several scripts and kinds, digits, punctuation, what regular expressions and numpy treat on their own.
SIGNS = "abcXYZ \u00e9e\u0301\u00dfS\u0130\u03a3\u03c20123456789\u0664\uff11.,;:!?-\u2212%$\u20ac'\u2019\"()[]{}*_#@/\\\t\n\0\u200b\U0001f600"
THEIRS = """
import json, sys
from lm_eval.api.metrics import exact_match_hf_evaluate
for line in sys.stdin:
    case = json.loads(line)
    print(float(exact_match_hf_evaluate(predictions=[case["answer"]], references=[case["target"]], **case["options"])["exact_match"]))
"""


def drawn_cases():
    draw = random.Random(0)

    def text():
        return "".join(draw.choice(SIGNS) for _ in range(draw.randint(0, 8)))

    for _ in range(CASES):
        target = text() + draw.choice("abc1?")
        # Near to the target, so that options decide.
        answer = draw.choice(
            [
                text(),
                target,
                target.upper(),
                target.lower(),
                target + draw.choice(SIGNS),
                target[:-1],
                "".join(one for one in target if one.isalnum()),
            ]
        )
        names = ("ignore_case", "ignore_punctuation", "ignore_numbers")
        options = {name: True for name in names if draw.random() < 0.5}
        if draw.random() < 0.3:
            options["regexes_to_ignore"] = draw.sample([r"\d", "a|b", r"\s+", ",", r"\$", "(?i)x"], draw.randint(1, 2))
        yield {"answer": answer, "target": target, "options": options}


def test_drawn_texts_as_lm_eval_itself():
    cases = [case for case in drawn_cases() if case["target"].strip()]
    done = subprocess.run(
        [PYTHON, "-c", THEIRS],
        input="".join(json.dumps(case) + "\n" for case in cases),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = list(map(float, done.stdout.split()))
    ours = []
    for case in cases:
        scorer = load_scorer({"name": "exact_match", "compat": "lm-eval", **case["options"]})
        (score,) = scorer.score(
            [{"id": "a", "prompt": "?", "target": case["target"]}],
            [{"id": "a", "sample": 0, "content": case["answer"]}],
        )
        ours.append(score["score"])
    assert 0.1 < sum(theirs) / len(theirs) < 0.9
    assert [(case, their) for case, their, our in zip(cases, theirs, ours, strict=True) if their != our] == []
