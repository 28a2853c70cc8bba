"""The stage `choose` of a forecast with `model: auto`: candidates at rolling origins of the training part, then one of them.

It leaves chosen.json, and a record whose `chosen` the later stages read in place of `auto` (`resolve`). Scores are kept one by
one, so that a search that was stopped goes on with the candidate at which it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from configs.networks import AUTO, AutoModel
from configs.tasks import forecast as config
from configs.tasks import forecast_auto as auto
from configs.tasks.forecast import ForecastRun
from configs.tasks.forecast_losses import build_loss, build_target
from flows.folder import RunFolder, fingerprints, finished, first_altered, readable, require
from flows.task import Invocation, Record, Task, key_of
from pipelines.errors import MissingInput, RequestError, StateError
from pipelines.files import write_json

if TYPE_CHECKING:
    import xarray as xr

    from models.residual_forecaster import ResidualForecaster
    from pipelines.learning.model_choice import Candidate, Found, Score, Trial
    from pipelines.learning.training import TrainingSettings
    from pipelines.progress import Progress
    from pipelines.samples.origins import Origin
    from pipelines.samples.plan import WindowPlan
    from pipelines.samples.prepare import SampleSettings
    from pipelines.samples.sampling import SampleCache

FEWEST, MOST, STEP_PIXELS = 4, 8, 1024  # windows of a step of candidates, so that one has about so many pixels
LEARNING_RATE = 3e-3  # of candidates, which learn for a short time
MOST_LOADED = 512 * 2**20  # bytes of pixels that are held in memory, and not read again for every candidate


# ---------------------------------------------------------------- what later stages see


def resolve(context: Invocation, stage: str) -> Invocation:
    """The call with sizes of blocks that fit the raster, and with the model and context that were chosen, in place of `auto`.

    `choose` itself and `ingest` get what is known by then. Raises MissingInput before the choice, RequestError where the config
    has changed since.
    """
    run, folder = context.run, context.folder
    if auto.has_open_split(run) and (shape := raster_shape(folder, must_exist=stage != "ingest")):
        run = auto.with_split(run, shape)
    if auto.is_auto(run) and stage != "choose":
        known = with_known(run, folder)
        if known is run and stage != "ingest":
            asked, before = asked_of(run), require(folder, "choose")["asked"]
            changed = [name for name in sorted({*asked, *before}) if asked.get(name) != before.get(name)]
            problem = f"the model in {folder.path} was chosen for other settings of {', '.join(changed)}"
            raise RequestError(f"{problem}; run `driftline train CONFIG`, which chooses again, or set them back")
        run = known
    return context if run is context.run else replace(context, run=run)


def with_known(run: ForecastRun, folder: RunFolder) -> ForecastRun:
    """The run with the model and context that were chosen for these settings before, as it is where none were."""
    record = finished(folder, "choose") if auto.is_auto(run) else None
    if record is None or record["asked"] != asked_of(run):
        return run
    return auto.with_choice(run, {**record["chosen"], "model": record["chosen"]["model"] | {"members": run.model.members}})


def asked_of(run: ForecastRun) -> Record:
    """`auto.asked` as a record has it."""
    asked: Record = json.loads(json.dumps(auto.asked(run)))
    return asked


def raster_shape(folder: RunFolder, *, must_exist: bool) -> tuple[int, ...]:
    """Of the cube; () where there is none and none must be. Raises MissingInput."""
    from pipelines.cube.store import open_cube, space_dims

    if must_exist:
        require(folder, "ingest")
    try:
        cube = open_cube(folder.cube_uri, accept_damaged=True)
    except MissingInput:
        if must_exist:
            raise
        return ()
    return tuple(cube.sizes[dim] for dim in space_dims(cube))


def choice_of(folder: RunFolder) -> Record:
    """What chosen.json says, {} where nothing was chosen, or the run's config states another network by now."""
    record = finished(folder, "choose")
    if record is None or first_altered(folder, record) or not is_followed(folder, record["chosen"]):
        return {}
    return readable(folder.choice)


def is_followed(folder: RunFolder, chosen: Record) -> bool:
    """Whether the resolved config leaves the network open, as before the choice, or has what was chosen."""
    stated = yaml.safe_load(folder.config.read_text(encoding="utf-8")) if folder.config.exists() else {}
    model, context = stated.get("model") or {}, (stated.get("samples") or {}).get("context")
    if model.get("kind") == AUTO:
        return True
    apart = ("members", "use", "as_is")
    found, known = ({name: of[name] for name in of if name not in apart} for of in (model, chosen["model"]))
    return bool(found == known and context == chosen["context"])


# ---------------------------------------------------------------- the stage


def inputs(context: Invocation) -> dict[str, Any]:
    """What a choice depends on: the config, and the scenes of the training period; later ones do not change it."""
    return {**auto.asked(context.run), "past": past_digest(open_past(context.run, context.folder))}


