"""Stands in for plot.py in a copy of the workflow: figures that say what they were drawn from, in no time."""

import argparse
import hashlib
import json
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("--settings", "--scores", "--metrics", "--steps", "--out"):
    parser.add_argument(name)
args = parser.parse_args()
content = b"".join(Path(path).read_bytes() for path in (args.settings, args.scores, args.metrics, args.steps))
Path(args.out).mkdir(parents=True, exist_ok=True)
for name in [*json.loads(Path(args.settings).read_bytes())["tasks"], "all"]:
    for kind in ("svg", "png", "csv"):
        (Path(args.out) / f"{name}.{kind}").write_text(f"<svg><title>{hashlib.md5(content).hexdigest()}</title></svg>")
