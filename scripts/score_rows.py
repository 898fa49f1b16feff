"""Score answers to rows of known benchmarks by meaning, one line of JSON at a time; for harnesses of others.

Each line of standard input is `{"format": "mmlu", "row": {...}, "text": "the answer" or null, "scorer": {...}}`; its reply is
`{"prompt": ..., "target": ..., "metrics": {...} or null}`, or `{"error": ...}`. The model that compares starts once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from milepost.embedding.embedders import MiniLM
from milepost.errors import MilepostError, run_step
from milepost.scorers.avert.scorer import Scorer
from milepost.tasks.known import item_of


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args(argv)
    with MiniLM() as embed:
        for line in sys.stdin:
            try:
                reply: dict[str, Any] = answered(json.loads(line), embed)
            except MilepostError as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(reply), flush=True)


def answered(asked: dict[str, Any], embed: MiniLM) -> dict[str, Any]:
    """Make a row's prompt, and score an answer to it."""
    item = item_of(asked["row"], asked["format"])
    (message,) = item["messages"]
    reply: dict[str, Any] = {"prompt": message["content"], "target": item["target"], "metrics": None}
    if asked["text"] is not None:
        options = {"letters": "choices" in item, "chance": False, **asked["scorer"]}
        built_in = "AVERT_MODEL_ENDPOINT" not in os.environ and "endpoint" not in options
        scorer = Scorer(embed=embed if built_in else None, **options)
        (score,) = scorer.score([item], [{"id": item["id"], "sample": 0, "content": asked["text"]}])
        if score["score"] is None:
            reply["error"] = score.get("note")
        else:
            reply["metrics"] = score["metrics"]
    return reply


if __name__ == "__main__":
    run_step(main)
