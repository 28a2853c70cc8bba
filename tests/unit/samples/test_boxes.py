"""Boxes move with their frames: cropped, thinned, resized, mirrored; wrong ones are refused in words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.blocks.centre_points import GEOMETRY, STRIDE, centres_of, decode_boxes, heat_of
from models.box_losses import focal_l1
from pipelines.errors import RequestError
from pipelines.products.box_products import COLUMNS as COLUMNS_OF_BOXES
from pipelines.products.box_products import box_rows
from pipelines.products.label_products import write_rows
from pipelines.samples.boxed_samples import BoxWindows, flipped, label_boxes, padded_boxes
from pipelines.samples.boxes import FilePlaces
from pipelines.samples.labelled import SplitSettings
from pipelines.samples.sample_frames import FrameSettings, shape_frames
from pipelines.samples.sample_store import SampleLayout, SampleTable
from pipelines.samples.sample_windows import SampleAugmentation
from pipelines.scene import Band
from pipelines.sources.answers import BoxColumns, read_boxes
from pipelines.sources.samples import Frames

ROWS, COLUMNS, FRAMES = 40, 60, 7
BOX = (12, 26, 23, 37)  # rows 12 to 23, columns 26 to 37 of the file
SHAPED = [
    {},
    {"crop": (0.1, 0.2, 0.9, 0.8)},
    {"size": (20, 30)},
    {"size": (20, 20)},
    {"size": (20, 20), "fit": "stretch"},
    {"size": (20, 20), "fit": "pad"},
    {"size": (80, 90), "fit": "pad", "crop": (0.0, 0.1, 1.0, 0.9)},
    {"count": 3, "crop": (0.25, 0.0, 1.0, 1.0), "size": (24, 24)},
]


def make_table(
    answers: list[str], frames: np.ndarray, settings: dict[str, Any], **changes: Any
) -> tuple[SampleTable, np.ndarray]:
    """Samples with the same frames, shaped as the store would, and their images."""
    shaped = shape_frames(Frames(frames, np.arange(len(frames)) * 1.0), FrameSettings(**settings), "one")
    image = np.stack([shaped.image_TCHW] * len(answers))
    named = {"count": None, "crop": (0, 0, 1, 1), "size": None, "fit": "cut", **settings}
    layout = SampleLayout(image.shape[1], (Band("gray"),), image.shape[3:], image.dtype, {"frames": named})
    ids, valid = np.array([f"s{n}" for n in range(len(answers))], object), np.ones(image.shape[:2], bool)
    text = {"answer_N": np.array(answers, object), "part_N": np.array([""] * len(ids), object)}
    facts = {name: np.full(len(ids), shaped.facts[name]) for name in ("rows", "columns", "frames")}
    table = SampleTable(
        layout, np.arange(len(ids)), ids, group_N=ids, file_N=ids, valid_NT=valid, seconds_NT=valid * 1.0, facts=facts, **text
    )
    return table, image


def bright(box: tuple[int, int, int, int], shape: tuple[int, int] = (ROWS, COLUMNS)) -> np.ndarray:
    frames = np.zeros((FRAMES, 1, *shape), np.float32)
    frames[:, :, box[0] : box[2] + 1, box[1] : box[3] + 1] = 100
    return frames


def answer(*boxes: tuple[Any, ...]) -> str:
    return json.dumps(boxes)


@pytest.mark.parametrize("settings", SHAPED)
def test_a_box_stays_around_its_object(settings: dict[str, Any]) -> None:
    table, image = make_table([answer((6, *BOX, "a"))] * 4, bright(BOX), settings)
    samples = label_boxes(table, image, (), SplitSettings(folds=2))
    assert len(samples.boxes) == 4
    assert set(samples.boxes.frame_X) == {image.shape[1] - 1}  # the last frame is kept
    top, left, bottom, right = samples.boxes.edges_X4[0]
    rows, columns = np.nonzero(image[0, -1, 0] > 50)
    np.testing.assert_allclose([top, left, bottom, right], [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], atol=1)
    inside = image[0, -1, 0, int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)]
    assert inside.mean() > 85
    places = FilePlaces(table.layout, table.facts)
    np.testing.assert_allclose(places.in_file(0, samples.boxes.edges_X4[:1]), [[12, 26, 24, 38]], atol=1e-9)


def test_what_is_published_reads_as_what_is_known_of_every_sample(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"size": (20, 30)}
    table, image = make_table([answer((6, *BOX, "a")), answer(), answer((0, *BOX, "a"), (3, *BOX, "a"))], bright(BOX), settings)
    boxes = label_boxes(table, image, (), SplitSettings(folds=2)).boxes
    write_rows(box_rows(table, ["a"], boxes, np.zeros(3, bool)), COLUMNS_OF_BOXES, tmp_path / "boxes.csv")
    known = read_boxes(tmp_path / "boxes.csv", BoxColumns()).of_file
    assert [known[name].answer for name in table.file_N] == [text.replace(" ", "") for text in table.answer_N]


def test_what_is_left_out_is_counted() -> None:
    outside, half, other = (6, 0, 0, 5, 5, "a"), (6, 8, 8, 15, 15, "a"), (6, *BOX, "b")
    table, image = make_table(
        [answer(outside, half, (1, *BOX, "a"), other, (6, *BOX, "a"))] * 4 + [""],
        bright(BOX),
        {"count": 2, "crop": (0.25, 0, 1, 1)},
    )
    samples = label_boxes(table, image, ("a",), SplitSettings(folds=2))
    assert dict(samples.dropped) == {
        "samples without an answer": 1,
        "boxes mostly outside the part that is kept": 4,
        "boxes in frames that are not kept": 4,
        "boxes of another class": 4,
    }
    np.testing.assert_allclose(samples.boxes.edges_X4[0], [0, 8, 6, 16])  # half of it is above the part that is kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a cat", "expected .*frame, first row"),
        (answer((0, 1, 2, 3)), "expected .*frame, first row"),
        (answer((7, *BOX, "a")), "frame 7, .*has 7 frames of 40 rows and 60 columns, counted from 0"),
        (answer((0, 1, 1, 40, 5, "a")), "rows 1 to 40"),
        (answer((0, 5, 5, 4, 9, "a")), "rows 5 to 4"),
        ("[]", "no box of any class is known"),
    ],
)
def test_answers_that_are_no_boxes_in_the_frames_are_refused(text: str, said: str) -> None:
    table, image = make_table([text] * 4, bright(BOX), {})
    with pytest.raises(RequestError, match=said):
        label_boxes(table, image, (), SplitSettings(folds=2))


def test_boxes_are_mirrored_with_their_frames() -> None:
    table, image = make_table([answer((0, *BOX, "a"))] * 8, bright(BOX), {})
    samples = label_boxes(table, image, (), SplitSettings(folds=2))
    windows = BoxWindows(samples.arrays, np.arange(8), np.ones(1), SampleAugmentation(flip="both"), 0, per_step=True)
    batch = windows.gather(list(range(8)))
    assert batch["weight"].shape == (8, FRAMES)
    seen = set()
    for x_TCHW, boxes_X6 in zip(batch["x_TCHW"], batch["target"], strict=True):
        top, left, bottom, right = boxes_X6[0, 1:5].int().tolist()
        assert x_TCHW[0, 0, top:bottom, left:right].min() == 100
        assert (x_TCHW[0, 0] > 0).sum() == (bottom - top) * (right - left)
        seen.add((top, left))
    assert len(seen) == 4  # each axis in some samples
    with pytest.raises(RequestError, match="may mirror them"):
        BoxWindows(samples.arrays, np.arange(8), np.ones(1), SampleAugmentation(rotate_degrees=5), 0)
    twice = flipped(
        *flipped(batch["x_TCHW"], batch["target"], 0, torch.ones(8, dtype=torch.bool)), 0, torch.ones(8, dtype=torch.bool)
    )
    assert torch.equal(twice[0], batch["x_TCHW"])
    assert torch.equal(twice[1], batch["target"])


def write(folder: Path, *lines: str) -> Path:
    path = folder / "boxes.csv"
    path.write_text("\n".join(("file,frame,top,left,bottom,right,label,group", *lines)))
    return path


def test_a_table_of_boxes_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.avi,0,1,2,3,4,lesion,p1", "a.avi,2,1,2,3,4,node,p1", "a.avi,2,1,2,3,4,node,p1", "b.avi,,,,,,,p2")
    answers = read_boxes(path, BoxColumns())
    assert json.loads(answers.of_file["a.avi"].answer) == [[0, 1, 2, 3, 4, "lesion"], [2, 1, 2, 3, 4, "node"]]
    assert (answers.of_file["a.avi"].group, answers.of_file["b.avi"].answer, answers.of("c.avi")) == ("p1", "[]", None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.avi,0,1.5,2,3,4,lesion,p1", r"line 2: expected whole numbers from 0 and a class, got frame '0', top '1\.5'"),
        ("a.avi,-1,1,2,3,4,lesion,p1", "frame '-1'"),
        ("a.avi,0,1,2,3,4,,p1", "label ''"),
        ("a.avi,0,5,2,3,4,lesion,p1", "ends before it begins .rows 5 to 3"),
        (",0,1,2,3,4,lesion,p1", "names no file"),
        ("a.avi,0,1,2,3,4,x,p1\na.avi,0,1,2,3,4,y,p2", "another group"),
    ],
)
def test_wrong_tables_of_boxes_are_refused(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_boxes(write(tmp_path, line), BoxColumns())


def test_a_table_without_the_columns_of_boxes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("file,label\na.avi,x\n")
    with pytest.raises(RequestError, match="no column 'frame', only file, label"):
        read_boxes(tmp_path / "boxes.csv", BoxColumns())


# ---------------------------------------------------------------- maps of centre points

KNOWN = torch.tensor([[[0, 2, 3, 14, 12, 1], [1, 20, 1, 31, 21, 0]], [[1, 5, 6, 9, 30, 1], [0, 0, 0, 0, 0, -1]]]).float()
SHAPE = (2, 2, 2, 8, 10)  # B, T, K and cells


def maps_of(boxes_BX6: torch.Tensor) -> torch.Tensor:
    """Maps of a network that is right."""
    centres = centres_of(boxes_BX6, SHAPE[-2:])
    y_BTDHW = torch.zeros(*SHAPE[:2], SHAPE[2] + GEOMETRY, *SHAPE[-2:])
    y_BTDHW[:, :, : SHAPE[2]] = torch.logit(heat_of(centres, SHAPE).clamp(1e-4, 1 - 1e-4))
    y_BTDHW[centres.sample_N, centres.frame_N, SHAPE[2] :, centres.row_N, centres.column_N] = centres.geometry_N4
    return y_BTDHW


def test_boxes_are_read_from_the_maps_that_they_make() -> None:
    found = decode_boxes(maps_of(KNOWN), (32, 40), most=5, least=0.5)
    wanted = [[0, 0, 2, 3, 14, 12, 1], [0, 1, 20, 1, 31, 21, 0], [1, 1, 5, 6, 9, 30, 1]]
    torch.testing.assert_close(found[:, :7], torch.tensor(wanted).float())
    assert decode_boxes(torch.full((1, 1, 6, 2, 2), -9.0), (8, 8), 5, 0.5).shape == (0, 8)
    assert len(decode_boxes(maps_of(KNOWN), (32, 40), most=1, least=0.0)) == 4  # one of each frame


def test_the_loss_is_least_where_the_maps_are_right_and_hidden_frames_do_not_count() -> None:
    weight = torch.ones(2, 2)
    right, wrong = maps_of(KNOWN), torch.zeros(2, 2, 6, 8, 10)
    assert float(focal_l1(right, KNOWN, weight)) < 0.02
    assert float(focal_l1(wrong, KNOWN, weight)) > 5
    hidden = right.clone()
    hidden[1, 1] = 3.0
    weight[1, 1] = 0
    assert float(focal_l1(hidden, KNOWN, weight)) < 0.02
    hidden.requires_grad_()
    loss = focal_l1(hidden, KNOWN, torch.zeros(2, 2))
    loss.backward()
    assert float(loss.detach()) == 0
    moved = KNOWN.clone()
    moved[..., [1, 3]] += STRIDE
    assert float(focal_l1(right, moved, torch.ones(2, 2))) > 1


def test_boxes_are_padded_to_the_most_of_a_sample() -> None:
    table, image = make_table(
        [answer((0, *BOX, "a"), (1, *BOX, "b")), "[]", answer((2, *BOX, "a")), answer((2, *BOX, "a"))], bright(BOX), {}
    )
    samples = label_boxes(table, image, (), SplitSettings(folds=2))
    assert samples.arrays.target_NK[..., 5].tolist() == [[0, 1], [-1, -1], [0, -1], [0, -1]]
    assert padded_boxes(samples.boxes.chosen(np.zeros(0, int)), 2).shape == (2, 1, 6)
    assert samples.sentence == "4 samples in 4 groups with 4 boxes: 3 a, 1 b"
