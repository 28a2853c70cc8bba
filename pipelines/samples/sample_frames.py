"""Frames of a sample as all samples are stored: cut, thinned, resized to one size.

Shapes as in `pipelines.sources.samples`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipelines.errors import SceneRefused
from pipelines.sources.samples import Frames, evenly_spread

Fit = Literal["cut", "stretch", "pad"]
MODES = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class FrameSettings:
    """What becomes of the frames of each sample.

    `crop`: the part that is kept, as shares of the axes (first row, first column, last row, last column). `size`: ([z,] y, x)
    afterwards; None: they must have one size already. `fit`: cut what exceeds the target's proportions (as much on both sides),
    stretch, or pad with 0. `count`: frames that are kept, evenly chosen; shorter samples are padded with frames that are not
    valid.
    """

    count: int | None = None
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    size: tuple[int, ...] | None = None
    fit: Fit = "cut"


def shape_frames(frames: Frames, settings: FrameSettings, name: str) -> Frames:
    """The frames as they are stored, pixels that are not valid as 0; of `valid_THW` only whole frames are told apart afterwards.

    Raises SceneRefused: wrong-grid where nothing is left, all-nodata where no frame has a valid pixel.
    """
    kept_T = evenly_spread(len(frames.image_TCHW), settings.count)
    image, valid = frames.image_TCHW[kept_T], None if frames.valid_THW is None else frames.valid_THW[kept_T]
    box = crop_box(image.shape[-2:], settings.crop)
    if box[0].start >= box[0].stop or box[1].start >= box[1].stop:
        raise SceneRefused(name, "wrong-grid", f"frames.crop leaves nothing of {image.shape[-2]} x {image.shape[-1]} pixels")
    rows, columns = box
    image, valid = image[..., rows, columns], None if valid is None else valid[..., rows, columns]
    if valid is not None:
        image = np.where(valid[:, None], image, image.dtype.type(0))
    if settings.size is not None:
        if len(settings.size) != image.ndim - 2:
            raise SceneRefused(name, "wrong-grid", f"frames.size has {len(settings.size)} axes, the frames {image.ndim - 2}")
        image = resize(image, settings.size, settings.fit)
    height, width = frames.image_TCHW.shape[-2:]
    facts = {"rows": float(height), "columns": float(width), "frames": float(len(frames.image_TCHW)), **frames.facts}
    shaped = replace(frames, image_TCHW=image, seconds_T=frames.seconds_T[kept_T], valid_THW=valid, facts=facts)
    if not shaped.valid_T.any():
        raise SceneRefused(name, "all-nodata", "none of its frames has a usable pixel")
    return shaped


def crop_box(shape_yx: tuple[int, ...], crop: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Rows and columns of the part that is kept."""
    (height, width), (top, left, bottom, right) = shape_yx, crop
    return (
        slice(round(top * height), round(bottom * height)),
        slice(round(left * width), round(right * width)),
    )


def frame_scale(shape_yx: tuple[int, int], settings: FrameSettings) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift) of both axes, with which a place in pixels of the file (edges: 0 to its sides) lies in the stored frame.

    Place in the stored frame = place in the file x scale + shift.

    >>> frame_scale((20, 40), FrameSettings(size=(10, 10)))  # the middle 20 columns, halved
    (array([0.5, 0.5]), array([ 0., -5.]))
    """
    box = crop_box(shape_yx, settings.crop)
    begin, sides = np.array([one.start for one in box]), tuple(one.stop - one.start for one in box)
    if settings.size is None or sides == settings.size:
        return np.ones(2), -begin.astype(float)
    padding = np.zeros(2)
    if settings.fit == "cut":
        part = _proportioned(sides, settings.size)
        begin, sides = begin + [one.start for one in part], tuple(one.stop - one.start for one in part)
    target = _fitting(sides, settings.size) if settings.fit == "pad" else settings.size
    if settings.fit == "pad":
        padding = np.array([(size - side) // 2 for size, side in zip(settings.size, target, strict=True)])
    scale = np.array(target) / np.array(sides)
    return scale, padding - begin * scale


def resize(image_TCHW: np.ndarray, size: tuple[int, ...], fit: Fit) -> np.ndarray:
    """Same dtype, values rounded: the area mean where frames become smaller, linear between pixels where they become larger."""
    if image_TCHW.shape[2:] == size:
        return image_TCHW
    import torch
    from torch.nn.functional import interpolate

    every = (slice(None), slice(None))
    image = image_TCHW[(*every, *_proportioned(image_TCHW.shape[2:], size))] if fit == "cut" else image_TCHW
    target = _fitting(image.shape[2:], size) if fit == "pad" else size
    values = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    axes = len(size)
    shrinks = all(new <= old for new, old in zip(target, image.shape[2:], strict=True))
    if shrinks and axes == 3:
        values = interpolate(values, target, mode="area")
    else:  # antialias: a triangle as wide as the step between the new pixels
        values = interpolate(values, target, mode=MODES[axes], align_corners=False, **({"antialias": True} if axes == 2 else {}))
    resized = values.numpy()
    if image_TCHW.dtype.kind in "iu":
        limits = np.iinfo(image_TCHW.dtype)
        resized = np.clip(np.rint(resized), limits.min, limits.max)
    padding = [(0, 0), (0, 0), *(((new - old) // 2, new - old - (new - old) // 2) for old, new in zip(target, size, strict=True))]
    return np.pad(resized.astype(image_TCHW.dtype), padding)


def _proportioned(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
    """The largest box in the middle with the proportions of `size`."""
    factor = min(have / want for have, want in zip(shape, size, strict=True))
    kept = [max(1, min(have, round(want * factor))) for have, want in zip(shape, size, strict=True)]
    return tuple(slice((have - keep) // 2, (have - keep) // 2 + keep) for have, keep in zip(shape, kept, strict=True))


def _fitting(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    """The largest size with the proportions of `shape` that lies within `size`."""
    factor = min(want / have for have, want in zip(shape, size, strict=True))
    return tuple(max(1, min(want, round(have * factor))) for have, want in zip(shape, size, strict=True))
