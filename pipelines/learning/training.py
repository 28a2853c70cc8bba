"""Forecaster in, trained forecaster out: every member of the ensemble with a seed of its own.

What happens is a function of (settings, windows, initial weights) alone: epoch e of member m draws its order, its
augmentation and its dropout from (seed + m, e), so a run that was killed at any moment and started again ends
with the same weights, bit for bit on a CPU, as one that was left alone.
"""

import csv
import hashlib
import json
import logging
import math
import pickle
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from pipelines.errors import ArtefactDamaged, RequestError, StateError, StorageFull
from pipelines.files import is_full, replacing
from pipelines.learning.epoch_batches import Batch, EpochBatches, WindowSet
from pipelines.learning.member import (
    LIGHTNING_LOGGERS,
    VALIDATION_LOSS,
    EpochEnd,
    Loss,
    MemberTask,
    Row,
    Score,
    TrainingSettings,
    best_of,
    describe_row,
    load_epoch_state,
    quieten_lightning,
    relayed,
)
from pipelines.predictors import Trainable
from pipelines.progress import Progress, note_progress, report_epoch

__all__ = ["Loss", "MemberReport", "Score", "TrainingReport", "TrainingSettings", "train"]

log = logging.getLogger(__name__)
PRECISIONS = {"32": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed"}


@dataclass(frozen=True)
class MemberReport:
    """How one network was trained. Epoch 0 is the untrained network (no training loss, no rate): `best_epoch` 0 says that
    training found nothing better. `resumed`: an earlier, interrupted run did some of it; `seconds` are those of this run.
    """

    epochs: int
    best_epoch: int
    best_validation_loss: float
    curve: tuple[Row, ...]
    resumed: bool
    seconds: float


@dataclass(frozen=True)
class TrainingReport:
    """Of a whole ensemble."""

    members: tuple[MemberReport, ...]
    training_windows: int
    validation_windows: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def train(
    forecaster: Trainable, train_set: WindowSet, validation_set: WindowSet, loss: Loss, settings: TrainingSettings, folder: Path,
    progress: Progress | None = None, *, key: str = "", target_of: Callable[[Batch], torch.Tensor] = itemgetter("target"),
    weight_of: Callable[[Batch], torch.Tensor] = itemgetter("weight"), score: Score | None = None,
) -> TrainingReport:  # fmt: skip
    """Trains every member of `forecaster` in place; afterwards each holds its best weights, on the CPU, in eval mode.

    `target_of(batch)` is what is to be learnt and `weight_of(batch)` how much each value of it counts (0 or False: not known).
    Both may have any axes after B (frames, volumes, labels, tokens), as long as the weight broadcasts to the target.
    `loss(y, target, weight)` is the mean over the weights (0, with a gradient, where there are none); see `models.losses`.
    `folder` gets `logs/member-0.csv` ... (and TensorBoard files where tensorboard is installed) and `resume/`, from which
    an interrupted run goes on; members that are finished there are not trained again. `key` names what else the result
    depends on (cube snapshot, model config): resume state with another key, settings or data is set aside.
    `progress(done, total)` counts optimiser steps over all members; its method `epoch`, where it has one and there is one device,
    gets each row of the curve and may raise to end the training. `score` is measured beside the validation loss and is in the
    curve; it chooses nothing.

    With `devices` > 1 this is distributed data parallel in spawned processes: the calling script needs the usual
    `if __name__ == "__main__"` guard and everything passed in must pickle.

    Raises RequestError (no windows; a precision or device that this machine does not have), StateError (the loss is not finite
    from the first epoch on), ArtefactDamaged (resume state that cannot be read), StorageFull (what was published before stays).
    """
    _check_request(train_set, validation_set, settings)
    count = len(forecaster.members)
    reports = []
    for i, member in enumerate(forecaster.members):
        if settings.sampling is not None and not getattr(member, "reads_its_forecasts", False):
            raise RequestError(
                "training.sampling needs a network that reads its own forecasts frame by frame: model.kind predrnn, or convlstm, "
                f"convgru or trajgru with model.feedback: true; {type(member).__name__} does not"
            )
        training = EpochBatches(train_set, settings.batch, settings.seed + i, shuffle=True)
        validation = EpochBatches(validation_set, settings.batch, settings.seed + i, shuffle=False)
        steps = settings.epochs * len(training)
        show = _shifted(progress, i * steps, count * steps)
        started, resume = time.monotonic(), folder / "resume" / f"member-{i}.ckpt"
        run_key = _fingerprint(member, training, validation, settings, key)
        state = _resume_state(resume, run_key)
        is_resumed = state is not None
        if state is None or not state["finished"]:
            task = MemberTask(forecaster, i, loss, settings, steps, target_of, weight_of, score)
            note = partial(_tell, progress) if progress is not None and settings.devices == 1 else None
            with relayed(show) if settings.devices > 1 else nullcontext(show) as carried:
                keeps_last = settings.stop_after is not None
                epoch_end = EpochEnd(training, validation, run_key, resume, carried, note, keeps_last=keeps_last)
                _fit(task, epoch_end, settings, resume if is_resumed else None)
            state = load_epoch_state(resume)
        best = _take_best(member, state, resume, settings)
        curve = state["curve"]
        _write_curve(curve, folder / "logs" / f"member-{i}.csv")
        if progress is not None and (row := best_of(curve)) is not None:
            note_progress(progress, f"best {describe_row(row)}")
        seconds = time.monotonic() - started
        reports.append(MemberReport(len(curve) - 1, int(best["epoch"]), best[VALIDATION_LOSS], tuple(curve), is_resumed, seconds))
        show(steps)
    if isinstance(forecaster, nn.Module):
        forecaster.cpu()
    return TrainingReport(tuple(reports), len(train_set), len(validation_set))


def _check_request(train_set: WindowSet, validation_set: WindowSet, settings: TrainingSettings) -> None:
    for name, windows in (("training", train_set), ("validation", validation_set)):
        if len(windows) == 0:
            raise RequestError(
                f"the {name} part has no window; expected at least one. Mend `split` (smaller block_px, buffer_px or gap_days, "
                "other dates) or `samples` (shorter context or horizon, smaller min_valid_fraction)"
            )
    if settings.precision not in PRECISIONS:
        raise RequestError(f"training.precision is {settings.precision!r}; expected one of {', '.join(PRECISIONS)}")
    if settings.devices > 1 and settings.micro_batch is not None:
        raise RequestError(
            "training.micro_batch is for one device, training.devices divides a batch already; take one of them out"
        )
    is_gpu_here = torch.cuda.is_available()
    if settings.accelerator == "gpu" and not is_gpu_here:
        raise RequestError("training.accelerator is gpu, but PyTorch sees no GPU here; use `auto` or `cpu`")
    is_gpu = is_gpu_here and settings.accelerator != "cpu"
    if settings.precision == "16-mixed" and not is_gpu:
        raise RequestError("training.precision 16-mixed needs a GPU; use `32` on a CPU")
    if is_gpu and settings.devices > torch.cuda.device_count():
        raise RequestError(f"training.devices is {settings.devices}, but PyTorch sees {torch.cuda.device_count()} GPUs here")


def _fingerprint(
    member: nn.Module, training: EpochBatches, validation: EpochBatches, settings: TrainingSettings, key: str
) -> str:
    """What the course of training depends on, as far as it can be told without reading all the data."""
    shapes = {name: list(value.shape) for name, value in member.state_dict().items()}
    groups = [[len(group) for group in part.groups] for part in (training, validation)]
    text = json.dumps([settings.described(), training.seed, shapes, groups, key], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _resume_state(path: Path, key: str) -> dict[str, Any] | None:
    """What an earlier run left at `path`; None where there is nothing that belongs to this training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").unlink(missing_ok=True)
    if not path.exists():
        return None
    try:
        state = load_epoch_state(path)
    except (RuntimeError, KeyError, EOFError, OSError, pickle.UnpicklingError) as e:
        raise ArtefactDamaged(
            f"{path}: the state of an interrupted training cannot be read ({type(e).__name__}); delete it to start again"
        ) from e
    if state["key"] == key:
        log.info("%s: going on after epoch %d", path, len(state["curve"]) - 1)
        return state
    log.info("%s belongs to a training with other settings or data; starting again", path)
    return None


def _fit(task: MemberTask, epoch_end: EpochEnd, settings: TrainingSettings, resume: Path | None) -> None:
    gpus = list(range(torch.cuda.device_count()))
    patience = settings.patience if settings.stop_after is None else settings.epochs
    stopping = EarlyStopping(VALIDATION_LOSS, patience=patience, check_on_train_epoch_end=False, check_finite=True)
    with _process_settings(), torch.random.fork_rng(gpus):
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy="ddp_spawn" if settings.devices > 1 else "auto",  # plain "ddp" would run our command line once more
            precision=PRECISIONS[settings.precision],  # type: ignore[arg-type]
            max_epochs=settings.epochs if settings.stop_after is None else settings.stop_after,
            gradient_clip_val=settings.clip,
            deterministic=True,
            callbacks=[epoch_end, stopping],
            logger=_tensorboard(epoch_end.path),
            log_every_n_steps=len(epoch_end.training),
            use_distributed_sampler=False,
            num_sanity_val_steps=-1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        task.train()
        try:
            trainer.fit(task, epoch_end.training, epoch_end.validation, ckpt_path=resume, weights_only=True)
        except OSError as e:
            if not is_full(e):
                raise
            text = f"no space left for {epoch_end.path}; free some and run again: training goes on from there"
            raise StorageFull(text) from e
        except SIGTERMException as e:  # a SystemExit without a code, which would read as success
            raise SystemExit(128 + signal.SIGTERM) from e
        except SystemExit as e:  # Lightning answers Ctrl-C with exit(1) and leaves SIGINT ignored
            if e.code == 128 + signal.SIGTERM:  # raised by a handler of the caller's
                raise
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from e


def _take_best(member: nn.Module, state: dict[str, Any], resume: Path, settings: TrainingSettings) -> dict[str, float]:
    """The best row of the curve, after its weights are put into `member`."""
    best = best_of(state["curve"] if settings.stop_after is None else state["curve"][-1:])
    if best is None or not state["best"]:
        resume.unlink()
        raise StateError(
            f"the validation loss is not a number ({len(state['curve']) - 1} epochs tried); look for huge values in the data "
            "(source.nodata, source.valid_range), or "
            f"lower training.learning_rate (it is {settings.learning_rate}) or training.clip (it is {settings.clip})"
        )
    broken = [row["epoch"] for row in state["curve"] if not math.isfinite(row[VALIDATION_LOSS])]
    if broken:
        log.warning("the validation loss is not a number after epoch %d; the best weights before are kept", broken[0])
    member.cpu()
    member.load_state_dict(state["best"])
    member.eval()
    return {name: value or 0.0 for name, value in best.items()}


def _write_curve(curve: list[Row], path: Path) -> None:
    """The whole curve as CSV. Not Lightning's CSVLogger: that one deletes the epochs before an interruption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, flush=False, mark="partial") as draft, draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(curve[0]))
        writer.writeheader()
        writer.writerows(curve)


def _tensorboard(resume: Path) -> TensorBoardLogger | bool:
    if find_spec("tensorboard") is None:
        log.info("tensorboard is not installed (extra `logs`): the curves are written as CSV only")
        return False
    return TensorBoardLogger(resume.parents[1], name="logs", version=resume.stem)


def _tell(progress: Progress, row: Row) -> None:
    note_progress(progress, describe_row(row))
    report_epoch(progress, row)


def _shifted(progress: Progress | None, first: int, total: int) -> Callable[[int], None]:
    return (lambda step: progress(first + step, total)) if progress else (lambda _step: None)


@contextmanager
def _process_settings() -> Iterator[None]:
    """Lightning without its chatter; afterwards log levels and the switches that `deterministic=True` sets are as before."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS]
    levels = [logger.level for logger in loggers]
    deterministic: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill, benchmark = deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    deterministic.fill_uninitialized_memory = False  # a debugging aid that costs a write of every buffer
    try:
        with warnings.catch_warnings():
            quieten_lightning()
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark = fill, benchmark
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
