"""Two images and nothing else, from the command line to the map: what is compared, what is said, what is refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from typer.testing import CliRunner

from flows import stage
from flows.cli import app
from flows.task import open_invocation, remembering_folder
from pipelines.stored_files import files_at
from tests.flows.change_sites import write_site, write_sites

SIDE_PX = 64
SQUARE = (slice(20, 30), slice(30, 40))
BANDS = ("B02", "B04", "B08")
LEAVES = (
    "summary.json", "report.html", "quicklook.png", "config.yaml", "steps.jsonl", "products/collection.json",
    "products/two.json", "products/two-score.tif", "products/two-mask.tif", "products/two-changes.gpkg",
)  # fmt: skip
ALL = pytest.mark.exhaustive
# rasterio warns where a file without a position is written on purpose
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]


def write(
    path: Path, values: np.ndarray, names: tuple[str, ...] = BANDS, x: float = 500_000, px: float = 10, **options: Any
) -> Path:
    """A GeoTIFF of (bands, rows, columns), its first pixel at (x, 5000000); `names` are the descriptions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    where = {"crs": "EPSG:32635", "transform": rasterio.Affine(px, 0, x, 0, -px, 5_000_000), **options}
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **shape, **{k: v for k, v in where.items() if v is not None}) as file:
        file.write(values)
        if names:
            file.descriptions = (*names, "", "")[: len(values)]
    return path


@pytest.fixture
def drawn() -> None:
    """With a picture, which takes a third as long as all the rest."""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Both images, uint16 (3, 64, 64), written to before.tif and after.tif in the working folder; the square changed."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("pipelines.products.site_products.draw_pair_quicklook", draw_nothing)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    rng = np.random.default_rng(0)
    before = rng.normal(1000, 200, (3, SIDE_PX, SIDE_PX))
    after = 1.3 * before + rng.normal(0, 20, before.shape)
    after[:, *SQUARE] += 1500
    found = before.astype(np.uint16), after.astype(np.uint16)
    write(Path("before.tif"), found[0])
    write(Path("after.tif"), found[1])
    return found


def draw_nothing(maps: Any, path: Path, *words: str) -> None:
    Image.new("RGB", (8, 8)).save(path, "png")


