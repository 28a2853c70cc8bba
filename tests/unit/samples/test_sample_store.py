"""Samples into their store: what is new is read, what is altered is read again, a kill loses nothing that was committed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.cube.store import open_cube
from pipelines.errors import CubeMismatch, RequestError, SceneRefused
from pipelines.samples.sample_frames import FrameSettings, shape_frames
from pipelines.samples.sample_ingest import SampleIngest, SampleReport, ingest_samples
from pipelines.samples.sample_store import decode_images, read_table
from pipelines.scene import Band
from pipelines.sources.samples import Frames, Sample, SampleListing


@dataclass(frozen=True)
class Made:
    """A text file for each sample; its content is the value of all pixels and the number of frames."""

    folder: Path
    answers: dict[str, str]
    stop_at: str = ""

    @property
    def bands(self) -> tuple[Band, ...]:
        return (Band("gray"),)

    def list_samples(self) -> SampleListing:
        paths = sorted(self.folder.glob("*.txt"))
        return SampleListing([Sample(p.stem, (p,), self.answers.get(p.stem, ""), f"g{p.stem[-1]}") for p in paths])

    def read(self, sample: Sample) -> Frames:
        if sample.id == self.stop_at:
            raise KeyboardInterrupt
        try:
            value, count = map(int, sample.paths[0].read_text().split())
        except ValueError as e:
            raise SceneRefused(sample.id, "unreadable", "no numbers") from e
        image = np.full((count, 1, 4, 4), value, np.uint8)
        return Frames(image, np.arange(count) * 0.5, facts={"rows": 4.0, "frames": float(count)})


@pytest.fixture
def made(tmp_path: Path) -> Made:
    folder = tmp_path / "source"
    folder.mkdir()
    for n in range(5):
        (folder / f"s{n}.txt").write_text(f"{10 + n} {1 + n % 3}")
    return Made(folder, {"s0": "a", "s1": "b"})


SETTINGS = SampleIngest(FrameSettings(count=3))


def ingest(source: Made, store: Path, settings: SampleIngest = SETTINGS) -> SampleReport:
    return ingest_samples(source, str(store), settings)


def values(store: Path, report: SampleReport) -> dict[str, tuple[int, int, str]]:
    """id -> (value of the pixels, valid frames, answer)."""
    table = read_table(str(store), report.snapshot)
    image = decode_images(str(store), report.snapshot, table, store.parent / "decoded")
    shown = zip(table.id_N, image[:, 0, 0, 0, 0], table.valid_NT.sum(axis=1), table.answer_N, strict=True)
    return {name: (int(value), int(count), answer) for name, value, count, answer in shown}


def test_what_is_written_is_read(made: Made, tmp_path: Path) -> None:
    report = ingest(made, tmp_path / "store")
    assert len(report.added) == 5
    expected = {f"s{n}": (10 + n, 1 + n % 3, {0: "a", 1: "b"}.get(n, "")) for n in range(5)}
    assert values(tmp_path / "store", report) == expected
    table = read_table(str(tmp_path / "store"))
    assert table.group_N.tolist() == ["g0", "g1", "g2", "g3", "g4"]
    np.testing.assert_array_equal(table.seconds_NT[2], [0.0, 0.5, 1.0])
    assert np.isnan(table.seconds_NT[0, 1:]).all()
    assert table.facts["frames"].tolist() == [1, 2, 3, 1, 2]


def test_only_what_changed_is_read_again(made: Made, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = ingest(made, store)
    again = ingest(replace(made, stop_at="s0"), store)  # it would stop if it read
    assert (again.unchanged, again.is_new, again.snapshot) == (5, False, first.snapshot)
    (made.folder / "s1.txt").write_text("99 2")
    (made.folder / "s2.txt").unlink()
    (made.folder / "s7.txt").write_text("17 1")
    report = ingest(replace(made, answers={"s0": "c"}), store)
    assert (report.added, report.replaced, report.gone) == (("s7",), ("s1",), ("s2",))
    found = values(store, report)
    assert found["s1"] == (99, 2, "")
    assert found["s0"] == (10, 1, "c")
    assert "s2" not in found
    assert values(store, first)["s1"] == (11, 2, "b")  # the earlier version stays


def test_other_answers_alone_make_a_new_version(made: Made, tmp_path: Path) -> None:
    first = ingest(made, tmp_path / "store")
    report = ingest(replace(made, answers={"s0": "b", "s1": "b"}, stop_at="s0"), tmp_path / "store")
    assert report.is_new
    assert report.snapshot != first.snapshot
    assert values(tmp_path / "store", report)["s0"][2] == "b"


def test_a_killed_ingest_goes_on(made: Made, tmp_path: Path) -> None:
    store, small = tmp_path / "store", replace(SETTINGS, commit_mb=0)  # a commit for each sample
    with pytest.raises(KeyboardInterrupt):
        ingest(replace(made, stop_at="s3"), store, small)
    assert len(read_table(str(store))) == 3
    report = ingest(replace(made, stop_at="s1"), store, small)
    assert report.added == ("s3", "s4")
    whole = ingest(made, tmp_path / "other")
    assert values(store, report) == values(tmp_path / "other", whole)


def test_other_frames_are_read_anew(made: Made, tmp_path: Path) -> None:
    ingest(made, tmp_path / "store")
    report = ingest(made, tmp_path / "store", SampleIngest(FrameSettings(count=2, size=(2, 2))))
    assert len(report.added) == 5
    assert read_table(str(tmp_path / "store")).layout.shape == (2, 1, 2, 2)


def test_refusals_do_not_stop_the_others(made: Made, tmp_path: Path) -> None:
    (made.folder / "s0.txt").write_text("no numbers")
    (made.folder / "s1.txt").write_text("5 9")
    report = ingest(made, tmp_path / "store", SampleIngest(FrameSettings()))
    assert {(one.scene_id, one.reason) for one in report.refused} == {("s0", "unreadable")}
    assert len(report.added) == 4
    (made.folder / "s2.txt").write_text("5 10")
    report = ingest(made, tmp_path / "store", SampleIngest(FrameSettings()))
    assert ("s2", "wrong-grid") in {(one.scene_id, one.reason) for one in report.refused}
    assert report.gone == ("s2",)


def test_nothing_readable_is_said(made: Made, tmp_path: Path) -> None:
    for path in made.folder.glob("*.txt"):
        path.write_text("x")
    with pytest.raises(RequestError, match="no sample can be read"):
        ingest(made, tmp_path / "store")


def test_a_store_of_samples_is_no_cube(made: Made, tmp_path: Path) -> None:
    ingest(made, tmp_path / "store")
    with pytest.raises(CubeMismatch, match="samples"):
        open_cube(str(tmp_path / "store"))


class TestFrames:
    def made(self, shape: tuple[int, ...], valid: Sequence[int] | None = None) -> Frames:
        image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        mask = None if valid is None else np.isin(np.arange(shape[0]), valid)[:, None, None] & np.ones(shape[2:], bool)
        return Frames(image, np.arange(shape[0]) * 1.0, mask)

    def test_as_they_are(self) -> None:
        frames = self.made((3, 1, 4, 4))
        np.testing.assert_array_equal(shape_frames(frames, FrameSettings(), "a").image_TCHW, frames.image_TCHW)

    @pytest.mark.parametrize("fit", ["cut", "stretch", "pad"])
    @pytest.mark.parametrize("size", [(6, 6), (3, 9), (20, 10)])
    def test_size_and_level(self, fit: str, size: tuple[int, int]) -> None:
        flat = Frames(np.full((2, 1, 12, 8), 77, np.uint8), np.arange(2.0))
        image = shape_frames(flat, FrameSettings(size=size, fit=fit), "a").image_TCHW  # type: ignore[arg-type]
        assert image.shape == (2, 1, *size)
        assert set(np.unique(image)) <= ({0, 77} if fit == "pad" else {77})

    def test_cut_keeps_proportions(self) -> None:
        wide = np.zeros((1, 1, 10, 30), np.uint8)
        wide[..., :10], wide[..., 20:] = 50, 200
        assert not shape_frames(Frames(wide, np.zeros(1)), FrameSettings(size=(5, 5)), "a").image_TCHW.any()

    def test_frames_without_a_usable_pixel_are_not_valid(self) -> None:
        shaped = shape_frames(self.made((4, 1, 2, 2), valid=[1, 3]), FrameSettings(), "a")
        assert shaped.valid_T.tolist() == [False, True, False, True]
        assert not shaped.image_TCHW[0].any()
        with pytest.raises(SceneRefused, match="usable"):
            shape_frames(self.made((4, 1, 2, 2), valid=[]), FrameSettings(), "a")

    def test_volumes(self) -> None:
        volume = Frames(np.full((2, 1, 8, 6, 6), 9, np.int16), np.zeros(2))
        image = shape_frames(volume, FrameSettings(size=(4, 3, 3)), "a").image_TCHW
        assert image.shape == (2, 1, 4, 3, 3)
        assert (image == 9).all()
