"""Samples as training takes them: frames in physical values, mask of frames, target, weight; augmented anew in every epoch.

Shapes: P samples of a part, T frames, C bands, K classes or numbers; HW stands for all axes of space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from pipelines.errors import RequestError
from pipelines.scene import Band

MEASURED_BYTES = 256 << 20  # of samples that mean and standard deviation are taken from


@dataclass(frozen=True)
class SampleAugmentation:
    """What is done to a training sample. All off changes nothing.

    flip: mirrored, each axis in half of the samples. rotate_degrees: turned by up to so much either way. crop: the side of the
    part that is shown, at least so large a share (1: all of it), drawn anew in size and place. noise, brightness, contrast:
    standard deviations, noise and brightness in those of the band. hidden_frames: share of the frames that are hidden (one always
    stays). time_jitter: share of the frames by which begin and end are cut at random. mixup: alpha of the Beta distribution by
    which two samples are mixed (Zhang et al. 2017, arXiv:1710.09412); 0: none.
    """

    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    rotate_degrees: float = 0.0
    crop: float = 1.0
    noise: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    hidden_frames: float = 0.0
    time_jitter: float = 0.0
    mixup: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether pixels change their place."""
        return self.flip != "none" or self.rotate_degrees > 0 or self.crop < 1


NO_AUGMENTATION = SampleAugmentation()


class Uniform(Protocol):
    """A draw: `uniform(low, high, *shape)`; without a shape one number a sample."""

    def __call__(self, low: float, high: float, *shape: int) -> torch.Tensor: ...


@dataclass(frozen=True)
class SampleArrays:
    """All samples of a store as arrays: `image_NTCHW` stored values, `valid_NT`, `target_NK` float32, `weight_N`.

    Of labels of steps target_NTK, and weight_NT, which is 0 where a step is not labelled.
    """

    image_NTCHW: np.ndarray
    valid_NT: np.ndarray
    bands: Sequence[Band]
    target_NK: np.ndarray
    weight_N: np.ndarray

    def __reduce__(self) -> tuple[Callable[..., SampleArrays], tuple[object, ...]]:
        """Frames that are the memory map of a whole file travel by its name."""
        others = self.valid_NT, self.bands, self.target_NK, self.weight_N
        path = getattr(self.image_NTCHW, "filename", None)
        if path is not None:
            whole = np.load(path, mmap_mode="r", allow_pickle=False)
            if (whole.shape, whole.dtype) == (self.image_NTCHW.shape, self.image_NTCHW.dtype):
                return _reopened, (Path(path).absolute(), *others)
        return SampleArrays, (self.image_NTCHW, *others)

    def physical(self, index_P: np.ndarray, step_P: np.ndarray | None = None) -> torch.Tensor:
        """x_PTCHW float32; of one step of each sample x_P1CHW."""
        held = self.image_NTCHW[index_P] if step_P is None else self.image_NTCHW[index_P, step_P][:, None]
        stored = np.asarray(held, np.float32)
        if all(band.scale == 1 and band.offset == 0 for band in self.bands):
            return torch.from_numpy(stored)
        space = (slice(None), *[None] * (stored.ndim - 3))
        scale, offset = (np.array([getattr(band, name) for band in self.bands], np.float32) for name in ("scale", "offset"))
        return torch.from_numpy(stored * scale[space] + offset[space])


def _reopened(path: Path, *others: Any) -> SampleArrays:
    if not path.is_file():
        raise RequestError(f"this worker does not see {path}: the run's folder must be one that all of them share")
    return SampleArrays(np.load(path, mmap_mode="r", allow_pickle=False), *others)


