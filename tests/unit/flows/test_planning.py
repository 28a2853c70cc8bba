"""`--dry-run` says what ingest would say, and refuses what it would refuse."""

import shutil
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from affine import Affine
from typer.testing import CliRunner, Result

from configs.load import load_run
from configs.tasks.forecast import ForecastRun
from configs.tasks.forecast_baselines import Baseline
from flows.cli import app
from flows.machine import SHIPPED, Machine, Rates
from flows.planning import Extent, PlannedStep, make_plan, plan_ingest, plan_lines
from flows.tasks import forecast_plan, monitor_plan
from flows.tasks.forecast_plan import plan_evaluate
from pipelines.errors import StateError

CONFIG = """
name: r
task: monitor
source: {kind: folder, path: data, pattern: "s_{date:%Y%m%d}.tif", bands: [v]}
variable: {name: v, bands: [v]}
monitoring: {start: 2020-08-01, test: {kind: cusum, threshold: 9}}
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config beside twelve scenes, the last three with another offset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "height": 8, "width": 8, "crs": "EPSG:32633"}
    for month in range(1, 13):
        path = tmp_path / "data" / f"s_2020{month:02d}05.tif"
        with rasterio.open(path, "w", transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), **profile) as file:
            file.write(np.full((8, 8), 3000, "uint16"), 1)
            file.scales, file.offsets = [1e-4], [-0.1 if month > 9 else 0.0]
    (tmp_path / "data" / "notes.txt").write_text("hello")
    (tmp_path / "r.yaml").write_text(CONFIG)
    return tmp_path / "r.yaml"


def test_a_plan_says_what_is_converted_not_used_and_widened(config: Path) -> None:
    grid = "grid={crs: 'EPSG:32633', resolution: 30, bounds: [500000, 4999920, 500080, 5000000]}"
    plan = make_plan(load_run(config, [grid, "cube.on_other_grid=reproject"]), "ingest")
    assert plan["notes"] == [
        "grid.bounds: 80 x 80 is no multiple of the resolution 30; the grid has the bounds 500000, 4999910, 500090, 5000000",
        "not used: 1 files, folders or variables: notes.txt",
        "band v: 3 of 12 scenes (first s_20201005) have scale 0.0001 and offset -0.1, the cube 0.0001 and 0: converted; values "
        "that do not fit are missing",
    ]
    assert "  note: not used: 1 files, folders or variables: notes.txt" in plan_lines(plan)


def test_a_plan_counts_what_is_refused_and_ends_where_all_is(config: Path) -> None:
    overrides = ["grid={crs: 'EPSG:32633', resolution: 20, bounds: [500000, 4999920, 500080, 5000000]}"]
    with pytest.raises(StateError, match="none of the 12 scenes would be accepted"):
        make_plan(load_run(config, overrides), "ingest")
    planned, done = (call("ingest", "r.yaml", "--set", overrides[0], *more) for more in (["--dry-run"], []))
    assert planned.exit_code == done.exit_code == 1
    (config.parent / "data" / "s_20200605.tif").write_text("hello")
    plan = make_plan(load_run(config), "ingest")
    assert plan["extent"]["dates"] == 11
    assert any(note.startswith("1 scene would be refused; the first: s_20200605: driver") for note in plan["notes"])
    assert plan["refused"] == {"driver": 1}
    (config.parent / "data" / "s_20200705.tif").write_text("hello")
    codes = [
        [call(verb, "r.yaml", *more).exit_code for verb in ("ingest", "run")] for more in (["--dry-run"], ["--dry-run", "--json"])
    ]
    assert codes == [[3, 3], [3, 3]]
    assert call("ingest", "r.yaml").exit_code == 3, "as the plan said"


def test_a_plan_of_a_cube_that_is_there_counts_and_names_what_changes_as_the_ingest_does(config: Path) -> None:
    data = config.parent / "data"
    shutil.move(data / "s_20201205.tif", config.parent)
    (data / "s_20200605.tif").write_text("hello")
    assert call("ingest", "r.yaml").exit_code == 3
    shutil.move(config.parent / "s_20201205.tif", data)
    (data / "s_20200105.tif").unlink()
    with rasterio.open(data / "s_20200205.tif", "r+") as file:
        file.write(np.full((8, 8), 3500, "uint16"), 1)
    plan = make_plan(load_run(config, ["cube.on_missing=drop"]), "ingest")
    assert plan["ingest"] == {"new": 1, "reprocessed": 1, "unchanged": 8, "gone": ["s_20200105"], "refused": 1}
    assert plan["extent"]["dates"] == 10
    said = "\n".join(plan_lines(plan))
    assert "no longer in the source: s_20200105; would be taken out of the cube (cube.on_missing: drop)" in said
    assert "1 of these were refused before and have not changed" in said
    assert "1 new, 1 reprocessed, 8 unchanged, 1 gone, 1 refused\n" in said
    few = ("--set", "policy.max_refused=0.01")
    assert [call("ingest", "r.yaml", *few, *more).exit_code for more in (["--dry-run"], [])] == [1, 1]
    assert "10 unchanged, 1 gone, 1 refused (nothing to read)" in call("ingest", "r.yaml", "--dry-run").output


def test_a_plan_counts_the_dates_that_the_ingest_writes_where_a_time_is_there_twice(config: Path) -> None:
    with h5py.File("c.nc", "w") as file:
        for name, values in (("time", [0, 10, 10, 20]), ("y", [4.0, 3, 2]), ("x", [1.0, 2, 3])):
            file[name] = values
            file[name].make_scale(name)
        file["time"].attrs["units"] = "days since 2020-01-01"
        file["v"] = np.ones((4, 3, 3), "uint16")
        for axis, name in enumerate(("time", "y", "x")):
            file["v"].dims[axis].attach_scale(file[name])
    source = "source={kind: netcdf, path: c.nc, bands: [v], crs: 'EPSG:32633'}"
    assert make_plan(load_run(config, [source]), "ingest")["extent"]["dates"] == 3
    assert call("ingest", "r.yaml", "--set", source).exit_code == 3
    assert make_plan(load_run(config, [source]), "ingest")["ingest"]["unchanged"] == 3


def test_the_plan_of_an_evaluation_counts_the_windows_that_calibrate_the_intervals() -> None:
    run = load_run(Path(__file__).parents[3] / "configs" / "demo.yaml", inputs_must_exist=False)
    short, long = (plan_evaluate(run, Extent(dates + 40, dates, (100, 100), 4, 2)) for dates in (30, 80))
    assert long.what == "the model beside 7 baselines, intervals from 624 windows of the past"
    assert long.seconds > short.seconds + 20
    alone = plan_evaluate(load_run_with(run, ["persistence"]), Extent(120, 80, (100, 100), 4, 2))
    assert alone.seconds < long.seconds / 3


def load_run_with(run: ForecastRun, baselines: list[Baseline]) -> ForecastRun:
    return run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"baselines": baselines})})


CONFIGS = Path(__file__).parents[3] / "configs"
FORECAST, MONITORED = (load_run(CONFIGS / name, inputs_must_exist=False) for name in ("demo.yaml", "demo-change.yaml"))
PLANS: dict[str, Callable[[Extent], PlannedStep]] = {
    "ingest": lambda extent: plan_ingest(FORECAST.cube, extent),
    "train": lambda extent: forecast_plan.plan_train(FORECAST, extent),
    "evaluate": lambda extent: forecast_plan.plan_evaluate(FORECAST, extent),
    "predict": lambda extent: forecast_plan.plan_predict(FORECAST, extent),
    "monitor": lambda extent: monitor_plan.plan_monitor(MONITORED, extent, "run"),
    "later monitor": lambda extent: monitor_plan.plan_monitor(MONITORED, extent, "run", known=100),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_what_depends_on_the_pixels_doubles_with_them(plan: Callable[[Extent], PlannedStep]) -> None:
    extent = Extent(140, 74, (600, 600), 4, 2, machine=Machine())
    one, two, four = (plan(replace(extent, shape=(600 * times, 600))) for times in (1, 2, 4))
    for figure in ("seconds", "cpu_seconds", "disk_mb", "read_mb"):
        first, second = (getattr(more, figure) - getattr(less, figure) for less, more in ((one, two), (two, four)))
        assert second == pytest.approx(2 * first), figure
    assert two.cpu_seconds > one.cpu_seconds
    assert two.read_mb > one.read_mb
    assert plan(replace(extent, dates=280, train_dates=148)).cpu_seconds > one.cpu_seconds


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_machine_that_is_twice_as_fast_needs_half_of_the_time(plan: Callable[[Extent], PlannedStep]) -> None:
    rates = [value * 2 for value in astuple(SHIPPED)]
    fast = Machine(replace(Rates(*rates), start_s=SHIPPED.start_s / 2))
    slow_step, fast_step = (plan(Extent(140, 74, (4000, 4000), 4, 2, machine=one)) for one in (Machine(), fast))
    assert fast_step.seconds == pytest.approx(slow_step.seconds / 2, rel=0.1)
    assert fast_step.memory_mb == slow_step.memory_mb


def test_a_plan_says_whose_rates_it_uses_and_counts_the_workers(config: Path) -> None:
    plan = make_plan(load_run(config), "run")
    assert "the rates are of another machine" in "\n".join(plan_lines(plan))
    assert [name for name in ("seconds", "cpu_seconds", "disk_mb", "peak_memory_mb", "read_mb") if not plan[name] > 0] == []
    several = make_plan(load_run(config, ["compute={kind: processes, workers: 3}"]), "run")
    assert several["steps"][-1]["memory_mb"] > plan["steps"][-1]["memory_mb"] + 1000
