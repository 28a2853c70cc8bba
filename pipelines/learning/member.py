"""One network of the ensemble as Lightning sees it, and what of its training survives a kill.

After every epoch the whole state (weights, optimiser, schedule, best weights so far, curve) is published in one
file by rename. It is Lightning's own checkpoint, read with `weights_only=True`: tensors and plain values, no code.
"""

import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pipelines.files import publish
from pipelines.learning.epoch_batches import Batch, EpochBatches
from pipelines.learning.micro_batches import MicroBatches, backward, backward_in_parts, forward
from pipelines.learning.ranks import gathered, of_whole_batch
from pipelines.learning.schedules import ScheduledSampling, moving_average, rate_schedule
from pipelines.predictors import HasAuxiliaryLoss, Trainable

VALIDATION_LOSS = "validation_loss"
Row = dict[str, float | None]  # epoch (0 = untrained), training_loss, validation_loss, learning_rate, and a score by its name
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
}
LATER_SETTINGS = ("schedule", "ema", "micro_batch", "sampling")  # than the first state files
LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train. `batch` counts windows over all devices; `clip` bounds the gradient's norm; `patience` in epochs.

    stop_after: the epoch after which training ends and whose weights are kept, whatever the validation loss; None: the best.
    """

    epochs: int = 30
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    patience: int = 6
    precision: str = "32"  # "32" | "bf16-mixed" | "16-mixed"
    accelerator: str = "auto"  # "auto" | "cpu" | "gpu"
    devices: int = 1
    seed: int = 0
    optimizer: str = "adamw"  # of OPTIMIZERS
    stop_after: int | None = None
    schedule: str = "one_cycle"  # "one_cycle" | "cosine" | "constant", of the learning rate
    ema: float = 0.0  # decay of the mean of the weights that is evaluated and kept; 0: the weights themselves
    micro_batch: int | None = None  # samples that go through the network at a time; None: the batch
    sampling: ScheduledSampling | None = None  # for networks that read their own forecasts

    def described(self) -> dict[str, Any]:
        """The settings as plain values; the later ones only where they differ from what once was the only way."""
        later = {one.name: one.default for one in fields(self) if one.name in LATER_SETTINGS}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}


@dataclass(frozen=True)
class Score:
    """A figure of the validation part beside its loss; of a network of several processes all functions must pickle.

    `of_batch(y, batch)`: what a batch adds, `of_all(parts)`: the figure of an epoch, None where it is not defined.
    """

    name: str
    of_batch: Callable[[torch.Tensor, Batch], torch.Tensor]
    of_all: Callable[[Sequence[torch.Tensor]], float | None]


def frame_weight(batch: Batch) -> torch.Tensor:
    """The weight of frames' pixels, (B, K, 1, H, W): whether they were seen; all channels of a pixel count alike."""
    return batch["target_valid_KHW"][:, :, None]


