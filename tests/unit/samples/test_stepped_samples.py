"""Labels of steps: which step a span holds, what is refused, and what training sees of steps without a label."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.products.step_products import step_rows
from pipelines.samples.labelled import SplitSettings
from pipelines.samples.sample_frames import FrameSettings
from pipelines.samples.sample_store import SampleLayout, SampleTable
from pipelines.samples.sample_windows import NO_AUGMENTATION, SampleWindows
from pipelines.samples.spans import clock_of
from pipelines.samples.stepped_samples import SteppedSamples, label_steps
from pipelines.scene import Band
from pipelines.sources.answers import Answers, SpanColumns, read_spans, spans_as_text
from pipelines.sources.samples import evenly_spread

FRAMES = 4  # stored, of files with 7
KEPT = [0, 2, 4, 6]
HALVES = spans_as_text([(0, 3, "a"), (3, 7, "b")], "frames")  # frames 0 and 2 against 4 and 6


def table_of(*answers: str, file_frames: int = 7, frame_s: float = 0.5, kept: int = FRAMES) -> SampleTable:
    settings = {"frames": FrameSettings(kept).__dict__}
    layout = SampleLayout(kept, (Band("gray"),), (2, 2), np.dtype(np.uint8), settings)
    count, names = len(answers), np.array([f"s{n}" for n in range(len(answers))], object)
    seconds_T = evenly_spread(file_frames, kept) * frame_s
    facts = {"rows": 2.0, "columns": 2.0, "frames": file_frames, "frame_s": frame_s}
    return SampleTable(
        layout, np.arange(count), names, np.array(answers, object), names, np.array([""] * count, object), names,
        np.ones((count, kept), bool), np.tile(seconds_T, (count, 1)), {k: np.full(count, float(v)) for k, v in facts.items()},
    )  # fmt: skip


def labelled(*answers: str, classes: tuple[str, ...] = (), **facts: float) -> SteppedSamples:
    table = table_of(*answers, **facts)
    image = np.arange(len(table) * FRAMES * 4, dtype=np.uint8).reshape(len(table), FRAMES, 1, 2, 2)
    return label_steps(table, image, classes, SplitSettings(folds=2, validation_parts=2), class_weights=True)


def text(*spans: tuple[float, float, str], unit: str = "frames") -> str:
    return spans_as_text(spans, unit)


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (text((0, 3, "a"), (3, 7, "b")), [0, 0, 1, 1]),
        (text((2, 5, "b")), [-1, 1, 1, -1]),
        (text((2, 3, "a")), [-1, 0, -1, -1]),
        (text((0.0, 1.0, "a"), (2.0, 3.5, "b"), unit="seconds"), [0, -1, 1, 1]),
        (text((1.0, 3.0, "b"), unit="seconds"), [-1, 1, 1, -1]),  # half-open: the last frame is at 3 s
    ],
)
def test_a_step_has_the_class_of_the_span_that_holds_it(answer: str, known: list[int]) -> None:
    assert labelled(answer, *[HALVES] * 5).class_PT[0].tolist() == known


@pytest.mark.parametrize(("kept", "moments"), [(4, [0.0, 1.0, 2.0, 3.0]), (3, [0.0, 1.5, 3.0]), (1, [1.5])])
def test_the_clock_shows_times_of_the_file_and_its_end(kept: int, moments: list[float]) -> None:
    table = table_of(HALVES, kept=kept)
    for unit, step in (("seconds", 1.0), ("frames", 2.0)):
        moment_T, end = clock_of(table, 0, unit)
        assert moment_T.tolist() == [one * step for one in moments]
        assert end == 3.5 * step


def test_what_no_stored_frame_shows_is_counted() -> None:
    samples = labelled(text((1, 2, "a")), "", *[HALVES] * 5)  # frame 1 is not among those that are kept
    assert len(samples.known_P) == 5
    assert samples.dropped == {"spans without a valid frame that is kept": 1, "samples without a labelled step": 2}
    assert samples.sentence == "20 labelled steps of 5 samples in 5 groups: 10 a, 10 b"


def test_training_sees_no_step_without_a_label() -> None:
    samples = labelled(text((0, 1, "a")), *[HALVES] * 6)
    windows = SampleWindows(samples.arrays, samples.known_P, np.ones(1), NO_AUGMENTATION, 0, per_step=True)
    batch = windows.gather(list(range(7)))
    weight_BT, target_BTK = batch["weight"].numpy(), batch["target"].numpy()
    assert (weight_BT[0] > 0).tolist() == [True, False, False, False]
    assert (target_BTK[weight_BT > 0].argmax(axis=-1) == samples.class_PT[samples.class_PT >= 0]).all()
    of_class = [weight_BT[samples.class_PT == k].sum() for k in (0, 1)]
    assert of_class[0] == pytest.approx(of_class[1])  # classes weigh alike: 13 steps of a, 12 of b


def test_steps_are_answers_of_their_own_in_the_folds_of_their_samples() -> None:
    samples = labelled(text((0, 1, "a")), *[HALVES] * 6)
    steps = samples.steps
    assert len(steps.known_P) == 25
    assert (steps.fold_P == samples.fold_P[steps.known_P]).all()
    answer_PTK = np.zeros((len(samples.tested_P), FRAMES, 2))
    answer_PTK[..., 0] = np.arange(answer_PTK[..., 0].size).reshape(answer_PTK.shape[:2])
    assert samples.of_steps(answer_PTK)[:3, 0].tolist() == [0, 4, 5]
    assert steps.tested == "25 tested steps of 7 samples"


@pytest.mark.parametrize(
    ("answer", "classes", "said"),
    [
        (text((0, 8, "a")), (), r"sample s0: the span 0 to 8 \(a\) ends after the file, which has 7 frames; correct the table"),
        (text((0, 4.5, "a"), unit="seconds"), (), r"ends after the file, which has 3.5 seconds"),
        (text((0, 2, "x")), ("a", "b"), r"sample s0, span 0 to 2: unknown class 'x', the classes are a, b; correct it"),
        (text((0, 2, "a")), ("a", "b", "c"), r"of each one, there are 11 of a, 10 of b, 0 of c"),
        ("walk", (), "sample s0 has the answer 'walk', expected spans; see labels.spans"),
    ],
)
def test_wrong_spans_are_refused(answer: str, classes: tuple[str, ...], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        labelled(answer, *[HALVES] * 5, classes=classes)


def test_seconds_need_times_of_frames() -> None:
    with pytest.raises(
        RequestError, match=r"sample s0: its frames have no times: set source.frame_time, or labels.spans: frames"
    ):
        labelled(text((0, 2, "a"), unit="seconds"), *[HALVES] * 5, frame_s=np.nan)


# ---------------------------------------------------------------- tables


def read(path: Path, content: str, unit: str = "frames") -> Answers:
    (path / "spans.csv").write_text(content)
    return read_spans(path / "spans.csv", SpanColumns(), unit)  # type: ignore[arg-type]


def test_a_table_of_spans_is_read_in_order_of_time(tmp_path: Path) -> None:
    found = read(tmp_path, "file,from,to,label,group\na.avi,4,7,run,p1\na.avi,0,4,walk,p1\na.avi,7,9,,p1\nb.avi,,,,p2\n")
    assert found.of_file["a.avi"].answer == '{"unit":"frames","spans":[[0.0,4.0,"walk"],[4.0,7.0,"run"]]}'
    assert (found.of_file["b.avi"].answer, found.of_file["b.avi"].group) == ("", "p2")
    found.require_files(["x/a.avi", "b.avi"])
    with pytest.raises(RequestError, match=r"spans.csv, line 5: b.avi names no file below source.path: correct the name"):
        found.require_files(["a.avi"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("a,0,5,x\na,4,6,y", r"spans.csv, lines 2 and 3: the spans 0 to 5 \(x\) and 4 to 6 \(y\) of a overlap"),
        ("a,5,5,x", r"line 2: the span from 5 to 5 ends before it begins"),
        ("a,-1,5,x", r"line 2: expected whole numbers of frames from 0, got a span from -1 to 5"),
        ("a,0,1.5,x", r"line 2: expected whole numbers of frames from 0, got a span from '0' to '1.5'; see labels.spans"),
        ("a,,5,x", r"line 2: expected whole numbers of frames from 0"),
        (",0,5,x", r"line 2: names no file"),
    ],
)
def test_tables_of_wrong_spans_are_refused_by_line(tmp_path: Path, lines: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read(tmp_path, f"file,from,to,label\n{lines}\n")


def test_the_lines_of_answers_can_be_read_as_a_table_of_labels(tmp_path: Path) -> None:
    samples = labelled(text((0, 3, "a")), *[HALVES] * 5)
    answer_NTK = np.tile(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]), (6, 1, 1))
    rows = step_rows(samples.table, ("a", "b"), answer_NTK, np.ones(6, bool), "frames")
    own = [(row["from"], row["to"], row["steps"], row["known"], row["label"]) for row in rows if row["sample"] == "s0"]
    assert own == [("0", "2", 1, "a", "a"), ("2", "4", 1, "a", "b"), ("4", "7", 2, "", "b")]
    assert rows[2]["confidence"] == pytest.approx(0.75)
    lines = [f"{row['file']},{row['from']},{row['to']},{row['label']}" for row in rows]
    again = read(tmp_path, "file,from,to,label\n" + "\n".join(lines))
    known = labelled(*[again.of_file[f"s{n}"].answer for n in range(6)])
    assert known.class_PT.tolist() == answer_NTK.argmax(axis=-1).tolist()
