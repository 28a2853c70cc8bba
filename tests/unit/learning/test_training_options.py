"""Schedules, averaged weights, parts of a batch, and true frames in place of forecasts."""

import logging
import signal
from dataclasses import asdict, replace
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

import pytest
import torch
from frame_windows import FrameWindows, build
from tiny_forecaster import TinyForecaster, TinyWindows, mean_absolute_error

from models.losses import dice, masked_huber
from pipelines.errors import RequestError
from pipelines.learning.member import frame_weight
from pipelines.learning.schedules import ScheduledSampling
from pipelines.learning.training import MemberReport, TrainingSettings, train

SETTINGS = TrainingSettings(epochs=3, batch=8, learning_rate=1e-2, accelerator="cpu")
ALL_ON = replace(SETTINGS, ema=0.9, sampling=ScheduledSampling("reverse", "sigmoid", 0.9))


def run(folder: Path, settings: TrainingSettings, forecaster=None, loss=mean_absolute_error, progress=None):
    forecaster = TinyForecaster(1, dropout=0.0) if forecaster is None else forecaster
    windows = TinyWindows(24), TinyWindows(8, seed=1)
    report = train(forecaster, *windows, loss, settings, folder, progress)
    return forecaster, report.members[0]


def run_frames(folder: Path, settings: TrainingSettings, network: str = "predrnn", progress=None):
    forecaster = build(network)
    windows = FrameWindows(forecaster, 20, 0), FrameWindows(forecaster, 8, 1)
    known = {"target_of": itemgetter("target_KCHW"), "weight_of": frame_weight}
    return forecaster, train(forecaster, *windows, masked_huber, settings, folder, progress, **known).members[0]


def weights_of(forecaster) -> torch.Tensor:
    return torch.cat([one.flatten() for one in forecaster.members[0].state_dict().values()])


def losses_of(report: MemberReport) -> list[float]:
    return [row[name] for row in report.curve for name in ("training_loss", "validation_loss") if row[name] is not None]


# ---------------------------------------------------------------- the same curve again


@pytest.mark.parametrize("network", [pytest.param("predrnn", marks=pytest.mark.exhaustive), "feedback"])
def test_two_runs_and_an_interrupted_one_are_bit_identical(network, tmp_path):
    first, report = run_frames(tmp_path / "a", ALL_ON, network)
    again, repeated = run_frames(tmp_path / "b", ALL_ON, network)
    assert torch.equal(weights_of(first), weights_of(again))
    assert repeated.curve == report.curve

    def press(done, _total):
        if done == 5:  # in the second of three epochs of three steps
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_frames(tmp_path / "c", ALL_ON, network, press)
    resumed, continued = run_frames(tmp_path / "c", ALL_ON, network)
    assert continued.resumed
    assert continued.curve == report.curve
    assert torch.equal(weights_of(resumed), weights_of(first))


def test_earlier_state_files_belong_to_the_same_settings():
    earlier = {
        "epochs",
        "batch",
        "learning_rate",
        "weight_decay",
        "clip",
        "patience",
        "precision",
        "accelerator",
        "devices",
        "seed",
    }
    assert SETTINGS.described().keys() == earlier | {"optimizer", "stop_after"}
    assert ALL_ON.described() == {
        name: value for name, value in asdict(ALL_ON).items() if name not in ("schedule", "micro_batch")
    }


# ---------------------------------------------------------------- schedules and averaged weights


@pytest.mark.parametrize(("name", "first", "last"), [("constant", 1, 1), ("cosine", 0.8, 0), ("one_cycle", 0.8, 0)])
def test_the_rate_follows_the_schedule(name, first, last, tmp_path):
    _, report = run(tmp_path, replace(SETTINGS, schedule=name, epochs=4))
    rates = [row["learning_rate"] / SETTINGS.learning_rate for row in report.curve[1:]]
    assert rates[0] >= first
    assert rates[-1] == pytest.approx(last, abs=5e-2)


