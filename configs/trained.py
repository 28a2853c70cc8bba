"""Models that were trained before: where they lie, what they say of themselves, and the config of a run that uses one.

Only the description (JSON) is read here, so that a verb that reads a config does not wait for torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, TypeAdapter

from configs.paths import models_in
from configs.run import ModelConfig
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError, StateError
from pipelines.stored_runs import StoredRun, reaching

if TYPE_CHECKING:
    from configs.tasks import AnyRun
    from models.checkpoint import Checkpoint
    from models.contract import Network
    from pipelines.learning.reuse import Inputs

Model = TypeVar("Model", bound="Network")
WEIGHTS, DESCRIPTION, SCORES = "model.safetensors", "model.json", "scores.json"
CARDS = ("card.md", "card.json")
OPEN = "auto"  # a value that a config leaves open
KEPT = {"use", "as_is"}  # keys of `model` that are the run's own
REMEDY = "take another copy of it, or another model"
ALIKE = {
    "samples": {"variables", "context", "horizon"},
    "model": {"baseline", "members"},
}  # keys; of training that begins from one
PREFIX = "driftline-"  # of `format` in a description
EXPECTED = "expected runs/NAME, its folder `model`, or model.safetensors in one"


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Makes errors of content that is not as expected in a model's files ArtefactDamaged."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        raise ArtefactDamaged(f"the model in {folder} cannot be read ({type(e).__name__}: {e}): {REMEDY}") from e


@dataclass(frozen=True)
class Trained:
    """A checkpoint by its folder and its description. What an earlier version did not write is unknown: {}, None or ""."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """`forecaster`, `change-detector`..."""
        return str(self.content["format"]).removeprefix(PREFIX)

    @property
    def architecture(self) -> dict[str, Any]:
        return dict(self.content[self.kind])

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self.content["metadata"])

    @property
    def name(self) -> str:
        """Of the run that trained it."""
        return str(self.metadata.get("run", ""))

    @property
    def task(self) -> str:
        return str(self.metadata.get("task", ""))

    @property
    def hash(self) -> str:
        """As `models.checkpoint.Checkpoint.hash`."""
        return hashlib.sha256((self.folder / WEIGHTS).read_bytes() + (self.folder / DESCRIPTION).read_bytes()).hexdigest()

    @property
    def taken_from(self) -> str:
        """Where the run took the model from in whose folder it lies; "" for a run that trained it, and for no run."""
        try:
            record = json.loads((self.folder.parent / "stages" / "train.json").read_text(encoding="utf-8"))
            return str((record.get("used") or {}).get("path", ""))
        except (OSError, ValueError, AttributeError):
            return ""

    @property
    def scores(self) -> dict[str, Any] | None:
        """The evaluation of this model by the run that trained it; None: unknown."""
        beside = () if self.taken_from else (self.folder.parent / "evaluation.json",)
        for path in (self.folder / SCORES, *beside):
            try:
                content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            is_known = isinstance(content, dict) and {"methods", "shipped", "verdict"} <= set(
                content
            )  # version 0.1.0 had other keys
            if is_known and content.get("model_hash") == self.hash:
                return content
        return None

    @property
    def bands(self) -> list[str]:
        """Names of the bands that it needs, in its order."""
        with reading(self.folder):
            variables = self.sections.get("samples", {}).get("variables") or self.sections.get("variables") or []
            return list(dict.fromkeys(band for one in variables for band in one["bands"])) or list(self.metadata.get("bands", ()))

    @property
    def inputs(self) -> Inputs:
        """What it was trained on, as far as it is known. Raises ArtefactDamaged."""
        from pipelines.learning.reuse import BandRange, Inputs

        with reading(self.folder):
            if "inputs" in self.metadata:
                return Inputs.from_json(self.metadata["inputs"])
            step_days = self.architecture.get("scaling", {}).get("step_days")
            return Inputs(tuple(BandRange(name) for name in self.bands), step_days)

    @property
    def sections(self) -> dict[str, Any]:
        """Sections of a config -> the values that belong to the model, so that no other can be used with it."""
        if "config" in self.metadata:
            return dict(self.metadata["config"])
        earlier = {"samples": ("variables", "context", "horizon", "steps"), "pairs": ("normalise", "coregister", "max_shift_px")}
        found: dict[str, Any] = {}
        for section, names in earlier.items():
            if section in self.metadata:
                found[section] = {name: self.metadata[section][name] for name in names if name in self.metadata[section]}
        return {**found, "model": self._model_section()}

    def _model_section(self) -> dict[str, Any]:
        """`model` of the config, from the description: checkpoints before 0.2 do not hold it."""
        whole = self.architecture
        members = whole.get("members", [])
        network = (
            {"kind": "convlstm"} | members[0] if self.kind == "forecaster" and members else dict(members[0] if members else {})
        )
        corrected = whole.get("baseline", whole.get("guide"))  # version 0.1.0: guide
        of_forecaster = {"baseline": corrected["kind"], "members": len(members)} if corrected else {}
        return {**network, **of_forecaster, **({"fuse_with": whole["fuse_with"]} if "fuse_with" in whole else {})}


def find_model(path: str | Path) -> Trained:
    """The model at `path`: a run's folder, its model folder, one of its files, or s3://bucket/prefix of such a folder.

    Raises MissingInput, and ArtefactDamaged for a description that cannot be read.
    """
    given = Path(download(str(path)).name) if str(path).startswith("s3://") else Path(path).expanduser()
    folder = given.parent if given.is_file() else given
    for candidate in (folder / "model", folder):
        if all((candidate / name).is_file() for name in (WEIGHTS, DESCRIPTION)):
            with reading(candidate):
                content = json.loads((candidate / DESCRIPTION).read_text(encoding="utf-8"))
                trained = Trained(candidate, content)
                _ = trained.architecture, trained.metadata, trained.sections
            return trained
    raise MissingInput(f"no model at {path}: {EXPECTED}")


def load_model(path: str | Path, checkpoint: Checkpoint[Model], task: str) -> tuple[Model, Trained]:
    """(the model at `path`, its description), for a `task`: `load_model("runs/oscd", DETECTOR, "change")`.

    Raises MissingInput, ArtefactDamaged, RequestError for a model of another task.
    """
    from models.checkpoint import CheckpointDamaged

    trained = find_model(path)
    if trained.task and trained.task != task:
        raise RequestError(f"{path} holds a model of `task: {trained.task}`, expected one of `task: {task}`")
    try:
        return checkpoint.load(trained.folder)[0], trained
    except CheckpointDamaged as e:
        problem = str(e).partition(": train again")[0]  # whoever was given a model cannot
        raise ArtefactDamaged(f"the model of {path} cannot be used: {problem}; {REMEDY}") from e


def files_of_run(run: str) -> Path:
    """Where the files of a run's model are, or would be; of a run in S3 those of the version that is published now.

    Raises StateError where the store does not answer, which does not mean that there is no such run.
    """
    return Path(downloaded(run).name) if run.startswith("s3://") else Path(run) / "model"


def download(uri: str) -> TemporaryDirectory[str]:
    """As `downloaded`. Raises MissingInput where the files cannot be read."""
    try:
        return downloaded(uri)
    except StateError as e:
        raise MissingInput(f"no model can be read at {uri}: {str(e).splitlines()[0]}") from e


@cache
def downloaded(uri: str) -> TemporaryDirectory[str]:
    """The files of a model below s3://bucket/prefix, or of the run that is stored there, until this process ends.

    Empty where there are none. Region and keys come from the usual AWS_* variables. Raises StateError.
    """
    folder = TemporaryDirectory(prefix="driftline-model-")
    try:
        with reaching(uri):
            _download_into(Path(folder.name), uri)
    except BaseException:
        folder.cleanup()
        raise
    return folder


def _download_into(folder: Path, uri: str) -> None:
    stored = StoredRun.at(uri)
    run = stored.read()
    there = stored.files.names("") if run is None else []
    for name in (WEIGHTS, DESCRIPTION, SCORES):
        if run is not None and f"model/{name}" in run.files:
            stored.fetch(run.files[f"model/{name}"], folder / name)
        elif found := {f"model/{name}", name}.intersection(there):
            (folder / name).write_bytes(stored.files.read(max(found)))


# ---------------------------------------------------------------- the config of a run that uses one


def used_by(run: object) -> ModelConfig | None:
    """`model` of a run that uses a model which was trained before; None for every other run."""
    model = getattr(run, "model", None)
    return model if isinstance(model, ModelConfig) and model.use is not None else None


def digests(run: AnyRun) -> dict[str, str]:
    """What a training depends on beside its own config: the model that is used, or begun from. {} for none."""
    used, start = used_by(run), getattr(getattr(run, "training", None), "start_from", None)
    found = {"used": used.use if used else None, "start_from": start}
    return {name: find_model(path).hash for name, path in found.items() if path is not None}


def with_model(run: AnyRun) -> AnyRun:
    """The run with what belongs to the model that it uses (`model.use`) in place of defaults; others come back as they are.

    Raises MissingInput, ArtefactDamaged, and RequestError for a model of another task, for bands that the source lacks, and for
    values of the config that are not those of the model.
    """
    chosen = used_by(run)
    if chosen is None or chosen.use is None:
        return run
    from pipelines.learning.reuse import require_bands

    trained = find_model(chosen.use)
    if trained.task and trained.task != run.task:
        raise RequestError(f"{chosen.use} holds a model of `task: {trained.task}`, this run has `task: {run.task}`")
    source: Any = getattr(run, "source", None)  # every run with a model has one
    require_bands(trained.bands, [band.name for band in source.bands])
    sections = {name: filled(run, name, values, str(chosen.use)) for name, values in trained.sections.items()}
    return run.model_copy(update=sections)


def filled(run: AnyRun, section: str, values: Mapping[str, Any], origin: str) -> object:
    """A section of the run with the model's `values`. Raises RequestError where the config states others."""
    own, whole = getattr(run, section), of_model(run, section, values)
    if not isinstance(own, BaseModel) or not isinstance(whole, BaseModel):  # a list, or a section that need not be there
        if own and plain(own) != plain(whole):
            problem = f"the config states `{section}`, the model in {origin} was trained with {plain(whole)}"
            raise RequestError(f"{problem}; leave it out of the config, or train a model of its own")
        return whole
    stated, trained = own.model_dump(mode="json"), whole.model_dump(mode="json")
    if stated.get("kind") == OPEN:
        return whole
    for name in sorted(own.model_fields_set - KEPT & values.keys()):
        if stated.get(name) not in (trained.get(name), OPEN):
            problem = f"the config says {section}.{name} = {stated.get(name)}, the model in {origin} was trained with"
            raise RequestError(f"{problem} {trained.get(name)}; leave it out of the config, or train a model of its own")
    return whole


