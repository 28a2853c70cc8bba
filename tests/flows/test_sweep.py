"""`driftline sweep` of a small forecast: what it leaves, what it reads, when it goes on and when it refuses to."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

pytest.importorskip("optuna", reason="needs driftline[sweep]")

from configs.load import load_run
from flows.sweep_plan import make_sweep_plan
from flows.task import open_invocation
from flows.tasks.forecast import Forecast
from pipelines.errors import RequestError, StateError
from tests.flows.small_runs import perform

SWEEP: dict[str, Any] = {
    "space": {"training.learning_rate": [0.03, 0.003], "model.hidden": [[4], [2]]},
    "trials": 2, "sampler": "random", "pruner": "none",
}  # fmt: skip
FOLDER = Path("runs/tiny/sweep")


def add_section(config: Path, **changes: Any) -> Path:
    content = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**content, "sweep": {**SWEEP, **changes}}, sort_keys=False))
    return config


def sweep(config: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    return perform(open_invocation(config, overrides, **options), "sweep")


def table() -> list[dict[str, str]]:
    return list(csv.DictReader((FOLDER / "trials.csv").read_text().splitlines()))


def spoil_the_test_part() -> None:
    """Other values on every date from `split.test_from` on."""
    dataset = xr.load_dataset("tiny.nc", engine="h5netcdf")
    is_tested = dataset["time"].values >= np.datetime64("2019-09-01")
    values = dataset["red"].values
    values[is_tested] = np.random.default_rng(9).integers(1, 60_000, values[is_tested].shape)
    dataset["red"] = (("time", "y", "x"), values)
    dataset.to_netcdf("tiny.nc", engine="h5netcdf")


@pytest.mark.torch
def test_a_search_leaves_its_trials_and_a_run_and_never_reads_the_test_part(
    tiny_run: Path, write_tiny: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = add_section(tiny_run)
    first = sweep(config)
    trials, stages = table(), {path.stem for path in Path("runs/tiny/stages").iterdir()}
    assert stages == {"ingest"}, "nothing is evaluated, and no model takes the place of the run's own"
    assert [row["state"] for row in trials] == ["finished"] * 2
    assert {path.name for path in FOLDER.iterdir()} == {"journal.log", "trials.csv", "sweep.json", "sweep.png", "best.yaml"}
    assert first["best"]["value"] == min(float(row["mean_absolute_error"]) for row in trials)
    winner: Any = load_run(FOLDER / "best.yaml")
    assert winner.training.learning_rate == first["best"]["values"]["training.learning_rate"]
    assert winner.model.hidden == first["best"]["values"]["model.hidden"]
    assert winner.training.refit
    more = ["sweep.trials=5"]
    planned = make_sweep_plan(load_run(config, more), config, more)["sweep"]
    assert (planned["trials"], planned["done"], planned["left"], planned["is_measured"]) == (5, 2, 3, True)
    assert sweep(config)["skipped"], "all trials are done"
    with pytest.raises(RequestError, match=r"made with training\.epochs = 1, now it is 2; set it back, or .* --restart"):
        sweep(config, "training.epochs=2")

    (tmp_path / "spoilt").mkdir()
    monkeypatch.chdir(tmp_path / "spoilt")
    other = add_section(write_tiny(tmp_path / "spoilt"))
    spoil_the_test_part()
    sweep(other)
    scores = [(row["model.hidden"], row["mean_absolute_error"]) for row in trials]
    assert [(row["model.hidden"], row["mean_absolute_error"]) for row in table()] == scores


@pytest.mark.torch
def test_trials_that_all_fail_are_an_error_with_their_message(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = add_section(tiny_run)

    def fit(*_: object) -> None:
        raise MemoryError("cannot allocate 9 GB")

    with monkeypatch.context() as patched:
        patched.setattr(Forecast, "fit", fit)
        with pytest.raises(StateError, match=r"none of 2 trials has finished; the first one: MemoryError: cannot allocate 9 GB"):
            sweep(config)
    assert [(row["state"], row["message"]) for row in table()] == [("failed", "MemoryError: cannot allocate 9 GB")] * 2
    result = sweep(config, "sweep.trials=1", restart=True)
    assert result["trials"] == {"asked": 1, "finished": 1, "pruned": 0, "failed": 0, "killed": 0}
    assert json.loads((FOLDER / "sweep.json").read_text())["best"] == result["best"]


def test_what_cannot_be_searched_for_is_refused_before_anything_is_read(tiny_run: Path) -> None:
    with pytest.raises(RequestError, match="does not say what to try"):
        sweep(tiny_run)
    config = add_section(tiny_run)
    with pytest.raises(RequestError, match="model: auto chooses the network by itself"):
        sweep(config, "model={kind: auto}")
    with pytest.raises(RequestError, match=r"sweep\.metric: 'accuracy' is not measured"):
        sweep(config, "sweep.metric=accuracy")
    with pytest.raises(RequestError, match="trains nothing"):
        sweep(tiny_run.with_name("watched.yaml"))
    assert not Path("runs/tiny/cube").exists()
