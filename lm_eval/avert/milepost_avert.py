"""What lm-eval's tasks in this folder call: Milepost's prompts and its scorer avert, in Milepost's own environment.

They run in a process that starts with the first row and ends with this one. MILEPOST_PYTHON names another interpreter than
that of envs/workflow; AVERT_MODEL_ENDPOINT and its like name another model than the one that comes with Milepost.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


@cache
def _worker() -> subprocess.Popen[str]:
    python = os.environ.get("MILEPOST_PYTHON", str(_ROOT / "envs/workflow/.venv/bin/python"))
    try:
        # The harness's own PYTHONPATH has no place in the other environment.
        process = subprocess.Popen(
            [python, _ROOT / "scripts/score_rows.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
    except OSError as error:
        raise RuntimeError(
            f"Milepost's interpreter {python} does not run: {error}. Run `make setup` in {_ROOT}, or name another one in "
            "MILEPOST_PYTHON."
        ) from None
    atexit.register(process.terminate)
    return process


def _ask(form: str, row: dict[str, Any], text: str | None = None) -> dict[str, Any]:
    process = _worker()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"format": form, "row": row, "text": text, "scorer": {}}, default=str) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("Milepost's scorer ended; what it said stands above.")
    reply: dict[str, Any] = json.loads(line)
    if reply.get("error"):
        raise RuntimeError(reply["error"])
    return reply


class Benchmark:
    """The functions of one benchmark's task."""

    def __init__(self, form: str) -> None:
        self.form = form

    def text(self, doc: dict[str, Any]) -> str:
        """What is asked."""
        return str(_ask(self.form, doc)["prompt"])

    def target(self, doc: dict[str, Any]) -> str:
        """The right answer, the first if there are several."""
        target = _ask(self.form, doc)["target"]
        return target if isinstance(target, str) else str(target[0])

    def results(self, doc: dict[str, Any], results: list[str]) -> dict[str, float]:
        """The scores of one answer."""
        metrics = _ask(self.form, doc, results[0])["metrics"]
        return {name: float(value) for name, value in metrics.items() if value is not None}


_babi, _mmlu, _mmlu_pro, _gpqa, _gsm8k, _bbh, _arc = map(
    Benchmark, ("babi", "mmlu", "mmlu_pro", "gpqa", "gsm8k", "bbh", "arc")
)
babi_text, babi_target, babi_results = _babi.text, _babi.target, _babi.results
mmlu_text, mmlu_target, mmlu_results = _mmlu.text, _mmlu.target, _mmlu.results
mmlu_pro_text, mmlu_pro_target, mmlu_pro_results = _mmlu_pro.text, _mmlu_pro.target, _mmlu_pro.results
gpqa_text, gpqa_target, gpqa_results = _gpqa.text, _gpqa.target, _gpqa.results
gsm8k_text, gsm8k_target, gsm8k_results = _gsm8k.text, _gsm8k.target, _gsm8k.results
bbh_text, bbh_target, bbh_results = _bbh.text, _bbh.target, _bbh.results
arc_text, arc_target, arc_results = _arc.text, _arc.target, _arc.results
