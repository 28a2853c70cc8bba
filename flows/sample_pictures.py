"""Pictures of samples, and of what the networks looked at. Imported by the stage that draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flows.sample_runs import StoredSamples
from flows.task import Building
from models.sequence_model import SequenceModel
from pipelines.inference.attribution import integrated_gradients
from pipelines.products.label_charts import MOST_SAMPLES, draw_samples
from pipelines.products.label_products import LOOKED_AT, LookedAt, choose_shown, draw_looked_at
from pipelines.products.series_charts import Series, draw_series
from pipelines.products.step_products import Clock, answered_steps, draw_steps

SMALL_PX = 8  # windows of fewer pixels are drawn as curves of their centre


def draw(stored: StoredSamples, model: SequenceModel, answer_NK: np.ndarray, explain: int, building: Building) -> None:
    """Pictures of samples, and of what the first network looked at; of small windows of a cube as curves."""
    table, is_number = stored.table, model.is_number
    first, texts, is_wrong = choose_shown(table, model.outputs, answer_NK, MOST_SAMPLES, is_number=is_number)
    heading = "The samples that are furthest from what is known" if is_number else "The least sure samples"
    draw_examples(stored, model, answer_NK, explain, building.products / LOOKED_AT)
    quicklook = building.pictures / "quicklook.png"
    if is_small(stored):
        names = [band.name for band in table.layout.bands]
        told = zip(first.tolist(), texts, is_wrong.tolist(), strict=True)
        shown = [series_of(stored, n, text, is_wrong=bad) for n, text, bad in told]
        draw_series(shown, names, quicklook, heading)
        return
    middle = [int(np.flatnonzero(table.valid_NT[n])[table.valid_NT[n].sum() // 2]) for n in first]
    images = np.stack([_plane(stored.image[n, t, 0]) for n, t in zip(first, middle, strict=True)])
    draw_samples(images, table.id_N[first].tolist(), texts, is_wrong, quicklook, heading)


def draw_answered_steps(
    clock: Clock, stored: StoredSamples, model: SequenceModel, answer_NTK: np.ndarray, explain: int, building: Building
) -> None:
    """Known and answered spans of samples, and what the first network looked at for their mean answer."""
    table = stored.table
    draw_steps(answered_steps(table, model.outputs, answer_NTK, clock), model.outputs, clock, building.pictures / "quicklook.png")
    weight_NT = table.valid_NT / table.valid_NT.sum(axis=1, keepdims=True)
    answer_NK = np.einsum("ntk,nt->nk", answer_NTK, weight_NT)
    draw_examples(stored, model, answer_NK, explain, building.products / LOOKED_AT)


def draw_examples(stored: StoredSamples, model: SequenceModel, answer_NK: np.ndarray, explain: int, path: Path) -> None:
    """What the first network looked at in some samples; of small windows of a cube as curves."""
    looked = [looked_at(stored, model, answer_NK, n) for n in _examples(answer_NK, explain, is_number=model.is_number)]
    if looked and is_small(stored):
        names = [band.name for band in stored.table.layout.bands]
        draw_series([series_of(stored, n, one.text, one) for n, one in looked], names, path, "What the network looked at")
    elif looked:
        draw_looked_at([one for _, one in looked], path)


def is_small(stored: StoredSamples) -> bool:
    """Whether samples are windows of so few pixels that they are drawn as curves."""
    return stored.table.layout.is_cut and max(stored.table.layout.size) < SMALL_PX


def looked_at(stored: StoredSamples, model: SequenceModel, answer_NK: np.ndarray, n: int) -> tuple[int, LookedAt]:
    """(n, what the first network looked at in the valid frames of sample n)."""
    table = stored.table
    x_TCHW, valid_T = stored.arrays.physical(np.array([n]))[0], torch.from_numpy(np.array(table.valid_NT[n]))
    output = 0 if model.is_number else int(answer_NK[n].argmax())
    weight_THW = integrated_gradients(model, 0, x_TCHW, valid_T, model.mean_MC[0], output)
    frame_T = np.flatnonzero(table.valid_NT[n])
    image_THW, seen_THW = (np.stack([_plane(one[t]) for t in frame_T]) for one in (x_TCHW[:, 0].numpy(), weight_THW))
    return n, LookedAt(table.id_N[n], f"{model.outputs[output]} {answer_NK[n, output]:.3g}", frame_T, image_THW, seen_THW)


def series_of(stored: StoredSamples, n: int, text: str, looked: LookedAt | None = None, *, is_wrong: bool = False) -> Series:
    """The bands of the centre pixel of a window of a cube, and what its frames speak for."""
    table, middle = stored.table, stored.table.layout.size[-1] // 2
    x_TC = stored.arrays.physical(np.array([n]))[0, :, :, middle, middle].numpy()
    x_TC = np.where(table.valid_NT[n][:, None], x_TC, np.nan)
    weight_T = None
    if looked is not None:
        weight_T = np.zeros(len(x_TC))
        weight_T[looked.frame_T] = looked.weight_THW.sum(axis=(1, 2))
    return Series(table.id_N[n], text, table.seconds_NT[n] / 86_400, x_TC, is_wrong, weight_T)


def _plane(image: np.ndarray) -> np.ndarray:
    """(y, x): the image, or the middle slice of a volume."""
    return image if image.ndim == 2 else image[len(image) // 2]


def _examples(answer_NK: np.ndarray, most: int, *, is_number: bool) -> list[int]:
    """The surest sample of each class that is answered, or samples from the smallest to the largest number; at most so many."""
    if is_number:
        order_N = answer_NK[:, 0].argsort(kind="stable")
        return order_N[np.unique(np.linspace(0, len(order_N) - 1, most).astype(int))].tolist() if most else []
    found = []
    for k in range(answer_NK.shape[1]):
        own = (answer_NK.argmax(axis=1) == k).nonzero()[0]
        if len(own):
            found.append(int(own[answer_NK[own, k].argmax()]))
    return found[:most]
