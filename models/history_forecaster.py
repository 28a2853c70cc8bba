"""A forecaster whose networks get a pixel's history (`models.blocks.pixel_history`) in place of the frames of the context.

Everything else is as in `models.residual_forecaster`: the baseline that is corrected, normalisation, members, residual scale.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.blocks.pixel_history import HALO_PX, history_of, lag_channels, outlook_channels
from models.contract import Description, Halo, seeded
from models.covariates import GIVEN, CovariateScaling, as_channels
from models.networks.pixel_history import PixelHistory, PixelHistorySettings
from models.residual_forecaster import Baseline, ResidualForecaster, Scaling

WIDTH_DAYS = 15.0  # of the climatology, where the baseline has none


def build_history_forecaster(
    baseline: Baseline, scaling: Scaling, *, context: int, horizon: int, members: int = 1,
    network: PixelHistorySettings | None = None, seed: int = 0, axes: int = 2, covariates: CovariateScaling | None = None,
) -> "HistoryForecaster":  # fmt: skip
    """As `build_forecaster`."""
    variables, settings = len(scaling.mean), network or PixelHistorySettings()
    given = covariates.channels[1] if covariates is not None else 0
    channels = variables, lag_channels(variables), outlook_channels(variables) + given, axes
    networks = [seeded(seed + member, lambda: settings.build(*channels)) for member in range(members)]
    return HistoryForecaster(baseline, networks, scaling, context=context, horizon=horizon, axes=axes, covariates=covariates)


class HistoryForecaster(ResidualForecaster):
    def describe(self) -> Description:
        return {**super().describe(), "kind": "history", "lags": self.lags}

    def halo_px(self, steps: int) -> Halo:
        """That of the means over neighbours among the inputs."""
        return (HALO_PX,) * self.axes

    @property
    def lags(self) -> int:
        lags = {network.lags for network in self.members if isinstance(network, PixelHistory)}
        assert len(lags) == 1, "the networks of one forecaster see the same lags"
        return lags.pop()

    @torch.no_grad()
    def prepare(
        self, x_NCHW: Tensor, valid_NHW: Tensor, days_N: Tensor, context_T: Tensor, usable_N: Tensor, target_days_K: Tensor,
        covariates: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Keys: baseline_KCHW, physical; lags_LFHW, seen_LHW, outlook_KGHW; time_KF; those of the covariates. Float32."""
        arguments = (x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K)
        prepared = super().prepare(*arguments, covariates)
        width_days = getattr(self.baseline, "width_days", WIDTH_DAYS)
        baseline_KCHW = prepared["baseline_KCHW"]
        history = history_of(arguments, baseline_KCHW, self.lags, width_days, self.scaling.step_days, self.normalise)
        given = {name: prepared[name] for name in GIVEN if name in prepared}
        return {"baseline_KCHW": baseline_KCHW, "time_KF": prepared["time_KF"], **history._asdict(), **given}

    def _network_inputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        outlook_BKGHW = batch["outlook_KGHW"]
        if self.covariates is not None:
            _, given = as_channels(batch, outlook_BKGHW, outlook_BKGHW.shape[1])
            outlook_BKGHW = torch.cat([outlook_BKGHW, *given], dim=2)
        return batch["lags_LFHW"], batch["seen_LHW"], outlook_BKGHW, batch["time_KF"]