def change(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """(exit code, the JSON on stdout, what was said) of `driftline change ... --name two`."""
    result = CliRunner().invoke(app, ["change", *arguments, "--name", "two", "--json"])
    answer: dict[str, Any] = json.loads(result.stdout) if result.stdout else {}
    return result.exit_code, answer, " ".join(result.stderr.split())


def layer(name: str) -> np.ndarray:
    with rasterio.open(f"runs/two/products/two-{name}.tif") as file:
        return file.read(1)


def found_share() -> float:
    """The intersection of the map and the square over their union."""
    truth, found = np.zeros((SIDE_PX, SIDE_PX), bool), layer("mask") == 1
    truth[SQUARE] = True
    return np.count_nonzero(truth & found) / np.count_nonzero(truth | found)


def test_two_files_give_a_map_with_everything_beside_it_once(drawn: None, images: Any) -> None:
    code, answer, said = change("before.tif", "after.tif")
    assert code == 0, said
    assert [name for name in LEAVES if not Path("runs/two", name).exists()] == []
    assert found_share() > 0.6
    assert np.array_equal(layer("mask") == 1, layer("score") >= 1.5)
    summary = json.loads(Path("runs/two/summary.json").read_text())
    assert "No label supports this map" in summary["sentence"]
    assert "F1 0.36 and 0.42" in summary["sentence"]
    assert (summary["found"]["patches"], summary["task"], summary["computed"]["bands"]) == (1, "pair", list(BANDS))
    html = Path("runs/two/report.html").read_text()
    assert all(text in html for text in ("Clouds, seasons", "may have changed", "; not checked."))
    written = Path("runs/two/products/two-mask.tif").stat().st_mtime_ns
    code, answer, _ = change("before.tif", "after.tif")
    assert (code, answer["skipped"]) == (0, True)
    again = open_invocation("runs/two/config.yaml")
    with remembering_folder(again):
        assert stage.carry_out(again, "run")["skipped"]  # what is left behind is a run as any other
    assert Path("runs/two/products/two-mask.tif").stat().st_mtime_ns == written
    change("before.tif", "after.tif", "--threshold", "3")
    assert np.array_equal(layer("mask") == 1, layer("score") >= 3)


def test_a_folder_of_bands_is_an_image_as_a_file_is(images: Any) -> None:
    change("before.tif", "after.tif")
    expected = layer("score")
    for n, band in enumerate(BANDS):
        write(Path(f"new/T35_20200609_{band}.tif"), images[1][n : n + 1], ())
    write(Path("new/T35_20200609_SCL.tif"), images[1][:1] % 11, ())
    code, _, said = change("before.tif", "new")
    assert code == 0, said
    np.testing.assert_allclose(layer("score"), expected, atol=1e-4)
    assert "not compared, of AFTER: SCL" in said


def test_values_stored_otherwise_are_compared_as_physical_values_and_it_is_said(images: Any) -> None:
    change("before.tif", "after.tif")
    expected = layer("score")
    write(Path("scaled.tif"), images[1].astype(np.float32) / 10)
    with rasterio.open("scaled.tif", "r+") as file:
        file.scales = [10.0] * 3
    _, _, said = change("before.tif", "scaled.tif")
    np.testing.assert_allclose(layer("score"), expected, atol=1e-3)
    assert "B02, B04, B08: scale 1, offset 0 in BEFORE, scale 10, offset 0 in AFTER: physical values are compared" in said
    assert "stored as uint16 in BEFORE, stored as float32 in AFTER" in said
    write(Path("other.tif"), images[1].astype(np.float32) / 10_000)
    _, answer, _ = change("before.tif", "other.tif")
    assert any(line.startswith("B04: the mean is 1e+03 in BEFORE and 0.1") for line in answer["lines"])
    np.testing.assert_allclose(layer("score"), expected, atol=1e-3)


@pytest.mark.parametrize(
    "how",
    ["nodata", "nan", "mask", "alpha of 5", "both", *(pytest.param(how, marks=ALL) for how in ("alpha", "sidecar", "option"))],
)
def test_missing_pixels_are_left_out_and_counted(images: Any, how: str) -> None:
    after = images[1].astype(np.float32) if how == "nan" else images[1].copy()
    seen = np.full((1, SIDE_PX, SIDE_PX), 255, after.dtype)
    seen[:, :8] = 0
    options: list[str] = ["--nodata", "7"] if how in ("option", "both") else []
    if how in ("nodata", "nan", "option", "both"):
        after[1, :8] = np.nan if how == "nan" else 7
    if how == "both":
        after[1, :4] = 9
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how == "mask"):
        whole = np.concatenate([after, after[:1], seen] if how == "alpha of 5" else [after, seen] if how == "alpha" else [after])
        write(Path("holes.tif"), whole, BANDS, nodata={"nodata": 7, "both": 9}.get(how))
        with rasterio.open("holes.tif", "r+") as file:
            if how.startswith("alpha"):
                file.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (len(whole) - 2) + [ColorInterp.alpha]
            if how in ("mask", "sidecar"):
                file.write_mask(seen[0])
    code, _, said = change("before.tif", "holes.tif", *options)
    assert code == 0, said
    assert "AFTER: 512 pixels (12 %) are missing and left out" in said
    assert (layer("mask")[:8] == 255).all()
    assert (layer("mask")[8:] != 255).all()
    assert np.isnan(layer("score")[:8]).all()


def test_other_grids_are_resampled_onto_the_finest_band_of_before_and_it_is_said(images: Any) -> None:
    before, after = images
    coarse = before[:1].reshape(1, 32, 2, 32, 2).mean((2, 4)).astype(np.uint16)
    for name, values, px in (("B04", before[1:2], 10), ("B08", before[2:], 10), ("B02", coarse, 20)):
        write(Path(f"old/{name}.tif"), values, (), px=px)
    write(Path("shorter.tif"), after[:, :-1])  # a pixel less, as in OSCD
    code, _, said = change("old", "shorter.tif")
    assert code == 0, said
    assert layer("mask").shape == (SIDE_PX, SIDE_PX)
    assert (layer("mask")[-1] == 255).all()
    assert found_share() > 0.5
    assert "BEFORE: B02 resampled (bilinear) from 32 x 32 pixels of 20" in said
    assert "the grid is that of BEFORE's finest band: 64 x 64 pixels of 10" in said


