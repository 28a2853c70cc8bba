"""One network of the ensemble as Lightning sees it, its batches, and what of its training survives a kill.

After every epoch the whole state (weights, optimiser, schedule, best weights so far, curve) is published in one
file by rename. It is Lightning's own checkpoint, read with `weights_only=True`: tensors and plain values, no code.
"""

import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from pipelines.files import publish
from pipelines.predictors import HasAuxiliaryLoss, Trainable

VALIDATION_LOSS = "validation_loss"
Row = dict[str, float | None]  # epoch (0 = untrained), training_loss, validation_loss, learning_rate, and a score by its name
Batch = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
}
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


@dataclass(frozen=True)
class Score:
    """A figure of the validation part beside its loss; of a network of several processes all functions must pickle.

    `of_batch(y, batch)`: what a batch adds, `of_all(parts)`: the figure of an epoch, None where it is not defined.
    """

    name: str
    of_batch: Callable[[torch.Tensor, Batch], torch.Tensor]
    of_all: Callable[[Sequence[torch.Tensor]], float | None]


class WindowSet(Protocol):
    """Windows of one part, as `pipelines.samples` gives them.

    `shapes` has one hashable per window (windows of equal shape may share a batch); `gather(indices)` is a dict of tensors
    with a leading B, of which `train` reads target and weight; `set_epoch` changes the augmentation, if there is any.
    """

    @property
    def shapes(self) -> Sequence[Any]: ...
    def __len__(self) -> int: ...
    def gather(self, indices: list[int]) -> Batch: ...
    def set_epoch(self, epoch: int) -> None: ...


def frame_weight(batch: Batch) -> torch.Tensor:
    """The weight of frames' pixels, (B, K, 1, H, W): whether they were seen; all channels of a pixel count alike."""
    return batch["target_valid_KHW"][:, :, None]