class MemberTask(LightningModule):
    """Member `i` of a forecaster with its loss, optimiser and schedules.

    On one device a training step computes the gradient itself, in parts where memory needs it (`micro_batches`); on several
    devices Lightning does, which averages over them: each has the loss of the whole batch and the gradient of its own part.
    """

    def __init__(
        self, forecaster: Trainable, i: int, loss: Loss, settings: TrainingSettings, steps: int,
        target_of: Callable[[Batch], torch.Tensor], weight_of: Callable[[Batch], torch.Tensor], score: Score | None = None,
    ):  # fmt: skip
        super().__init__()
        self.member: nn.Module = forecaster.members[i]
        self.average = averaged(self.member, settings.ema) if settings.ema else None
        self._around = (forecaster,)  # in a tuple: not registered, its other members are none of this task's parameters
        self._compute_member = partial(forecaster.compute_member, i)
        self._loss, self._settings, self._steps = loss, settings, steps
        self._target_of, self._weight_of = target_of, weight_of
        self.training_sums = self.validation_sums = torch.zeros(2)
        self.validation_loss = math.nan
        self._score, self._parts, self.scores = score, list[torch.Tensor](), Row()
        self.micro = MicroBatches(settings.micro_batch)

    def _compute(self, batch: Batch) -> torch.Tensor:
        return self._compute_member(batch).float()

    def _sums(self, y: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and (loss x total weight, total weight) for the mean over an epoch."""
        target, weight = self._target_of(batch), self._weight_of(batch)
        if self.trainer.world_size > 1:
            y, target, weight = (of_whole_batch(one, batch) for one in (y, target, weight))
        loss = self._loss(y, target, weight)
        count = weight.sum().float()
        return loss, torch.stack([loss.detach() * count, count])

    def on_fit_start(self) -> None:
        if isinstance(self._around[0], nn.Module):
            self._around[0].to(self.device)  # its constants: statistics, shrinkage

    def on_train_epoch_start(self) -> None:
        self.training_sums = torch.zeros(2, device=self.device)

    def training_step(self, batch: Batch, _index: int) -> torch.Tensor:
        if self._settings.sampling is not None:
            batch = self._settings.sampling.drawn(batch, self.trainer.global_step, self._steps)
        if self.trainer.world_size == 1:
            loss, sums = self.micro.within_memory(batch, partial(self._loss_and_gradient, batch))
        else:
            loss, sums = self._loss_of_whole(batch)
        self.training_sums = self.training_sums + sums
        return loss

    def _loss_of_whole(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, sums = self._sums(self._compute(batch), batch)
        loss, auxiliary = loss * self.trainer.world_size, self._auxiliary_loss()
        return loss if auxiliary is None else loss + auxiliary, sums  # the curve shows the loss alone, as of the validation part

    def _loss_and_gradient(self, batch: Batch, parts: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of the batch, detached, and the sums of the epoch's mean; the parameters have its gradient and no other."""
        self.member.zero_grad()
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # of 16-mixed
        scale = scaler.scale if scaler is not None else lambda loss: loss
        if len(parts) == 1:
            loss, sums = self._loss_of_whole(batch)
            backward([scale(loss)], [None])
            return loss.detach(), sums
        found: list[torch.Tensor] = []

        def loss_of(y: torch.Tensor) -> torch.Tensor:
            loss, sums = self._sums(y, batch)
            found.append(sums)
            return loss

        loss = backward_in_parts(parts, self._compute, loss_of, self._auxiliary_loss, scale)
        return loss, found[0]

    def _auxiliary_loss(self) -> torch.Tensor | None:
        return self.member.auxiliary_loss() if isinstance(self.member, HasAuxiliaryLoss) else None

    def optimizer_zero_grad(self, *arguments: Any) -> None:
        if self.trainer.world_size > 1:  # else the gradient is there already
            super().optimizer_zero_grad(*arguments)

    def backward(self, loss: torch.Tensor, *arguments: Any, **named: Any) -> None:
        if self.trainer.world_size > 1:
            super().backward(loss, *arguments, **named)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None:
            self.average.update_parameters(self.member)

    def _exchange_weights(self) -> None:
        """The averaged weights into the member and its own into the average, or back."""
        if self.average is None:
            return
        with torch.no_grad():
            for own, mean in zip(self.member.parameters(), self.average.module.parameters(), strict=True):
                held = own.clone()
                own.copy_(mean)
                mean.copy_(held)

    def evaluated_weights(self) -> dict[str, torch.Tensor]:
        """Those that the validation part has seen, copies on the CPU."""
        of = self.member if self.average is None else self.average.module
        return {name: value.detach().cpu().clone() for name, value in of.state_dict().items()}

    def on_validation_epoch_start(self) -> None:
        self.validation_sums = torch.zeros(2, device=self.device)
        self._parts = []
        self._exchange_weights()

    def validation_step(self, batch: Batch, _index: int) -> None:
        y = self.micro.within_memory(batch, partial(forward, compute=self._compute))
        self.validation_sums = self.validation_sums + self._sums(y, batch)[1]
        if self._score is not None:
            self._parts.append(self._score.of_batch(y, batch).cpu())

    def on_validation_epoch_end(self) -> None:
        self._exchange_weights()
        loss = self.mean_of(self.validation_sums)
        self.validation_loss = float(loss)
        self.log(VALIDATION_LOSS, loss, sync_dist=True)  # equal on all ranks already; for early stopping
        if self._score is not None:
            self.scores = {self._score.name: self._score.of_all(gathered(self._parts, self.trainer.world_size))}

    def mean_of(self, sums: torch.Tensor) -> torch.Tensor:
        """Mean loss per weight (a usable pixel, a label) over all ranks; nan where there was none."""
        total = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return total[0] / total[1]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["driftline_micro_batch"] = self.micro.size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.micro.size = checkpoint.get("driftline_micro_batch", self.micro.size)

    def configure_optimizers(self) -> Any:
        rate = self._settings.learning_rate
        weights = [p for p in self.member.parameters() if p.requires_grad and p.ndim > 1]
        biases = [p for p in self.member.parameters() if p.requires_grad and p.ndim <= 1]  # not decayed
        groups = [{"params": weights, "weight_decay": self._settings.weight_decay}, {"params": biases, "weight_decay": 0.0}]
        optimizer = OPTIMIZERS[self._settings.optimizer]([group for group in groups if group["params"]], lr=rate)
        has_momentum = self._settings.optimizer != "rmsprop"
        schedule = rate_schedule(self._settings.schedule, optimizer, rate, self._steps, has_momentum=has_momentum)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def averaged(member: nn.Module, decay: float) -> AveragedModel:
    """A copy of `member` that follows the mean of its weights; the optimiser does not see it."""
    average = AveragedModel(member, multi_avg_fn=moving_average(decay))
    return average.requires_grad_(requires_grad=False)


class EpochEnd(Callback):
    """Draws every epoch's chance from (seed, epoch), keeps the best weights and the curve, publishes the resume state."""

    def __init__(
        self, training: EpochBatches, validation: EpochBatches, key: str, path: Path, progress: Callable[[int], None],
        note: Callable[[Row], None] | None = None, *, keeps_last: bool = False,
    ):  # fmt: skip
        self.keeps_last = keeps_last
        self.training, self.validation, self.path = training, validation, path
        self._key, self._progress, self._note = key, progress, note
        self.best: dict[str, torch.Tensor] = {}
        self.curve: list[Row] = []
        self.is_finished = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        quieten_lightning()  # arriving in a process of a multi-device run

    @property
    def state_key(self) -> str:
        return "driftline_epoch_end"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for part in (self.training, self.validation):
            part.rank, part.world = trainer.global_rank, trainer.world_size

    def on_sanity_check_end(self, trainer: Trainer, pl_module: MemberTask) -> None:  # type: ignore[override]
        """Row 0 of the curve: the untrained member. One that corrects a baseline equals it then, and may stay the best."""
        if not self.curve:
            row: Row = {"epoch": 0, "training_loss": None, VALIDATION_LOSS: pl_module.validation_loss, "learning_rate": None}
            self._add_row(trainer, pl_module, {**row, **pl_module.scores})

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training.epoch = trainer.current_epoch
        seeds = np.random.SeedSequence([self.training.seed, trainer.current_epoch, trainer.global_rank])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))  # dropout: another pattern each epoch and rank

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self._progress(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: MemberTask) -> None:  # type: ignore[override]
        row = {
            "epoch": trainer.current_epoch + 1,
            "training_loss": float(pl_module.mean_of(pl_module.training_sums)),
            VALIDATION_LOSS: pl_module.validation_loss,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            **pl_module.scores,
        }
        self._add_row(trainer, pl_module, row)
        self._publish(trainer)

    def _add_row(self, trainer: Trainer, task: MemberTask, row: Row) -> None:
        self.curve = [*self.curve, row]
        if self.keeps_last or best_of(self.curve) is row:
            self.best = task.evaluated_weights()
        figures = {name: value for name, value in row.items() if name != "epoch" and value is not None}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=int(row["epoch"] or 0))
        if self._note is not None:
            self._note(row)

    def _publish(self, trainer: Trainer) -> None:
        part = self.path.with_suffix(".part")
        self.is_finished = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        trainer.save_checkpoint(part)  # on every rank: it holds a barrier
        if trainer.is_global_zero:
            publish(part, self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"key": self._key, "finished": self.is_finished, "best": self.best, "curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.curve = state_dict["best"], state_dict["curve"]


def quieten_lightning() -> None:
    """No chatter of Lightning's on the terminal; sets log levels and warning filters of this process."""
    for name in LIGHTNING_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.simplefilter("ignore", PossibleUserWarning)  # advice (an unused GPU, few workers ...), not for our users
    # Lightning 2.6 on PyTorch 2.13: its tree walk names a class that torch deprecates
    warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)


def describe_row(row: Row) -> str:
    """`epoch 3: validation loss 0.412, accuracy 0.871`."""
    names = [name for name in row if name not in ("epoch", "training_loss", "learning_rate") and row[name] is not None]
    return f"epoch {row['epoch']:.0f}: " + ", ".join(f"{name.replace('_', ' ')} {row[name]:.4g}" for name in names)


def best_of(curve: Sequence[Row]) -> Row | None:
    """The row with the smallest finite validation loss, the first of equals; None where there is none."""
    finite = [row for row in curve if math.isfinite(row[VALIDATION_LOSS] or 0)]
    return min(finite, key=lambda row: row[VALIDATION_LOSS] or 0, default=None)


def load_epoch_state(path: Path) -> dict[str, Any]:
    """What EpochEnd last published at `path`: key, finished, best (weights on the CPU), curve.

    Raises whatever torch.load raises for a file that is no checkpoint.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["callbacks"]["driftline_epoch_end"]
    return state


@contextmanager
def relayed(show: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """A picklable function for the processes of a multi-device run; what they pass to it, `show` gets here."""
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()

    def pass_on() -> None:
        for step in iter(queue.get, None):
            show(step)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield queue.put
    finally:
        queue.put(None)
        thread.join()
        queue.close()