def plain(section: object) -> object:
    """JSON values of a section, or of a list of such."""
    if isinstance(section, list):
        return [plain(one) for one in section]
    return section.model_dump(mode="json") if isinstance(section, BaseModel) else section


def of_model(run: AnyRun, section: str, values: Any) -> Any:  # a section: a model of pydantic, or a list of such
    """A section of the run in which the model's `values` replace its own."""
    own, annotation = getattr(run, section), type(run).model_fields[section].rebuild_annotation()
    if not isinstance(values, Mapping) or own is None:
        return TypeAdapter(annotation).validate_python(values)
    known = {name for one in models_in(annotation) for name in one.model_fields}
    kept = own.model_dump(mode="json", include=KEPT if section == "model" else None)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    return adapter.validate_python({**kept, **{name: value for name, value in values.items() if name in known}})


def require_alike(run: AnyRun, trained: Trained, origin: str) -> None:
    """Raises RequestError where training that begins from the weights of `trained` would be of another use of them."""
    found = []
    for section, values in trained.sections.items():
        if not isinstance(getattr(run, section), BaseModel):
            continue
        names = ALIKE.get(section, set()) & values.keys() & set(type(getattr(run, section)).model_fields)
        there = of_model(run, section, values).model_dump(mode="json") if names else {}
        here = getattr(run, section).model_dump(mode="json")
        found += [f"{section}.{name} = {here[name]} (there {there[name]})" for name in sorted(names) if here[name] != there[name]]
    if found:
        raise RequestError(f"training.start_from: {origin} differs from this run: {', '.join(found)}; make them the same")


