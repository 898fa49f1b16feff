"""What is known of a harness's number: which way is better, and what values it can take.

The task's file has the last word (`better`, `range`), then what the harness says itself (lm-eval's `higher_is_better`),
then what numbers of this name are everywhere. Of all others, higher is better and no bounds are known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from milepost.campaign.types import NemoTask
from milepost.records import Better
from milepost.statistics.intervals import UNIT, Bounds
from milepost.statistics.metrics import Metric

# Words in names of numbers that are better when lower.
LOWER = frozenset(
    "perplexity ppl loss nll bits wer cer ter error errors brier mae mse rmse toxicity stereotype hallucination ece".split()
)
# Words in names of numbers that are shares, of answers or of parts of them.
SHARES = frozenset(
    "acc accuracy match em f1 mc1 mc2 precision recall pass strict loose correct solved toxicity stereotype ece".split()
)
RANGES: Mapping[str, Bounds] = {
    "mcc": (-1.0, 1.0),
    "brier_score": (0.0, 2.0),
    "bleu": (0.0, 100.0),
    "chrf": (0.0, 100.0),
}


def describe(name: str, task: NemoTask, higher: bool | None = None) -> Metric:
    """Describe a number of a harness.

    Args:
        name: As the summary has it, such as `exact_match__strict-match` or `mmlu/acc`.
        task: The task; its `better` and `range` are those of its `metric`.
        higher: Whether the harness says that higher is better; None where it says nothing.
    """
    base = name.rpartition("/")[2].partition("__")[0]
    words = set(re.split(r"[^a-z0-9]+", base.lower()))
    better: Better = "lower" if words & LOWER else "higher"
    if higher is not None:
        better = "higher" if higher else "lower"
    known = RANGES.get(base.lower()) or (UNIT if words & SHARES and not base.endswith("_stderr") else None)
    if task.metric in (name, base, name.partition("__")[0]):
        better = task.better or better
        known = task.range or known
    return Metric(name, better, known)
