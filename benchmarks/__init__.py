"""Timed comparisons: driftline against the usual way and against the machine's limit, ratios taken in one run."""
