"""A forecaster that corrects a baseline: forecast = baseline + residual scale x mean of the members' residuals.

The members are networks that get the past relative to the baseline (or the mean). The residual is learnt in normalised units of
the transformed variable. An untrained member predicts 0, so an untrained forecaster equals its baseline exactly.

Shapes: N dates, T context steps, K target steps, C channels, H rows, W columns, B batch, F time features.
`HW` stands for all axes of space: of volumes (D, H, W).
"""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.baselines.motion import carry, path_back
from models.baselines.moving_field import MovingField
from models.baselines.pointwise import (
    TROPICAL_YEAR_DAYS,
    Climatology,
    DecayingAnomaly,
    Persistence,
    climatology_at,
    context_arrays,
    context_days,
)
from models.blocks.forecast import Shown
from models.contract import Description, Ensemble, Halo, Network, over_space, seeded
from models.covariates import CovariateScaling, as_channels
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.residual_scale import cautious_share, evaluating

Corrected = Persistence | Climatology | DecayingAnomaly | MovingField
Baseline = Corrected | None  # None: the channel's mean
BASELINES: dict[str, type[Corrected]] = {
    "persistence": Persistence,
    "climatology": Climatology,
    "decaying_anomaly": DecayingAnomaly,
    "moving_field": MovingField,
}
RESIDUAL_LIMIT = 5.0  # a log-transformed value is corrected by at most a factor of exp(5) = 148


@dataclass(frozen=True)
class Scaling:
    """Normalisation of physical values: transform, then (value - mean) / std, per channel.

    `mean` and `std` are of the transformed values of the training part. `step_days` is the usual interval of two context steps.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    transforms: tuple[str, ...]  # "none" or "log1p"
    step_days: float

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == len(self.transforms):
            raise ValueError(
                f"mean, std and transforms must have one value per channel, got {self.mean}, {self.std}, {self.transforms}"
            )
        unknown = set(self.transforms) - {"none", "log1p"}
        if unknown:
            raise ValueError(f"expected the transforms 'none' or 'log1p', got {sorted(unknown)}")
        if min(self.std) <= 0 or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ValueError(f"every std must be positive and finite, got {self.std} (mean {self.mean})")
        if not self.step_days > 0:
            raise ValueError(f"step_days must be positive, got {self.step_days}")


class Settings(Protocol):
    """Configuration of the networks; the number of channels follows from the baseline and the data."""

    def build(self, outputs: int, frame_channels: int, future_channels: int, axes: int) -> Network: ...


def channels_of(baseline: Baseline, variables: int) -> tuple[int, int]:
    """(frame channels, future channels) of the members' inputs, without mask; see `_network_inputs`."""
    match baseline:
        case None:
            return variables, 1
        case DecayingAnomaly():
            return 2 * variables, 2 * variables + 1
        case _:
            return 2 * variables, variables + 1


def build_forecaster(
    baseline: Baseline, scaling: Scaling, *, context: int, horizon: int, members: int = 1, network: Settings | None = None,
    seed: int = 0, axes: int = 2, covariates: CovariateScaling | None = None,
) -> "ResidualForecaster":  # fmt: skip
    """An untrained forecaster whose members (default: ConvLSTM) have the seeds `seed`, `seed` + 1, ...

    `axes` of space: 2 for images, 3 for volumes. The global random state is not changed.
    """
    variables = len(scaling.mean)
    given = covariates.channels if covariates is not None else (0, 0)
    frames, futures = map(sum, zip(channels_of(baseline, variables), given, strict=True))
    network = network or ConvLSTMSettings()
    networks = [seeded(seed + member, lambda: network.build(variables, frames, futures, axes)) for member in range(members)]
    return ResidualForecaster(baseline, networks, scaling, context=context, horizon=horizon, axes=axes, covariates=covariates)


