"""Files of version 0.1.0 are still read: cubes, checkpoints, the state of monitoring, configs, whole run folders.

The files and the results of 0.1.0 are in tests/fixtures/v0_1, made by tests/fixtures/make_v0_1.py.
"""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from typer.testing import CliRunner

from configs.load import load_run
from configs.trained import with_model
from flows.cli import app
from flows.model_cards import card_of
from models.checkpoint import DETECTOR, FORECASTER
from pipelines.cube.store import open_cube
from pipelines.products.model_card import item, markdown

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v0_1"
RUNS = {"forecast": "field", "change": "towns", "monitor": "forest"}
CHOICES: dict[str, list[str]] = json.loads((FIXTURES / "configs" / "choices.json").read_text())

Unpack = Callable[[str], Path]


@pytest.fixture
def unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unpack:
    """`unpack("forecast")` makes a copy of that working folder the current one; the folder of its run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")

    def extract(name: str) -> Path:
        with tarfile.open(FIXTURES / f"{name}.tar.xz") as archive:
            archive.extractall(filter="data")
        return Path("runs") / RUNS[name]

    return extract


def driftline(*arguments: str) -> dict[str, Any]:
    """What the command prints with `--json`; it must end with 0."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def expected(name: str) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """(inputs, output) of a model of version 0.1.0."""
    with np.load(FIXTURES / "expected" / f"{name}.npz") as arrays:
        given = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    return given, given.pop({"forecast": "y_KCHW", "change": "p_HW"}[name]).numpy()


def test_a_cube_holds_the_same_values(unpack: Unpack) -> None:
    uri = str(unpack("forecast") / "cube")
    cube = open_cube(uri)
    assert cube.image.dims == ("time", "band", "y", "x")
    assert cube.valid.values.all()
    for image, path in zip(cube.image.values[:, 0], sorted(Path("scenes").iterdir()), strict=True):
        with rasterio.open(path) as raster:
            np.testing.assert_array_equal(image, raster.read(1), err_msg=path.name)
    assert int(cube.image.values.astype(np.int64).sum()) == 8_096_593
    assert [str(date)[:10] for date in cube.time.values[[0, -1]]] == ["2018-01-05", "2019-05-27"]

    about = driftline("info", uri)
    assert (about["shape"]["time"], about["bands"][0]["name"]) == (40, "red")
    assert len(driftline("history", uri)["versions"]) == 1
    driftline("export", uri, "copy.zarr")


def test_a_forecaster_gives_the_same_forecast(unpack: Unpack) -> None:
    forecaster, metadata = FORECASTER.load(unpack("forecast") / "model")
    given, y_KCHW = expected("forecast")
    np.testing.assert_allclose(forecaster.forecast(**given).numpy(), y_KCHW, atol=1e-6, rtol=0)
    assert metadata["cube_snapshot"] == json.loads(Path("runs/field/summary.json").read_text())["cube_snapshot"]


def test_a_change_detector_finds_the_same(unpack: Unpack) -> None:
    detector, _ = DETECTOR.load(unpack("change") / "model")
    given, p_HW = expected("change")
    assert detector.threshold == given.pop("threshold").item()
    index_p_HW = detector.index_probability(given.pop("rule_HW"))
    p_MHW = [detector.member_probability(i, detector.member_logit(i, **given)) for i in range(len(detector.members))]
    np.testing.assert_allclose(detector.fuse(torch.stack(p_MHW).mean(0), index_p_HW).numpy(), p_HW, atol=1e-6, rtol=0)


def test_monitoring_resumes_from_the_saved_state(unpack: Unpack) -> None:
    folder = unpack("monitor")
    first = driftline("monitor", "monitor.yaml")
    assert (first["counts"]["fits"], first["change"]["objects_new"], first["alerts"]) == (4, 0, []), "made again, nothing is new"
    assert "has the format of an earlier version: it is computed again from the cube" in first["notes"][0]
    assert not [*folder.glob("state/harmonic/tiles"), *folder.glob("state/harmonic/layers/*.*")]
    for path in Path("later").iterdir():
        path.rename(Path("scenes") / path.name)
    record = driftline("monitor", "monitor.yaml")
    requested = json.loads((FIXTURES / "expected" / "monitor.json").read_text())
    counts = {**requested["counts"], "dates_read": 1}  # not once for each of four tiles
    assert record["counts"] == counts, "one step for each tile; nothing is fitted or replayed"
    assert (record["change"], record["until"]) == (requested["change"], requested["until"])
    alerts = json.loads((folder / "alerts.json").read_text())["alerts"]
    assert [alert["id"] for alert in record["alerts"]] == [alerts[1]["id"]], "the first one is not raised again"
    (unsent,) = record["notified"]
    assert unsent.startswith("1 alert in")
    for alert, before in zip(alerts, requested["alerts"], strict=True):
        assert alert["notify"] == before["notify"], "sent once, or not yet"
        facts = {key: value for key, value in before.items() if key != "notify"}
        assert {key: alert[key] for key in facts} == pytest.approx(facts)  # relative 1e-6
    with np.load(FIXTURES / "expected" / "monitor.npz") as layers:
        for name in layers.files:
            with rasterio.open(folder / "products" / f"{name}.tif") as raster:
                np.testing.assert_allclose(raster.read(), layers[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_folder_is_continued(name: str, unpack: Unpack) -> None:
    """A stage's key has the version of the code in it: another version trains and evaluates again."""
    folder = unpack(name)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["task"], summary["name"]) == (name, RUNS[name])
    driftline("run", f"{name}.yaml")
    driftline("report", f"{name}.yaml")
    assert load_run(folder / "config.yaml").name == RUNS[name]


def test_a_run_folder_of_monitoring_can_be_tracked(unpack: Unpack) -> None:
    record = driftline("track", str(unpack("monitor")))
    alert = json.loads((FIXTURES / "expected" / "monitor.json").read_text())["alerts"][0]
    assert record["events"] == {"new": 1, "stable": 1}
    assert record["area_m2_on_last_date"] == pytest.approx(alert["area_m2"], rel=1e-6)


@pytest.mark.parametrize("name", CHOICES)
def test_every_key_and_every_choice_of_a_config_is_read(name: str) -> None:
    """The files hold every key there was; `choices.json` every word that a key took."""
    path = FIXTURES / "configs" / f"{name}.yaml"
    assert load_run(path, inputs_must_exist=False).name == name
    for choice in CHOICES[name]:
        load_run(path, [choice], inputs_must_exist=False)


@pytest.mark.parametrize("name", ["forecast", "change"])
def test_a_model_says_what_it_does_not_know(unpack: Unpack, name: str) -> None:
    folder = unpack(name)
    card = card_of(folder)
    assert card.inputs.bands
    assert card.inputs.bands[0].median is None
    assert "| unknown | unknown | unknown |" in markdown(card)
    assert item(card)["properties"]["driftline:dates"] == "unknown"
    own = load_run(folder / "config.yaml", inputs_must_exist=False)
    used = own.model_copy(update={"model": type(own.model)(use=str(folder))})  # type: ignore[union-attr]
    assert with_model(used).model.model_dump(exclude={"use"}) == own.model.model_dump(exclude={"use"})  # type: ignore[union-attr]
