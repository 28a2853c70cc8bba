"""Maps of windows, boxes, sentences and scores of images by several workers are those of one, byte for byte."""

import json
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.baselines.box_references import bright_components, thumbnails
from models.baselines.class_references import RandomForest
from models.blocks.centre_points import decode_boxes
from models.pixel_model import build_pixel_model
from pipelines.compute import HERE, Compute
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.inference import box_references, pixel_drawing, sample_boxes, sample_captions
from pipelines.inference.box_references import found_parts
from pipelines.inference.pixel_drawing import score_images
from pipelines.inference.sample_batches import Kept
from pipelines.inference.sample_boxes import held_out_boxes
from pipelines.inference.sample_captions import held_out_captions
from pipelines.inference.window_maps import WindowMapWork, predict_windows
from pipelines.samples.boxed_samples import BoxedSamples, label_boxes
from pipelines.samples.captioned_samples import label_captions
from pipelines.samples.cube_windows import WindowSettings, open_windows
from pipelines.samples.labelled import SplitSettings
from pipelines.samples.sample_frames import FrameSettings
from pipelines.samples.sample_store import SampleLayout
from pipelines.scene import Band
from pipelines.sources.fake import FakeSource
from tests.unit.inference.test_sample_boxes import Marks
from tests.unit.samples.test_labelled import images_of, table_of

sys.path.insert(0, str(Path(__file__).parent))  # workers import what they unpickle; importlib mode does not add test folders
from map_driver import Mean

THREADS = Compute(workers=3)
COUNT, FRAMES, SIDE = 12, 2, 16


