"""Makes `made_dicom` importable: pytest's importlib mode does not add test folders to the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))