def test_dates_come_from_names_or_from_the_command_and_are_else_said_to_be_unknown(images: Any) -> None:
    _, answer, said = change("before.tif", "after.tif")
    assert "the names do not date the images" in said
    assert answer["sites"]["two"]["from_utc"] == ""
    assert "dates unknown" in json.loads(Path("runs/two/products/two.json").read_text())["properties"]["title"]
    shutil.copy("before.tif", "S2_20180605.tif")
    shutil.copy("after.tif", "S2_20200609.tif")
    _, answer, said = change("S2_20180605.tif", "S2_20200609.tif")
    assert "between 2018-06-05 and 2020-06-09" in answer["message"]
    assert "may be of processing" in said
    _, answer, _ = change("S2_20180605.tif", "S2_20200609.tif", "--dates", "2018-06-01,2019-06-01")
    assert "between 2018-06-01 and 2019-06-01" in answer["message"]
    code, answer, _ = change("S2_20200609.tif", "S2_20180605.tif")
    assert code == 2
    assert "change their order" in answer["error"]


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("nothing.tif", "no file or folder at nothing.tif; in . there are"),
        ("far.tif", "do not overlap"),
        ("text.tif", "neither GeoTIFF nor JPEG2000"),
        ("before.tif", "hold the same values in every band"),
        ("empty", "empty holds no GeoTIFF"),
        (".", "before.tif both hold band B02"),
        ("above", "did you mean above/below?"),
        ("other.tif", "no band is in both images: BEFORE (before.tif) has B02, B04, B08; AFTER (other.tif) has red"),
        ("nowhere.tif", "nowhere.tif has no CRS; write it into the file"),
        ("feet.tif", "B02 is in metre in unit.tif and in foot in feet.tif"),
        ("flat.tif", "is it the nodata value, or the wrong image"),
        ("twice.tif", "bands 1 and 2 of twice.tif both hold band B2"),
        ("palette.tif", "numbers of colours in a palette"),
        ("dated", "different dates: 2018-01-01 (x_20180101_B02.tif), 2019-01-01 (x_20190101_B04.tif)"),
        ("local.tif", "is of no place on Earth"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(images: Any, after: str, message: str) -> None:
    values = images[1]
    write(Path("far.tif"), values, x=900_000)
    write(Path("other.tif"), values[:1], ("red",))
    write(Path("flat.tif"), np.full_like(values, 5))
    write(Path("nowhere.tif"), values, crs=None, transform=None)
    write(Path("twice.tif"), values, ("B02", "B2", "B08"))
    write(Path("local.tif"), values, crs='LOCAL_CS["x",UNIT["metre",1]]')
    write(Path("dated/x_20180101_B02.tif"), values[:1], ())
    write(Path("dated/x_20190101_B04.tif"), values[:1], ())
    with rasterio.open(write(Path("palette.tif"), (values[:1] % 20).astype(np.uint8)), "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255)})
    for name, unit in (("unit.tif", "metre"), ("feet.tif", "foot")):
        with rasterio.open(write(Path(name), values), "r+") as file:
            file.units = [unit] * 3
    Path("text.tif").write_text("hello")
    Path("empty").mkdir()
    write(Path("above/below/B02.tif"), values[:1])
    code, answer, _ = change("unit.tif" if after == "feet.tif" else "before.tif", after)
    assert code == 2
    assert message in answer["error"]
    assert not Path("runs/two/products").exists()


@pytest.mark.exhaustive
def test_other_bands_under_the_same_name_are_compared_anew(images: Any) -> None:
    change("before.tif", "after.tif")
    code, answer, said = change("before.tif", "after.tif", "--bands", "b4,B8")
    assert code == 0, said
    assert json.loads(Path("runs/two/summary.json").read_text())["computed"]["bands"] == ["b4", "B8"]
    assert len([path for path in Path("runs/two/cube").iterdir() if path.is_dir()]) == 1
    code, answer, _ = change("before.tif", "after.tif", "--bands", "B11")
    assert code == 2
    assert "BEFORE lacks B11" in answer["error"]
    assert "B4 is named twice" in change("before.tif", "after.tif", "--bands", "B04,B4")[1]["error"]


@pytest.mark.exhaustive
def test_a_run_in_a_bucket_keeps_the_cube_of_the_images_that_it_compares(images: Any, bucket: str) -> None:
    content = {"name": "two", "task": "pair", "runs": f"{bucket}/pairs", "images": {"before": "before.tif", "after": "after.tif"}}
    Path("two.yaml").write_text(json.dumps(content))
    for bands in ("[B04]", "[B04,B08]"):
        result = CliRunner().invoke(app, ["ingest", "two.yaml", "--set", f"images.bands={bands}"])
        assert result.exit_code == 0, result.output
        assert len({name.partition("/")[0] for name in files_at(f"{bucket}/pairs/two/cube").names("")}) == 1
    result = CliRunner().invoke(app, ["change", "before.tif", "after.tif", "--out", f"{bucket}/pairs"])
    assert "name the run too, with --name" in " ".join(result.output.split())


@pytest.mark.exhaustive
def test_a_trained_detector_is_applied_with_its_own_bands(images: Any, tmp_path: Path) -> None:
    invocation = open_invocation(write_sites(tmp_path))
    with remembering_folder(invocation):
        stage.carry_out(invocation, "ingest")
        stage.carry_out(invocation, "train")
    truth = write_site(tmp_path / "unseen", seed=9)
    code, _, said = change("unseen/1", "unseen/2", "--model", "runs/tiny")
    assert code == 0, said
    found = layer("mask") == 1
    assert np.count_nonzero(found & truth) > 0.7 * np.count_nonzero(truth)
    assert np.count_nonzero(found & ~truth) < np.count_nonzero(truth)
    assert 0 <= np.nanmin(layer("probability")) <= np.nanmax(layer("probability")) <= 1
    summary = json.loads(Path("runs/two/summary.json").read_text())
    assert "the run that trained the detector" in summary["sentence"]
    assert "F1 0.36" not in summary["sentence"]
    assert summary["products"]["model_hash"]
    checkpoint = "runs/tiny/model/model.safetensors"
    assert change("unseen/1", "unseen/2", "--model", checkpoint)[0] == 0
    assert np.array_equal(layer("mask") == 1, found)
    for path in sorted(Path("unseen/2").iterdir()):
        with rasterio.open(path, "r+") as file:
            file.scales = [1e-4] * file.count
    assert change("unseen/1", "unseen/2", "--model", "runs/tiny")[0] == 0
    assert [note for note in notes() if note.startswith("WARNING of the model, AFTER: values of")]
    for arguments, message in [
        (("before.tif", "after.tif", "--model", "runs/tiny"), "BEFORE lacks red, nir"),
        (("unseen/1", "unseen/2", "--model", "runs/none"), "no model at runs/none"),
        (("unseen/1", "unseen/2", "--model", "unseen"), "no model at unseen"),
        (("unseen/1", "unseen/2", "--model", "runs/tiny", "--threshold", "1.5"), "is no probability"),
        (("unseen/1", "unseen/2", "--model", "runs/tiny", "--bands", "red"), "the bands that it was trained on"),
    ]:
        code, answer, _ = change(*arguments)
        assert (code, message in answer["error"]) == (2, True), answer


@pytest.mark.exhaustive
def test_bands_of_coarser_pixels_are_left_out_and_named(images: Any) -> None:
    """As in a Sentinel-2 folder: three bands of 10 m, one of 60 m, which --bands adds."""
    for word, image in zip(("before", "after"), images, strict=True):
        for name, plane in zip(BANDS, image, strict=True):
            write(Path(word) / f"T35_{name}.tif", plane[None], (name,))
        write(Path(word) / "T35_B01.tif", image[:1, ::6, ::6], ("B01",), px=60)
    code, _, _ = change("before", "after")
    summary = json.loads(Path("runs/two/summary.json").read_text())
    assert (code, summary["computed"]["bands"]) == (0, list(BANDS))
    assert "--bands adds coarser ones: B01" in Path("runs/two/report.html").read_text()
    assert change("before", "after", "--bands", "B01,B02")[0] == 0


def notes() -> list[str]:
    """What the summary tells a reader; the report has the same."""
    found: list[str] = json.loads(Path("runs/two/summary.json").read_text())["computed"]["notes"]
    return found


@pytest.mark.exhaustive
def test_common_ground_alone_decides_how_dates_are_normalised(images: Any) -> None:
    """BEFORE is six times as bright where AFTER shows nothing."""
    before = images[0].copy()
    before[:, :, 48:] *= 6
    write(Path("wide.tif"), before)
    write(Path("part.tif"), images[1][:, :, :48])
    change("wide.tif", "part.tif")
    wide = layer("score")[:, :48]
    write(Path("same.tif"), before[:, :, :48])
    code, _, said = change("same.tif", "part.tif")
    assert code == 0, said
    np.testing.assert_allclose(wide, layer("score"), atol=1e-3)
    assert "resampled" not in said


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("shifted", "exceeds max_shift_px 2; not moved; --set pairs.max_shift_px=4 allows it"),
        ("filled", "AFTER: 512 pixels (12 %) hold 0 in every band; if it means missing: --nodata 0"),
        ("outlier", "B02 differs by "),
        ("little", "WARNING only 6"),
        ("wide", "change wider than 610 m (61 pixels) is missed in its middle and is mapped as a ring"),
    ],
)
def test_what_is_doubtful_is_in_the_summary_and_the_report(images: Any, how: str, expected: str) -> None:
    after, x = images[1].astype(np.float32), 500_000.0
    if how == "shifted":
        after = np.roll(images[0] * 1.3, 3, 1).astype(np.float32)
    elif how == "filled":
        after[:, :8] = 0
    elif how == "outlier":
        after[0, 5, 5] = 1e6
    elif how == "little":
        after, x = after[:, :, :4], 500_600.0
    write(Path("doubtful.tif"), after.astype(np.float32), x=x)
    code, _, said = change("before.tif", "doubtful.tif")
    assert code == 0, said
    assert [note for note in notes() if expected in note], notes()
    assert expected.split("'")[0] in Path("runs/two/report.html").read_text()


