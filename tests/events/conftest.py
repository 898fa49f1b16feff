"""Campaigns are made as in the tests of the workflow."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "workflow"))
