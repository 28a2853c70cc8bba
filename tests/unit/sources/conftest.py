"""Makes `source_rasters` importable: pytest's importlib mode does not add test folders to the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