class EpochBatches:
    """The batches of one epoch, an iterable with a length.

    Not a torch DataLoader: windows come out of memory maps in microseconds, so worker processes cost more than they
    give, and resuming needs the order of epoch e without having lived through the epochs before it.

    With `world` > 1 every batch is divided among the ranks (short ones are filled up from their own start), so the number of
    optimiser steps does not depend on the number of devices.
    """

    def __init__(self, windows: WindowSet, batch: int, seed: int, *, shuffle: bool):
        self.windows, self.batch, self.seed, self.shuffle = windows, batch, seed, shuffle
        self.epoch, self.rank, self.world = 0, 0, 1
        groups: dict[Any, list[int]] = {}
        for index, shape in enumerate(windows.shapes):
            groups.setdefault(shape, []).append(index)
        self.groups = [np.array(group) for group in groups.values()]

    def __len__(self) -> int:
        return sum(-(-len(group) // self.batch) for group in self.groups)

    def __iter__(self) -> Iterator[Batch]:
        # members share the windows: each sees symmetries of its own
        self.windows.set_epoch(int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]))
        for indices in self.indices():
            mine = np.resize(indices, -(-len(indices) // self.world) * self.world)[self.rank :: self.world]
            yield self.windows.gather(mine.tolist())

    def indices(self) -> list[np.ndarray]:
        """The window indices of each batch of this epoch, over all ranks."""
        order = np.random.default_rng([self.seed, self.epoch])
        batches = []
        for group in self.groups:
            shuffled = order.permutation(group) if self.shuffle else group
            batches += [shuffled[start : start + self.batch] for start in range(0, len(group), self.batch)]
        return [batches[i] for i in order.permutation(len(batches))] if self.shuffle else batches


class MemberTask(LightningModule):
    """Member `i` of a forecaster with its loss, optimiser and schedule (one cycle, Smith & Topin 2018)."""

    def __init__(
        self, forecaster: Trainable, i: int, loss: Loss, settings: TrainingSettings, steps: int,
        target_of: Callable[[Batch], torch.Tensor], weight_of: Callable[[Batch], torch.Tensor], score: Score | None = None,
    ):  # fmt: skip
        super().__init__()
        self.member: nn.Module = forecaster.members[i]
        self._around = (forecaster,)  # in a tuple: not registered, its other members are none of this task's parameters
        self._compute = partial(forecaster.compute_member, i)
        self._loss, self._settings, self._steps = loss, settings, steps
        self._target_of, self._weight_of = target_of, weight_of
        self.training_sums = self.validation_sums = torch.zeros(2)
        self.validation_loss = math.nan
        self._score, self._parts, self.scores = score, list[torch.Tensor](), Row()

    def _sums(self, y: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and (loss x total weight, total weight) for the mean over an epoch."""
        target, weight = self._target_of(batch), self._weight_of(batch)
        loss = self._loss(y, target, weight)
        count = weight.sum().float()
        return loss, torch.stack([loss.detach() * count, count])

    def on_fit_start(self) -> None:
        if isinstance(self._around[0], nn.Module):
            self._around[0].to(self.device)  # its constants: statistics, shrinkage

    def on_train_epoch_start(self) -> None:
        self.training_sums = torch.zeros(2, device=self.device)

    def training_step(self, batch: Batch, _index: int) -> torch.Tensor:
        loss, sums = self._sums(self._compute(batch).float(), batch)
        self.training_sums = self.training_sums + sums
        auxiliary = self.member.auxiliary_loss() if isinstance(self.member, HasAuxiliaryLoss) else None
        return loss if auxiliary is None else loss + auxiliary  # the curve shows the loss alone, as of the validation part

    def on_validation_epoch_start(self) -> None:
        self.validation_sums = torch.zeros(2, device=self.device)
        self._parts = []

    def validation_step(self, batch: Batch, _index: int) -> None:
        y = self._compute(batch).float()
        self.validation_sums = self.validation_sums + self._sums(y, batch)[1]
        if self._score is not None:
            self._parts.append(self._score.of_batch(y, batch).cpu())

    def on_validation_epoch_end(self) -> None:
        loss = self.mean_of(self.validation_sums)
        self.validation_loss = float(loss)
        self.log(VALIDATION_LOSS, loss, sync_dist=True)  # equal on all ranks already; for early stopping
        if self._score is not None:
            self.scores = {self._score.name: self._score.of_all(gathered(self._parts, self.trainer.world_size))}

    def mean_of(self, sums: torch.Tensor) -> torch.Tensor:
        """Mean loss per weight (a usable pixel, a label) over all ranks; nan where there was none."""
        total = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return total[0] / total[1]

    def configure_optimizers(self) -> Any:
        rate = self._settings.learning_rate
        weights = [p for p in self.member.parameters() if p.requires_grad and p.ndim > 1]
        biases = [p for p in self.member.parameters() if p.requires_grad and p.ndim <= 1]  # not decayed
        groups = [{"params": weights, "weight_decay": self._settings.weight_decay}, {"params": biases, "weight_decay": 0.0}]
        optimizer = OPTIMIZERS[self._settings.optimizer]([group for group in groups if group["params"]], lr=rate)
        has_momentum = self._settings.optimizer != "rmsprop"
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=max(self._steps, 2), pct_start=0.15, cycle_momentum=has_momentum
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


class EpochEnd(Callback):
    """Draws every epoch's chance from (seed, epoch), keeps the best weights and the curve, publishes the resume state."""

    def __init__(
        self, training: EpochBatches, validation: EpochBatches, key: str, path: Path, progress: Callable[[int], None],
        note: Callable[[str], None] | None = None, *, keeps_last: bool = False,
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
            self.best = {name: value.detach().cpu().clone() for name, value in task.member.state_dict().items()}
        figures = {name: value for name, value in row.items() if name != "epoch" and value is not None}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=int(row["epoch"] or 0))
        if self._note is not None:
            self._note(describe_row(row))

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


def gathered(parts: list[torch.Tensor], world: int) -> list[torch.Tensor]:
    """The parts of all ranks."""
    if world == 1:
        return parts
    found: list[list[torch.Tensor]] = [[]] * world
    torch.distributed.all_gather_object(found, parts)
    return [one for own in found for one in own]


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
