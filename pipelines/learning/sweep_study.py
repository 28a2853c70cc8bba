"""A search of hyperparameters with Optuna: a study on disk, which a kill at any time leaves in order, and its trials in turn.

Every trial has a place in the study. What is tried at a place depends on the seed, the place and the trials before it alone, and
a trial that was killed gives its place back: a study that was stopped ends like one that was not.

Sources: Akiba et al. 2019 (Optuna); Bergstra et al. 2011 (TPE); Li et al. 2018 (Hyperband).
"""

from __future__ import annotations

import gc
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipelines.errors import ArtefactDamaged, ConfigError, DriftlineError, RequestError, StateError, StorageFull
from pipelines.files import is_full

if TYPE_CHECKING:
    import optuna

NAME = "sweep"  # of the study; hyperband draws from it
KILLED = "killed"  # message of a trial whose process ended
STARTUP = 5  # trials before any is pruned by the median
MOST_MESSAGE = 500  # characters
MOST_COMBINATIONS = 1_000_000
LEAST_FINISHED = 5  # trials, for importances
MOST_ALIKE = 3  # failures in a row with one message: what is wrong is not what is tried
INSTALL = "driftline sweep needs Optuna, which is not installed: pip install 'driftline[sweep]'"


@dataclass(frozen=True)
class Domain:
    """What is tried of one key: `choices`, or numbers from `low` to `high`."""

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    is_whole: bool = False

    def describe(self) -> dict[str, Any]:
        """JSON values."""
        if self.choices:
            return {"key": self.key, "choices": list(self.choices)}
        return {"key": self.key, "low": self.low, "high": self.high, "log": self.log, "step": self.step}

    @property
    def texts(self) -> list[str]:
        """The choices as the study stores them: a list, say, is no value of Optuna's."""
        return [json.dumps(choice, default=str) for choice in self.choices]

    def distribution(self) -> optuna.distributions.BaseDistribution:
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.texts)
        high = self.stored_values()[-1] if self.step is not None else self.high
        if self.is_whole:
            return distributions.IntDistribution(int(self.low), int(high), log=self.log, step=int(self.step or 1))
        return distributions.FloatDistribution(self.low, high, log=self.log, step=self.step)

    def stored_values(self) -> list[Any]:
        """Every value, as the study stores it. Raises RequestError for a range without a step."""
        if self.choices:
            return list(self.texts)
        if self.step is None:
            raise RequestError(f"sweep.space.{self.key}: a grid needs values that can be counted; add step, or give a list")
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        values = [self.low + n * self.step for n in range(count)]
        return [int(value) for value in values] if self.is_whole else values

    def value_of(self, stored: Any) -> Any:
        """What the config gets for what the study stores."""
        return self.choices[self.texts.index(stored)] if self.choices else stored


