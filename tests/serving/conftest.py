"""The tests of this folder start real servers, for which some need programs that lie beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
