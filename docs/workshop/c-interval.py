"""Read a summary's interval aloud. Exercise (c) of README.md beside it."""

import json
import math
import sys
from pathlib import Path

summary = json.loads(Path(sys.argv[1]).read_bytes())
value, stderr, n_items, n_samples = (summary[key] for key in ("value", "stderr", "n_items", "n_samples"))
low, high = summary["ci95"]
print(f"score {value:.3f}, standard error {stderr:.3f}, 95 % interval from {low:.3f} to {high:.3f}")
print(f"{n_items} items, {n_samples} samples of each: {n_items} independent things, not {n_items * n_samples}")
for part, words in (("items", "which items were chosen"), ("decoding", "how each answer was drawn")):
    share = (summary["variance"] or {}).get(part)
    if share is not None:
        print(f"of the error, {math.sqrt(max(share, 0)):.3f} comes from {words}")
print(f"four times as many items would make the standard error about {stderr / 2:.3f}")
