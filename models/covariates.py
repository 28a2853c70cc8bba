"""What a forecaster is given beside the images: static layers and drivers, standardised for a network.

Shapes: S static channels, D drivers, E of them known ahead; T context steps, K targets, H rows, W columns. NaN is missing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from models.contract import Description, over_space

GIVEN = ("static_SHW", "past_TDHW", "future_KEHW")
LAGS = 3  # intervals of a driver before the issue date, for trees


@dataclass(frozen=True)
class CovariateScaling:
    """Names, and the mean and standard deviation over the training part: of the static channels, then of the drivers.

    `future` names the drivers that are known for the targets too, in the order of `drivers`.
    """

    static: tuple[str, ...]
    drivers: tuple[str, ...]
    future: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.static) + len(self.drivers)
        if not len(self.mean) == len(self.std) == count or min(self.std, default=1.0) <= 0:
            raise ValueError(f"{count} covariates need as many means and positive std, got {self.mean}, {self.std}")
        if not set(self.future) <= set(self.drivers):
            raise ValueError(f"{set(self.future) - set(self.drivers)} are not among the drivers {self.drivers}")

    @classmethod
    def from_description(cls, description: Description | None) -> "CovariateScaling | None":
        if description is None:
            return None
        return cls(**{name: tuple(values) for name, values in description.items()})

    def describe(self) -> Description:
        return asdict(self)

    @property
    def channels(self) -> tuple[int, int]:
        """(of a context frame, of a target date), see `as_channels`; each group has one more, that says whether all are known."""
        static, drivers, future = (len(names) + 1 if names else 0 for names in (self.static, self.drivers, self.future))
        return static + drivers, static + 2 * drivers + future

    def standardise(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The groups that there are, (value - mean) / std, 0 where missing, and last the channel that is 1 where all are known.

        Raises ValueError if a group is missing or has another number of channels.
        """
        of_drivers = [len(self.static) + number for number in range(len(self.drivers))]
        ahead = [index for index, name in zip(of_drivers, self.drivers, strict=True) if name in self.future]
        groups = dict(zip(GIVEN, (list(range(len(self.static))), of_drivers, ahead), strict=True))
        inputs = {}
        for name, indices in groups.items():
            if not indices:
                continue
            found, axis = given.get(name), 0 if name == "static_SHW" else 1
            if found is None or found.shape[axis] != len(indices):
                shape = None if found is None else tuple(found.shape)
                raise ValueError(f"expected {len(indices)} channels of covariates in {name}, got the shape {shape}")
            mean, std = (torch.tensor([values[index] for index in indices]) for values in (self.mean, self.std))
            axes = found.ndim - axis - 1
            scaled = (found.float() - over_space(mean, axes)) / over_space(std, axes)
            is_known = torch.isfinite(scaled)
            known = is_known.all(dim=axis, keepdim=True).float()
            inputs[name] = torch.cat([torch.where(is_known, scaled, 0.0), known], dim=axis)
        return inputs


def as_channels(batch: Mapping[str, Tensor], frames_BTCHW: Tensor, targets: int) -> tuple[list[Tensor], list[Tensor]]:
    """(further channels of the frames, of the targets), each (B, steps, C, H, W), views, from `standardise` with a leading B.

    Frames: static layers and drivers. Targets: static layers; the last interval of the drivers and their mean over the context,
    since networks pass over the frames of cloudy pixels, whatever the weather; drivers that are known ahead.
    """
    batches, steps, _, *space = frames_BTCHW.shape
    frames, futures = list[Tensor](), list[Tensor]()
    if (static_BSHW := batch.get("static_SHW")) is not None:
        for found, count in ((frames, steps), (futures, targets)):
            found.append(static_BSHW[:, None].expand(batches, count, *static_BSHW.shape[1:]))
    if (past_BTDHW := batch.get("past_TDHW")) is not None:
        frames.append(past_BTDHW.expand(*past_BTDHW.shape[:3], *space))
        for one_B1DHW in (past_BTDHW[:, -1:], past_BTDHW.mean(dim=1, keepdim=True)):
            futures.append(one_B1DHW.expand(batches, targets, one_B1DHW.shape[2], *space))
    if (future_BKEHW := batch.get("future_KEHW")) is not None:
        futures.append(future_BKEHW.expand(*future_BKEHW.shape[:3], *space))
    return frames, futures


def features(given: Mapping[str, Tensor], target: int, space: tuple[int, ...]) -> list[Tensor]:
    """What trees see of the covariates for a target date, images of the shape `space`; NaN where missing.

    Static channels; of each driver its last `LAGS` intervals up to the issue date and the mean over the context; of one that is
    known ahead its values of the target's interval and of the one before, and the mean since the issue date.
    """
    planes = list(given["static_SHW"]) if "static_SHW" in given else []
    if (past_TDHW := given.get("past_TDHW")) is not None:
        for number in range(past_TDHW.shape[1]):
            planes += [*past_TDHW[-LAGS:, number], past_TDHW[:, number].nanmean(dim=0)]
    if (future_KEHW := given.get("future_KEHW")) is not None:
        for number in range(future_KEHW.shape[1]):
            known = future_KEHW[: target + 1, number]
            before = known[-2] if target else torch.full_like(known[0], torch.nan)
            planes += [known[-1], before, known.nanmean(dim=0)]
    return [plane.float().expand(space) for plane in planes]