def test_the_averaged_weights_are_evaluated_and_kept(tmp_path):
    forecaster, steps = TinyForecaster(1, dropout=0.0), []
    settings = replace(SETTINGS, ema=0.5, stop_after=2, schedule="constant")
    _, report = run(tmp_path, settings, forecaster, progress=lambda *_: steps.append(weights_of(forecaster)))
    steps = steps[:6]  # progress is called once more at the end
    mean = steps[0]
    for n, weights in enumerate(steps[1:], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        mean = decay * mean + (1 - decay) * weights
    torch.testing.assert_close(weights_of(forecaster), mean)
    windows, sums = TinyWindows(8, seed=1), torch.zeros(2)
    for indices in ([0, 1, 3, 4, 6, 7], [2, 5]):
        batch = windows.gather(indices)
        with torch.no_grad():
            loss = mean_absolute_error(forecaster.compute_member(0, batch), batch["target"], batch["weight"])
        sums += torch.stack([loss * batch["weight"].sum(), batch["weight"].sum()])
    assert report.curve[-1]["validation_loss"] == pytest.approx(float(sums[0] / sums[1]), rel=1e-6)


# ---------------------------------------------------------------- parts of a batch


def not_a_mean(y: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Dice: no sum over samples or pixels."""
    return dice(y, (target > 0).float(), weight)


class Added(torch.nn.Sequential):
    """With a loss of its own, a mean over samples."""

    def forward(self, x):
        y = super().forward(x)
        self.size = y.square().flatten(1).mean(1)
        return y

    def auxiliary_loss(self):
        return 0.1 * self.size.mean()


@pytest.mark.parametrize("loss", [mean_absolute_error, not_a_mean])
@pytest.mark.parametrize("size", [1, 3])
def test_parts_give_the_curve_of_the_whole_batch_also_with_masks(loss, size, tmp_path):
    def with_added():
        forecaster = TinyForecaster(1, dropout=0.0)
        forecaster.members[0] = Added(*forecaster.members[0])
        return forecaster

    whole, report = run(tmp_path / "whole", SETTINGS, with_added(), loss)
    parts, in_parts = run(tmp_path / "parts", replace(SETTINGS, micro_batch=size), with_added(), loss)
    assert losses_of(in_parts) == pytest.approx(losses_of(report), rel=1e-5)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=1e-3, atol=1e-5)


def test_dropout_is_the_same_in_both_passes(tmp_path):
    seen = []

    class Kept(torch.nn.Sequential):
        def forward(self, x):
            y = super().forward(x)
            if self.training:
                seen.append((torch.is_grad_enabled(), y.detach()))
            return y

    forecaster = TinyForecaster(1, dropout=0.5)
    forecaster.members[0] = Kept(*forecaster.members[0])
    run(tmp_path, replace(SETTINGS, epochs=1, micro_batch=4), forecaster)
    first, second = ([y for is_second, y in seen if is_second == which] for which in (False, True))
    assert len(first) > 3
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.allclose(first[0], first[1])


class Greedy(torch.nn.Sequential):
    """Has memory for `most` samples: in training only, or always; in the forward or in the backward pass."""

    most, only_in_training, error = (
        3,
        False,
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB"),
    )
    is_backward = False

    def forward(self, x):
        y = super().forward(x)
        if len(x) > self.most and (torch.is_grad_enabled() or not self.only_in_training):
            if not self.is_backward:
                raise self.error
            y.register_hook(self.fail)
        return y

    def fail(self, _gradient):
        raise self.error


def greedy(**settings):
    forecaster = TinyForecaster(1, dropout=0.0)
    forecaster.members[0] = Greedy(*forecaster.members[0])
    vars(forecaster.members[0]).update(settings)
    return forecaster


@pytest.mark.parametrize(
    "lack", [{}, {"only_in_training": True}, {"only_in_training": True, "is_backward": True}, {"error": MemoryError()}]
)
def test_short_memory_is_answered_with_smaller_parts_of_the_same_batch(lack, tmp_path, caplog):
    whole, report = run(tmp_path / "whole", SETTINGS)
    with caplog.at_level(logging.WARNING, logger="pipelines"):
        parts, in_parts = run(tmp_path / "parts", SETTINGS, greedy(**lack))
    assert losses_of(in_parts) == pytest.approx(losses_of(report), rel=1e-5)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=1e-3, atol=1e-5)
    said = [one.getMessage() for one in caplog.records]
    assert 1 <= len(said) <= 2  # 8 or 6, then 4 or 3 samples at a time, and no word more in 3 epochs
    assert "from now on; the batch of the optimiser stays as it is" in said[-1]


def test_an_interrupted_run_knows_what_fits(tmp_path, caplog):
    def press(done, _total):
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, SETTINGS, greedy(only_in_training=True), progress=press)
    caplog.clear()
    run(tmp_path, SETTINGS, greedy(only_in_training=True))
    assert caplog.text == ""


def test_what_is_no_lack_of_memory_or_cannot_be_divided_is_raised(tmp_path):
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(tmp_path / "a", SETTINGS, greedy(error=RuntimeError("shape mismatch")))
    with pytest.raises(MemoryError):
        run(tmp_path / "b", SETTINGS, greedy(error=MemoryError(), most=0))
    with pytest.raises(RequestError, match=r"training\.micro_batch is for one device"):
        run(tmp_path / "c", replace(SETTINGS, devices=2, micro_batch=2))


# ---------------------------------------------------------------- true frames in place of forecasts


@pytest.mark.parametrize("curve", ["linear", "exponential", "sigmoid"])
@pytest.mark.parametrize(("kind", "first", "last"), [("scheduled", (1, 1), (1, 0)), ("reverse", (0.5, 0.5), (1, 0))])
def test_the_chances_change_over_the_first_steps(kind, curve, first, last):
    sampling = ScheduledSampling(kind, curve, 0.5)
    course = [sampling.chances(step, 100) for step in range(101)]
    assert course[0] == pytest.approx(first, abs=0.01)
    assert course[50:] == [last] * 51
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in pairwise(course))


@pytest.mark.parametrize("network", ["predrnn", pytest.param("feedback", marks=pytest.mark.exhaustive)])
def test_sampling_changes_training_and_nothing_that_is_evaluated(network, tmp_path):
    plain, report = run_frames(tmp_path / "plain", SETTINGS, network)
    for kind in ("scheduled", "reverse"):
        sampled, curve = run_frames(tmp_path / kind, replace(SETTINGS, sampling=ScheduledSampling(kind)), network)
        assert curve.curve[0] == report.curve[0]
        assert curve.curve[1]["training_loss"] != report.curve[1]["training_loss"]
        assert bool(torch.isfinite(weights_of(sampled)).all())
        assert not torch.equal(weights_of(sampled), weights_of(plain))


def test_what_reads_no_forecasts_cannot_be_shown_the_truth(tmp_path):
    with pytest.raises(RequestError, match=r"training\.sampling needs a network that reads.*EncoderForecaster does"):
        run_frames(tmp_path, ALL_ON, "without")
