"""The windows of a forecast: planned, checked, cut once and opened again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from configs.tasks import forecast as config
from configs.trained import used_by
from flows import code
from flows.covariates import samples_of
from flows.task import Invocation
from pipelines.errors import RequestError, StateError
from pipelines.files import write_json
from pipelines.learning.result import NoTruth
from pipelines.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from models.residual_forecaster import ResidualForecaster
    from pipelines.progress import Progress
    from pipelines.samples.audit import Audit
    from pipelines.samples.covariates import Covariates
    from pipelines.samples.plan import WindowPlan
    from pipelines.samples.sampling import SampleCache

PREPARED_WITH = ("baseline", "scaling", "covariates", "lags")  # parts of a forecaster's description
PREPARED_BY = (  # what the sample cache holds depends on
    "models.residual_forecaster",
    "models.history_forecaster",
    "pipelines.samples.cache",
)


def key_of_covariates(context: Invocation, snapshot: str, *, is_training: bool) -> dict[str, str]:
    """What a stage depends on of the covariates' files, {} without any: of training nothing after the cube's last date."""
    from pipelines.calendar import to_days
    from pipelines.cube.store import open_cube

    if context.run.covariates.is_empty:
        return {}
    dataset = open_cube(context.folder.cube_uri, snapshot)
    covariates = samples_of(context.run, dataset).covariates
    assert covariates is not None
    if is_training:
        return {"covariates": covariates.key(float(to_days(dataset["time"].values)[-1]))}
    stand_in = ",".join(driver.name for driver in covariates.drivers if driver.missing == "climatology")
    return {"covariates": covariates.key(float("inf")), "climatology_of": stand_in}


def require_units(trained: Sequence[Mapping[str, object]], covariates: Covariates | None) -> None:
    """Raises RequestError where a covariate has another unit than the one that the model was trained with."""
    units = {} if covariates is None else covariates.units
    for one in trained:
        name, before = str(one["name"]), str(one["unit"])
        if (now := units.get(name, before)) != before:
            raise RequestError(
                f"covariates: {name} is in {now!r}, the model was trained with {before!r}: convert its file, or train again"
            )


def plan_samples(context: Invocation, snapshot: str) -> tuple[xr.Dataset, WindowPlan, Audit]:
    """(dataset, window plan, what the audit found) of the snapshot; the last is also written to split.json.

    Raises StateError if the audit finds that test and training touch.
    """
    from pipelines.cube.store import open_cube
    from pipelines.samples.audit import audit
    from pipelines.samples.prepare import plan_cube

    dataset = open_cube(context.folder.cube_uri, snapshot)
    plan = plan_cube(dataset, config.build_samples(context.run))  # covariates change no window
    found = audit(plan)
    write_json(context.folder.path / "split.json", {"ok": found.ok, "problems": found.problems, **found.facts})
    if not found.ok:
        raise StateError("the split leaks and was not used: " + "; ".join(found.problems))
    return dataset, plan, found


def split_facts(found: Audit) -> dict[str, float | int]:
    """For the summary: sizes of blocks and buffer, and which share of raster x dates each part has as its targets."""
    shares = {f"share_{part}": facts["share_of_all"] for part, facts in found.facts["parts"].items()}
    return {"block_px": found.facts["block_px"], "buffer_px": found.facts["buffer_px"], **shares}


def describe_shares(found: Audit) -> str:
    """How many pixels learn, validate and test, for the log."""
    words = {"train": "learns", "validation": "validates", "test": "tests"}
    parts = [
        f"{facts['share_of_raster']:.0%} of the raster {words[part]} on {counted(facts['target_dates'], 'date')} "
        f"({facts['share_of_all']:.1%} of all pixel-dates)"
        for part, facts in found.facts["parts"].items()
    ]
    sizes = f"blocks of {found.facts['block_px']} pixels, a buffer of {found.facts['buffer_px']}"
    return f"{sizes}; {', '.join(parts)}"


def cut(
    context: Invocation, snapshot: str, dataset: xr.Dataset, plan: WindowPlan, forecaster: ResidualForecaster, progress: Progress,
    name: str = "",
) -> SampleCache:  # fmt: skip
    """The sample cache, opened if it is there. name: of one beside that of the run's own plan."""
    from pipelines.samples.cache import build_samples
    from pipelines.samples.sampling import StoredCube
    from pipelines.stored_files import absolute

    settings, description = samples_of(context.run, dataset), forecaster.describe()
    if settings.covariates is not None and not name:
        settings.covariates.require_for_scores(plan)
    key = code.key({name: description[name] for name in PREPARED_WITH if name in description}, PREPARED_BY)
    inputs, share = (dataset, snapshot, context.folder.samples / name, plan, settings.variables), settings.min_valid_fraction
    cache = build_samples(
        *inputs, forecaster.prepare, progress, prepare_key=key, min_valid_fraction=share, covariates=settings.covariates
    )
    return replace(cache, cube=StoredCube(absolute(context.folder.cube_uri), snapshot, settings.variables))


def reopen(context: Invocation, snapshot: str, forecaster: ResidualForecaster, progress: Progress) -> SampleCache:
    """What training used; cut again if it has been removed since. Raises NoTruth where there is too little for a test."""
    from pipelines.samples.windows import LOWER

    try:
        dataset, plan, _ = plan_samples(context, snapshot)
        return cut(context, snapshot, dataset, plan, forecaster, progress)
    except RequestError as e:
        text = str(e) if used_by(context.run) is None else str(e).replace(f"{LOWER}, or ", "").replace(f", or {LOWER}", "")
        raise NoTruth(text) from e
