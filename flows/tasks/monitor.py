"""The task `monitor`: one growing cube. The saved state advances with each new date; map, patches and alerts follow.

`driftline evaluate` measures it on simulated breaks; nothing waits for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.load import config_hash
from configs.tasks import monitor as config
from configs.tasks.monitor import MonitorRun
from flows.folder import RunFolder, code_version, finished, read_json, require
from flows.task import Building, Findings, Invocation, Record, SlicedTask
from flows.tasks.monitor_state import advance, advance_share, networks_of, open_cube, open_state, state_of
from pipelines.learning.result import Evaluation, Figure
from pipelines.products.section import Column, Picture, Section, Table
from pipelines.slices import Slice, SliceDone

if TYPE_CHECKING:  # packages are imported where they are needed: a verb that has nothing to do must be quick
    from flows.planning import Extent, PlannedStep
    from pipelines.monitoring.alerts import AlertLog, Updates
    from pipelines.monitoring.blocks import Counts
    from pipelines.monitoring.context import MonitorContext
    from pipelines.products.found_changes import Found
    from pipelines.products.patch_sentences import Told
    from pipelines.progress import Progress

PICTURES = (
    ("quicklook.png", "What changed", "Before and after, with the changed pixels outlined; when, how much, confidence."),
    ("animation.gif", "As it became known", "Changed pixels from the date of their alarm on, coloured by date of change."),
    (
        "series.png",
        "What the largest patches show",
        "All usable observations of the pixel with the strongest evidence, what was expected of it, and when the alarm came.",
    ),
    ("growth.png", "Changed area over time", "Pixels of the patches, by their date of change and by that of their alarm."),
)
PATCH_TEXT = (
    "A change is dated by the first observation that shows it: after a gap, such as a winter, it may have happened at any time "
    "since the observation before. Confidence is the share of stable pixels whose evidence stays below that of the patch for a "
    "year, not the probability that the change is real.",
)


class Monitor(SlicedTask):
    """`task: monitor`, see `flows.task.Task`."""

    name = "monitor"
    stages = ("ingest", "evaluate", "monitor")
    verbs: Mapping[str, tuple[str, ...]] = {
        "ingest": ("ingest",),
        "evaluate": ("evaluate",),
        "monitor": ("ingest", "monitor"),
        "run": ("ingest", "evaluate", "monitor"),
    }
    code: Mapping[str, tuple[str, ...]] = {
        "evaluate": ("configs.tasks.monitor", "pipelines.monitoring.assessment"),
        "monitor": ("configs.tasks.monitor", "pipelines.monitoring.replay", "pipelines.products.found_changes"),
    }
    is_gated = False
    sliced, pieces, made = ("monitor",), "blocks", "advanced"

    def plan(
        self, run: MonitorRun, folder: RunFolder, verb: str, ingested: Record | None = None
    ) -> tuple[Extent, list[PlannedStep]]:
        from flows.planning import measure, plan_ingest
        from flows.tasks.monitor_plan import known_dates, plan_evaluate, plan_monitor

        extent = measure(run, folder, run.monitoring.start, reads_source="ingest" in self.verbs[verb], ingested=ingested)
        steps = {"ingest": plan_ingest(run.cube, extent), "evaluate": plan_evaluate(run, extent)}
        steps["monitor"] = plan_monitor(run, extent, verb, known_dates(run, folder))
        return extent, [steps[stage] for stage in self.verbs[verb]]

    def check(self, context: Invocation, stage: str) -> None:
        """Whether the state is of this config and cube, also before an evaluation, which would be of something else than what is
        published. With `--restart` the state is removed before the stage `monitor`."""
        from pipelines.monitoring.context import check_state, forget

        folder, state = context.folder, state_of(context)
        if context.run.cube.uri is None:  # another one may have been filled by another machine
            require(folder, "ingest")
        if stage == "monitor" and context.restart:
            context.steps.do("monitor", "forget the state", lambda _: forget(state, str(folder.state)))
        else:
            record = finished(folder, "monitor") or {}
            model = record["model"] if record.get("fallback") else context.run.monitoring.model.kind
            check_state(open_cube(context), config.build_monitor_settings(context.run), f"{state}/{model}")

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        from pipelines.cube.store import head_snapshot

        ingested = require(context.folder, "ingest")
        content = context.run.model_dump(mode="json")
        model = config.fingerprint_model(context.run)
        monitoring = {name: value for name, value in content["monitoring"].items() if name != "state"}
        shared = {"variable": content["variable"], "monitoring": monitoring, "model": model}
        if stage == "evaluate":
            return {**shared, "snapshot": ingested["snapshot"], "evaluation": content["evaluation"]}
        snapshot = head_snapshot(context.folder.cube_uri)
        return {**shared, "snapshot": snapshot, "alerts": content["alerts"], "refused": ingested["refused"]}

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        """Also False where a model that was missing then may be there now."""
        from pipelines.monitoring.alerts import has_alert_log
        from pipelines.monitoring.context import has_record

        folder = context.folder
        if stage == "evaluate":
            return True
        there = has_record(f"{state_of(context)}/{record['model']}")
        is_there = there and has_alert_log(folder.alerts, folder.state / "alerts")
        return is_there and not record["fallback"]

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        from pipelines.monitoring.assessment import assess

        run, snapshot = context.run, require(context.folder, "ingest")["snapshot"]
        cube, settings = open_cube(context, snapshot), config.build_monitor_settings(run)
        rivals, chosen = config.build_rivals(run), config.build_evaluation_settings(run)

        def work(progress: Progress) -> tuple[Evaluation, str]:
            expected = config.build_expected_values(run, cube, networks_of(context), progress)
            return assess(cube, expected, settings, rivals, chosen)

        evaluation, detector = context.steps.do("evaluate", "evaluate on simulated breaks", work)
        for note in evaluation.notes:
            context.steps.log(f"evaluate: {note}")
        return evaluation, {"snapshot": snapshot, "model_hash": detector}

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        """The state advances; what is new goes into the alerts, before anything is published, so that no kill loses an alert."""
        from pipelines.monitoring.alerts import write_alert_log
        from pipelines.monitoring.context import remember_dates

        do, folder = partial(context.steps.do, "monitor"), context.folder
        opened = do("compare state and cube", lambda show: open_state(context, show))
        counts = advance(context, opened)
        found, alert_log, updates = do("find what is new", lambda _: find_new(context, opened))
        do("write products and pictures", lambda show: write_all(context, found, building, show))
        write_alert_log(folder.alerts, folder.state / "alerts", alert_log)
        remember_dates(opened)
        return make_record(context, opened, counts, updates, found)

    def predict_slice(self, context: Invocation, evaluation: Evaluation | None, share: Slice) -> SliceDone:
        """Every N-th block of the state."""
        return advance_share(context, share)

    def close(self, context: Invocation, record: Record, *, is_new: bool) -> Record:
        """Sends alerts that have not been sent, also where nothing is new; the record is on disk before anyone is notified.

        What a run found that was killed before this is reported now. The hash makes the report show what was sent since.
        """
        notified, was_unreported = notify(context)
        digest = hashlib.sha256(context.folder.alerts.read_bytes()).hexdigest()
        kept = {**record, "notified": notified, "alerts_sha256": digest}
        if is_new or digest != record.get("alerts_sha256"):
            kept = context.finish("monitor", kept)
        reported = kept if is_new or was_unreported else {**kept, **nothing_new(kept)}
        for line in [*reported["notes"], *notified]:
            context.steps.log(f"monitor: {line}")
        return reported

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        from pipelines.monitoring.messages import Monitored, summary_sentence
        from pipelines.products.polygons import read_patches
        from pipelines.products.tables import cube_facts

        run, folder = context.run, context.folder
        facts, largest = read_patches(folder.products)
        found, share = {**predicted["change"], **facts}, predicted.get("monitored_share", 1.0)  # records of 0.1.0 have none
        start, until = f"{run.monitoring.start:%Y-%m-%d}", predicted["until"][:10]
        monitored = Monitored(run.name, run.variable.name, start, until, share, run.monitoring.min_history)
        figures = evaluation.methods[evaluation.shipped] if evaluation else {}
        shown = {name: predicted[name] for name in ("dates", "until", "threshold", "model")}
        degraded = {"degraded": "; ".join(predicted["degraded"])} if predicted["degraded"] else {}
        return Findings(
            sentence=summary_sentence(monitored, found, evaluation.criteria if evaluation else ()),
            found=found,
            largest=tuple(largest),
            alerts=tuple(read_json(folder.alerts, "run `driftline monitor CONFIG`")["alerts"]),
            computed={**predicted["counts"], **shown, "monitored_share": share, **degraded},
            cube=cube_facts(folder.cube_uri),
            settings=settings_of(run, predicted),
            notes=(*predicted["notes"], *threshold_notes(figures.get("threshold"), predicted["threshold"])),
            lines=(
                ("picture", folder.quicklook),
                ("map", folder.products / "change_date.tif"),
                ("patches", folder.products / "changes.gpkg"),
                ("alerts", folder.alerts),
            ),
        )

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        from pipelines.products.patch_sentences import told_table
        from pipelines.products.polygons import read_patches
        from pipelines.products.tables import alert_table, monitoring_table, patch_table

        folder = context.folder
        alerts = read_json(folder.alerts, "run `driftline monitor CONFIG`")["alerts"]
        largest, count = read_patches(folder.products)[1], predicted["change"]["objects"]
        pictures = [Picture(folder.path / name, title, caption) for name, title, caption in PICTURES]
        there = [picture for picture in pictures if picture.path.exists()]
        evaluated = evaluation.methods[evaluation.shipped].get("threshold") if evaluation else None
        checked = None if threshold_notes(evaluated, predicted["threshold"]) else evaluation  # not of this one
        told = [told_table(largest, {"": told_of(context, checked, predicted["snapshot"])})] if largest else []
        news, tables = alert_table(alerts), list[Table]()
        if evaluation is not None:
            drops = context.run.evaluation.drops
            tables = [monitoring_table(evaluation.methods, drops, evaluation.shipped), *seen_tables(evaluation)]
        return [
            Section("change", "What changed", pictures=there[:2]),
            Section("pixels", "Single pixels and changed area", pictures=there[2:]),
            Section("alerts", "New alerts", tables=[news] if news.rows else []),
            *(
                [Section("patches", "Largest patches", PATCH_TEXT, tables=[*told, patch_table(largest, count, alerts)])]
                if largest
                else []
            ),
            Section("evaluation", "Evaluation", text=[evaluation.protocol] if evaluation else (), tables=tables),
        ]


# ---------------------------------------------------------------- what is new


def find_new(context: Invocation, opened: MonitorContext) -> tuple[Found, AlertLog, Updates]:
    """(layers and patches, the alerts with this run in them, what is new)."""
    from pipelines.monitoring.alerts import AlertSettings, find_updates, open_alert_log
    from pipelines.products.found_changes import find_patches

    run, folder, grid = context.run, context.folder, opened.cube.grid
    found = find_patches(opened, run.monitoring.min_area_px)
    alert_log, note = open_alert_log(folder.alerts, folder.state / "alerts", opened.monitoring.made_for.grid)
    if note:
        context.steps.log(f"monitor: {note}")
    settings = AlertSettings(run.alerts.min_area_m2, run.alerts.min_confidence, tuple(run.alerts.notify))
    return found, *find_updates(found.layers, found.patches, grid, alert_log, settings, opened.cube.snapshot)


def write_all(context: Invocation, found: Found, building: Building, progress: Progress) -> None:
    from pipelines.products.found_changes import draw_changes, lineage_of, write_changes

    run = context.run
    lineage = lineage_of(found.context, config_hash(run), code_version())
    progress(0, 2)
    write_changes(found, lineage, run.name, context.folder.quicklook, building.products)
    progress(1, 2)
    draw_changes(found, run.monitoring.test.direction, run.name, building.pictures)
    progress(2, 2)


def notify(context: Invocation) -> tuple[list[str], bool]:
    """Sends what has not been sent, and marks what was found as reported: (notes for people, whether it had not been)."""
    from flows.notify import send_alerts
    from pipelines.monitoring.alerts import read_alert_log, write_alert_log

    run, alerts, folder = context.run, context.folder.alerts, context.folder.state / "alerts"
    alert_log = read_alert_log(alerts, folder)
    sent, notes = send_alerts(alert_log, run.alerts.notify, run.name, alerts, lambda log: write_alert_log(alerts, folder, log))
    if alert_log.unreported:
        write_alert_log(alerts, folder, replace(sent, unreported={}))
    return notes, bool(alert_log.unreported)


# ---------------------------------------------------------------- record and report


def make_record(context: Invocation, opened: MonitorContext, counts: Counts, updates: Updates, found: Found) -> Record:
    from pipelines.monitoring import messages as m

    folder, dates = context.folder, opened.cube.dates
    refused, share = require(folder, "ingest")["refused"], m.monitored_share(found.layers)
    standing = m.standing_notes(opened, refused, folder.refused, context.run.monitoring.min_history, share)
    notes, until = [*standing, *filter(None, [opened.note]), *m.passing_notes(counts)], m.iso_of(dates[-1].time_ns)
    return {
        "snapshot": opened.cube.snapshot,
        "model_hash": opened.monitoring.made_for.detector,
        "issued_utc": until,
        "model": opened.expected.name,
        "fallback": opened.expected.fallback,
        "threshold": opened.monitoring.detector.calibration.threshold,
        "until": until,
        "dates": len(dates),
        "monitored_share": share,
        "counts": m.counts_of(counts),
        "change": m.change_of(updates),
        "alerts": list(updates.alerts),
        "degraded": notes,
        "standing": standing,
        "notes": notes,
        "message": m.message_of(counts, updates),
    }


def nothing_new(record: Record) -> Record:
    """What a run without anything new says of itself: what was repaired or had gone the last time is of that run alone."""
    return {
        "counts": dict.fromkeys(record["counts"], 0),
        "change": {**record["change"], "pixels_new": 0, "objects_new": 0},
        "alerts": [],
        "notes": record["standing"],
        "message": f"nothing new: {record['until'][:10]} is the last date",
    }


def told_of(context: Invocation, evaluation: Evaluation | None, snapshot: str) -> Told:
    """What sentences about patches need beside the patches."""
    from pipelines.cube import store
    from pipelines.products.patch_sentences import Told, bounds_of, monitored_basis

    variable, dataset = config.build_variable(context.run), store.open_cube(context.folder.cube_uri, snapshot)
    units = {band.name: band.unit for band in store.bands_of(dataset)}
    unit = units.get(variable.bands[0]) or "" if variable.formula == "band" else ""
    return Told(monitored_basis(evaluation), bounds_of(store.grid_of(dataset)), variable.name, unit)


def threshold_notes(evaluated: Figure, used: float) -> list[str]:
    """What a reader must know where the state keeps another threshold than the one that was evaluated."""
    if not isinstance(evaluated, int | float) or abs(evaluated - used) < 1e-6:
        return []
    return [f"the evaluation is of a threshold of {evaluated:.3g}; the state keeps {used:.3g} from when monitoring began"]


def settings_of(run: MonitorRun, record: Record) -> dict[str, Any]:
    """The few settings that a reader must know; all are in the config."""
    test = run.monitoring.test
    rate = f"{test.false_alarms:g} per 1000 stable pixels and year"
    return {
        "monitored": f"{run.variable.name}, from {run.monitoring.start:%Y-%m-%d}",
        "expected": f"{record['model']} model, learned from the dates before",
        "test": f"{test.kind}, {test.direction}, drift {test.drift:g}, cap {test.cap:g}",
        "threshold": round(float(record["threshold"]), 3),
        "false alarms aimed at": rate if test.threshold is None else "none: the threshold is set in the config",
    }


def seen_tables(evaluation: Evaluation) -> list[Table]:
    """What each method found of the change that the images themselves show, beside indices of image pairs."""
    from pipelines.products.tables import labelled

    pairs = evaluation.details["pairs"]
    if not pairs:
        return []
    rows: list[dict[str, Any]] = []
    for name, scores in evaluation.details["methods"].items():
        found = {f"found_{year}": seen["found"] for year, seen in scores.get("seen_in_images", {}).items()}
        rows.append({"method": name, "false_alarms": (scores.get("false_alarms") or {}).get("per_1000_px_year"), **found})
    rows += [{"method": f"{name}, season against season", **row} for name, row in pairs.items()]
    years = sorted({key for row in rows for key in row if key.startswith("found_")})
    columns = [
        Column("method", "method", "text"),
        Column("false_alarms", "false alarms per 1000 px and year", "number", "low"),
        *[Column(year, f"change of {year.removeprefix('found_')}: found", "share", "high") for year in years],
    ]
    note = (
        "Pixels whose season level first fell (or rose) beyond the limit in that year. Indices of image pairs compare two "
        "seasons with the automatic thresholds of their literature (Otsu, chi square) and give no date."
    )
    return [labelled(Table("Change that the images show", columns, rows, note=note, strong=[evaluation.shipped]))]
