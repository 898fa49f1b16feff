"""What the tests of the workflow use to play small campaigns is here for unit tests, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "workflow"))
# The stand-in for a server that its test has is used by the rooms above.
sys.path.append(str(Path(__file__).parent / "client"))
