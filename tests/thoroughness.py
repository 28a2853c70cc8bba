"""How much of what repeats a promise at more points is tested."""

import os

EVERYTHING = os.environ.get("DRIFTLINE_TESTS") == "all"  # as `make test-all` asks; CI has no time for it
