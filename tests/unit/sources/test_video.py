import pickle
import sys
from fractions import Fraction
from pathlib import Path

import clips
import numpy as np
import pytest
from PIL import Image

from pipelines.calendar import UNKNOWN_ORIGIN
from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid, ImagePlane
from pipelines.scene import Band
from pipelines.sources import video_frames
from pipelines.sources.frame_mask import FrameMask
from pipelines.sources.image_bands import ImageRequest
from pipelines.sources.video import VideoSource, choose_clip

pytest.importorskip("av")
GREY = ImageRequest((Band("gray"),), ("gray",))
COLOURS = ImageRequest(tuple(map(Band, ("red", "green", "blue"))), ("red", "green", "blue"))
VARIABLE = [0, 1, 2, 5, 6, 9, 10, 11, 15, 16]  # hundredths of a second


def frames_of(source: VideoSource) -> np.ndarray:
    grid, names = source.native_grid(), tuple(band.name for band in source.bands)
    return np.stack([np.ma.getdata(source.read(scene, grid, names, "nearest")) for scene in source.list_scenes().scenes])


def seconds_of(source: VideoSource) -> list[float]:
    return [float((scene.observed_utc - UNKNOWN_ORIGIN) / np.timedelta64(1, "s")) for scene in source.list_scenes().scenes]


def test_frames_come_in_order_with_their_values_and_times_and_without_a_position(tmp_path: Path):
    clip = clips.make_clip(tmp_path / "a.mkv", 10, pts=[10 * n for n in VARIABLE], time_base=Fraction(1, 1000))
    source = pickle.loads(pickle.dumps(VideoSource(clip, GREY)))
    assert seconds_of(source) == [n / 100 for n in VARIABLE]
    assert np.array_equal(frames_of(source)[:, 0, 0, 0], 5 * np.arange(10))
    assert source.native_grid() == Grid(ImagePlane("px"), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), clips.SHAPE_YX)
    assert [scene.id for scene in source.list_scenes().scenes][:2] == ["f00000", "f00001"]
    assert "3 gaps are longer" in " ".join(source.list_scenes().remarks())


def test_frames_coded_out_of_order_come_in_the_order_in_which_they_are_shown(tmp_path: Path):
    how = {"options": {"bf": "3", "b-adapt": "0"}, "pts": VARIABLE, "time_base": Fraction(1, 100)}
    source = VideoSource(clips.make_clip(tmp_path / "b.mp4", 10, **how), GREY)
    values = frames_of(source)[:, 0, 40:].mean(axis=(1, 2))
    assert seconds_of(source) == [n / 100 for n in VARIABLE]
    assert values == pytest.approx(5 * np.arange(10), abs=2)  # limited range (16 to 235) has become 0 to 255


@pytest.mark.parametrize("suffix", clips.CODECS)
def test_every_container_is_read_whole_or_refused(tmp_path: Path, suffix: str):
    clip = clips.make_clip(tmp_path / f"a{suffix}", 12)
    whole = clip.read_bytes()
    assert len(frames_of(VideoSource(clip, GREY))) == 12
    for cut in [len(whole) * tenth // 10 for tenth in range(1, 10)] + [len(whole) - 1]:
        clip.write_bytes(whole[:cut])
        with pytest.raises(RequestError, match=r"truncated|damaged|none of AVI"):
            VideoSource(clip, GREY).list_scenes()
    clip.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))  # as a download that reserved its place
    with pytest.raises(RequestError):
        VideoSource(clip, GREY).list_scenes()


@pytest.mark.parametrize(
    ("format", "codec", "most"), [("yuv420p10le", "ffv1", 1023), ("gray12le", "ffv1", 4095), ("bgr0", "ffv1", 255)]
)
def test_deep_values_keep_their_bits_and_colours_become_bands(tmp_path: Path, format: str, codec: str, most: int):
    clip = clips.make_clip(tmp_path / "a.mkv", 4, format=format, codec=codec, colours=True)
    grey = frames_of(VideoSource(clip, GREY))
    assert grey.dtype == ("uint8" if most == 255 else "uint16")
    assert grey[2, 0, 40, 30] == pytest.approx(10 / 255 * most, abs=0.01 * most)
    if not format.startswith("gray"):
        red, green, blue = frames_of(VideoSource(clip, COLOURS))[2, :, 15, 10] * (255 / most)
        assert (red, green, blue) == pytest.approx((200, 30, 90), abs=6)


def test_a_grey_clip_stored_in_colours_is_recognised_and_a_coloured_one_named(tmp_path: Path):
    made = (clips.make_clip(tmp_path / f"{colours}.avi", 4, colours=colours) for colours in (False, True))
    notes = [" ".join(VideoSource(clip, GREY).list_scenes().remarks()) for clip in made]
    assert "are grey" in notes[0]
    assert "gray is their luma" in notes[1]
    assert "BT.601 is assumed" in notes[1]


def test_a_turned_clip_is_set_upright(tmp_path: Path):
    clip = clips.make_clip(tmp_path / "a.mp4", 4, codec="libx264", turned=90)
    source = VideoSource(clip, GREY)
    assert source.native_grid().shape == clips.SHAPE_YX[::-1]
    assert frames_of(source)[3, 0].shape == clips.SHAPE_YX[::-1]
    plain = frames_of(VideoSource(clips.make_clip(tmp_path / "b.mp4", 4), GREY))[3, 0]
    assert np.array_equal(frames_of(source)[3, 0], np.rot90(plain))
    assert "turned by 90 degrees" in " ".join(source.list_scenes().remarks())