@dataclass(frozen=True)
class Search:
    """How a study is made; see `configs.sweep.SweepConfig`. warmup_epochs: of a trial before the median can prune it."""

    domains: tuple[Domain, ...]
    trials: int
    is_larger_better: bool
    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0
    timeout_s: float | None = None
    warmup_epochs: int = 1

    @property
    def count(self) -> int:
        """How many trials there are in the end."""
        return min(self.trials, len(self.grid)) if self.sampler == "grid" else self.trials

    @cached_property
    def grid(self) -> list[dict[str, Any]]:
        """All combinations in an order drawn from the seed, by key as the study stores them. Raises RequestError for too many."""
        values = [domain.stored_values() for domain in self.domains]
        if (count := math.prod(map(len, values))) > MOST_COMBINATIONS:
            raise RequestError(f"sweep.sampler: a grid of {count} combinations; take larger steps, or sampler: random")
        combinations = list(product(*values))
        order = np.random.default_rng(self.seed).permutation(len(combinations))
        keys = [domain.key for domain in self.domains]
        return [dict(zip(keys, combinations[n], strict=True)) for n in order]

    def values_of(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """By key what the config gets."""
        return {domain.key: domain.value_of(stored[domain.key]) for domain in self.domains if domain.key in stored}


@dataclass(frozen=True)
class TrialRow:
    """A trial of the study. `state`: finished, pruned, failed or killed; `value`: of the figure, None unless it has finished."""

    number: int
    state: str
    value: float | None
    values: Mapping[str, Any]
    figures: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    message: str = ""


class Pruned(Exception):
    """Raised by `Attempt.report` for a trial that has fallen behind."""


@dataclass
class Attempt:
    """A trial that is under way: by key what it tries, and where it reports."""

    number: int
    values: Mapping[str, Any]
    trial: optuna.Trial

    def report(self, step: int, value: float) -> None:
        """Of an epoch. Raises Pruned."""
        self.trial.report(value, step)
        if self.trial.should_prune():
            raise Pruned


Try = Callable[[Attempt], Mapping[str, float]]  # the figures of a trial, the one that is searched by first


def require_optuna() -> None:
    """Raises RequestError where it is not installed."""
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise RequestError(INSTALL)


# ---------------------------------------------------------------- the study on disk


def open_study(path: Path, search: Search) -> optuna.Study:
    """The study in the journal at `path`, made where there is none; trials that a killed process left are marked.

    Only for the holder of the folder's lock. Raises ArtefactDamaged for a journal that cannot be read.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{path.name}.lock*"):
        left.unlink(missing_ok=True)
    cut_incomplete_line(path)
    direction: Literal["maximize", "minimize"] = "maximize" if search.is_larger_better else "minimize"
    try:
        storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        study = optuna.create_study(storage=storage, study_name=NAME, direction=direction, load_if_exists=True)
    except (ValueError, KeyError, TypeError, AssertionError) as e:
        raise ArtefactDamaged(f"{path} cannot be read ({type(e).__name__}: {e}); begin anew with --restart") from e
    study.pruner = build_pruner(search.pruner, search.warmup_epochs)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def search_rows(path: Path, search: Search) -> list[TrialRow]:
    """The trials in the journal at `path` that have ended, [] where there is none; nothing is changed."""
    if not path.exists():
        return []
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        study = optuna.load_study(study_name=NAME, storage=JournalStorage(JournalFileBackend(str(path))))
        return rows_of(study, search)
    except (ValueError, KeyError, TypeError, AssertionError):
        return []  # the search itself says what is wrong


def cut_incomplete_line(path: Path) -> None:
    """Removes what follows the last line break, of a line that a kill left unfinished."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))


def build_pruner(name: str, warmup_epochs: int) -> optuna.pruners.BasePruner:
    from optuna import pruners

    match name:
        case "median":
            return pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=warmup_epochs)
        case "hyperband":
            return pruners.HyperbandPruner()
        case _:
            return pruners.NopPruner()


def build_sampler(search: Search, place: int) -> optuna.samplers.BaseSampler:
    """Of one place in the study."""
    from optuna import samplers

    seed = int(np.random.SeedSequence([search.seed, place]).generate_state(1)[0])
    return samplers.TPESampler(seed=seed) if search.sampler == "tpe" else samplers.RandomSampler(seed=seed)


def rows_of(study: optuna.Study, search: Search) -> list[TrialRow]:
    """Every trial that has ended, in order."""
    from optuna.trial import TrialState

    words = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            continue
        about, is_finished = trial.user_attrs, trial.state == TrialState.COMPLETE
        message = about.get("message", KILLED if trial.state == TrialState.FAIL else "")
        state = words.get(trial.state, "killed" if message == KILLED else "failed")
        rows.append(
            TrialRow(
                trial.number, state, trial.value if is_finished else None, search.values_of(trial.params),
                about.get("figures", {}), len(trial.intermediate_values), about.get("seconds", 0.0), message,
            )
        )  # fmt: skip
    return rows


# ---------------------------------------------------------------- its trials


