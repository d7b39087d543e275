"""The stand-ins of this folder's tests are no tests themselves."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
