"""Where a run leaves what, and whether a stage's output is still up to date."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from configs.sites import has_sites
from configs.tasks import AnyRun
from flows import Json
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError, RunBusy
from pipelines.stored_files import is_remote
from pipelines.stored_runs import StoredRun
from pipelines.working_copies import WorkingCopy, copy_folder

Loaded = TypeVar("Loaded")
PUBLISHED = {"key": str, "model_hash": str, "products": list, "snapshot": str, "files": dict}  # by the last stage of a task
NEEDED: dict[str, dict[str, type]] = {  # what others read of a stage's record; without it the stage counts as not finished
    "ingest": {"snapshot": str, "refused": list},
    "choose": {"key": str, "asked": dict, "chosen": dict, "files": dict},
    "train": {"key": str, "snapshot": str, "model_hash": str},
    "evaluate": {"key": str, "snapshot": str, "model_hash": str, "is_publishable": bool, "message": str, "files": dict},
    "monitor": {**PUBLISHED, "model": str},
    "report": {"key": str, "files": dict},
}


class Below:
    """A file or folder of that name in a run's folder."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, folder: "RunFolder", owner: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The files and folders below runs/NAME/ (docs/design/001-spine.md, "What a run leaves")."""

    path: Path
    cube_uri: str
    task: str = ""  # records of another task, which once had this folder, do not count
    stored: str = ""  # s3://bucket/prefix/NAME, of which `path` is a working copy (`pipelines.stored_runs`)

    config, report, summary, steps = Below("config.yaml"), Below("report.html"), Below("summary.json"), Below("steps.jsonl")
    samples, model, networks, staging = Below("samples"), Below("model"), Below("model/networks"), Below("staging")
    evaluation, evaluation_table = Below("evaluation.json"), Below("evaluation.md")
    products, quicklook, refused = Below("products"), Below("quicklook.png"), Below("refused.json")
    costs = Below("costs.json")
    archive, verification = Below("archive"), Below("verification.json")
    choice, trials = Below("chosen.json"), Below("choice")
    registration = Below("registration")
    state, alerts, labels, scores = Below("state"), Below("alerts.json"), Below("labels"), Below("scores")

    @classmethod
    def of(cls, run: AnyRun) -> "RunFolder":
        if not is_remote(run.runs):
            return cls.at(Path(run.runs) / run.name, run)
        stored = f"{run.runs}/{run.name}"
        return replace(cls.at(copy_folder(run.runs) / run.name, run), stored=stored)

    @classmethod
    def at(cls, path: Path, run: AnyRun) -> "RunFolder":
        """The folder of a run that may have been moved, with its cube; nothing is fetched or published."""
        below = f"{run.runs}/{run.name}" if is_remote(run.runs) else str(path)
        return cls(path, run.cube.uri or f"{below}/{'cubes' if has_sites(run) else 'cube'}", run.task)

    def cube_of(self, site: str) -> str:
        """The URI of one site's cube, where a run has several."""
        is_remote = "://" in self.cube_uri
        return f"{self.cube_uri.rstrip('/')}/{site}" if is_remote else str(Path(self.cube_uri) / site)

    def place_of(self, name: str, asked: str | None) -> str:
        """Where staged tiles or states are kept: below a place that the config names, which runs share, or that of the run."""
        if asked is not None:
            return f"{asked.rstrip('/')}/{self.path.name}"
        return f"{self.stored}/{name}" if self.stored else str(self.path / name)

    @property
    def copy(self) -> WorkingCopy | None:
        """What fetches and publishes a run in S3; None for one on a disk."""
        return WorkingCopy(self.path, StoredRun.at(self.stored)) if self.stored else None

    def done(self, stage: str) -> Path:
        """The file that says what a finished stage was made from, and what came out."""
        return self.path / "stages" / f"{stage}.json"


def finished(folder: RunFolder, stage: str, key: str | None = None) -> Json | None:
    """What the stage left, or None if it has not finished (with this key, for this task)."""
    record = readable(folder.done(stage))
    if not all(isinstance(record.get(name), kind) for name, kind in NEEDED.get(stage, PUBLISHED).items()):
        return None  # a stage without a usable record is simply not finished; it runs again
    if record.get("digest", digest_of(record)) != digest_of(record):
        return None  # edited or damaged since; version 0.1.0 writes no digest
    is_ours = record.get("task", folder.task) == folder.task  # version 0.1.0 does not name the task
    return record if is_ours and (key is None or record["key"] == key) else None


def readable(path: Path) -> Json:
    """A record, {} if it is missing or damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def digest_of(record: Json) -> str:
    """SHA-256 (hex) of what a record says, its own `digest` left out; the same before it is written and after it is read."""
    stored = json.loads(json.dumps({name: value for name, value in record.items() if name != "digest"}, default=str))
    text = json.dumps(stored, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def first_difference(key: str, now: object, was: object) -> tuple[str, object, object]:
    """(key, value now, value then) of the first setting that differs."""
    if isinstance(now, dict) and isinstance(was, dict):
        name = next(name for name in {**now, **was} if now.get(name) != was.get(name))
        return first_difference(f"{key}.{name}", now.get(name), was.get(name))
    return key, now, was


def fingerprints(folder: RunFolder, names: Iterable[str]) -> dict[str, list[int | str]]:
    """name -> [bytes, SHA-256 (hex)] of files below the run's folder; those that are not there are left out."""
    found: dict[str, list[int | str]] = {}
    for path in (folder.path / name for name in names):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(folder.path))] = [path.stat().st_size, digest]
    return found


