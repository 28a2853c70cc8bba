"""Pictures: a copy has the same pixels and nothing else; of patients dates move, numbers keep their order, text is kept back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pipelines.cube.store import open_cube
from pipelines.privacy.compressed import strip_jpeg
from pipelines.privacy.folder import deidentify_folder
from pipelines.privacy.keys import Key
from pipelines.privacy.settings import Mask, PrivacySettings
from pipelines.sources.deidentifying import kinds_of
from pipelines.sources.pictures import read_picture
from tests.unit.privacy.planted import Canaries
from tests.unit.privacy.planted_series import picture
from tests.unit.privacy.searching import found_in

KEY = Key(bytes(range(32)))
CHECKED = PrivacySettings(KEY, burned_in="checked")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)


def saved(path: Path, how: str) -> None:
    """A picture of the form that `how` names, with text in it where its format holds any."""
    exif = Image.Exif()
    exif[0x010E] = "CANARY12345"
    image = Image.fromarray(PIXELS)
    match how:
        case "turned.jpg":
            exif[0x0112] = 6
            image.save(path, exif=exif)
        case "progressive.jpg":
            image.save(path, exif=exif, progressive=True, comment=b"CANARY12345")
        case "between.jpg":  # text between two segments, which libjpeg skips
            image.save(path)
            data = path.read_bytes()
            path.write_bytes(data[:20] + b"CANARY12345" + data[20:])
        case "palette.png":
            image.convert("P").save(path, exif=exif)
        case "transparent.png":
            image.convert("RGBA").save(path, exif=exif)
        case "deep.png":
            Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257).save(path)
        case "plain.bmp":
            image.save(path)
            path.write_bytes(path.read_bytes() + b"CANARY12345")
        case _:
            values = np.moveaxis(PIXELS, 2, 0).astype("uint16" if how == "colours.tif" else "float32") * 1.5
            values = values.astype("uint16" if how == "colours.tif" else "float32")
            with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, count=3, height=40, width=48) as file:
                file.write(values)
                file.update_tags(PATIENT="CANARY12345")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("how", "suffix"),
    [
        ("turned.jpg", ".jpg"),
        ("progressive.jpg", ".jpg"),
        ("between.jpg", ".png"),
        ("palette.png", ".png"),
        ("transparent.png", ".png"),
        ("deep.png", ".png"),
        ("plain.bmp", ".png"),
        ("colours.tif", ".tif"),
        ("numbers.tif", ".tif"),
    ],
)
def test_a_copy_has_the_same_pixels_and_nothing_else(how: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / how, how)
    manifest = deidentify_folder(tmp_path / "in", tmp_path / "copy", CHECKED, kinds=kinds_of())
    assert (manifest.copied, manifest.refused) == (1, [])
    (copied,) = (tmp_path / "copy").rglob(f"*{suffix}")
    before, after = read_picture(tmp_path / "in" / how).planes_BYX, read_picture(copied).planes_BYX
    assert before.dtype == after.dtype
    assert np.array_equal(before, after)
    assert b"CANARY" not in copied.read_bytes()


def test_every_planted_value_of_a_jpeg_is_in_what_is_taken_out(tmp_path: Path) -> None:
    canaries = Canaries()
    path = picture(tmp_path / "a.jpg", canaries, 3)
    assert len(found_in(canaries, [], [tmp_path])) > 20
    path.write_bytes(strip_jpeg(path.read_bytes()))
    assert found_in(canaries, [], [tmp_path]) == {}


def test_pictures_are_kept_back_until_a_mask_covers_them(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.jpg", Canaries(), 3)
    kinds = kinds_of()
    manifest = deidentify_folder(tmp_path / "in", tmp_path / "copy", PrivacySettings(KEY), kinds=kinds)
    assert [one.reason for one in manifest.quarantined] == ["burned-in"]
    masked = PrivacySettings(KEY, masks=(Mask((0, 5), (2, 9)),))
    assert deidentify_folder(tmp_path / "in", tmp_path / "copy", masked, kinds=kinds).copied == 1
    (copied,) = (tmp_path / "copy").rglob("*.png")
    expected = read_picture(tmp_path / "in/a.jpg").planes_BYX.copy()
    expected[:, 0:5, 2:9] = 0
    assert np.array_equal(read_picture(copied).planes_BYX, expected)
    outside = PrivacySettings(KEY, masks=(Mask((0, 50), (2, 9)),))
    (refused,) = deidentify_folder(tmp_path / "in", tmp_path / "copy", outside, kinds=kinds).refused
    assert refused.reason == "mask-outside"
    assert not copied.exists()


def ingested(folder: Path, name: str, source: dict[str, object], **more: object) -> Any:
    variables = [{"name": "v", "formula": "band", "bands": ["gray"]}]
    source = {"kind": "images", "path": "in", **source}
    config = {"name": name, "task": "forecast", "source": source, "samples": {"variables": variables}}
    (folder / "n.yaml").write_text(yaml.safe_dump(config | {"split": {"validation_from": "5 s", "test_from": "9 s"}} | more))
    result = CliRunner().invoke(app, ["ingest", "n.yaml"])
    assert result.exit_code == 0, result.output
    assert CliRunner().invoke(app, ["ingest", f"runs/{name}/config.yaml"]).exit_code == 0  # without the originals
    return open_cube(f"runs/{name}/cube")


def test_numbers_and_times_of_frames_are_those_of_the_originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for number in (17, 18, 20):
        picture(Path(f"in/doe_{number}.png"), Canaries(), number - 15)
    Path("in/when.txt").write_text("0\n0.0333333333\n0.1\n")
    cube = ingested(tmp_path, "plain", {"pattern": "doe_{frame}.png", "times": "when.txt"})
    seconds = [int(one) for one in (cube["time"].values - cube["time"].values[0]) / np.timedelta64(1, "ns")]
    assert seconds == [0, 33_333_333, 100_000_000]
    assert cube["scene_id"].values.tolist() == ["f00017", "f00018", "f00020"]
    assert "nobody has stated" in cube.attrs["driftline_privacy"]
    known = cube["image"].values
    Path("in/doe_18.png").unlink()
    cube = ingested(tmp_path, "patient", {"pattern": "doe_{frame}.png", "frame_time": 2}, privacy={"burned_in": "checked"})
    assert cube["scene_id"].values.tolist() == ["f00000", "f00003"]
    assert np.array_equal(cube["image"].values, known[[0, 2]])


def test_dates_move_where_a_section_says_that_it_is_a_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for number, date in enumerate(("20190301", "20190311")):
        picture(Path(f"in/doe_{date}.jpg"), Canaries(), number)
    pattern = {"pattern": "*_{date:%Y%m%d}.jpg"}
    plain = ingested(tmp_path, "plain", pattern)["time"].values
    assert plain.astype("datetime64[D]").astype(str).tolist() == ["2019-03-01", "2019-03-11"]
    section = {"burned_in": "checked", "shift_days": [-30, -20]}
    moved = ingested(tmp_path, "patient", pattern, privacy=section)["time"].values
    (days,) = {int(one) for one in (moved - plain) / np.timedelta64(1, "D")}
    assert -30 <= days <= -20
    assert "doe" not in json.dumps([str(path) for path in Path("runs").rglob("*")])