def past_digest(past: xr.Dataset) -> str:
    """SHA-256 (hex) over the dates of the past, what was observed on each, and the raster."""
    content = [str(past["image"].shape), past["time"].values.astype(str).tolist(), past["content_hash"].values.tolist()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def open_past(run: ForecastRun, folder: RunFolder) -> xr.Dataset:
    """The cube's dates of the training period."""
    from pipelines.cube.store import open_cube
    from pipelines.samples.origins import known_past

    return known_past(open_cube(folder.cube_uri, require(folder, "ingest")["snapshot"]), settings_with(run, 1))


def settings_with(run: ForecastRun, context: int) -> SampleSettings:
    """What samples of the run are made of, with that context."""
    samples = run.samples.model_copy(update={"context": context})
    return config.build_samples(run.model_copy(update={"samples": samples}))


def choose(task: Task, context: Invocation) -> Record:
    """The record of the stage, with `skipped`; the choice is made anew where something that it depends on has changed."""
    folder, run = context.folder, context.run
    if not isinstance(run.model, AutoModel):
        raise RequestError(f"`driftline choose` is for `model: auto`; the model of {run.name} is stated, nothing is to be chosen")
    key = key_of(task, context, "choose")
    record = finished(folder, "choose", key)
    if record is not None and not first_altered(folder, record):
        context.steps.skip("choose", "up to date")
        return {**record, "skipped": True}
    found = find_network(context, key)
    model = auto.with_candidate(run, found.chosen).network
    chosen = {"model": model.model_dump(mode="json", exclude={"members"}), "context": found.chosen.context}
    write_json(folder.choice, {**found.to_json(), "model": chosen["model"]})
    content = {"key": key, "asked": auto.asked(run), "chosen": chosen, "files": fingerprints(folder, [folder.choice.name])}
    context.steps.log(f"choose: {found.sentence}")
    record = context.finish("choose", {**content, "message": found.sentence})
    shutil.rmtree(folder.trials, ignore_errors=True)
    return {**record, "skipped": False}


def find_network(context: Invocation, key: str) -> Found:
    """Searches; see `pipelines.learning.model_choice`."""
    from pipelines.learning.model_choice import Found, Trial, race, search
    from pipelines.samples.origins import contexts_with_room, days_before
    from pipelines.samples.prepare import step_days

    run, folder, do = context.run, context.folder, partial(context.steps.do, "choose")
    model: AutoModel = run.model
    past, settings = open_past(run, folder), settings_with(run, 1)
    wished = auto.wished_contexts(run, step_days(past, settings)) if past.sizes["time"] > 1 else [1]
    if past["image"].nbytes <= MOST_LOADED:
        past = do("read the training part", lambda _: past.load())
    contexts = contexts_with_room(past, settings, wished, model.origins)
    origins = origins_with_truth(context, past, contexts)
    space = auto.build_space(run, contexts or few_contexts(run, past, wished), days_before(past, settings, origins))
    if not origins:
        return Found(space.first, (), 0)
    known = Kept(folder, key)

    def attempt(candidate: Candidate, leader: Trial | None) -> Trial:
        work = Attempt(context, auto.with_candidate(run, candidate), model, past, key)

        def score_all(show: Progress) -> tuple[Score, ...]:
            return race(
                lambda number: known.score(candidate, number, partial(work.score, origins[number], show)), len(origins), leader
            )

        trial = Trial(candidate, do(candidate.text, score_all))
        context.steps.log(f"choose: {describe(trial, len(origins))}")
        return trial

    return search(space, attempt, origins=len(origins), tries=model.tries)


def origins_with_truth(context: Invocation, past: xr.Dataset, contexts: Sequence[int]) -> tuple[Origin, ...]:
    """The newest origins at which every part has a usable window; those in a cloudy season are passed over."""
    from pipelines.samples.origins import Origin, plan_origin, rolling_origins
    from pipelines.samples.plan import PARTS
    from pipelines.samples.prepare import read_windows
    from pipelines.samples.refit import valid_share

    settings, most = settings_with(context.run, max(contexts, default=1)), context.run.model.origins
    found = list[Origin]()
    for origin in rolling_origins(past, settings, contexts, 2 * most):
        try:
            known, plan = plan_origin(past, settings, origin)
            parts = (read_windows(known, plan, settings.variables, part) for part in PARTS)
            if all(any(valid_share(one) >= settings.min_valid_fraction for one in windows) for windows in parts):
                found.append(origin)
                continue
            problem = f"clouds leave no window with {settings.min_valid_fraction:.0%} of its target pixels"
        except RequestError as e:
            problem = str(e)
        context.steps.log(f"choose: an origin is passed over: {problem}")
    return tuple(found[:most])


def few_contexts(run: ForecastRun, past: xr.Dataset, wished: list[int]) -> tuple[int, ...]:
    """The context of a series that is too short to compare any: the one that is stated, else what leaves a few windows."""
    if isinstance(run.samples.context, int):
        return (run.samples.context,)
    return (max(1, min(auto.USUAL_CONTEXT, (past.sizes["time"] - run.samples.horizon) // 2)),)


def describe(trial: Trial, origins: int) -> str:
    """One line for the log."""
    if trial.problem:
        return f"{trial.candidate.text}: left out, {trial.problem}"
    errors = ", ".join(f"{error:.4g}" for error in trial.errors)
    seconds = sum(score.cpu_seconds for score in trial.scores)
    given_up = "" if len(trial.scores) == origins else "; far behind, given up"
    return f"{trial.candidate.text}: error {errors} ({seconds:.0f} CPU s){given_up}"


@dataclass(frozen=True)
class Kept:
    """Scores of a search that is under way, on disk one by one; those of another key do not count."""

    folder: RunFolder
    key: str

    def score(self, candidate: Candidate, origin: int, work: Callable[[], Score]) -> Score:
        """The score, as it was kept or from `work()`."""
        from pipelines.learning.model_choice import Score, candidate_key

        path, name = self.folder.trials / "scores.json", candidate_key(candidate, origin)
        content = readable(path)
        scores: dict[str, Any] = content.get("scores", {}) if content.get("key") == self.key else {}
        if name not in scores:
            scores = {**scores, name: asdict(work())}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"key": self.key, "scores": scores})
        return Score(**scores[name])


@dataclass(frozen=True)
class Attempt:
    """One candidate, as the run with it stated."""

    context: Invocation
    run: ForecastRun
    settings: AutoModel
    past: xr.Dataset
    key: str

    def score(self, origin: Origin, show: Progress) -> Score:
        """The candidate's error at an origin, after a short training; a candidate that cannot be trained is left out."""
        from pipelines.learning.choice import tally_errors
        from pipelines.learning.model_choice import Score
        from pipelines.samples.origins import plan_origin

        started = time.process_time()
        try:
            known, plan = plan_origin(self.past, config.build_samples(self.run), origin)
            forecaster, windows = self.train(known, plan, show)
            error = tally_errors({config.MODEL: forecaster}, windows.windows("test")).means()[config.MODEL]
        except (RequestError, StateError) as e:
            return Score(float("inf"), time.process_time() - started, problem=str(e))
        counts = windows.counts()
        return Score(error, time.process_time() - started, counts["train"], counts["test"])

    def train(self, known: xr.Dataset, plan: WindowPlan, show: Progress) -> tuple[ResidualForecaster, SampleCache]:
        """The candidate, trained on the origin's windows, and those."""
        from pipelines.learning.member import frame_weight
        from pipelines.learning.training import train
        from pipelines.samples.cache import build_samples
        from pipelines.samples.prepare import channel_statistics, step_days, windows_to_fit

        run, samples, folder = self.run, config.build_samples(self.run), self.context.folder.trials
        statistics = channel_statistics(known, plan, samples.variables)
        days = step_days(known, samples)
        forecaster = config.build_forecaster(run, lambda: windows_to_fit(known, plan, samples), statistics, days, len(plan.shape))
        shutil.rmtree(folder / "training", ignore_errors=True)
        inside, share = (known, self.key, folder, plan, samples.variables), samples.min_valid_fraction
        described = json.dumps(forecaster.describe(), sort_keys=True, default=str)
        windows = build_samples(*inside, forecaster.prepare, prepare_key=described, min_valid_fraction=share)
        parts = windows.part("train", augment=run.training.augment, seed=run.training.seed), windows.part("validation")
        batch = max(FEWEST, min(MOST, STEP_PIXELS // math.prod(plan.windows[0].tile.shape)))
        loss, short = build_loss(run, forecaster), short_training(run, self.settings.steps, batch, len(parts[0]))
        learnt, target = folder / "training", build_target(run)
        train(forecaster, *parts, loss, short, learnt, show, target_of=target, weight_of=frame_weight)
        forecaster.fit_residual_scale(windows.batches("validation", batch))
        return forecaster, windows


def short_training(run: ForecastRun, steps: int, batch: int, windows: int) -> TrainingSettings:
    """The run's training, shortened: about so many steps over the windows, in small batches at a higher rate."""
    settings, epochs = config.build_training_settings(run), math.ceil(steps / math.ceil(windows / batch))
    return replace(settings, epochs=epochs, patience=epochs, batch=batch, learning_rate=LEARNING_RATE, devices=1)


# ---------------------------------------------------------------- what summary and model say


def settings_of(folder: RunFolder) -> dict[str, str]:
    """For the report's list of settings; {} where nothing was chosen."""
    found = choice_of(folder)
    return {"choice of the model": str(found["sentence"])} if found else {}


def computed_of(folder: RunFolder) -> dict[str, float | int]:
    """For the summary; {} where nothing was chosen."""
    found = choice_of(folder)
    trained = [score["learnt"] for trial in found.get("trials", ()) for score in trial["scores"]]
    cost = {"choice_candidates": len(found.get("trials", ())), "choice_trainings": len(trained), "choice_windows": sum(trained)}
    return {**cost, "choice_cpu_seconds": found["cpu_seconds"]} if found else {}


def metadata_of(folder: RunFolder) -> dict[str, Any]:
    """What goes with the model: how it was chosen. Without the seconds, which are others on every machine."""
    found = choice_of(folder)
    if not found:
        return {}
    trials = [
        {
            **{name: value for name, value in trial.items() if name != "scores"},
            "errors": [one["error"] for one in trial["scores"]],
        }
        for trial in found["trials"]
    ]
    return {"choice": {"origins": found["origins"], "trials": trials}}
