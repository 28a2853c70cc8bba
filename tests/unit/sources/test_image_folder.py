import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from pipelines.calendar import UNKNOWN_ORIGIN
from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Band
from pipelines.sources.frame_mask import FrameMask
from pipelines.sources.image_bands import ImageRequest
from pipelines.sources.image_folder import ImageFolderSource
from pipelines.sources.pictures import read_codes, read_picture

GREY = ImageRequest((Band("gray"),), ("gray",))
COLOURS = ImageRequest(tuple(map(Band, ("red", "green", "blue"))), ("red", "green", "blue"))
PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)
RGB = np.stack([PIXELS, PIXELS + 50, 200 - PIXELS], axis=2)


def seconds(source: ImageFolderSource) -> list[float]:
    return [float((scene.observed_utc - UNKNOWN_ORIGIN) / np.timedelta64(1, "s")) for scene in source.list_scenes().scenes]


def read(source: ImageFolderSource, number: int) -> np.ndarray:
    names = tuple(band.name for band in source.bands)
    return source.read(source.list_scenes().scenes[number], source.native_grid(), names, "nearest")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_numbered_pictures_are_frames_at_the_times_of_their_numbers(tmp_path: Path, suffix: str):
    for number in (7, 8, 12):
        Image.fromarray(PIXELS + number).save(tmp_path / f"img{number}.{suffix}")
    source = ImageFolderSource(tmp_path, GREY, f"img{{frame}}.{suffix}", frame_time=0.1)
    assert seconds(source) == [0.0, 0.1, 0.5]
    assert [scene.id for scene in source.list_scenes().scenes] == ["f00007", "f00008", "f00012"]
    assert np.array_equal(read(source, 2)[0], PIXELS + 12)
    assert "3 numbers between 7 and 12 have no picture" in source.list_scenes().notes


def test_times_come_from_a_text_file_or_from_dates_in_the_names(tmp_path: Path):
    for number in (1, 2, 3):
        Image.fromarray(PIXELS).save(tmp_path / f"{number}_2024-05-0{number}.png")
    (tmp_path / "times.txt").write_text("0.5\n0.75\n2\n")
    assert seconds(ImageFolderSource(tmp_path, GREY, "{frame}_*.png", times="times.txt")) == [0.0, 0.25, 1.5]
    dated = ImageFolderSource(tmp_path, GREY, "*_{date:%Y-%m-%d}.png").list_scenes()
    assert [str(scene.observed_utc)[:10] for scene in dated.scenes] == ["2024-05-01", "2024-05-02", "2024-05-03"]
    (tmp_path / "times.txt").write_text("0.5\n0.5\n2\n")
    with pytest.raises(RequestError, match="frame 1 has the same time as frame 0"):
        ImageFolderSource(tmp_path, GREY, "{frame}_*.png", times="times.txt").list_scenes()
    with pytest.raises(RequestError, match=r"fits none of the files.*1_2024-05-01.png.*write \{frame\}"):
        ImageFolderSource(tmp_path, GREY, "frame_{frame}.png", frame_time=1.0).list_scenes()


def test_pictures_of_another_size_or_depth_are_refused_alone(tmp_path: Path):
    Image.fromarray(PIXELS).save(tmp_path / "1.png")
    Image.fromarray(PIXELS[:5]).save(tmp_path / "2.png")
    Image.fromarray(PIXELS.astype(np.uint16) * 900).save(tmp_path / "3.png")
    Image.fromarray(RGB).save(tmp_path / "4.png")
    source = ImageFolderSource(tmp_path, GREY, "{frame}.png", frame_time=1.0)
    with pytest.raises(SceneRefused, match="wrong-grid: the frame has 5 x 8 pixels, the cube 6 x 8"):
        read(source, 1)
    with pytest.raises(SceneRefused, match="wrong-dtype"):
        read(source, 2)
    assert np.abs(read(source, 3)[0].astype(int) - np.asarray(Image.fromarray(RGB).convert("L"))).max() <= 1
    with pytest.raises(SceneRefused, match="missing-band: the frame has gray, not red"):
        read(ImageFolderSource(tmp_path, COLOURS, "{frame}.png", frame_time=1.0), 0)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_kept_also_of_colours(tmp_path: Path, suffix: str):
    deep = np.moveaxis(RGB, 2, 0).astype(np.uint16) * 257
    driver = {"png": "PNG", "tif": "GTiff"}[suffix]
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.open(tmp_path / f"1.{suffix}", "w", driver=driver, width=8, height=6, count=3, dtype="uint16") as file,
    ):
        file.write(deep)
    assert np.array_equal(read_picture(tmp_path / f"1.{suffix}").planes_BYX, deep)


def test_a_picture_is_set_upright_and_what_is_dropped_is_said(tmp_path: Path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.repeat(RGB, 4, axis=0)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.planes_BYX.shape == (3, 8, 24)
    assert "turned by 90° as its EXIF orientation says" in picture.notes
    Image.fromarray(np.dstack([RGB, PIXELS])).save(tmp_path / "b.png")
    assert read_picture(tmp_path / "b.png").notes == ("transparency is ignored",)
    Image.fromarray(PIXELS).save(tmp_path / "c.tif", tiffinfo={274: 3})
    with pytest.raises(SceneRefused, match="states the orientation 3"):
        read_picture(tmp_path / "c.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_truncated_pictures_are_refused(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for cut in [len(whole) * tenth // 10 for tenth in range(1, 10)] + [len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(SceneRefused):
            read_picture(path)


def test_a_mask_file_hides_pixels_and_changes_with_its_content(tmp_path: Path):
    hidden = np.zeros((6, 8), np.uint8)
    hidden[0] = 255
    Image.fromarray(hidden).save(tmp_path / "mask.png")
    Image.fromarray(PIXELS).save(tmp_path / "f1.png")
    asked = ImageRequest((Band("gray"),), ("gray",), FrameMask((), tmp_path / "mask.png"))
    source = ImageFolderSource(tmp_path, asked, "f{frame}.png", frame_time=1.0)
    frame = read(source, 0)
    assert np.ma.getmaskarray(frame)[0, 0].all()
    assert not np.ma.getmaskarray(frame)[0, 1:].any()
    assert source.list_scenes().scenes[0].assets["mask"].path == str(tmp_path / "mask.png")
    Image.fromarray(hidden[:3]).save(tmp_path / "mask.png")
    with pytest.raises(RequestError, match=r"mask\.png has 3 x 8 pixels, the frames have 6 x 8"):
        ImageFolderSource(tmp_path, asked, "f{frame}.png", frame_time=1.0).list_scenes()


def test_labels_are_numbers_of_the_palette_not_colours(tmp_path: Path):
    coloured = Image.new("P", (8, 6))
    coloured.putdata((PIXELS % 3).ravel().tolist())
    coloured.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    coloured.save(tmp_path / "a.png")
    codes, notes = read_codes(tmp_path / "a.png")
    assert np.array_equal(codes, PIXELS % 3)
    assert "numbers of the palette" in notes[0]
    Image.fromarray(RGB).save(tmp_path / "b.png")
    with pytest.raises(SceneRefused, match="one code per pixel"):
        read_codes(tmp_path / "b.png")
    with pytest.raises(MissingInput):
        read_codes(tmp_path / "c.png")