@pytest.mark.exhaustive
def test_colours_name_bands_that_have_no_description(images: Any) -> None:
    for name, image in zip(("rgb.tif", "bgr.tif"), images, strict=True):
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        is_turned = name == "bgr.tif"
        path = write(Path(name), image[::-1].copy() if is_turned else image, (), photometric="minisblack")
        with rasterio.open(path, "r+") as file:
            file.colorinterp = colours[::-1] if is_turned else colours
    change("before.tif", "after.tif")
    expected = layer("score")
    code, _, said = change("rgb.tif", "bgr.tif")
    assert code == 0, said
    np.testing.assert_allclose(layer("score"), expected, atol=1e-5)
    write(Path("numbered.tif"), images[1], ())
    _, _, said = change("rgb.tif", "numbered.tif")
    assert "matched by their numbers" in said
    np.testing.assert_allclose(layer("score"), expected, atol=1e-5)


@pytest.mark.exhaustive
def test_longitudes_of_another_turn_are_one_place(images: Any) -> None:
    for before, after in ((-10, 350), (350, -10)):
        for name, image, left in zip(("one.tif", "other.tif"), images, (before, after), strict=True):
            write(Path(name), image, crs="EPSG:4326", transform=rasterio.Affine(1e-4, 0, left, 0, -1e-4, 40))
        code, _, said = change("one.tif", "other.tif")
        assert code == 0, said
        assert found_share() > 0.6
        west, _, east, _ = json.loads(Path("runs/two/products/two.json").read_text())["bbox"]
        assert (west, east) == pytest.approx((-10, -9.9936))


