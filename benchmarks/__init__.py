"""Benchmarks: driftline against the usual implementation and against the machine's limit; ratios within one run."""
