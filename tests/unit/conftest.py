"""What the tests of the workflow use to play small campaigns is here for unit tests, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "workflow"))
