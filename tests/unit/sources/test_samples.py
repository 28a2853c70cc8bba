"""Sources of samples: IDX files, files and folders with a table of answers."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import MissingInput, RequestError, SceneRefused
from pipelines.scene import Band
from pipelines.sources.answers import AnswerColumns, Answers, read_answers
from pipelines.sources.idx import IdxSource, read_idx
from pipelines.sources.image_bands import ImageRequest
from pipelines.sources.sample_files import SampleFiles
from pipelines.sources.samples import evenly_spread

GRAY = ImageRequest((Band("gray"),), ("gray",))


def idx_bytes(values: np.ndarray, code: int = 8) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, code, values.ndim, *values.shape) + values.tobytes()


def write_idx(folder: Path, part: str, images: np.ndarray, labels: np.ndarray, end: str = "") -> None:
    opened = gzip.open if end else open
    for name, values in ((f"{part}-images-idx3-ubyte{end}", images), (f"{part}-labels-idx1-ubyte{end}", labels)):
        with opened(folder / name, "wb") as file:
            file.write(idx_bytes(values))


class TestIdx:
    def test_parts_answers_and_pixels(self, tmp_path: Path) -> None:
        images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
        write_idx(tmp_path, "train", images, np.array([2, 0, 1], np.uint8), ".gz")
        write_idx(tmp_path, "t10k", images[:2] + 100, np.array([1, 1], np.uint8))
        (tmp_path / "notes.txt").write_text("x")
        listing = IdxSource(tmp_path).list_samples()
        assert [(one.id, one.answer, one.part) for one in listing.samples[-2:]] == [
            ("train-1", "0", "train"),
            ("train-2", "1", "train"),
        ]
        assert listing.unused == ["notes.txt"]
        np.testing.assert_array_equal(IdxSource(tmp_path).read(listing.samples[-1]).image_TCHW, images[2][None, None])

    def test_wide_types_are_big_endian(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(idx_bytes(np.array([[1, 256]], ">i4"), 12))
        np.testing.assert_array_equal(read_idx(tmp_path / "a"), [[1, 256]])

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"PK\3\4", "no IDX file"),
            (idx_bytes(np.zeros((2, 3), np.uint8))[:-1], "fewer values"),
            (idx_bytes(np.zeros((2, 3), np.uint8)) + b"x", "more values"),
            (struct.pack(">BBBB2I", 0, 0, 14, 2, 1 << 20, 1 << 20), "at most"),
            (b"\0\0\x08\x03\0\0", "within its header"),
        ],
    )
    def test_damaged_files_are_refused(self, tmp_path: Path, content: bytes, said: str) -> None:
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(RequestError, match=said):
            read_idx(tmp_path / "a")

    def test_labels_of_other_images_are_refused(self, tmp_path: Path) -> None:
        write_idx(tmp_path, "train", np.zeros((3, 2, 2), np.uint8), np.zeros(2, np.uint8))
        with pytest.raises(RequestError, match=r"3 images.*2 labels"):
            IdxSource(tmp_path).list_samples()


class TestAnswers:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    def test_by_name_or_path(self, tmp_path: Path, delimiter: str) -> None:
        lines = [("file", "label", "group"), ("a.png", "cat", "g1"), ("deep/b.png", "dog", "g2")]
        (tmp_path / "t.csv").write_text("\ufeff" + "\n".join(delimiter.join(line) for line in lines), encoding="utf-8")
        answers = read_answers(tmp_path / "t.csv", AnswerColumns())
        found = answers.of("x/a.png"), answers.of("deep/b.png"), answers.of("b.png")
        assert [one and (one.answer, one.group) for one in found] == [("cat", "g1"), ("dog", "g2"), None]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("name,label\na,b", "no column 'file'"),
            ("file,label\na,b\na,c", "two different answers"),
            ("file,label\n", "no line"),
            ("file,label\n,b", "names no file"),
        ],
    )
    def test_tables_that_contradict_themselves(self, tmp_path: Path, text: str, said: str) -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(RequestError, match=said):
            read_answers(tmp_path / "t.csv", AnswerColumns())

    def test_folders_name_classes(self) -> None:
        known = Answers(from_folders=True).of("train/cat/a.png")
        assert known is not None
        assert known.answer == "cat"


class TestFiles:
    def test_pictures_with_their_answers(self, tmp_path: Path) -> None:
        for name, value in (("a", 10), ("b", 20), ("c", 30)):
            Image.new("L", (6, 4), value).save(tmp_path / f"{name}.png")
        (tmp_path / "t.csv").write_text("file,label\na.png,x\nb.png,y\ngone.png,x\n")
        answers = read_answers(tmp_path / "t.csv", AnswerColumns())
        listing = SampleFiles(tmp_path, GRAY, answers, table=tmp_path / "t.csv").list_samples()
        assert [(one.id, one.answer) for one in listing.samples] == [("a", "x"), ("b", "y"), ("c", "")]
        assert len(listing.notes) == 2  # c has no answer, gone.png is no sample
        assert not listing.unused
        frames = SampleFiles(tmp_path, GRAY).read(listing.samples[1])
        assert frames.image_TCHW.shape == (1, 1, 4, 6)
        assert frames.image_TCHW.max() == 20
        assert frames.facts["columns"] == 6

    def test_folders_of_pictures_in_natural_order(self, tmp_path: Path) -> None:
        (tmp_path / "s1").mkdir()
        for number in (1, 2, 10):
            Image.new("L", (2, 2), number).save(tmp_path / "s1" / f"f{number}.png")
        source = SampleFiles(tmp_path, GRAY, unit="folder", frame_time=0.5)
        (sample,) = source.list_samples().samples
        frames = source.read(sample)
        assert frames.image_TCHW[:, 0, 0, 0].tolist() == [1, 2, 10]
        assert frames.seconds_T.tolist() == [0.0, 0.5, 1.0]

    @pytest.mark.parametrize(("count", "moments"), [(4, [0, 3, 6, 9]), (6, [0, 2, 4, 5, 7, 9]), (1, [5])])
    def test_frames_that_are_thinned_keep_their_times(self, tmp_path: Path, count: int, moments: list[int]) -> None:
        (tmp_path / "s1").mkdir()
        for number in range(10):
            Image.new("L", (2, 2), number).save(tmp_path / "s1" / f"{number}.png")
        source = SampleFiles(tmp_path, GRAY, unit="folder", frame_time=0.5, most_frames=count)
        frames = source.read(source.list_samples().samples[0])
        assert frames.image_TCHW[:, 0, 0, 0].tolist() == moments
        assert frames.seconds_T.tolist() == [0.5 * n for n in moments]
        assert frames.facts["frame_s"] == 0.5  # of the file, however unevenly frames are kept

    def test_frames_of_two_sizes_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "s1").mkdir()
        for number in (1, 2):
            Image.new("L", (2, 1 + number), 0).save(tmp_path / "s1" / f"{number}.png")
        source = SampleFiles(tmp_path, GRAY, unit="folder")
        with pytest.raises(SceneRefused, match="differ in size"):
            source.read(source.list_samples().samples[0])

    def test_a_link_out_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        Image.new("L", (2, 2), 0).save(tmp_path / "out.png")
        (tmp_path / "in" / "a.png").symlink_to(tmp_path / "out.png")
        Image.new("L", (2, 2), 0).save(tmp_path / "in" / "b.png")
        listing = SampleFiles(tmp_path / "in", GRAY).list_samples()
        assert [one.id for one in listing.samples] == ["b"]
        assert [one.scene_id for one in listing.refused] == ["a"]

    def test_nothing_to_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("x")
        with pytest.raises(RequestError, match=r"no file that fits.*\.txt"):
            SampleFiles(tmp_path, GRAY).list_samples()
        with pytest.raises(MissingInput):
            SampleFiles(tmp_path / "gone", GRAY).list_samples()


def test_evenly_spread_keeps_both_ends() -> None:
    for frames in range(2, 40):
        for count in range(2, frames):
            kept = evenly_spread(frames, count)
            assert (kept[0], kept[-1], len(set(kept))) == (0, frames - 1, count)