class SampleWindows:
    """The samples `part_P` as a `WindowSet`. Without augmentation they are fixed.

    `per_epoch`: so many an epoch, drawn with `draw_P` (chances of each sample; None: each once), which takes the place of the
    weights of whole samples: both would count rare classes twice. `std_C` scales noise and brightness. `per_step`: the weight is
    given for each frame.
    """

    def __init__(
        self, arrays: SampleArrays, part_P: np.ndarray, std_C: np.ndarray, augment: SampleAugmentation, seed: int, *,
        per_step: bool = False, per_epoch: int | None = None, draw_P: np.ndarray | None = None,
    ):  # fmt: skip
        if draw_P is not None and arrays.weight_N.ndim == 1:
            arrays = replace(arrays, weight_N=np.ones_like(arrays.weight_N))
        self.arrays, self.part_P, self.augment, self.seed = arrays, np.asarray(part_P), augment, seed
        self.std_C, self.per_step, self.draw_P = torch.from_numpy(np.asarray(std_C, np.float32)), per_step, draw_P
        self.count = len(self.part_P) if per_epoch is None else per_epoch
        self.epoch = 0
        self._draw()

    @property
    def shapes(self) -> list[int]:
        return [0] * self.count

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self._draw()

    def _draw(self) -> None:
        """Which sample each window shows in this epoch."""
        if self.count == len(self.part_P) and self.draw_P is None:
            self.shown = self.part_P
            return
        rng = np.random.default_rng([self.seed, self.epoch])
        self.shown = rng.choice(
            self.part_P, self.count, replace=self.draw_P is not None or self.count > len(self.part_P), p=self.draw_P
        )

    def gather(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """`x_TCHW`, `valid_T`, `target`, `weight`, each with a leading B."""
        rows = self.shown[indices]
        x, valid_BT = self.arrays.physical(rows), torch.from_numpy(np.ascontiguousarray(self.arrays.valid_NT[rows]))
        target_BK, weight_B = (torch.from_numpy(one[rows]) for one in (self.arrays.target_NK, self.arrays.weight_N))
        if self.augment != NO_AUGMENTATION:
            chance = torch.Generator().manual_seed(
                int(np.random.SeedSequence([self.seed, self.epoch, *indices[:8]]).generate_state(1)[0])
            )
            labels = target_BK, weight_B
            x, valid_BT, (target_BK, weight_B) = augmented(x, valid_BT, labels, self.augment, self.std_C, chance)
        weight = weight_B.reshape(len(rows), -1) * valid_BT if self.per_step else weight_B
        return {"x_TCHW": x, "valid_T": valid_BT, "target": target_BK, "weight": weight}


def augmented(
    x: torch.Tensor, valid_BT: torch.Tensor, labels: tuple[torch.Tensor, ...], how: SampleAugmentation, std_C: torch.Tensor,
    chance: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:  # fmt: skip
    """(x_BTCHW, valid_BT, labels) as `how` says; all frames of a sample are moved alike. labels: target_BK and weight_B."""
    batch, per_band = len(x), std_C.reshape(-1, *[1] * (x.ndim - 3))

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(shape or (batch,), generator=chance) * (high - low) + low

    def normal(scale: float, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=chance) * scale

    if how.moves:
        x = moved(x, how, uniform)
    each = (batch, 1, 1, *[1] * (x.ndim - 3))
    if how.contrast:
        mean = x.mean(dim=tuple(range(3, x.ndim)), keepdim=True)
        x = mean + (x - mean) * (1 + normal(how.contrast, *each))
    if how.brightness:
        x = x + normal(how.brightness, *each) * per_band
    if how.noise:
        x = x + normal(how.noise, *x.shape) * per_band
    if how.hidden_frames or how.time_jitter:
        valid_BT = with_hidden(valid_BT, how, uniform)
    if how.mixup:
        share_B = torch.from_numpy(_beta(how.mixup, batch, chance))
        partner = torch.randperm(batch, generator=chance)

        def mixed(of_sample: torch.Tensor) -> torch.Tensor:
            share = share_B.reshape(-1, *[1] * (of_sample.ndim - 1))
            return of_sample * share + of_sample[partner] * (1 - share)

        x, labels = mixed(x), tuple(mixed(one) for one in labels)
        valid_BT = valid_BT | valid_BT[partner]
    return x, valid_BT, labels


def moved(x: torch.Tensor, how: SampleAugmentation, uniform: Uniform) -> torch.Tensor:
    """Flipped, turned, cut and enlarged again; the border is continued where nothing is known."""
    from torch.nn.functional import affine_grid, grid_sample

    batch = len(x)
    flip_x = 1 - 2 * (uniform(0, 1) < 0.5).float() if how.flip in ("horizontal", "both") else torch.ones(batch)
    flip_y = 1 - 2 * (uniform(0, 1) < 0.5).float() if how.flip in ("vertical", "both") else torch.ones(batch)
    size = uniform(how.crop, 1.0)
    angle = torch.deg2rad(uniform(-how.rotate_degrees, how.rotate_degrees))
    cos, sin = angle.cos() * size, angle.sin() * size
    shift = (1 - size)[:, None] * uniform(-1, 1, batch, 2)
    aspect = x.shape[-1] / x.shape[-2]  # so that a turn stays a turn
    theta = torch.stack(
        [
            torch.stack([cos * flip_x, -sin * flip_y / aspect, shift[:, 0]], dim=1),
            torch.stack([sin * flip_x * aspect, cos * flip_y, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    planes = x.flatten(1, -3)  # every frame, band and slice of a sample moves alike
    grid = affine_grid(theta, list(planes.shape), align_corners=False)
    return grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False).reshape(x.shape)


def with_hidden(valid_BT: torch.Tensor, how: SampleAugmentation, uniform: Uniform) -> torch.Tensor:
    """The mask with frames hidden and both ends cut; where nothing would stay, as it was."""
    batch, frames = valid_BT.shape
    kept = valid_BT
    if how.hidden_frames:
        kept = kept & (uniform(0, 1, batch, frames) >= how.hidden_frames)
    if how.time_jitter:
        length = valid_BT.sum(1)
        first = (uniform(0, how.time_jitter) * length).floor()
        last = length - (uniform(0, how.time_jitter) * length).floor()
        number = valid_BT.cumsum(1) - 1
        kept = kept & (number >= first[:, None]) & (number < last[:, None])
    return torch.where(kept.any(1, keepdim=True), kept, valid_BT)


def _beta(alpha: float, count: int, chance: torch.Generator) -> np.ndarray:
    seed = int(torch.randint(2**31, (1,), generator=chance))
    share: np.ndarray = np.random.default_rng(seed).beta(alpha, alpha, count).astype(np.float32)
    larger: np.ndarray = np.maximum(share, 1 - share)
    return larger


def measure_bands(arrays: SampleArrays, part_P: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean_C, std_C) float32 over the valid frames of the part, of at most `MEASURED_BYTES` drawn at random; constant: std 1."""
    each = max(1, int(np.prod(arrays.image_NTCHW.shape[1:])) * 4)
    most = max(1, MEASURED_BYTES // each)
    if len(part_P) > most:
        part_P = np.sort(np.random.default_rng(seed).choice(part_P, most, replace=False))
    x, valid_PT = arrays.physical(part_P).numpy(), arrays.valid_NT[part_P]
    values_FC = np.moveaxis(x[valid_PT], 1, 0).reshape(x.shape[2], -1)
    mean_C, std_C = values_FC.mean(axis=1, dtype=np.float64), values_FC.std(axis=1, dtype=np.float64)
    std_C[std_C <= 1e-9 * np.abs(mean_C)] = 1.0
    return mean_C.astype(np.float32), std_C.astype(np.float32)
