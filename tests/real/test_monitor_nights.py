"""Two runs over the Romanian forest through the command line's functions: nothing new, and one new scene; what was computed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from flows.terminal import DONE
from flows.verbs import stage

ROOT = Path(__file__).resolve().parents[2]
FILE = "satellite/sentinel2-romania/sentinel2_cube_subset_romania_10m.nc"
NONE = {"tiles": 0, "steps": 0, "replays": 0, "fits": 0, "noted": 0, "unseen": 0, "dates_read": 0}


def write_config(folder: Path, name: str) -> Path:
    """The ready-made run with small tiles, its scenes in NAME.nc."""
    content = yaml.safe_load((ROOT / "configs" / "demo-change.yaml").read_text(encoding="utf-8"))
    content["source"]["path"], content["name"] = "scenes.nc", name
    content["monitoring"] |= {"tile_px": 50, "test": {**content["monitoring"]["test"], "threshold": 8.9}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def monitor(config: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    assert stage("monitor", str(config), [], False, True) == DONE  # a cloudy scene is nothing unusual when monitoring
    return json.loads(capsys.readouterr().out)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "monitoring.json"
    }


@pytest.mark.slow
def test_a_run_with_nothing_new_and_one_with_a_new_scene(shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    config, scenes = write_config(tmp_path, "forest"), shared_data(FILE)
    with xr.open_dataset(scenes, engine="h5netcdf", mask_and_scale=False) as file:
        dates = file["time"].values
        is_known = dates < np.datetime64("2020-06-25")
        file.isel(time=is_known).to_netcdf(tmp_path / "scenes.nc", engine="h5netcdf")

    first = monitor(config, capsys)
    assert first["counts"]["fits"] == first["counts"]["tiles"] == 4
    before = digests(tmp_path / "runs" / "forest" / "state")
    assert monitor(config, capsys)["counts"] == NONE
    assert digests(tmp_path / "runs" / "forest" / "state") == before

    with xr.open_dataset(scenes, engine="h5netcdf", mask_and_scale=False) as file:
        is_known[np.flatnonzero(~is_known)[0]] = True  # 2020-06-25, a clear day
        (tmp_path / "scenes.nc").unlink()
        file.isel(time=is_known).to_netcdf(tmp_path / "scenes.nc", engine="h5netcdf")
    new = monitor(config, capsys)
    assert new["until"] == "2020-06-25T00:00:00Z"
    assert new["counts"] == {**NONE, "tiles": 4, "steps": 4, "dates_read": 1}
    assert new["change"]["pixels"] >= first["change"]["pixels"] > 500  # the felling
    assert new["change"]["pixels_new"] == new["change"]["pixels"] - first["change"]["pixels"]

    whole = monitor(write_config(tmp_path, "whole"), capsys)
    assert whole["counts"]["fits"] == 4
    places = [tmp_path / "runs" / name / "state" / "harmonic" for name in ("forest", "whole")]
    assert digests(places[0]) == digests(places[1])
