"""A small seeded series of images with clouds, a season and a level per pixel: the arguments of `forecast`.

torch is imported as a window is made: pytest reads this file before it can skip what needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

ARGUMENTS = ("x_NCHW", "valid_NHW", "days_N", "context_T", "usable_N", "target_days_K")


class Window(SimpleNamespace):
    """A window as in the sample cache: arguments and truth as attributes."""

    def arguments(self, **changed: torch.Tensor) -> dict[str, torch.Tensor]:
        """The arguments of `forecast` and `prepare`, some of them replaced."""
        return {name: getattr(self, name) for name in ARGUMENTS} | changed


@pytest.fixture
def make_window() -> Callable[..., Window]:
    """`make_window(dates=..., channels=...)`: one window of a seeded series."""
    return series_window


def series_window(
    *,
    dates: int = 60,
    channels: int = 2,
    shape_yx: tuple[int, int] = (9, 8),
    step_days: float = 16.0,
    cloud: float = 0.4,
    seed: int = 0,
) -> Window:
    """One window (context 6, horizon 3) with its truth, as attributes."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    height, width = shape_yx
    days_N = 17000 + step_days * torch.arange(dates, dtype=torch.float64)
    season_N = torch.sin(2 * torch.pi * days_N / 365.2422).float()
    level_CHW = torch.rand(channels, height, width, generator=generator)
    truth_NCHW = (
        level_CHW + 0.3 * season_N[:, None, None, None] + 0.02 * torch.randn(dates, channels, height, width, generator=generator)
    )
    valid_NHW = torch.rand(dates, height, width, generator=generator) >= cloud
    issue = dates - 10
    return Window(
        x_NCHW=truth_NCHW * valid_NHW[:, None],
        valid_NHW=valid_NHW,
        days_N=days_N,
        context_T=torch.tensor([issue - 5, issue - 4, -1, issue - 2, issue - 1, issue]),
        usable_N=torch.arange(dates) <= issue,
        target_days_K=days_N[issue + 1 : issue + 4],
        target_KCHW=truth_NCHW[issue + 1 : issue + 4],
        target_valid_KHW=valid_NHW[issue + 1 : issue + 4],
    )
