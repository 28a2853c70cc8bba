"""Every error that driftline raises on purpose, grouped by what the caller should do.

    DriftlineError
    ├── RequestError            stop, exit code 2: the request is wrong; the user can correct it
    │   ├── ConfigError         a config file: carries every mistake with its file:line
    │   ├── MissingInput        a path, cube, model or run that is not there
    │   └── CubeMismatch        the cube exists and does not fit the request (grid, bands, dtype)
    ├── SceneRefused            skip and record: this scene is not written to the cube, the others are
    ├── CubeBusy                retry later: another writer holds the cube
    ├── RunBusy                 retry later: another process executes the same run
    └── StateError              stop, exit code 1: the disk or the machine is in an unexpected state
        ├── StorageFull         no space left; what was committed before is intact
        ├── NotPublished        a model that does not beat its baselines, or whose tiles disagree at their seams
        │   └── ProductShrinks  products that cover less than those that they would replace
        └── ArtefactDamaged     a checkpoint, cache, ledger or cube that cannot be trusted

A message says what was expected, what was found, where (file, scene, date, key) and what to do about it.
"""

from dataclasses import dataclass

MOST_DETAIL = 2000  # characters


class DriftlineError(Exception):
    """Root of the tree. Catch it at the outermost level to show a message instead of a traceback."""


class RequestError(DriftlineError):
    """The request cannot be executed as written; the message states the correction."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a config: its position, the problem and the remedy."""

    position: str  # "run.yaml:12"
    key: str  # "source.pattern"
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"\n    -> {self.remedy}" if self.remedy else ""
        return f"{self.position}  {self.key}: {self.problem}{remedy}"


class ConfigError(RequestError):
    """A config file with mistakes; lists all of them."""

    def __init__(self, mistakes: list[Mistake]):
        self.mistakes = tuple(mistakes)
        noun = "mistake" if len(mistakes) == 1 else "mistakes"
        super().__init__(f"{len(mistakes)} {noun} in the config:\n" + "\n".join(f"  {m}" for m in mistakes))

    def __reduce__(self) -> tuple[type, tuple[list[Mistake]]]:
        return type(self), (list(self.mistakes),)


class MissingInput(RequestError):
    """A file, cube, model or run that the request names does not exist."""


class CubeMismatch(RequestError):
    """The cube exists and does not match what should be written to it."""


CLOUDED = {"all-cloud", "few-usable"}  # reasons to refuse a scene with which nothing is wrong
HARMLESS = {*CLOUDED, "dropped"}  # nobody needs to look into these: clouds, and what was taken out by hand
DAMAGED = {"unreadable", "truncated", "driver"}  # the file cannot be read: a cube keeps what it has of the scene


class SceneRefused(DriftlineError):
    """A scene that must not be written to the cube. `reason` is a short stable code, `detail` the explanation.

    The codes, and what they mean, are in `pipelines.refusals` and docs/validation.md. A detail that quotes a long text of a file
    is shortened in its middle.
    """

    def __init__(self, scene_id: str, reason: str, detail: str):
        if len(detail) > MOST_DETAIL:
            detail = f"{detail[: MOST_DETAIL // 2]} ... {detail[-MOST_DETAIL // 2 :]}"
        self.scene_id, self.reason, self.detail = scene_id, reason, detail
        super().__init__(f"{scene_id}: {reason}: {detail}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # exceptions with several arguments do not unpickle by default; Dask pickles them
        return type(self), (self.scene_id, self.reason, self.detail)


class CubeBusy(DriftlineError):
    """Another process is writing this cube."""


class RunBusy(DriftlineError):
    """Another process executes the run of this name."""


class StateError(DriftlineError):
    """The disk or the machine is in an unexpected state."""


class StorageFull(StateError):
    """The disk is full; readers see no incomplete data."""


class NotPublished(StateError):
    """The model does not beat its baselines, or its tiles disagree at their seams; its products were not published."""


class ProductShrinks(NotPublished):
    """New products cover a smaller extent or fewer dates than the published ones, which stay; `--force` replaces them."""


class ArtefactDamaged(StateError):
    """A checkpoint, cache, ledger or cube on disk is incomplete or belongs to something else."""
