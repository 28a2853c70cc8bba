"""Kills a training at every step and inside every publication of its resume state (in `make test-all`; in CI at every fifth of
these places), resumes it, and compares the weights.

Run by test_training_killed.py in a separate process: it forks once per position, before PyTorch has started any thread.
Prints one line per position: name, whether the child died there, whether the resumed weights equal the undisturbed ones.
"""

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path += map(str, (Path(__file__).parents[1] / "unit" / "learning", Path(__file__).parents[2]))
from tiny_forecaster import TinyForecaster, TinyWindows, mean_absolute_error

from pipelines.learning import member
from pipelines.learning.training import TrainingSettings, train
from tests.thoroughness import EVERYTHING

SETTINGS = TrainingSettings(epochs=3, batch=8, learning_rate=1e-2, accelerator="cpu")
STEPS = 2 * 3 * 3  # members, epochs, batches
EVERY = 1 if EVERYTHING else 5


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, at_step: int = -1) -> None:
    forecaster = TinyForecaster(2)
    windows = TinyWindows(24), TinyWindows(8, seed=1)
    report = train(
        forecaster, *windows, mean_absolute_error, SETTINGS, folder, lambda done, _: die() if done == at_step else None
    )
    values = b"".join(value.numpy().tobytes() for value in forecaster.members.state_dict().values())
    curves = repr([of_member.curve for of_member in report.members])
    (folder / "result").write_text(hashlib.sha256(values + curves.encode()).hexdigest())


def run_dying_in_publication(folder: Path, number: int, is_after_rename: bool) -> None:
    publish, count = member.EpochEnd._publish, 0

    def dying(self: member.EpochEnd, trainer: member.Trainer) -> None:
        nonlocal count
        count += 1
        if count == number and not is_after_rename:
            trainer.save_checkpoint(self.path.with_suffix(".part"))
            self.path.with_suffix(".part").write_bytes(self.path.with_suffix(".part").read_bytes()[:500])
            die()
        publish(self, trainer)
        if count == number:
            die()

    member.EpochEnd._publish = dying  # type: ignore[method-assign]
    run(folder)


def child(work: Callable[..., None], *arguments: object) -> int:
    """Signal that ended a forked child which did `work`; 0 if it came to its end."""
    pid = os.fork()
    if pid == 0:
        work(*arguments)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    assert child(run, folder / "whole") == 0
    whole = (folder / "whole" / "result").read_text()
    places = [(f"step-{step}", run, (step,)) for step in range(1, STEPS + 1)]
    for number in range(1, 2 * 3 + 1):
        places += [(f"publication-{number}-{after}", run_dying_in_publication, (number, after)) for after in (False, True)]
    for name, work, arguments in places[::EVERY]:
        ended = child(work, folder / name, *arguments)
        resumed = child(run, folder / name)
        same = resumed == 0 and (folder / name / "result").read_text() == whole
        print(name, ended == -signal.SIGKILL, same, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