def run_trials(
    study: optuna.Study, search: Search, attempt: Try, progress: Callable[[int, int, list[TrialRow]], None]
) -> list[TrialRow]:
    """Carries out what is left of the study, trial by trial, and returns all rows; `progress(done, total, rows)` after each.

    A trial that fails is counted, with its message, and the others go on. Raises StorageFull, and StateError where
    `MOST_ALIKE` in a row fail alike, unless the schema refused their values; what ends the process (Ctrl-C, SIGTERM) leaves the
    trial to be marked as killed by the next call.
    """
    started, rows, alike = time.monotonic(), rows_of(study, search), list[str]()
    grid = search.grid if search.sampler == "grid" else []
    distributions = {domain.key: domain.distribution() for domain in search.domains}
    while True:
        place = sum(row.state != "killed" for row in rows)
        progress(place, search.count, rows)
        is_over = search.timeout_s is not None and time.monotonic() - started >= search.timeout_s
        if place >= search.count or is_over:
            return rows
        study.sampler = build_sampler(search, place)
        if grid:
            _enqueue(study, grid[place])
        error = _carry_out(study, study.ask(distributions), search, attempt)
        alike = [*alike, error] if error and error in alike[-1:] else [error] if error else []
        rows = rows_of(study, search)
        if len(alike) == MOST_ALIKE and place + 1 < search.count:
            raise StateError(
                f"{MOST_ALIKE} trials in a row failed alike, so the search has stopped: {error}; mend that and call `driftline "
                f"sweep` again: it goes on with the other {search.count - place - 1}. Those that failed count as tried; "
                "--restart begins anew"
            )


def _enqueue(study: optuna.Study, stored: Mapping[str, Any]) -> None:
    """The next trial tries these; one that a killed process had enqueued is there already."""
    from optuna.trial import TrialState

    if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(stored))


def _carry_out(study: optuna.Study, trial: optuna.Trial, search: Search, attempt: Try) -> str:
    """The error of a trial that failed, "" for others and for values that are refused, which are no outage."""
    from optuna.trial import TrialState

    started, state, value = time.monotonic(), TrialState.FAIL, None
    message, error, figures = "", "", dict[str, float]()
    try:
        figures = dict(attempt(Attempt(trial.number, search.values_of(trial.params), trial)))
        value = next(iter(figures.values()))
        state = TrialState.COMPLETE if math.isfinite(value) else TrialState.FAIL
        message = "" if math.isfinite(value) else "the validation figure is not a number"
    except Pruned:
        state = TrialState.PRUNED
    except StorageFull:
        raise
    except Exception as e:
        if isinstance(e, OSError) and is_full(e):
            raise
        message = describe_failure(e)
        error = "" if isinstance(e, ConfigError) else message.replace(f"{trial.number:04d}", "NUMBER")  # of the trial's folder
    _free_memory()
    trial.set_user_attr("seconds", round(time.monotonic() - started, 2))
    if figures:
        trial.set_user_attr("figures", figures)
    if message:
        trial.set_user_attr("message", message)
    study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    return error


def describe_failure(error: Exception) -> str:
    """One line; the type of an error that driftline does not raise itself."""
    text = str(error) if isinstance(error, DriftlineError) else f"{type(error).__name__}: {error}"
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= MOST_MESSAGE else f"{text[: MOST_MESSAGE - 4]} ..."


def _free_memory() -> None:
    """After a trial, which may have run out of it."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---------------------------------------------------------------- what came out


def best_of(rows: Sequence[TrialRow], is_larger_better: bool) -> TrialRow | None:
    """The finished trial with the best value, the first of equals."""
    finished = [row for row in rows if row.value is not None]
    sign = -1.0 if is_larger_better else 1.0
    return min(finished, key=lambda row: sign * (row.value or 0.0), default=None)


def importances(study: optuna.Study, rows: Sequence[TrialRow]) -> dict[str, float]:
    """Share of each key in the variance of the figure over finished trials (fANOVA, Hutter et al. 2014), largest first.

    {} where too few have finished to say.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    finished = [row for row in rows if row.value is not None]
    if len(finished) < LEAST_FINISHED or len({row.value for row in finished}) < 2:
        return {}
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: round(float(share), 4) for name, share in found.items()}
