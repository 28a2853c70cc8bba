"""`import driftline`: runs by config, forecasters and change of data in memory, on tiny series."""

import subprocess
import sys
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

import driftline
from pipelines.errors import ArtefactDamaged, ConfigError, MissingInput, RequestError
from pipelines.grid import parse_crs

pytestmark = pytest.mark.torch
QUICK = {"crs": "EPSG:32635", "context": 3, "horizon": 2, "epochs": 1, "baselines": ["persistence"]}
TINY_NET = {"model": {"hidden": [4]}, "training": {"accelerator": "cpu"}}


def make_series(dates: int = 40, size: int = 16) -> xr.Dataset:
    """A season with noise, and a few missing pixels."""
    rng, steps = np.random.default_rng(0), np.arange(dates)
    season = 0.5 + 0.3 * np.sin(2 * np.pi * steps / 36)
    values = season[:, None, None] + rng.normal(0, 0.02, (dates, size, size))
    values[rng.random(values.shape) < 0.02] = np.nan
    at = 10.0 * np.arange(size)
    times = np.datetime64("2020-01-01", "ns") + steps * np.timedelta64(10, "D")
    return xr.Dataset({"ndvi": (("time", "y", "x"), values)}, {"time": times, "y": 5_000_000.1 - at, "x": 500_000.3 + at})


@pytest.fixture(scope="module")
def trained() -> driftline.Forecaster:
    return driftline.train(make_series(), settings=TINY_NET, **QUICK)


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import driftline; "
        "heavy = {'torch', 'xarray', 'numpy', 'pydantic', 'rasterio', 'pipelines', 'flows', 'configs', 'models'}; "
        "print(sorted(heavy & (set(sys.modules) - before)), len(dir(driftline)) == len(driftline.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] True"