def require_same_images(run: AnyRun, trained: Trained, origin: str) -> None:
    """Raises RequestError where a model of another task does not see the same variables, in the same order, prepared alike."""
    source: Any = getattr(run, "source", None)
    own: Any = getattr(run, "variables", None) or [{"name": band.name, "bands": [band.name]} for band in source.bands]
    pairs: Any = getattr(run, "pairs", None)
    here = {"variables": [variable_of(plain(one)) for one in own], "pairs": pairs and pairs.model_dump(mode="json")}
    with reading(trained.folder):
        sections = trained.sections
        known = (
            sections.get("variables") or sections.get("samples", {}).get("variables") or [{"bands": [b]} for b in trained.bands]
        )
        there = {"variables": [variable_of(one) for one in known], "pairs": sections.get("pairs")}
    for name in ("variables", "pairs"):
        if here[name] != there[name]:
            problem = f"training.start_from: {origin} was trained with {name} = {there[name]}, this run has {here[name]}"
            raise RequestError(f"{problem}; make them the same")


def variable_of(content: Any) -> dict[str, Any]:
    """What a network sees of a variable, whatever it is called: formula, bands, transform, range."""
    usual = {"formula": "band", "transform": "none", "valid_range": None}
    return {**usual, **{name: value for name, value in content.items() if name != "name"}}