def first_altered(folder: RunFolder, record: Json) -> str:
    """The first of the `files` of a record that is not as the stage left it, "" if all are."""
    files = record.get("files", {})
    now = fingerprints(folder, files)
    return next((name for name, known in files.items() if now.get(name) != known), "")


@contextmanager
def exclusive_run(folder: RunFolder, wait_s: float = 0.0) -> Iterator[None]:
    """Holds the run's folder; the lock dies with its owner.

    Raises RunBusy if another process has it, at once or after `wait_s`, RequestError where no folder can be made.
    """
    from pipelines.files import Held, exclusive_owner

    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as e:  # as below /proc
        raise RequestError(f"no folder can be made at {folder.path}; name another place (--out, in a config `runs`)") from e
    try:
        with exclusive_owner(folder.path / ".run.lock", folder.path / ".run.writer.json", wait_s):
            yield
    except Held as e:
        remedy = "wait for it, or give this run another `name`"
        raise RunBusy(f"the run in {folder.path} is being carried out by {e}; {remedy}") from e


@contextmanager
def exclusive_published(folder: RunFolder) -> Iterator[list[str]]:
    """As `exclusive_run`, for a run that is there. Of one in S3 the working copy is brought to what is published; gives what a
    person should know of that.

    Raises MissingInput and, of a run in S3, StateError, ArtefactDamaged.
    """
    copy = folder.copy
    is_there = folder.path.is_dir() if copy is None else copy.stored.settled() is not None
    if not is_there:
        raise MissingInput(f"no run in {folder.stored or folder.path}: check `name` and `runs`")
    with exclusive_run(folder):
        yield copy.fetch() if copy is not None else []


def drafts(folder: RunFolder) -> list[Path]:
    """Half-written files and folders that a killed process left behind, for the holder of the run's lock."""
    folders = (".report-*", ".products-building", ".pictures-building", ".products-old", "archive/.*")
    written = [f".*.{suffix}.[0-9]*" for suffix in ("json", "html", "md", "yaml")]  # `pipelines.files`
    patterns = (*folders, *written, "stages/.*.json.[0-9]*", "model/.*.partial")
    return [path for pattern in patterns for path in folder.path.glob(pattern)]


def sweep(folder: RunFolder) -> None:
    """Remove what killed processes left behind; only the holder of the run's lock may."""
    for path in drafts(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require(folder: RunFolder, stage: str) -> Json:
    """What the stage left; raises MissingInput with the command to run if it has not finished."""
    record = finished(folder, stage)
    if record is None:
        raise MissingInput(
            f"{folder.path} has no finished {stage} step; run `driftline {stage} CONFIG` first, or all: `driftline run CONFIG`"
        )
    return record


def made_from(folder: RunFolder) -> Json:
    """What evaluation and products of a trained model belong to: the version of the cube that was ingested last, and the model.

    Raises MissingInput.
    """
    return {"snapshot": require(folder, "ingest")["snapshot"], "model_hash": require(folder, "train")["model_hash"]}


def require_model(folder: RunFolder, trained: Json, hash_of: Callable[[Path], str]) -> None:
    """Whether the run's folder holds the model that was trained here; another would be published under this one's verdict.

    Raises MissingInput (`hash_of` finds no file) or ArtefactDamaged.
    """
    try:
        found = hash_of(folder.model)
    except FileNotFoundError as e:
        raise MissingInput(f"{e}; run `driftline train CONFIG`") from e
    if found != trained["model_hash"]:
        raise ArtefactDamaged(
            f"{folder.model} holds the model {found[:12]}, but {trained['model_hash'][:12]} was trained here: "
            "run `driftline train CONFIG`, which makes it anew, or put it back"
        )


def load_checkpoint(load: Callable[[Path], Loaded], folder: RunFolder) -> Loaded:
    """What `load` makes of the run's model. Raises ArtefactDamaged, with the remedy."""
    from models.checkpoint import CheckpointDamaged

    try:
        return load(folder.model)
    except (CheckpointDamaged, FileNotFoundError) as e:
        raise ArtefactDamaged(f"{e} (delete {folder.model} and run `driftline train CONFIG`)") from e


def read_json(path: Path, remedy: str) -> Any:
    """The JSON in `path`. Raises MissingInput or ArtefactDamaged, both with the remedy."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise MissingInput(f"{path} is not there; {remedy}") from e
    except ValueError as e:
        raise ArtefactDamaged(f"{path} is not valid JSON ({e}); {remedy}") from e


@cache
def code_version() -> str:
    """Release and a digest of all source files and templates, e.g. 0.1.0+3f2a...; keys of stages digest only what they use."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for package in ("pipelines", "models", "configs", "flows"):
        for path in sorted(p for p in (root / package).rglob("*.*") if p.is_file() and p.suffix != ".pyc"):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    try:
        release = version("driftline")
    except PackageNotFoundError:
        release = "0+source"
    return f"{release}{'.' if '+' in release else '+'}{digest.hexdigest()[:12]}"
