"""A search that kills itself in the trial with the number `at` (-1: in none), once its settings are drawn and stored.

Run by test_sweep_killed.py. Prints what was tried in every trial that ended by itself, one JSON object a line.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from pipelines.learning.sweep_study import Attempt, Domain, Search, open_study, run_trials

DOMAINS = (
    Domain("training.learning_rate", low=1e-4, high=1e-1, log=True),
    Domain("model.hidden", choices=([8], [8, 8], [16])),
    Domain("model.dropout", low=0.0, high=0.5, step=0.25),
)
GRID = (DOMAINS[1], DOMAINS[2])


def search_by(sampler: str) -> Search:
    return Search(GRID if sampler == "grid" else DOMAINS, 14, is_larger_better=False, sampler=sampler, seed=3)


def main(path: Path, sampler: str, at: int) -> None:
    def attempt(attempt: Attempt) -> Mapping[str, float]:
        loss = 10 * float(attempt.values.get("training.learning_rate", 0)) + float(attempt.values["model.dropout"])
        loss += 0.1 * len(attempt.values["model.hidden"])
        if attempt.number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        attempt.report(1, loss + 1)
        if loss > 1:
            raise RuntimeError("too much")
        attempt.report(2, loss)
        return {"error": loss}

    search = search_by(sampler)
    for row in run_trials(open_study(path, search), search, attempt, lambda *_: None):
        if row.state != "killed":
            print(json.dumps([row.state, row.value, dict(row.values)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