@pytest.fixture
def arrange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`arrange(folder)`: a map of 40 x 28 pixels in 3 x 2 parts, two folds, and where its parts are kept."""
    monkeypatch.setattr("pipelines.samples.cube_windows.TILE_PX", 16)
    uri = str(tmp_path / "cube")
    ingest(FakeSource(dates=4, shape_yx=(40, 28), bands=("red",)), None, uri, None, IngestSettings(chunk_px=32))

    def of(folder: str) -> tuple[WindowMapWork, Kept]:
        windows = open_windows(uri, ["red"], WindowSettings(window_px=3, block_px=8, steps=3))
        folds = {"block 00000-00000": 0, "block 00004-00003": 1}
        return WindowMapWork(windows, windows.spans[0], Mean(), folds, 1), Kept(tmp_path / folder, "map")

    return of


def parts_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.npy")}


@pytest.mark.parametrize(
    "compute", [THREADS, Compute("processes", workers=2), pytest.param(Compute("dask", workers=2), marks=pytest.mark.exhaustive)]
)
def test_a_map_of_windows_does_not_depend_on_who_made_its_parts(arrange: Any, tmp_path: Path, compute: Compute) -> None:
    expected = predict_windows(*arrange("here"))
    seen: list[tuple[int, int]] = []
    found = predict_windows(*arrange("there"), compute, lambda done, total: seen.append((done, total)))
    assert found.answer_KHW.tobytes() == expected.answer_KHW.tobytes()
    assert np.array_equal(found.held_out_HW, expected.held_out_HW)
    assert expected.held_out_HW.sum() == 8 * 8 + 8 * 4  # the second block ends at the edge
    assert np.isfinite(expected.answer_KHW).mean() > 0.9
    assert parts_of(tmp_path / "there") == parts_of(tmp_path / "here")
    assert seen == [(done, 6) for done in range(7)]


@pytest.fixture
def boxed(tmp_path: Path) -> BoxedSamples:
    """Twelve samples in four groups with a bright bar in each frame; the first pixel of a frame names a cell to `Marks`."""
    image = np.zeros((COUNT, FRAMES, 1, SIDE, SIDE), np.uint8)
    answers = []
    for n in range(COUNT):
        height, width = (4, 8) if n % 2 else (8, 4)
        image[n, :, 0, 4 : 4 + height, 4 : 4 + width] += 200
        image[n, :, 0, 0, 0] = n
        answers.append([[frame, 4, 4, 3 + height, 3 + width, "wide" if n % 2 else "tall"] for frame in range(FRAMES)])
    np.save(tmp_path / "frames.npy", image)
    layout = SampleLayout(FRAMES, (Band("gray"),), (SIDE, SIDE), np.dtype(np.uint8), {"frames": asdict(FrameSettings())})
    table = table_of([json.dumps(one) for one in answers], [f"g{n % 4}" for n in range(COUNT)])
    facts = {"rows": SIDE, "columns": SIDE, "frames": FRAMES}
    table = replace(
        table, layout=layout, valid_NT=np.ones((COUNT, FRAMES), bool), facts={k: np.full(COUNT, v) for k, v in facts.items()}
    )
    return label_boxes(table, np.load(tmp_path / "frames.npy", mmap_mode="r"), ("wide", "tall"), SplitSettings(folds=2))


def test_boxes_and_those_of_a_reference_do_not_depend_on_who_found_them(
    boxed: BoxedSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_boxes, "STORED_SAMPLES", 4)
    monkeypatch.setattr(box_references, "AT_ONCE", 4)
    decode = partial(decode_boxes, shape_yx=(SIDE, SIDE), most=4, least=0.02)

    def find(compute: Compute) -> tuple[bytes, bytes]:
        model, kept = Marks(), Kept(tmp_path / compute.kind / str(compute.workers), "model")
        found = held_out_boxes(boxed, model, decode, kept, compute=compute).table()
        assert set(found[:, 0]) == set(range(COUNT))
        assert model.calls == 4  # two folds of six samples, four of them in a file
        held_out_boxes(boxed, model, decode, kept, compute=compute)
        assert model.calls == 4
        forest = partial(RandomForest, 2, 0)
        parts = found_parts(boxed, bright_components, thumbnails, forest, 100, 0, compute=compute)
        assert set(parts.sample_X) == set(range(COUNT))
        assert np.array_equal(parts.edges_X4[:, 2], np.where(parts.sample_X % 2, 8, 12))
        return found.tobytes(), parts.table().tobytes()

    assert find(THREADS) == find(HERE)


def test_sentences_do_not_depend_on_who_wrote_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_captions, "STORED_SAMPLES", 2)
    texts = ["a cat", "a dog", "two cats", "a cat", "two dogs", "a dog"] * 2
    samples = label_captions(table_of(texts, [f"g{n}" for n in range(12)]), images_of(12), SplitSettings(folds=3), longest=2)

    def write(model: Any, members: Any, x: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        word_B = (x.sum((1, 2, 3, 4)).long() + members[0]) % len(samples.outputs)
        return torch.stack([word_B, word_B * 0], dim=1)[:, None], -(x.mean((1, 2, 3, 4)) / 255).double()[:, None]

    model: Any = Marks()
    model.outputs = samples.outputs
    found = [held_out_captions(samples, model, write, Kept(tmp_path / str(one.workers), "m"), one) for one in (HERE, THREADS)]
    alone = held_out_captions(samples, model, write)
    for one in found:
        assert one.words_PW == alone.words_PW
        assert one.probability_PW.tobytes() == alone.probability_PW.tobytes()
    assert len(set(alone.words_PW)) > 2


def test_scores_of_images_do_not_depend_on_who_computed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_drawing, "BATCH", 8)
    model = build_pixel_model({"kind": "pixel_rnn", "height": 5, "width": 4, "hidden": 5}, 0).eval()
    torch.nn.init.normal_(model.network.head.weight, std=2.0)
    x_NHW = np.random.default_rng(0).integers(0, 2, (30, 5, 4)).astype(np.uint8)
    seen: list[int] = []
    found_N = score_images(model, x_NHW, lambda done, total: seen.append(done), THREADS)
    assert found_N.tobytes() == score_images(model, x_NHW).tobytes()
    assert len(set(found_N.tolist())) > 20
    assert (sorted(seen), len(score_images(model, x_NHW[:0]))) == (seen, 0)
    assert seen[-1] == 30
