"""Read a summary's interval aloud. Exercise (c) of README.md beside it."""

import json
import math
import sys
from pathlib import Path

summary = json.loads(Path(sys.argv[1]).read_bytes())
value, stderr, n_items, n_samples = (summary[key] for key in ("value", "stderr", "n_items", "n_samples"))
if value is None or stderr is None:
    sys.exit("This summary has no score, or too few items for an interval.")
low, high = summary["ci95"]
print(f"score {value:.3f}, standard error {stderr:.3f}, 95 % interval from {low:.3f} to {high:.3f}")
print(f"{n_samples} answers to {n_items} items: {n_items} independent things, not {n_samples}")
for part, words in (("items", "which items were chosen"), ("decoding", "how each answer was drawn")):
    variance = summary["variance"][part]
    if variance is not None:
        print(f"of it, from {words}: {math.sqrt(max(variance, 0)):.3f}")
print(summary["advice"])