def test_masked_pixels_are_missing_and_their_values_are_gone(tmp_path: Path):
    masked = ImageRequest((Band("gray"),), ("gray",), FrameMask(((0, 0, 5, 20),)), (0.2, 0.1))
    source = VideoSource(clips.make_clip(tmp_path / "a.mkv", 4), masked)
    scene = source.list_scenes().scenes[3]
    frame = source.read(scene, source.native_grid(), ("gray",), "nearest", slice(2, 10))
    assert frame.shape == (1, 8, 64)
    assert np.ma.getmaskarray(frame)[0].sum() == 3 * 20
    assert frame.data[0, 0, 0] == 0 != frame.data[0, 4, 0]
    assert source.native_grid().spacing == (0.2, 0.1)
    with pytest.raises(RequestError, match=r"the box \[0, 0, 5, 99\] leaves the frames of 48 x 64"):
        VideoSource(source.path, ImageRequest(GREY.bands, ("gray",), FrameMask(((0, 0, 5, 99),)))).list_scenes()


def test_times_that_are_not_stated_are_not_made_up_and_frame_time_replaces_them(tmp_path: Path):
    clip, pictures = tmp_path / "a.gif", [Image.fromarray(clips.frame_of(number)) for number in range(4)]
    pictures[0].save(clip, save_all=True, append_images=pictures[1:], duration=[0, 40, 40, 40])
    with pytest.raises(RequestError, match=r"4 of 4 frames have no presentation time.*state source.frame_time"):
        VideoSource(clip, GREY).list_scenes()
    assert seconds_of(VideoSource(clip, GREY, frame_time=0.04)) == [0.0, 0.04, 0.08, 0.12]


def test_several_clips_or_streams_are_listed_and_one_is_chosen(tmp_path: Path):
    clips.make_clip(tmp_path / "a.avi", 4)
    two = clips.make_clip(tmp_path / "b.mkv", 5, streams=2)
    with pytest.raises(RequestError, match=r"(?s)holds 2 clips.*source.clip: a.avi.*a.avi: 48 x 64, 4 frames.*b.mkv"):
        VideoSource(tmp_path, GREY).list_scenes()
    listing = VideoSource(tmp_path, GREY, clip="a").list_scenes()
    assert (len(listing.scenes), listing.unused) == (4, ["b.mkv"])
    assert VideoSource(tmp_path, GREY, clip="#1").list_scenes().scenes == listing.scenes
    with pytest.raises(RequestError, match=r"source\.path holds 2 clips") as caught:
        choose_clip(tmp_path, "", shows_names=False)
    assert "a.avi" not in str(caught.value)
    with pytest.raises(RequestError, match=r"2 video streams; choose one: source\.stream: 0"):
        VideoSource(two, GREY).list_scenes()
    assert len(VideoSource(two, GREY, stream=1).list_scenes().scenes) == 5


def test_frames_asked_for_in_order_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = VideoSource(clips.make_clip(tmp_path / "a.mkv", 12), GREY)
    scenes, grid, passes = source.list_scenes().scenes, source.native_grid(), []

    def count(clip: video_frames.Clip) -> object:
        passes.append(clip)
        return decode(clip)

    decode = video_frames.decode
    monkeypatch.setattr(video_frames, "decode", count)
    order = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]  # as two threads do
    values = [source.read(scenes[n], grid, ("gray",), "nearest")[0, 0, 0] for n in order]
    assert values == [5 * n for n in order]
    assert len(passes) == 1


def test_a_clip_that_changes_while_it_is_read_is_refused(tmp_path: Path):
    clip = clips.make_clip(tmp_path / "a.mkv", 6)
    source = VideoSource(clip, GREY)
    scenes, grid = source.list_scenes().scenes, source.native_grid()
    clips.make_clip(clip, 3, pts=[0, 7, 9])
    with pytest.raises(SceneRefused, match="has changed while it was read"):
        source.read(scenes[1], grid, ("gray",), "nearest")
    with pytest.raises(SceneRefused, match="fewer frames than before"):
        source.read(scenes[5], grid, ("gray",), "nearest")


def test_what_a_file_says_of_people_and_places_goes_nowhere(tmp_path: Path):
    said = {"title": "CANARY", "comment": "CANARY", "location": "+52.1+004.3/", "artist": "CANARY", "make": "CANARY"}
    listing = VideoSource(clips.make_clip(tmp_path / "a.mp4", 4, metadata=said), GREY).list_scenes()
    assert listing.scenes[0].label == "frame 0"
    assert "CANARY" not in repr(listing)
    assert "52.1" not in repr(listing)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n", "none of AVI, MP4"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "none of AVI, MP4"),
        (b"", "none of AVI, MP4"),
    ],
)
def test_lists_that_name_other_files_are_not_opened(tmp_path: Path, content: bytes, match: str):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(RequestError, match=match):
        VideoSource(tmp_path / "a.mp4", GREY).list_scenes()


def test_without_pyav_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = clips.make_clip(tmp_path / "a.mkv", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(RequestError, match=r"pip install 'driftline\[video\]'"):
        VideoSource(clip, GREY).list_scenes()
