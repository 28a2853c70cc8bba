import csv
import errno
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_forecaster import TinyForecaster, TinyWindows, mean_absolute_error

from pipelines.errors import ArtefactDamaged, RequestError, StateError, StorageFull
from pipelines.learning import training
from pipelines.learning.training import TrainingReport, TrainingSettings, train

SETTINGS = TrainingSettings(epochs=3, batch=8, learning_rate=1e-2, accelerator="cpu")


def run(folder: Path, settings: TrainingSettings = SETTINGS, *, loss=mean_absolute_error, members=2, progress=None, key=""):
    forecaster = TinyForecaster(members)
    report = train(forecaster, TinyWindows(24), TinyWindows(8, seed=1), loss, settings, folder, progress, key=key)
    return forecaster, report


def is_resumed(report: TrainingReport) -> bool:
    return any(member.resumed for member in report.members)


def weights(forecaster: TinyForecaster) -> list[torch.Tensor]:
    return [value for member in forecaster.members for value in member.state_dict().values()]


def is_same(first: TinyForecaster, second: TinyForecaster) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


def test_training_learns_and_leaves_the_best_weights_in_eval_mode(tmp_path):
    forecaster, report = run(tmp_path)
    for member, of_member in zip(forecaster.members, report.members, strict=True):
        losses = [row["validation_loss"] for row in of_member.curve]
        assert losses[-1] < 0.95 * losses[0]
        assert of_member.best_validation_loss == min(losses)
        assert not member.training
    assert (report.training_windows, report.validation_windows) == (24, 8)
    assert not is_resumed(report)
    batch = TinyWindows(8, seed=1)
    sums = torch.zeros(2)
    for indices in ([0, 1, 3, 4, 6, 7], [2, 5]):
        part = batch.gather(indices)
        with torch.no_grad():
            y = forecaster.compute_member(0, part)
        count = part["weight"].sum()
        sums += torch.stack([mean_absolute_error(y, part["target"], part["weight"]) * count, count])
    assert float(sums[0] / sums[1]) == pytest.approx(report.members[0].best_validation_loss, rel=1e-6)


def test_training_that_stops_after_an_epoch_keeps_its_last_weights(tmp_path):
    whole, _ = run(tmp_path / "a")
    stopped, report = run(tmp_path / "b", replace(SETTINGS, epochs=6, stop_after=2, patience=1))
    again, _ = run(tmp_path / "c", replace(SETTINGS, epochs=6, stop_after=2, patience=1))
    assert [member.epochs for member in report.members] == [member.best_epoch for member in report.members] == [2, 2]
    assert is_same(stopped, again)
    assert not is_same(stopped, whole)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    torch.manual_seed(1)
    first, _ = run(tmp_path / "a")
    torch.manual_seed(2)
    second, _ = run(tmp_path / "b")
    other, _ = run(tmp_path / "c", replace(SETTINGS, seed=5))
    assert is_same(first, second)
    assert not is_same(first, other)


class WithAuxiliaryLoss(torch.nn.Sequential):
    """Its first weight is drawn to 5 by a loss of its own."""

    def auxiliary_loss(self):
        return 100 * (self[0].weight - 5).abs().mean()


def test_a_member_s_auxiliary_loss_is_trained_but_not_reported(tmp_path):
    _, report = run(tmp_path / "a", members=1)
    forecaster = TinyForecaster(1)
    forecaster.members[0] = WithAuxiliaryLoss(*forecaster.members[0])
    settings = replace(SETTINGS, epochs=1)
    drawn = train(forecaster, TinyWindows(24), TinyWindows(8, seed=1), mean_absolute_error, settings, tmp_path / "b")
    start, trained = TinyForecaster(1).members[0][0].weight, forecaster.members[0][0].weight
    assert float((trained - start).detach().mean()) > 5e-3  # three steps of at most 0.01 in one direction
    assert drawn.members[0].curve[0]["validation_loss"] == report.members[0].curve[0]["validation_loss"]
    assert drawn.members[0].curve[1]["training_loss"] < 3


def test_the_state_of_the_process_is_put_back(tmp_path, capfd):
    torch.manual_seed(3)
    before = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGTERM)
    levels = [logging.getLogger(name).level for name in training.LIGHTNING_LOGGERS]
    run(tmp_path, members=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGTERM))
    assert levels == [logging.getLogger(name).level for name in training.LIGHTNING_LOGGERS]
    assert capfd.readouterr() == ("", "")


def test_progress_counts_the_steps_of_all_members_to_the_end(tmp_path):
    seen = []
    run(tmp_path, replace(SETTINGS, patience=1, learning_rate=1.0), progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {2 * 3 * 3}
    done = [step for step, _ in seen]
    assert done == sorted(done)
    assert done[-1] == 18


def test_a_finished_member_is_not_trained_again(tmp_path, monkeypatch):
    first, report = run(tmp_path)
    monkeypatch.setattr(training, "_fit", lambda *_: pytest.fail("trained again"))
    again, second = run(tmp_path)
    assert is_same(first, again)
    assert is_resumed(second)
    assert [m.curve for m in second.members] == [m.curve for m in report.members]


@pytest.mark.parametrize("change", [{"settings": replace(SETTINGS, learning_rate=2e-2)}, {"key": "another snapshot"}])
def test_resume_state_of_another_training_is_set_aside(tmp_path, change):
    first, _ = run(tmp_path, members=1)
    second, report = run(tmp_path, **change, members=1)
    assert not is_resumed(report)
    assert is_same(first, second) == ("settings" not in change)


def test_damaged_resume_state_is_refused_with_the_remedy(tmp_path):
    run(tmp_path, members=1)
    path = tmp_path / "resume" / "member-0.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        ArtefactDamaged, match=r"member-0\.ckpt: the state of an interrupted training cannot be read .* delete it"
    ):
        run(tmp_path, members=1)


