"""A small recurrent network per pixel: predicts the residual of the harmonic model from the residuals of earlier dates.

It reads standardised residuals (observed minus curve, over the curve's spread) one date at a time and predicts mean and spread
of the next one. It is a gated recurrent unit (Cho et al. 2014, arXiv:1406.1078) with a state that decays without observations
(GRU-D, Che et al. 2018, https://doi.org/10.1038/s41598-018-24271-9, eq. 3-4, the decay of the hidden state):

    h~ = h o exp(-softplus(w) e)                       e months since the last valid value
    h' = GRU([inputs, log(1 + e)], h~)                 where valid; else h is unchanged

The season is not an input: with a few years of training data the network would identify the dates by it.

Its output is bounded, so that it cannot learn to predict a break: the mean to `MEAN_LIMIT`, the spread to `SIGMA_RANGE`,
whatever the state. A break of six spreads leaves at least (6 - 1) / 1.2 = 4.2. An untrained network predicts mean 0 and spread 1.

Shapes: B windows, T dates, P pixels, F inputs, D hidden.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from models.contract import Description, Ensemble, Network, Pointwise, layer_flops, seeded

MEAN_LIMIT = 1.0
SIGMA_RANGE = (0.5, 1.2)
DAYS_A_MONTH = 30.4375
LONGEST_MONTHS = 12.0  # the state decays for at most a year


@dataclass(frozen=True)
class ResidualGRUConfig:
    """`inputs` per date and pixel, `hidden` state values per pixel."""

    inputs: int
    hidden: int = 8


class ResidualGRU(Pointwise, Network):
    """One network. Pixels are rows, independent of each other."""

    def __init__(self, config: ResidualGRUConfig):
        super().__init__()
        self.config = config
        self.cell = nn.GRUCell(config.inputs + 1, config.hidden)
        self.decay = nn.Parameter(torch.full((config.hidden,), -2.0))  # a factor of e in eight months
        self.body = nn.Linear(config.hidden + 1, config.hidden)
        self.head = nn.Linear(config.hidden, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def flops(self, shape: Sequence[int], targets: int = 1) -> int:
        """Operations for `shape` (B, T, P, F): one prediction and one step per date and pixel."""
        recurrent = 2 * (self.cell.weight_ih.numel() + self.cell.weight_hh.numel())
        return math.prod(shape[:3]) * (recurrent + layer_flops(self, pixels=0, rows=1))

    def describe(self) -> Description:
        return asdict(self.config)

    @property
    def hidden(self) -> int:
        return self.config.hidden

    def step(self, inputs_PF: Tensor, elapsed_days_P: Tensor, h_PD: Tensor) -> Tensor:
        """h_PD after a date, for pixels that are valid on it."""
        decayed_PD, age_P1 = self._after_gap(h_PD, elapsed_days_P)
        after_PD: Tensor = self.cell(torch.cat([inputs_PF, age_P1], dim=1), decayed_PD)
        return after_PD

    def predict(self, h_PD: Tensor, elapsed_days_P: Tensor) -> tuple[Tensor, Tensor]:
        """(mean_P, log_sigma_P) of the standardised residual, predicted `elapsed_days_P` after the last valid date."""
        raw_P2 = self.head(torch.tanh(self.body(torch.cat(self._after_gap(h_PD, elapsed_days_P), dim=1))))
        low, high = -math.log(SIGMA_RANGE[0]), math.log(SIGMA_RANGE[1])
        wide = raw_P2[:, 1]
        log_sigma_P = torch.where(wide > 0, high * torch.tanh(wide / high), low * torch.tanh(wide / low))
        return MEAN_LIMIT * torch.tanh(raw_P2[:, 0] / MEAN_LIMIT), log_sigma_P

    def forward(self, inputs_BTPF: Tensor, seen_BTP: Tensor, days_BT: Tensor) -> Tensor:
        """(B, T, 2, P): mean and log sigma of each date from the dates before it; the first from the initial state."""
        batch, dates, pixels, inputs = inputs_BTPF.shape
        rows = batch * pixels
        h_PD = inputs_BTPF.new_zeros(rows, self.hidden)
        last_P = torch.full((rows,), math.nan, dtype=torch.float64, device=inputs_BTPF.device)
        answers = []
        for t in range(dates):
            day_P = days_BT[:, t].double().repeat_interleave(pixels)
            elapsed_P = elapsed_days(last_P, day_P)
            answers.append(torch.stack(self.predict(h_PD, elapsed_P)).reshape(2, batch, pixels))
            seen_P = seen_BTP[:, t].reshape(rows) > 0
            after_PD = self.step(inputs_BTPF[:, t].reshape(rows, inputs), elapsed_P, h_PD)
            h_PD = torch.where(seen_P[:, None], after_PD, h_PD)
            last_P = torch.where(seen_P, day_P, last_P)
        return torch.stack(answers).permute(2, 0, 1, 3)

    def _after_gap(self, h_PD: Tensor, elapsed_days_P: Tensor) -> tuple[Tensor, Tensor]:
        """(the decayed state, log(1 + months) of shape (P, 1))."""
        months_P1 = (elapsed_days_P / DAYS_A_MONTH).clamp(max=LONGEST_MONTHS)[:, None]
        return h_PD * torch.exp(-nn.functional.softplus(self.decay) * months_P1), torch.log1p(months_P1)


def elapsed_days(last_day_P: Tensor, day: Tensor | float) -> Tensor:
    """Float32 days since the last valid value of a pixel, never negative; 0 without one (last day NaN)."""
    return torch.nan_to_num(day - last_day_P, nan=0.0).clamp(min=0).float()


class ResidualEnsemble(Ensemble):
    """Networks trained with one left-out year of the history each; `pipelines.learning.training` trains it.

    `shares` (mean, log sigma) in [0, 1] scale the outputs by what the left-out years support.
    """

    shares: Tensor

    def __init__(self, config: ResidualGRUConfig, members: int, seed: int = 0):
        super().__init__(seeded(seed * 1000 + member, lambda: ResidualGRU(config)) for member in range(members))
        self.config = config
        self.register_buffer("shares", torch.zeros(2))

    @property
    def networks(self) -> tuple[ResidualGRU, ...]:
        return tuple(member for member in self.members if isinstance(member, ResidualGRU))

    def compute_member(self, i: int, batch: dict[str, Tensor]) -> Tensor:
        """(B, T, 2, P): mean and log sigma of member `i`, without `shares`."""
        forecast_BT2P: Tensor = self.members[i](batch["inputs_TPF"], batch["seen_TP"], batch["days_T"])
        return forecast_BT2P

    def describe(self) -> Description:
        return {"config": asdict(self.config), "members": len(self.members)}


def rebuild_residual(description: Description) -> ResidualEnsemble:
    return ResidualEnsemble(ResidualGRUConfig(**description["config"]), int(description["members"]))


def laplace_loss(answer: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean negative log likelihood of a Laplace distribution with this mean and standard deviation, without its constant.

    `answer` (B, T, 2, ...) holds mean and log sigma, `target` and `weight` are (B, T, 1, ...).
    """
    mean, log_sigma = answer[:, :, :1], answer[:, :, 1:]
    loss = math.sqrt(2) * (target - mean).abs() * torch.exp(-log_sigma) + log_sigma
    weight = (weight > 0).to(loss.dtype)
    return (loss * weight).sum() / weight.sum().clamp(min=1)
