"""The outermost ring: the command line, the stages, and Prefect."""

import os

# Prefect reports usage unless told otherwise, and reads these when it is imported; what the user has set stays.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