def test_a_file_edited_in_place_is_read_again(images: Any) -> None:
    change("before.tif", "after.tif")
    known, size = Path("after.tif").stat(), Path("after.tif").stat().st_size
    edited = images[1].copy()
    edited[:, *SQUARE] -= 1500
    write(Path("after.tif"), edited)
    os.utime("after.tif", ns=(known.st_atime_ns, known.st_mtime_ns))
    assert Path("after.tif").stat().st_size == size
    code, answer, _ = change("before.tif", "after.tif")
    assert (code, answer["skipped"]) == (0, False)
    assert found_share() == 0


@pytest.mark.exhaustive
def test_names_of_runs_and_links_and_places_that_cannot_be(images: Any, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        return str(CliRunner().invoke(app, ["change", *arguments, "--json"]).output)

    name = f"{tmp_path.name}-before-after"
    Path("elsewhere").mkdir()
    shutil.move("after.tif", "elsewhere/after.tif")
    Path("after.tif").symlink_to("elsewhere/after.tif")
    run("before.tif", "after.tif")
    written = Path("runs", name, "summary.json").read_text()
    write(Path("new/before.tif"), images[1])
    Path("new", tmp_path.name).mkdir()
    for image in ("before", "after"):
        write(Path("new", tmp_path.name, f"{image}.tif"), images[image == "before"])
    run(f"new/{tmp_path.name}/before.tif", f"new/{tmp_path.name}/after.tif")
    run(f"new/{tmp_path.name}/before.tif", f"new/{tmp_path.name}/after.tif")
    assert sorted(path.name for path in Path("runs").iterdir()) == [name, f"{name}-2"]
    assert Path("runs", name, "summary.json").read_text() == written
    assert "replaced" in run(f"new/{tmp_path.name}/before.tif", f"new/{tmp_path.name}/after.tif", "--name", name)
    assert "no folder can be made" in run("before.tif", "after.tif", "--out", "/proc/nope")
