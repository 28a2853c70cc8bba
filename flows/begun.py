"""Training that begins from a model of another task: the layers that fit are taken over, and what was done is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from configs.trained import REMEDY, find_model
from flows.task import Invocation, Record
from pipelines.errors import ArtefactDamaged, RequestError
from pipelines.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

    from models.checkpoint import Checkpoint
    from models.contract import Ensemble

BEGUN = "begun.json"  # beside the model: what was copied, left untrained and ignored
MOST_NAMES = 4  # that a line of the log shows


@dataclass
class Begun:
    """The model that training begins from, and what was copied from it so far. All networks of a run have one architecture."""

    path: str
    model: Ensemble
    task: str
    seen: Mapping[str, Any]
    layers: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Invocation) -> Begun:
        """What `training.start_from` names. Raises MissingInput, ArtefactDamaged, RequestError for a model without networks."""
        from models.checkpoint import CheckpointDamaged

        path = context.run.training.start_from
        trained = find_model(path)
        try:
            model = checkpoint_of(trained.kind).load(trained.folder)[0]
        except CheckpointDamaged as e:
            raise ArtefactDamaged(f"the model of {path} cannot be used: {e}; {REMEDY}") from e
        spans = [f"{one['start'][:10]} to {one['stop'][:10]}" for one in trained.sections.get("spans") or ()]
        inputs = trained.inputs
        return cls(path, model, trained.task, {
            "areas": sorted(inputs.areas), "dates": spans or [f"{inputs.first_utc[:10]} to {inputs.last_utc[:10]}"],
        })  # fmt: skip

    def copy_into(self, model: Ensemble, first: int) -> None:
        """Layers that fit, into every network of `model`, from the networks of the other one after the other from `first` on.

        Raises RequestError where none fits.
        """
        from models.filler import copy_layers, plain_network

        for number, member in enumerate(model.members):
            own, other = (plain_network(one) for one in (member, self.model.members[(first + number) % len(self.model.members)]))
            self.layers = copy_layers(own, other)
            if not self.layers["copied"]:
                raise RequestError(
                    f"training.start_from: no layer of the {type(other).__name__} of {self.path} (`task: {self.task}`) has the "
                    f"name and shape of one of the {type(own).__name__} of this run; give both the same model.kind and sizes"
                )

    def statistics(self, number: int, bands: int) -> tuple[Tensor, Tensor]:
        """(mean_C, std_C) of the variables that the layers of that network know; 0 and 1 where images were made comparable."""
        import torch

        from models.filler import Filler
        from models.segmenter import Segmenter

        if isinstance(self.model, Filler):
            return self.model.mean_C, self.model.std_C
        if isinstance(self.model, Segmenter):
            member = number % len(self.model.members)
            return self.model.mean_MC[member], self.model.std_MC[member]
        return torch.zeros(bands), torch.ones(bands)

    def lines(self) -> list[str]:
        """For the log: how many layers were copied, which were not."""
        counts = ", ".join(f"{len(names)} {what}" for what, names in self.layers.items())
        shown = {what: ", ".join(names[:MOST_NAMES]) + (" ..." if len(names) > MOST_NAMES else "")
                 for what, names in self.layers.items() if what != "copied" and names}  # fmt: skip
        seen = f"it has seen {', '.join(self.seen['areas']) or 'places unknown'} on {'; '.join(self.seen['dates'])}"
        return [
            f"begun from {self.path} (`task: {self.task}`), tensors: {counts}; {seen}",
            *(f"  {what}: {names}" for what, names in shown.items()),
        ]

    def write(self, context: Invocation) -> Record:
        """Writes `model/begun.json`; its content, for the record."""
        content = {"from": self.path, "task": self.task, "seen": dict(self.seen), **self.layers}
        write_json(context.folder.model / BEGUN, content)
        for line in self.lines():
            context.steps.log(f"train: {line}")
        return content


def notes_of(trained: Record) -> list[str]:
    """What a reader of the report must know of the model that training began from, by the record of the stage `train`."""
    begun = trained.get("begun")
    if not begun:
        return []
    seen, how = begun["seen"], "without labels" if begun["task"] == "pretrain" else "with labels"
    places = ", ".join(seen["areas"]) or "unknown places"
    doubt = "" if begun["task"] == "pretrain" else " Scores of labels that it has learnt from are too good."
    return [f"Training began from {begun['from']}, which has seen {places} on {'; '.join(seen['dates'])}, {how}.{doubt}"]


def checkpoint_of(kind: str) -> Checkpoint[Any]:
    """How models of that kind are stored. Raises RequestError for one without networks that others could begin from."""
    from models.checkpoint import DETECTOR
    from models.filler import FILLER
    from models.segmenter import SEGMENTER

    known: dict[str, Checkpoint[Any]]
    known = {one.kind: one for one in (FILLER, SEGMENTER, DETECTOR)}
    if kind not in known:
        raise RequestError(f"training.start_from: a {kind} has no networks that fit; take a {', '.join(known)}")
    return known[kind]


def is_of_another_task(context: Invocation) -> bool:
    """True where training begins from a model of another task than this run's."""
    path = getattr(context.run.training, "start_from", None)
    return path is not None and find_model(path).task not in ("", context.run.task)