class ResidualForecaster(Ensemble):
    """The forecaster of docs/design/001-spine.md: `prepare` (baseline, no gradient), `compute` (networks), `forecast` (both).

    `residual_scale_K` in [0, 1] is 1 until `fit_residual_scale`; leads beyond the horizon use the last one.
    """

    mean_C: Tensor
    std_C: Tensor
    residual_scale_K: Tensor

    def __init__(
        self, baseline: Baseline, members: Sequence[Network], scaling: Scaling, *, context: int, horizon: int, axes: int = 2,
        covariates: CovariateScaling | None = None,
    ):  # fmt: skip
        super().__init__(members, axes)
        self.covariates = covariates
        self.baseline, self.scaling, self.context, self.horizon = baseline, scaling, context, horizon
        self.register_buffer("mean_C", torch.tensor(scaling.mean, dtype=torch.float32))
        self.register_buffer("std_C", torch.tensor(scaling.std, dtype=torch.float32))
        self.register_buffer("residual_scale_K", torch.ones(horizon))
        self.is_log = [transform == "log1p" for transform in scaling.transforms]

    def describe(self) -> Description:
        """Baseline, scaling, steps, and the description of every member; the residual scale is among the tensors."""
        steps = {"context": self.context, "horizon": self.horizon, "axes": self.axes}
        parts = {
            "baseline": describe_baseline(self.baseline),
            "scaling": asdict(self.scaling),
            "members": self.describe_members(),
            **({"covariates": self.covariates.describe()} if self.covariates is not None else {}),
        }
        return {**steps, **parts}

    @property
    def uses_covariates(self) -> bool:
        return self.covariates is not None

    # ------------------------------------------------------------ physical <-> network values

    def normalise(self, y_CHW: Tensor) -> Tensor:
        """(transform(y) - mean) / std; channels are the axis before those of space."""
        if any(self.is_log):
            log_C = over_space(torch.tensor(self.is_log, device=y_CHW.device), self.axes)
            y_CHW = torch.where(log_C, torch.log1p(y_CHW.clamp(min=0)), y_CHW)
        mean, std = (over_space(values_C.to(y_CHW.device), self.axes) for values_C in (self.mean_C, self.std_C))
        return (y_CHW - mean) / std

    def correct(self, baseline_CHW: Tensor, residual_CHW: Tensor) -> Tensor:
        """The baseline plus `residual` (normalised units): the inverse of `normalise`, exact for a residual of 0.

        log1p channels: expm1(log1p(g) + r) = g + (1 + g) expm1(r), which is g for r = 0; never below 0 or the baseline.
        """
        moved_CHW = residual_CHW * over_space(self.std_C, self.axes)
        if not any(self.is_log):
            return baseline_CHW + moved_CHW
        log_C = over_space(torch.tensor(self.is_log, device=baseline_CHW.device), self.axes)
        grown_CHW = (1 + baseline_CHW) * torch.expm1(moved_CHW.clamp(-RESIDUAL_LIMIT, RESIDUAL_LIMIT))
        y_CHW = baseline_CHW + torch.where(log_C, grown_CHW, moved_CHW)
        return torch.where(log_C, torch.maximum(y_CHW, baseline_CHW.clamp(max=0)), y_CHW)

    @torch.no_grad()
    def prepare(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor,
        covariates: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Network inputs of one (block, issue date), float32: the baseline, the context relative to it, the mask, the times.

        Keys (spatial ones end in HW): baseline_KCHW physical; x_TCHW normalised and relative, 0 where invalid; valid_THW 0/1;
        background_TCHW and background_KCHW normalised climatology, for baselines that have one; time_TF, elapsed_T,
        time_KF, elapsed_K. Of a moving field x and valid are carried on to the issue date, and last_1CHW and still_KCHW are
        what is carried from there, normalised; motion_2HW and steps_K say where to, known_KHW where that is known. With
        covariates (see `CovariateScaling`) also static_SHW, past_TDHW, future_KEHW, standardised.
        """
        x_TCHW, valid_THW = context_arrays(x_NCHW, valid_NHW, context_T)
        days_T = context_days(days_N, context_T)
        normal_TCHW = self.normalise(x_TCHW)
        arguments = (x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        batch: dict[str, Tensor] = {} if self.covariates is None else self.covariates.standardise(covariates or {})
        match self.baseline:
            case None:
                mean_C = self.mean_C.cpu()
                mean_C = torch.where(torch.tensor(self.is_log), torch.expm1(mean_C), mean_C).to(x_NCHW.device)
                batch["baseline_KCHW"] = over_space(mean_C, self.axes).expand(len(target_days_K), *x_NCHW.shape[1:]).clone()
                relative_TCHW = normal_TCHW
            case Persistence():
                batch["baseline_KCHW"] = self.baseline.forecast(*arguments)
                relative_TCHW = normal_TCHW - self.normalise(batch["baseline_KCHW"][:1])
            case Climatology():
                batch["baseline_KCHW"] = self.baseline.forecast(*arguments)
                background_TCHW = climatology_at(x_NCHW, valid_NHW, days_N, usable_N, days_T, self.baseline.width_days)
                batch["background_TCHW"] = self.normalise(background_TCHW)
                relative_TCHW = normal_TCHW - batch["background_TCHW"]
            case DecayingAnomaly():
                parts = self.baseline.parts(*arguments)
                batch["baseline_KCHW"] = parts.y_KCHW
                batch["background_TCHW"] = self.normalise(parts.background_TCHW)
                batch["background_KCHW"] = self.normalise(parts.background_KCHW)
                relative_TCHW = normal_TCHW - batch["background_TCHW"]
            case MovingField():
                moving, valid_THW, relative_TCHW = self._prepare_moving(self.baseline, *arguments)
                batch |= moving
        batch["valid_THW"], batch["x_TCHW"] = valid_THW.float(), relative_TCHW * valid_THW[:, None].float()
        return batch | self._times(days_T, target_days_K.double())

    def _prepare_moving(
        self, baseline: MovingField, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor,
        target_days_K: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:  # fmt: skip
        """(what the batch holds of a moving field, valid_THW, the context relative to the newest frame)."""
        otherwise_KCHW = Persistence().forecast(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        moved = baseline.moved(x_NCHW, valid_NHW, days_N, context_T, target_days_K)
        still_KCHW = baseline.blurred_last(moved)
        y_KCHW, known_KHW = baseline.carried(moved, still_KCHW, otherwise_KCHW)
        last_1CHW = self.normalise(moved.last_CHW[None])
        batch = {
            "baseline_KCHW": y_KCHW,
            "still_KCHW": self.normalise(still_KCHW),
            "last_1CHW": last_1CHW,
            "known_KHW": known_KHW.float(),
            "motion_2HW": moved.motion_2HW,
            "steps_K": moved.steps_K.float(),
        }
        return batch, moved.aligned_valid_THW, self.normalise(moved.aligned_TCHW) - last_1CHW

    def _times(self, days_T: Tensor, target_days_K: Tensor) -> dict[str, Tensor]:
        """Season, elapsed and offset of every step; intervals in units of `step_days`, so minutes and months have one scale."""
        step = self.scaling.step_days
        days = torch.cat([days_T, target_days_K.to(days_T.device)])
        elapsed = torch.diff(days, prepend=days[:1]).clamp(min=0) / step
        offset = (days - days_T[-1]) / step
        angle = 2 * math.pi * torch.remainder(days / TROPICAL_YEAR_DAYS, 1)
        time = torch.stack([angle.sin(), angle.cos(), torch.log1p(elapsed), offset.sign() * torch.log1p(offset.abs()) / 2], dim=1)
        time, elapsed, context = time.float(), elapsed.float(), len(days_T)
        of_context = {"time_TF": time[:context], "elapsed_T": elapsed[:context]}
        return of_context | {"time_KF": time[context:], "elapsed_K": elapsed[context:]}

    def _network_inputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The arguments of `ForecasterNetwork.forward` from a batch of prepared windows."""
        x_BTCHW, valid_BTHW, baseline_BKCHW = batch["x_TCHW"], batch["valid_THW"], batch["baseline_KCHW"]
        leads = baseline_BKCHW.shape[1]
        futures = [last_seen_age(valid_BTHW, batch["elapsed_T"]).repeat_interleave(leads, dim=1)[:, :, None]]
        frames = [x_BTCHW]
        if self.baseline is not None:
            level_BKCHW = self.normalise(baseline_BKCHW)
            match self.baseline:
                case Persistence():
                    frames.append(level_BKCHW[:, :1].expand_as(x_BTCHW))
                    futures.append(level_BKCHW)
                case MovingField():
                    frames.append(batch["last_1CHW"].expand_as(x_BTCHW))
                    futures.append(batch["still_KCHW"])
                case _:
                    frames.append(batch["background_TCHW"])
            if isinstance(self.baseline, Climatology):
                futures.append(level_BKCHW)
            if isinstance(self.baseline, DecayingAnomaly):
                futures += [batch["background_KCHW"], level_BKCHW - batch["background_KCHW"]]
        if self.covariates is not None:
            for found, given in zip((frames, futures), as_channels(batch, x_BTCHW, leads), strict=True):
                found += given
        context = torch.cat(frames, dim=2), valid_BTHW, batch["time_TF"], batch["elapsed_T"]
        return *context, torch.cat(futures, dim=2), batch["time_KF"], batch["elapsed_K"]

    def compute_member(self, member: int, batch: dict[str, Tensor]) -> Tensor:
        """y_BKCHW of one network without residual scaling, the input of the training loss. Physical values, differentiable.

        With shown_K (bool, each target) and maybe shown_T (each frame) the network reads these instead of its own forecasts,
        where they are valid; the batch then has the targets too.
        """
        network, inputs, shown = self.members[member], self._network_inputs(batch), self._shown(batch)
        residual_BKCHW = network(*inputs) if shown is None else network(*inputs, shown=shown)
        return self.correct(batch["baseline_KCHW"], self._in_place(residual_BKCHW, batch))

    def _shown(self, batch: dict[str, Tensor]) -> Shown | None:
        if "shown_K" not in batch:
            return None
        if isinstance(self.baseline, MovingField):
            raise ValueError("a correction of a moving field is made at the issue date, where no true frame of a target lies")
        truth_BKCHW = self.normalise(batch["target_KCHW"]) - self.normalise(batch["baseline_KCHW"])
        return Shown(batch.get("shown_T"), batch["shown_K"], truth_BKCHW, batch["target_valid_KHW"] > 0)

    def residual(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean residual of the members, (B, K, C, H, W), normalised units, without residual scaling."""
        inputs = self._network_inputs(batch)
        total: Tensor = self.members[0](*inputs)
        for member in list(self.members)[1:]:
            total = total + member(*inputs)
        return self._in_place(total / len(self.members), batch)

    def _in_place(self, residual_BKCHW: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The residual where it belongs on each target date: of a moving field it is made at the issue date and carried on."""
        if not isinstance(self.baseline, MovingField):
            return residual_BKCHW
        with torch.no_grad():
            paths = zip(batch["motion_2HW"], batch["steps_K"], strict=True)
            source_BK2HW = torch.cat([path_back(motion_2HW[None], steps_K) for motion_2HW, steps_K in paths])
        carried: Tensor = carry(residual_BKCHW.flatten(0, 1), source_BK2HW.flatten(0, 1)).unflatten(0, residual_BKCHW.shape[:2])
        carried *= batch["known_KHW"][:, :, None]
        return carried

    def halo_px(self, steps: int) -> Halo:
        """Of the members; None of a moving field, whose motion depends on all that a window shows."""
        return None if isinstance(self.baseline, MovingField) else super().halo_px(steps)

    def compute(self, batch: dict[str, Tensor]) -> Tensor:
        """y_BKCHW, physical values, from a batch of results of `prepare` (each tensor with a leading B)."""
        if not len(self.members):
            return batch["baseline_KCHW"]
        lead_K = torch.arange(batch["baseline_KCHW"].shape[1], device=self.residual_scale_K.device)
        residual_scale_K = self.residual_scale_K[lead_K.clamp(max=len(self.residual_scale_K) - 1)]
        return self.correct(batch["baseline_KCHW"], over_space(residual_scale_K, self.axes + 1) * self.residual(batch))

    forward = compute

    @torch.no_grad()
    def forecast(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor,
        covariates: Mapping[str, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """y_KCHW, physical values, on the CPU: `prepare` there, then `compute` on the networks' device. Dropout is off."""
        batch = self.prepare(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K, covariates)
        with evaluating(self):
            return self.compute({name: values[None].to(self.mean_C.device) for name, values in batch.items()})[0].cpu()

    def of_leads(self, lead_K: Iterable[int]) -> "ResidualForecaster":
        """A copy that scales its residuals as those of these leads, from 0, in that order; leads beyond the last use that."""
        twin, last = copy.deepcopy(self), len(self.residual_scale_K) - 1
        twin.residual_scale_K = self.residual_scale_K[[min(int(lead), last) for lead in lead_K]]
        return twin

    @torch.no_grad()
    def fit_residual_scale(self, batches: Iterable[dict[str, Tensor]]) -> Tensor:
        """Sets and returns `residual_scale_K`: the part in [0, 1] of the residual that validation supports, one for all leads.

        Batches hold the results of `prepare`, target_KCHW, target_valid_KHW and target_seconds_K. The scale is the least-squares
        estimate minus its standard error over target dates: the fewer the dates, the smaller the correction. Without any valid
        target: 0, the baseline alone.
        """
        sums: dict[int, Tensor] = {}
        with evaluating(self):
            for batch in batches:
                batch = {name: values.to(self.mean_C.device) for name, values in batch.items()}
                residual_BKCHW = self.residual(batch)
                expected_BKCHW = self.normalise(batch["target_KCHW"]) - self.normalise(batch["baseline_KCHW"])
                seen_BK1HW = (batch["target_valid_KHW"] > 0)[:, :, None]
                products, space = (expected_BKCHW * residual_BKCHW, residual_BKCHW.square()), tuple(range(2, expected_BKCHW.ndim))
                both_BK2 = torch.stack([torch.where(seen_BK1HW, p, 0.0).double().sum(dim=space) for p in products], dim=-1)
                for date, pair in zip(batch["target_seconds_K"].flatten().tolist(), both_BK2.flatten(0, 1).cpu(), strict=True):
                    sums[date] = sums.get(date, torch.zeros(2, dtype=torch.float64)) + pair
        pairs_D2 = [pair for pair in sums.values() if pair[1] > 0]
        self.residual_scale_K.fill_(cautious_share(torch.stack(pairs_D2)) if pairs_D2 else 0.0)
        return self.residual_scale_K


def describe_baseline(baseline: Baseline) -> Description:
    if baseline is None:
        return {"kind": "none"}
    (kind,) = (kind for kind, made in BASELINES.items() if isinstance(baseline, made))
    return {"kind": kind, **asdict(baseline)}


def last_seen_age(valid_BTHW: Tensor, elapsed_BT: Tensor) -> Tensor:
    """log(1 + age) of each pixel's last valid value at the issue date, (B, 1, H, W); in usual steps, at most the context."""
    axes = valid_BTHW.ndim - 2
    age_BT = elapsed_BT.flip(1).cumsum(1).flip(1) - elapsed_BT  # from each step to the last one
    whole_B1HW = over_space(elapsed_BT.sum(dim=1, keepdim=True), axes)
    age_BTHW = torch.where(valid_BTHW > 0, over_space(age_BT, axes), whole_B1HW)
    return torch.log1p(age_BTHW.amin(dim=1, keepdim=True))