def test_every_public_name_is_there_and_others_are_not() -> None:
    assert all(getattr(driftline, name) is not None for name in driftline.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'forecast'; it has: Forecaster"):
        _ = driftline.forecast  # type: ignore[attr-defined]


# ---------------------------------------------------------------- forecasters


def test_a_forecast_is_on_the_coordinates_of_the_series(trained: driftline.Forecaster) -> None:
    series, forecast = make_series(), trained.predict()
    assert forecast["forecast"].dims == ("time", "y", "x")
    assert all(np.array_equal(forecast[axis], series[axis]) for axis in ("x", "y"))
    steps = series["time"].values[-1] + np.array([10, 20], "timedelta64[D]")
    np.testing.assert_array_equal(forecast["time"], steps)
    assert forecast["forecast"].notnull().all()
    assert (forecast["lower"] <= forecast["forecast"]).all()
    assert (forecast["forecast"] <= forecast["upper"]).all()
    assert forecast.rio.crs.to_epsg() == 32635
    assert forecast.attrs["verdict"] == trained.evaluation.verdict.sentence


def test_what_predicts_is_what_the_evaluation_chose_or_the_network_where_that_is_asked_for(
    trained: driftline.Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, (before, last) = trained.evaluation, make_series()["ndvi"].values[-2:]
    last = np.where(np.isnan(last), before, last)
    monkeypatch.setattr(driftline.Forecaster, "evaluation", replace(evaluation, shipped="persistence"))
    chosen = trained.predict()
    assert chosen.attrs["method"] == "persistence"
    np.testing.assert_allclose(chosen["forecast"], np.stack([last, last]), atol=1e-6)
    network = trained.predict(method="network")
    assert network.attrs["method"] == "network"
    assert network.attrs["verdict"].startswith("Predicted by the network, as `method` asks, not by persistence.")
    assert not np.allclose(network["forecast"], chosen["forecast"], atol=1e-6)
    with pytest.raises(RequestError, match="neither 'chosen' nor 'network'"):
        trained.predict(method="best")  # type: ignore[arg-type]


def test_a_saved_forecaster_predicts_the_same_from_the_same_data(trained: driftline.Forecaster, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "model")
    again = driftline.predict(folder, make_series(), crs="EPSG:32635")
    xr.testing.assert_identical(again, trained.predict())
    assert driftline.load_model(folder).evaluation == trained.evaluation
    with pytest.raises(RequestError, match="is there already"):
        trained.save(folder)
    with pytest.raises(MissingInput, match="has no cube of its own: pass a dataset"):
        driftline.predict(folder)


def test_scores_of_another_model_are_not_shown(trained: driftline.Forecaster, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "model")
    path = folder / "evaluation.json"
    path.write_text(path.read_text().replace(trained.predict().attrs["model_hash"], "0" * 64))
    with pytest.raises(ArtefactDamaged, match="holds another model"):
        driftline.load_model(folder)


def test_dates_and_issue_can_be_chosen(trained: driftline.Forecaster) -> None:
    series = make_series()
    chosen = trained.predict(dates=["2021-02-20"], issue="2021-01-31")
    cut = trained.predict(series.sel(time=slice(None, "2021-01-31")), ["2021-02-20"], crs="EPSG:32635")
    np.testing.assert_array_equal(chosen["forecast"], cut["forecast"])
    assert chosen.attrs["issued_utc"] == "2021-01-25T00:00:00Z"
    for dates, message in (
        (["2020-02-01"], "later than the issue date"),
        ([], "1 to 2"),
        ("soon", "not a date"),
        (["2021-02-10", "2021-02-05"], "must rise and not repeat"),
        ("2021-05-01", "the model forecasts 2 steps of 10 days: choose dates up to 2021-02-24"),
    ):
        with pytest.raises(RequestError, match=message):
            trained.predict(dates=dates, issue="2021-01-25")


def test_a_date_has_the_interval_of_the_lead_nearest_in_time(trained: driftline.Forecaster) -> None:
    wanted = trained.predict()
    second = trained.predict(dates=str(wanted["time"].values[1]))
    widths = [one["upper"] - one["lower"] for one in (wanted, second)]
    np.testing.assert_allclose(widths[1][0], widths[0][1], rtol=1e-3)  # widths follow the values, which differ a little
    assert not np.allclose(widths[0][0], widths[0][1], rtol=1e-3)


def test_a_forecast_says_what_it_could_not_use(trained: driftline.Forecaster) -> None:
    series = make_series()
    series["ndvi"][-2:] = np.nan
    forecast = trained.predict(series, crs=32635)
    assert "issued from 2021-01-05T00:00:00Z: the 2 later dates have no usable pixel" in forecast.attrs["notes"]
    short = trained.predict(make_series().isel(time=[-2, -1]), crs=32635)
    assert "the dates cover 2 of the 3 steps of context" in short.attrs["notes"]
    with pytest.raises(RequestError, match="one date with data, which states no step"):
        trained.predict(make_series().isel(time=[-1]), crs=32635)
    assert trained.predict(make_series().isel(time=[-1]), "2021-02-05", crs=32635).sizes["time"] == 1


def test_a_cube_is_forecast_in_physical_values(tmp_path: Path) -> None:
    packed = (make_series() * 10_000).round().fillna(-32_768).astype("int16").assign_coords(make_series().coords)
    packed["ndvi"].attrs = {"scale_factor": 1e-4, "_FillValue": -32_768}
    cube = driftline.ingest(packed, tmp_path / "cube", crs=32635)
    trained = driftline.train(cube, settings=TINY_NET, **QUICK)
    from_cube, from_memory = trained.predict(cube), trained.predict(packed, crs=32635)
    np.testing.assert_array_equal(from_cube["forecast"], from_memory["forecast"])
    assert 0.1 < float(from_cube["forecast"].mean()) < 0.9
    with pytest.raises(RequestError, match="pass the cube"):
        trained.predict(cube["image"])


def test_tables_for_notebooks_are_escaped(trained: driftline.Forecaster) -> None:
    html = trained._repr_html_()
    assert "persistence" in html
    assert escape(trained.evaluation.verdict.sentence) in html
    assert "<script>" not in driftline.Run(Path("runs/<script>"))._repr_html_()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"variable": "evi"}, "is called evi; there are: ndvi"),
        ({"variable": {"name": "evi"}}, "names no bands"),
        ({"horizon": 0}, "horizon is 0; expected a whole number from 1 on"),
        ({"context": 2.5}, "context is 2.5; expected a whole number from 1 on"),
        ({"context": 36}, "40 dates with data are too few .* context \\+ 3 x horizon = 42 are needed"),
        ({"crs": None}, "no CRS"),
        ({"settings": {"model": {"hiden": [4]}}}, "hiden"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(changed: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        driftline.train(make_series(), **{**QUICK, **changed})


def test_one_of_several_variables_must_be_named() -> None:
    several = make_series().assign(evi=make_series()["ndvi"])
    with pytest.raises(RequestError, match="which of ndvi, evi is to be forecast"):
        driftline.train(several, **QUICK)


# ---------------------------------------------------------------- change


def test_change_is_found_where_it_was_made() -> None:
    rng = np.random.default_rng(0)
    bands = {name: (("y", "x"), rng.random((40, 40)).cumsum(0).cumsum(1) / 400 + rng.random((40, 40))) for name in ("red", "nir")}
    at = 10.0 * np.arange(40)
    before = xr.Dataset(bands, {"y": -at, "x": at})
    after = before + rng.normal(0, 0.02, (40, 40))
    after["nir"][10:20, 10:20] += 1.5
    after["red"][0, 0] = np.nan
    found = driftline.find_change(before, after, crs="EPSG:32635")
    assert bool(found["changed"][13:17, 13:17].all())
    assert float(found["changed"][25:, 25:].mean()) == 0
    assert np.isnan(found["score"][0, 0])
    assert not found["changed"][0, 0]
    assert float(driftline.find_change(before, after, 100, crs="EPSG:32635")["changed"].sum()) == 0
    for other, message in ((after.isel(x=slice(1, None)), "on different grids.*reproject_match"), (after[["red"]], "after red")):
        with pytest.raises(RequestError, match=message):
            driftline.find_change(before, other, crs="EPSG:32635")
    flat, unseen, here = xr.full_like(after, 7.0), after.where(False), before.assign_coords(spatial_ref=0)
    here["spatial_ref"].attrs["crs_wkt"] = parse_crs("EPSG:32635").to_wkt()
    for first, last, crs, message in (
        (before, flat, 32635, r"after holds nothing but one value \(7, 7 in nir, red\)"),
        (before, after.where(after["x"] < 10), 32635, "before and after show 39 pixels in common, at least 64 are needed"),
        (before, unseen, 32635, "no pixel of after has data in every band"),
        (here, after, None, "after: the data have no CRS"),
    ):
        with pytest.raises(RequestError, match=message):
            driftline.find_change(first, last, crs=crs)
    with pytest.warns(UserWarning, match="after: red holds one value everywhere"):
        found = driftline.find_change(before, after.assign(red=xr.full_like(after["red"], 7.0)), crs=32635)
    assert "after: red holds one value everywhere" in found.attrs["notes"]
    with pytest.raises(RequestError, match="threshold is 'high'; expected standard deviations above 0"):
        driftline.find_change(before, after, "high", crs=32635)
    with pytest.raises(RequestError, match="before has 2 dates"):
        driftline.find_change(xr.concat([before, after], "time"), after, crs="EPSG:32635")


# ---------------------------------------------------------------- runs


def test_a_run_is_what_the_command_line_leaves(tiny_run: Path) -> None:
    run = driftline.run(yaml.safe_load(tiny_run.read_text()), {"training.batch": 64})
    assert (run.name, run.folder, run.report) == ("tiny", Path("runs/tiny"), Path("runs/tiny/report.html"))
    assert run.summary["verdict"]["sentence"] == run.verdict.sentence
    assert driftline.open_run("runs/tiny") == run
    assert escape(run.verdict.sentence) in run._repr_html_()
    assert repr(run) == f"Run('runs/tiny': {run.summary['sentence']})"
    assert repr(run.evaluation) == f"Evaluation(model, {run.verdict.sentence!r})"
    assert repr(driftline.load_model("runs/tiny").run) == "ForecastRun('tiny', task='forecast')"

    products = run.open()
    published, predicted = products[next(iter(products))], driftline.predict("runs/tiny")  # from the run's own cube
    assert list(published.data_vars) == ["red", "red_lower", "red_upper"]
    for band, role in (("red", "forecast"), ("red_lower", "lower"), ("red_upper", "upper")):
        np.testing.assert_allclose(predicted[role][0], published[band], rtol=1e-6)
    with pytest.raises(KeyError, match="there are: "):
        products["none.tif"]

    again = driftline.run(str(tiny_run), ["training.batch=64"])
    assert again.summary["products"] == run.summary["products"]


def test_rasters_and_vectors_of_a_monitoring_run_are_opened(tiny_run: Path) -> None:
    products = driftline.run(tiny_run.with_name("watched.yaml"), verb="monitor").open()
    opened = {name: products[name] for name in products}
    assert {type(one).__name__ for one in opened.values()} == {"Dataset", "GeoDataFrame"}
    assert all(one.rio.crs.to_epsg() == 32635 for one in opened.values() if isinstance(one, xr.Dataset))
    with pytest.raises(RequestError, match="task: monitor"):
        driftline.load_model("runs/watched")


def test_mistakes_in_a_mapping_are_those_of_a_file(tiny_run: Path) -> None:
    config = yaml.safe_load(tiny_run.read_text())
    with pytest.raises(ConfigError, match=r"config:\d+  training.epochs: "):
        driftline.run({**config, "training": {"epochs": 0}})
    with pytest.raises(RequestError, match="a config holds text, numbers, dates"):
        driftline.run({**config, "name": object()})
    with pytest.raises(RequestError, match="expected a list"):
        driftline.run(config, "training.epochs=5")
    with pytest.raises(ConfigError, match="in memory and are not there any more"):
        driftline.run({**config, "source": {"kind": "memory", "bands": ["red"]}})