def test_a_full_disk_is_said_and_training_goes_on_from_there(tmp_path, monkeypatch):
    whole, _ = run(tmp_path / "whole", members=1)
    fsync, calls = os.fsync, []

    def full_at_the_second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(StorageFull, match=r"no space left for .*member-0\.ckpt; free some and run again"):
        run(tmp_path / "full", members=1)
    again, report = run(tmp_path / "full", members=1)
    assert is_resumed(report)
    assert is_same(again, whole)


def test_resume_state_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "pwned", "x"))

    (tmp_path / "resume").mkdir()
    torch.save({"callbacks": Evil()}, tmp_path / "resume" / "member-0.ckpt")
    with pytest.raises(ArtefactDamaged, match="cannot be read"):
        run(tmp_path, members=1)
    assert not (tmp_path / "pwned").exists()


def test_a_member_that_training_makes_worse_stays_untrained(tmp_path):
    def away(
        y, target, valid
    ):  # pushes the forecast away from the truth, except that validation (no gradient) sees the true loss
        return mean_absolute_error(y, target, valid) * (-1 if torch.is_grad_enabled() else 1)

    forecaster, report = run(tmp_path, loss=away, members=1)
    assert is_same(forecaster, TinyForecaster(1))
    assert report.members[0].best_epoch == 0


def test_training_stops_after_patience_epochs_without_improvement(tmp_path):
    def away(y, target, valid):
        return mean_absolute_error(y, target, valid) * (-1 if torch.is_grad_enabled() else 1)

    _, report = run(tmp_path, replace(SETTINGS, epochs=9, patience=2), loss=away, members=1)
    assert report.members[0].epochs == 3  # one that sets the mark, two without improvement


def test_a_loss_that_is_never_a_number_is_an_error_that_names_the_remedy(tmp_path):
    with pytest.raises(StateError, match=r"validation loss is not a number .* lower training.learning_rate \(it is 0.01\)"):
        run(tmp_path, loss=lambda y, target, valid: (y * float("nan")).sum(), members=1)
    assert not (tmp_path / "resume" / "member-0.ckpt").exists()


def test_curves_are_written_as_csv_and_for_tensorboard_where_it_is_installed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "find_spec", lambda _name: None)
    with caplog.at_level(logging.INFO, logger="pipelines"):
        _, report = run(tmp_path, members=1)
    assert "tensorboard is not installed" in caplog.text
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["member-0.csv"]
    rows = list(csv.DictReader((tmp_path / "logs" / "member-0.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert float(rows[2]["validation_loss"]) == report.members[0].curve[2]["validation_loss"]
    assert rows[0]["training_loss"] == ""


def test_tensorboard_gets_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    run(tmp_path, members=1)
    assert len(list((tmp_path / "logs" / "member-0").glob("events.out.tfevents.*"))) == 1


def test_ctrl_c_comes_out_as_ctrl_c(tmp_path):
    def press(done, _total):
        if done == 4:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=press, members=1)
    assert signal.getsignal(signal.SIGINT) == before
    resumed, report = run(tmp_path, members=1)
    whole, _ = run(tmp_path / "whole", members=1)
    assert is_resumed(report)
    assert is_same(resumed, whole)


def test_a_request_to_terminate_ends_with_its_exit_code_and_can_be_resumed(tmp_path):
    def stop(done, _total):
        if done == 5:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, progress=stop, members=1)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    resumed, _ = run(tmp_path, members=1)
    whole, _ = run(tmp_path / "whole", members=1)
    assert is_same(resumed, whole)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (replace(SETTINGS, precision="16-mixed"), "precision 16-mixed needs a GPU; use `32` on a CPU"),
        (replace(SETTINGS, precision="64"), "precision is '64'; expected one of 32, bf16-mixed, 16-mixed"),
    ],
)
def test_what_this_machine_cannot_do_is_said_before_training(tmp_path, settings, match):
    with pytest.raises(RequestError, match=match):
        run(tmp_path, settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_a_mistake_of_the_request(tmp_path):
    with pytest.raises(RequestError, match="PyTorch sees no GPU here; use `auto` or `cpu`"):
        run(tmp_path, replace(SETTINGS, accelerator="gpu"))


def test_an_empty_part_is_a_mistake_of_the_split(tmp_path):
    with pytest.raises(RequestError, match=r"the validation part has no window.*Mend `split`"):
        train(TinyForecaster(1), TinyWindows(4), TinyWindows(0), mean_absolute_error, SETTINGS, tmp_path)


def test_bfloat16_trains_too(tmp_path):
    _, report = run(tmp_path, replace(SETTINGS, precision="bf16-mixed"), members=1)
    assert report.members[0].best_epoch > 0


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_devices_train_one_model(tmp_path):
    """Distributed data parallel in spawned processes (gloo on the CPU), in a process of its own."""
    import subprocess

    driver = Path(__file__).with_name("two_devices.py")
    for attempt in ("first", "second"):
        command = [sys.executable, "-W", "error", driver, tmp_path / attempt]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250)
        # seen once in some twenty runs: a process of gloo's aborts on its way out (a C++ thread that nobody joined)
        if "terminate called without an active exception" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["15", "15", "True", "8.0", "True"]  # last progress, total, learnt, validated by both, as alone
    assert done.stderr == ""
