"""`driftline verify`: archived forecasts against the dates that the cube has by now (docs/design/017).

It ingests nothing. What it finds is in runs/NAME/verification.json, from which the next `driftline predict` learns whether the
network gives way to its baseline.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from configs.tasks import forecast as config
from flows import Json, publish
from flows.folder import finished, require
from flows.task import Invocation, Record, Task
from flows.tasks.forecast_methods import LEARNT, compared_of, read_scores, standing_of
from pipelines.calendar import date_text
from pipelines.errors import MissingInput
from pipelines.files import write_json
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.inference.archive import Archived
    from pipelines.learning.result import Evaluation
    from pipelines.learning.verification import Scored, Standing

LATEST = 10  # forecasts that the terminal shows


def verify(task: Task, context: Invocation) -> Record:
    """The scores, the sentence and the table of what was archived. Raises MissingInput where nothing is."""
    from pipelines.cube.store import head_snapshot, open_cube
    from pipelines.inference.archive import read_archive
    from pipelines.inference.verification import verify as compare

    folder, do = context.folder, context.steps.do
    task.check(context, "report")
    archived, problems = read_archive(folder.archive)
    known = read_scores(folder)
    if not archived and not known:
        said = f": {problems[0]}" if problems else ""
        raise MissingInput(
            f"{folder.path} has no archived forecast{said}; `driftline predict CONFIG` keeps each one that it publishes, unless "
            "prediction.archive is false or no file states a date"
        )
    require(folder, "ingest")
    snapshot = head_snapshot(folder.cube_uri)
    dataset = open_cube(folder.cube_uri, snapshot)
    found, new, more = do(
        "verify", "compare archived forecasts with the cube", lambda show: compare(dataset, folder.archive, archived, known, show)
    )
    problems += more
    leave(context, snapshot, found)
    evaluation = publish.current_evaluation(task, context)
    compared = config.MODEL if is_insisted(context) else compared_of(context)
    standing = standing_of(context, compared)
    ours = {name: one for name, one in found.items() if compared in (one.method, one.rival)}
    sentence = conclude(context, evaluation, ours, standing)
    content = leave(context, snapshot, found, sentence, standing, problems)
    removed = remove_old(context, archived, found)
    if folder.report.exists() and (evaluation is not None or publish.is_unscored(task, context)):
        publish.report(task, context)
    notes = [
        *problems,
        *([f"maps of {counted(removed, 'scored forecast')} removed (prediction.archive_keep)"] if removed else []),
    ]
    return {
        **{name: value for name, value in content.items() if name != "forecasts"},
        "file": str(folder.verification),
        "scored_now": new,
        "message": sentence,
        "lines": [*table_lines(content["by_issue"]), *notes, sentence],
        "skipped": new == 0,
    }


def is_insisted(context: Invocation) -> bool:
    """Whether `--even-if-worse` has published the network in place of what the evaluation chose."""
    return "insisted" in (finished(context.folder, "predict") or {})


def leave(
    context: Invocation, snapshot: str, found: Mapping[str, Scored], sentence: str = "", standing: Standing | None = None,
    problems: list[str] | None = None,
) -> Json:  # fmt: skip
    """Writes verification.json; its content."""
    from pipelines.learning.verification import rows_by_date, rows_by_issue
    from pipelines.samples.plan import as_utc

    since = as_utc(context.run.split.test_from)
    pair = {"baseline": standing.baseline, "outcome": standing.outcome, **standing.skill.to_json()} if standing else None
    content: Json = {
        "version": 1,
        "snapshot": snapshot,
        "sentence": sentence,
        "standing": pair,
        "interval": context.run.evaluation.interval,
        "by_issue": rows_by_issue(found.values()),
        "by_date": rows_by_date(found.values(), config.MODEL, since),
        "not_scored": problems or [],
        "forecasts": {name: one.to_json() for name, one in found.items()},
    }
    write_json(context.folder.verification, content, is_strict=True)
    return content


def conclude(context: Invocation, evaluation: Evaluation | None, found: Mapping[str, Scored], standing: Standing | None) -> str:
    """How what is published did against its baseline, and what that means for the next forecast.

    found: the scores of forecasts by what is compared, or by its baseline.
    """
    from pipelines.learning.verification import LEAST_DATES, rows_by_date
    from pipelines.samples.plan import as_utc

    chosen, since = context.run.evaluation, context.run.split.test_from
    if standing is None:
        dates = len(rows_by_date(found.values(), config.MODEL, as_utc(since)))
        return (
            f"{counted(dates, 'target date')} from split.test_from ({date_text(since)}) on can be scored so far; forecast and "
            f"rival are compared from {LEAST_DATES} on."
        )
    said, ours = standing.sentence(chosen.confidence), standing.ours
    if is_insisted(context):
        return f"{said}: {ours} is published, as --even-if-worse asked."
    shipped = evaluation.shipped if evaluation else config.MODEL
    if shipped not in LEARNT:
        return f"{said}: {shipped} is published, as the evaluation chose."
    if standing.loses and chosen.publish == "network":
        return f"{said}: {ours} is published all the same, as evaluation.publish asks."
    if standing.loses:
        return f"{said}: the next forecast is that of {standing.baseline}."
    is_back = bool((finished(context.folder, "predict") or {}).get("fallback"))
    words = {"beats": "it beats it", "equal": "they are equal", "not distinguishable": "they are not distinguishable"}
    end = f"the next forecast is that of {ours} again" if is_back else f"{ours} stays published"
    return f"{said}: {words[standing.outcome]}, {end}."


def remove_old(context: Invocation, archived: Mapping[str, Archived], found: Mapping[str, Scored]) -> int:
    """Removes the maps of older forecasts that are scored as far as they can be; their scores stay. How many."""
    keep = context.run.prediction.archive_keep
    done = [name for name in archived if name in found and found[name].targets and not found[name].awaited]
    old = [name for name in (list(archived)[:-keep] if keep else []) if name in done]
    for name in old:
        going = context.folder.archive / f".{name}.removed"  # whole or gone: what a kill leaves of it, the next command sweeps
        (context.folder.archive / name).rename(going)
        shutil.rmtree(going)
    return len(old)


# ---------------------------------------------------------------- in words


def table_lines(rows: list[Json]) -> Iterator[str]:
    """The newest forecasts for people; programs use `--json`."""
    yield f"  {'issued':<17}{'dates':>6}  {'published':<20}{'error':>9}  {'rival':<20}{'error':>9}{'bias':>10}{'inside':>8}"
    for row in rows[-LATEST:]:
        issued, all_dates = row["issued_utc"][:16].replace("T", " "), row["scored"] + row["awaited"] + row["unseen"]
        ours = f"{method_text(row['method']):<20}{number(row['mae']):>9}"
        rival = f"{method_text(row['rival'] or ''):<20}{number(row['rival_mae']):>9}"
        inside = "" if row["coverage"] is None else f"{row['coverage'] * 100:.0f} %"
        dates = f"{row['scored']}/{all_dates}"
        yield f"  {issued:<17}{dates:>6}  {ours}  {rival}{number(row['bias']):>10}{inside:>8}"
    if len(rows) > LATEST:
        yield f"  and {len(rows) - LATEST} earlier forecasts; all of them: --json"


def method_text(name: str) -> str:
    return "network" if name == config.MODEL else name.partition(" of ")[0]  # of a combination; its members are in --json


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
