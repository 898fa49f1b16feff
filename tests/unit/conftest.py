"""What the tests of the workflow use to play small campaigns is here for unit tests, too."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.append(str(Path(__file__).parents[1] / "workflow"))
# Stand-ins that are programs, too.
sys.path.append(str(Path(__file__).parents[1]))
# The stand-in for a server that its test has is used by the rooms above.
sys.path.append(str(Path(__file__).parent / "client"))

# A busy machine is slow, and no test wrong for that: those of speed measure the time that they compute.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
