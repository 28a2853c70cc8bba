"""`model: auto`: what is chosen of series whose truth is known, from which dates, and what the later stages make of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from configs.load import load_run
from driftline import load_model
from flows.model_cards import card_of
from flows.planning import make_plan
from flows.stage import carry_out as carry_out_verb
from flows.task import open_invocation, remembering_folder
from flows.tasks import forecast_choice, task_of
from pipelines.errors import MissingInput, RequestError
from pipelines.learning.model_choice import Score
from pipelines.products.model_card import markdown
from pipelines.samples import origins

DATES, SIDE, EVERY = 130, 16, 16
CONFIG: dict[str, Any] = {
    "name": "chosen",
    "source": {
        "kind": "netcdf", "path": "series.nc", "bands": ["v"], "scale": 0.001, "crs": "EPSG:32635",
        "transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0],
    },
    "cube": {"chunk_px": 16, "workers": 1},
    "samples": {"variables": [{"name": "v", "bands": ["v"]}], "context": 4, "horizon": 2},
    "split": {"validation_from": "2018-08-01", "test_from": "2019-02-01"},
    "model": {"kind": "auto", "tries": 4, "origins": 2, "steps": 5},
    "training": {"epochs": 1, "batch": 32, "accelerator": "cpu"},
    "evaluation": {"baselines": ["persistence", "climatology"], "publish": "network"},
    "prediction": {"tile_px": 32},
}  # fmt: skip
WIDE = ("samples.context=auto", "model.tries=20")


def seasonal(rng: np.random.Generator) -> np.ndarray:
    """The same course every year, and noise that no date knows of another."""
    season = np.sin(2 * np.pi * np.arange(DATES) * EVERY / 365.25)
    return 3000 + 1500 * season[:, None, None] + rng.normal(0, 300, (DATES, SIDE, SIDE))


def wandering(rng: np.random.Generator) -> np.ndarray:
    """A random walk: the last value is the best forecast, and no year is like another."""
    return 9000 + np.cumsum(rng.normal(0, 120, (DATES, SIDE, SIDE)), axis=0)


def write_series(values: np.ndarray) -> None:
    times = np.datetime64("2014-01-05", "ns") + np.arange(DATES) * np.timedelta64(EVERY, "D")
    axes = {"time": times, "y": 5000000.0 - 10 * (np.arange(SIDE) + 0.5), "x": 500000.0 + 10 * (np.arange(SIDE) + 0.5)}
    stored = values.clip(1, 60000).astype("uint16")
    xr.Dataset({"v": (("time", "y", "x"), stored)}, axes).to_netcdf("series.nc", engine="h5netcdf")
    Path("chosen.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))


def carry_out(verb: str, *overrides: str) -> dict[str, Any]:
    invocation = open_invocation("chosen.yaml", overrides)
    with remembering_folder(invocation):
        return carry_out_verb(invocation, verb)


def choice() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs/chosen/chosen.json").read_text())
    return found


@pytest.fixture
def few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "MOST_WINDOWS", 40)


@pytest.mark.parametrize(("series", "expected"), [(seasonal, ("climatology", "decaying_anomaly")), (wandering, ("persistence",))])
@pytest.mark.usefixtures("few_windows")
def test_what_is_right_for_a_series_is_chosen(
    here: Path, series: Callable[[np.random.Generator], np.ndarray], expected: tuple[str, ...]
) -> None:
    write_series(series(np.random.default_rng(1)))
    carry_out("ingest")
    carry_out("choose")
    assert choice()["chosen"]["baseline"] in expected


@pytest.mark.usefixtures("few_windows")
@pytest.mark.exhaustive
def test_nothing_after_the_training_part_is_read(here: Path) -> None:
    values, one = seasonal(np.random.default_rng(1)), "model.tries=1"
    write_series(values)
    carry_out("ingest")
    carry_out("choose", one)
    first = choice()
    known = int((np.datetime64("2018-08-01") - np.datetime64("2014-01-05")) / np.timedelta64(EVERY, "D")) + 1
    values[known:] = np.random.default_rng(2).integers(1, 60000, values[known:].shape)
    write_series(values)
    assert carry_out("ingest")["replaced"] == DATES - known
    assert carry_out("choose", one)["skipped"], "the training part has not changed"
    Path("runs/chosen/stages/choose.json").unlink()
    carry_out("choose", one)
    errors = [[score["error"] for trial in found["trials"] for score in trial["scores"]] for found in (first, choice())]
    assert errors[0] == errors[1]
    assert len(errors[0]) == 2


def test_an_origin_in_a_cloudy_season_is_passed_over(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = seasonal(np.random.default_rng(1))
    known = int((np.datetime64("2018-08-01") - np.datetime64("2014-01-05")) / np.timedelta64(EVERY, "D")) + 1
    values[known - 15 : known] = 0
    values[known - 15 : known, :2] = 3000  # some of it is usable, less than the half that is asked for
    write_series(values)
    carry_out("ingest", "source.nodata=1")
    calls: list[str] = []
    monkeypatch.setattr(forecast_choice.Attempt, "score", scored({}, calls))
    carry_out("choose", "source.nodata=1", "samples.min_valid_fraction=0.5")
    assert {call[call.index("until=") :] for call in calls} == {f"until={end})" for end in (known - 13, known - 26)}


def scored(errors: dict[str, float], calls: list[str], stop_at: int = 10**6) -> Callable[..., Score]:
    """In place of a training: errors by corrected baseline; the process is stopped at one of the calls."""

    def score(attempt: Any, origin: Any, show: Any) -> Score:
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        network, samples = attempt.run.network, attempt.run.samples
        calls.append(
            f"{network.baseline} {samples.context} {network.hidden} {getattr(network, 'kernel', 1)} {network.kind} {origin}"
        )
        return Score(errors.get(network.baseline, 1.0), 1.0, 10, 5)

    return score


def test_a_search_that_was_stopped_goes_on_where_it_was(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(seasonal(np.random.default_rng(1)))
    carry_out("ingest")
    calls: list[str] = []
    monkeypatch.setattr(forecast_choice.Attempt, "score", scored({"climatology": 0.5}, calls, stop_at=7))
    with pytest.raises(KeyboardInterrupt):
        carry_out("choose", *WIDE)
    with pytest.raises(MissingInput, match="run `driftline choose CONFIG` first"):
        carry_out("evaluate", *WIDE)
    with pytest.raises(RequestError, match=r"leaves open what is to be chosen: `driftline run CONFIG`"):
        load_model("runs/chosen")
    monkeypatch.setattr(forecast_choice.Attempt, "score", scored({"climatology": 0.5}, calls))
    carry_out("choose", *WIDE)
    assert len(calls) == len(set(calls)), "no score is made twice"
    found = choice()
    assert sum(len(trial["scores"]) for trial in found["trials"]) == len(calls)
    assert (found["chosen"]["baseline"], found["chosen"]["context"]) == ("climatology", 3), "all contexts are equal"
    assert not Path("runs/chosen/choice").exists()
    assert carry_out("choose", *WIDE)["skipped"]
    with pytest.raises(RequestError, match=r"chosen for other settings of split; run"):
        carry_out("evaluate", *WIDE, "split.seed=4")


@pytest.mark.usefixtures("few_windows")
@pytest.mark.exhaustive
def test_later_stages_have_what_was_chosen_and_say_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(seasonal(np.random.default_rng(1)))
    plan = make_plan(load_run("chosen.yaml"), "run")
    assert [step["stage"] for step in plan["steps"]] == ["ingest", "choose", "train", "evaluate", "predict"]
    assert plan["steps"][1]["what"] == "at most 4 candidates at 2 origins inside the training part"
    stated = make_plan(load_run("chosen.yaml", ["model={hidden: [4]}"]), "run")
    assert "choose" not in [step["stage"] for step in stated["steps"]]

    monkeypatch.setattr(forecast_choice.Attempt, "score", scored({"persistence": 0.5}, []))
    carry_out("run", *WIDE)
    again = make_plan(load_run("chosen.yaml", WIDE), "run")["steps"][1]
    assert (again["what"], again["seconds"]) == ("chosen before: convlstm", 0), "a choice that exists costs nothing"
    folder = Path("runs/chosen")
    summary, report = json.loads((folder / "summary.json").read_text()), (folder / "report.html").read_text()
    assert [stage["name"] for stage in summary["stages"]] == ["ingest", "choose", "train", "evaluate", "predict"]
    computed = summary["computed"]
    assert (computed["choice_candidates"], computed["block_px"], computed["buffer_px"]) == (len(choice()["trials"]), 8, 0)
    assert 0.2 < computed["share_train"] < 0.5
    assert "How the model was chosen" in report
    card = markdown(card_of(folder))
    assert f"| chosen from | {len(choice()['trials'])} candidates at 2 rolling origins inside the training part, " in card
    run = load_run(folder / "config.yaml", inputs_must_exist=False)
    assert (run.model.kind, run.model.hidden, run.model.kernel, run.model.baseline) == ("convlstm", [16], 1, "persistence")
    assert (run.samples.context, run.split.block_px) == (3, 8)
    assert carry_out("run", *WIDE)["skipped"]
    assert load_run(folder / "config.yaml", inputs_must_exist=False).model == run.model, "also after another ingest"

    more = open_invocation("chosen.yaml", [*WIDE, "model.members=2", "training.epochs=9"])
    assert forecast_choice.resolve(more, "train").run.network.members == 2, "nothing is chosen anew"
    check_a_network_that_is_stated_later_was_not_chosen()

    used = open_invocation("chosen.yaml", ["samples.context=auto", "name=other", "model.use=runs/chosen"])
    assert (used.run.model.baseline, used.run.samples.context) == ("persistence", 3)
    assert not task_of("forecast").needs(used.run, "choose")
    with pytest.raises(RequestError, match="the model of chosen is stated, nothing is to be chosen"):
        carry_out("choose", "model={hidden: [4]}")


def check_a_network_that_is_stated_later_was_not_chosen() -> None:
    carry_out("run", "model={hidden: [4]}")
    assert "How the model was chosen" not in Path("runs/chosen/report.html").read_text()
    assert "choice" not in json.loads(Path("runs/chosen/model/model.json").read_text())
    assert "choice_candidates" not in json.loads(Path("runs/chosen/summary.json").read_text())["computed"]
    assert not carry_out("run", *WIDE)["skipped"]
    assert "How the model was chosen" in Path("runs/chosen/report.html").read_text()


def test_a_series_too_short_to_compare_gets_the_usual_network(here: Path) -> None:
    write_series(seasonal(np.random.default_rng(1)))
    carry_out("ingest")
    early = carry_out("choose", "split.validation_from=2014-04-20", "split.test_from=2014-08-01")
    assert "too few usable dates to compare candidates" in early["message"]
    assert (choice()["chosen"]["baseline"], choice()["chosen"]["context"]) == ("persistence", 4)
