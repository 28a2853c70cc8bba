"""What networks and references say of labels does not depend on who asks them."""

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.build import build_class_references
from pipelines.compute import HERE, Compute
from pipelines.errors import RequestError
from pipelines.inference.class_score_work import spread_scores
from pipelines.inference.class_scores import ClassComparison, cuts_of, early_labels
from pipelines.progress import ignore_progress
from pipelines.samples.class_samples import ClassSamples, SpanImages
from pipelines.samples.labels import Labels, Span

sys.path.insert(0, str(Path(__file__).parent))  # workers import what they unpickle; importlib mode does not add test folders
from map_driver import Brightness

WORKERS = [pytest.param(Compute(kind, workers=2), marks=pytest.mark.exhaustive) for kind in ("processes", "dask")]
SPAN = Span(np.datetime64("2016-01-01", "s"), np.datetime64("2017-01-01", "s"))
SIDE, DATES = 24, 3


@pytest.fixture
def comparison(tmp_path: Path) -> ClassComparison:
    """Bright and dark halves with noise, images in files; two networks, each of a fold, which halo and kills as it is told to."""
    rng, half = np.random.default_rng(0), np.arange(SIDE) < SIDE // 2
    arrays = {
        "x": (0.1 + 0.1 * half + rng.normal(0, 0.05, (DATES, 2, SIDE, SIDE))).astype(np.float32),
        "valid": rng.random((DATES, SIDE, SIDE)) > 0.2,
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    x_TCHW, valid_THW = (np.asarray(np.load(tmp_path / f"{name}.npy", mmap_mode="c")) for name in arrays)
    images = SpanImages(SPAN, x_TCHW, valid_THW, np.linspace(0, 0.8, DATES, dtype=np.float32))
    row_P, column_P = np.divmod(np.sort(rng.choice(SIDE * SIDE, 200, replace=False)), SIDE)
    class_P, zero_P = half[column_P].astype(np.int64), np.zeros(len(row_P), np.int64)
    block_P = row_P // 4
    samples = ClassSamples(
        Labels(("dark", "bright"), (SPAN,), row_P, column_P, zero_P, class_P, len(row_P)), (images,), block_P, block_P % 2
    )
    (tmp_path / "model").mkdir()
    references = build_class_references(["nearest_mean_curve"], 2, 0)
    return ClassComparison("model", samples, Brightness(tmp_path / "model"), references, 50, 0, 16)


def content(score, comparison: ClassComparison) -> list[tuple[str, bytes, bytes]]:
    asked = [(comparison.all_P, None), *((early_labels(comparison.samples, 0), cut) for cut in cuts_of(comparison.samples))]
    return [
        (name, one.class_P.tobytes(), b"" if one.probability_PK is None else one.probability_PK.tobytes())
        for p, cut in asked
        for name, one in score(p, cut).items()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("compute", [Compute(workers=2), *WORKERS], ids=lambda one: one.kind)
def test_whoever_is_asked_the_scores_are_the_same(comparison: ClassComparison, compute: Compute, tmp_path: Path) -> None:
    """Of networks of folds and of networks that were trained elsewhere; also where a worker is lost."""
    torch.set_num_threads(1)
    shown: list[tuple[int, int]] = []
    for one in (comparison, replace(comparison, is_own=False, references={})):
        expected = content(one.score, one)
        if not compute.is_local:
            (tmp_path / "model" / "kill-0").touch()
        assert content(spread_scores(one, compute, lambda done, total: shown.append((done, total))), one) == expected
        assert not list((tmp_path / "model").glob("kill-*"))
        if not compute.is_local:
            break  # their processes have started once
    assert shown[-1][0] == shown[-1][1]
    assert len(expected) >= DATES


def test_with_one_thread_nothing_is_answered_beforehand(comparison: ClassComparison) -> None:
    shown: list[int] = []
    assert spread_scores(comparison, HERE, lambda done, total: shown.append(done)) == comparison.score
    assert not shown


def test_references_travel() -> None:
    built = pickle.loads(pickle.dumps(build_class_references(["random_forest", "nearest_mean_curve"], 2, 0)))
    assert [type(build()).__name__ for build in built.values()] == ["RandomForest", "NearestMeanCurve"]


def test_images_travel_by_name(comparison: ClassComparison, tmp_path: Path) -> None:
    (images,) = comparison.samples.images
    content = pickle.dumps(images)
    assert len(content) < images.x_TCHW.nbytes
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.x_TCHW, images.x_TCHW)
    np.testing.assert_array_equal(again.valid_THW, images.valid_THW)
    part = replace(images, x_TCHW=images.x_TCHW[1:], valid_THW=images.valid_THW[1:], years_T=images.years_T[1:])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).x_TCHW, part.x_TCHW)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(RequestError, match=r"this worker does not see .*x\.npy"):
        spread_scores(comparison, Compute(workers=2), ignore_progress)
