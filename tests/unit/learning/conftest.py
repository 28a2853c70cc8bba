"""Lets the tests of this folder import `tiny_forecaster` (with importlib mode test folders are not on the path)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
