"""Forecaster -> verdict: fit the baselines, calibrate the intervals on validation, judge all of them on the test part."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from configs.tasks import forecast as build
from flows.folder import read_json, require, stage_key
from flows.invocation import Invocation
from flows.stages.train import cut_samples, every_nth, plan_samples, require_trained
from flows.stages.verdict import standing_verdict, write_verdict
from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.progress import Progress


@dataclass(frozen=True)
class PartWindows:
    """The windows of one part, with a length, so that progress knows how far it is."""

    cache: Any
    part: str

    def __len__(self) -> int:
        return self.cache.counts()[self.part]

    def __iter__(self) -> Iterator[Any]:
        return self.cache.windows(self.part)


def evaluate(invocation: Invocation) -> dict[str, Any]:
    """Evaluates if the model or the settings have changed; hands back the record of the stage."""
    steps = invocation.steps
    trained = require_trained(invocation)
    key = evaluate_key(invocation, trained)
    if (record := standing_verdict(invocation, key)) is not None:
        steps.skip("evaluate", "up to date")
        return {**record, **headline(read_evaluation(invocation)), "skipped": True}
    forecaster = steps.do("evaluate", "load the model", lambda progress: load_model(invocation)[0])
    cache = steps.do("evaluate", "open the windows", lambda progress: reopen_samples(invocation, trained, forecaster, progress))
    baselines = steps.do("evaluate", "fit the baselines", lambda progress: fit_baselines(invocation, cache, progress))
    intervals = steps.do(
        "evaluate", "calibrate the intervals", lambda progress: calibrate(invocation, forecaster, cache, progress)
    )
    content = steps.do(
        "evaluate",
        "judge on the test part",
        lambda progress: judge(invocation, forecaster, baselines, intervals, cache, progress),
    )
    record = write_verdict(invocation, key, content, trained)
    return {**record, **headline(content)}


def headline(content: dict[str, Any]) -> dict[str, Any]:
    """Verdict and overall errors, for `--json`."""
    return {"verdict": content["verdict"], "metrics": {name: m["overall"] for name, m in content["metrics"].items()}}


def evaluate_key(invocation: Invocation, trained: dict[str, Any]) -> str:
    run = invocation.run.model_dump(mode="json")
    return stage_key(model=trained["model_hash"], trained=trained["key"], evaluation=run["evaluation"])


def load_model(invocation: Invocation) -> tuple[Any, dict[str, Any]]:
    """(forecaster, metadata) of the run. Raises MissingInput or ArtefactDamaged, also for a whole model of another training."""
    from models.checkpoint import CheckpointDamaged, hash_forecaster, load_forecaster

    trained = require(invocation.folder, "train", "train")
    try:
        loaded = load_forecaster(invocation.folder.model)
        found = hash_forecaster(invocation.folder.model)
    except FileNotFoundError as e:
        raise MissingInput(f"{e}; run `driftline train CONFIG`") from e
    except CheckpointDamaged as e:
        raise ArtefactDamaged(f"{e} (delete {invocation.folder.model} and run `driftline train CONFIG`)") from e
    if found != trained["model_hash"]:  # it would be published under the name and the verdict of the other
        raise ArtefactDamaged(
            f"{invocation.folder.model} holds the model {found[:12]}, but {trained['model_hash'][:12]} was trained here: "
            "run `driftline train CONFIG`, which makes it anew, or put it back"
        )
    return loaded


def reopen_samples(invocation: Invocation, trained: dict[str, Any], forecaster: Any, progress: Progress) -> Any:
    """The cache that training used; cut again if it has been removed since."""
    dataset, plan = plan_samples(invocation, trained["snapshot"])
    return cut_samples(invocation, trained["snapshot"], dataset, plan, forecaster, progress)


def fit_baselines(invocation: Invocation, cache: Any, progress: Progress) -> dict[str, Any]:
    names = invocation.run.evaluation.baselines
    baselines: dict[str, Any] = {}
    for done, name in enumerate(names):
        progress(done, len(names))
        baselines[name] = build.build_baseline(
            name, invocation.run.training.seed, lambda: every_nth(cache.windows("train"), cache.counts()["train"])
        )
    return baselines


def calibrate(invocation: Invocation, forecaster: Any, cache: Any, progress: Progress) -> Any:
    from pipelines.learning.conformal import calibrate as calibrate_intervals

    run = invocation.run
    return calibrate_intervals(
        forecaster, PartWindows(cache, "validation"), run.evaluation.interval, progress, seed=run.training.seed
    )


def judge(
    invocation: Invocation, forecaster: Any, baselines: dict[str, Any], intervals: Any, cache: Any, progress: Progress
) -> dict[str, Any]:
    from pipelines.learning.evaluation import evaluate as evaluate_all

    settings = build.build_evaluation_settings(invocation.run)
    windows = PartWindows(cache, "test")
    evaluation = evaluate_all({build.MODEL: forecaster, **baselines}, windows, settings, progress, intervals=intervals)
    return {**evaluation.to_json(), "calibration": intervals.to_json()}


def read_evaluation(invocation: Invocation) -> dict[str, Any]:
    return read_json(invocation.folder.evaluation, "run `driftline evaluate CONFIG`")
