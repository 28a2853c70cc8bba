"""The outermost ring: the command line, the stages, and Prefect."""

import os
from typing import Any

Json = dict[str, Any]  # a JSON object

# Prefect reports usage unless told otherwise, and reads these when it is imported; what the user has set stays.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

# Read when torch is loaded. By default its threads spin while they wait, and two busy programs on the same cores slow each
# other down tenfold (measured: 27 s against 1.9 s for one fit beside another job on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
