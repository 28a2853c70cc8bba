"""Cube -> what has changed since last time: the saved state advances, the map and the alerts follow, people are told."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs import build_monitor
from flows.folder import code_version, finished, read_json, require, stage_key, write_json
from flows.invocation import Invocation
from flows.notify import send_alerts
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.progress import Progress

RECORD, EARLIER_RECORD = "monitoring.json", "watch.json"  # the second as version 0.1.0 wrote it
NOTHING = {"tiles": 0, "steps": 0, "replays": 0, "fits": 0, "noted": 0, "unseen": 0, "dates_read": 0}


@dataclass(frozen=True)
class MonitorContext:
    """One look at the cube: the watch (pipelines.monitoring.replay), the grid, and how far the wanted detector was to be had."""

    monitoring: Any
    grid: Any
    snapshot: str
    name: str  # folder of the state
    fallback: str  # why another expectation than the config's is used; "" if it is not


def monitor(invocation: Invocation) -> dict[str, Any]:
    """Advances the state if the cube or the settings have changed; hands back the record of the stage. Ingest came before.

    Raises StateError for a state that was made for something else (`--restart` begins anew).
    """
    from flows.stages.monitor_products import publish

    folder, steps = invocation.folder, invocation.steps
    require(folder, "ingest", "ingest")
    if invocation.restart:
        folder.done("monitor").unlink(missing_ok=True)
        steps.do("monitor", "forget the state", lambda progress: forget(folder.state))
    key = monitor_key(invocation)
    record = finished(folder, "monitor", key)
    if record is not None and is_whole(invocation, record):
        steps.skip("monitor", "no news")
        return close(invocation, {**record, **no_updates(record)}, is_new=False)
    context = steps.do("monitor", "compare state and cube", lambda progress: open_context(invocation, progress))
    counts = steps.do("monitor", "advance the state", lambda progress: advance(context, progress))
    alert_log, updates, frame = steps.do("monitor", "find what is new", lambda progress: find_updates(invocation, context))
    products = steps.do("monitor", "write and publish", lambda progress: publish(invocation, context, frame, progress))
    remember(invocation, context, alert_log)
    record = make_record(invocation, key, context, counts, updates, products)
    return close(invocation, record, is_new=True)


def close(invocation: Invocation, record: dict[str, Any], *, is_new: bool) -> dict[str, Any]:
    """Tells people, says what is to be said, writes record and report."""
    from flows.stages.monitor_report import product_lines, report
    from flows.stages.reported import is_reported

    folder, steps = invocation.folder, invocation.steps
    if is_new:
        write_json(folder.done("monitor"), record)  # before anyone is told: a kill from here on tells nobody twice
    record = {**record, "notified": notify(invocation)}
    for line in [*record["notes"], *record["notified"]]:
        steps.log(f"monitor: {line}")
    if is_new:
        write_json(folder.done("monitor"), record)
    if is_new or not is_reported(invocation):
        report(invocation)
    return {**record, "lines": [record["message"], *record["notes"], *record["notified"], *product_lines(invocation)],
            "skipped": not is_new}  # fmt: skip


def monitor_key(invocation: Invocation) -> str:
    from pipelines.cube.store import head_snapshot

    run = invocation.run.model_dump(mode="json")
    parts = {name: run[name] for name in ("variable", "monitoring", "alerts")}
    snapshot = head_snapshot(invocation.folder.cube_uri)
    refused = require(invocation.folder, "ingest", "ingest")["refused"]
    return stage_key(snapshot=snapshot, refused=refused, **parts)


def is_whole(invocation: Invocation, record: dict[str, Any]) -> bool:
    """True if what the record speaks of is there, and was made with what the config asks for."""
    folder = invocation.folder
    return (
        not record.get("fallback")
        and (folder.state / record["model"] / RECORD).exists()
        and folder.alerts.exists()
        and all((folder.path / name).exists() for name in record["products"])
    )


def no_updates(record: dict[str, Any]) -> dict[str, Any]:
    """What a run without news says of itself: what was mended or went away last time is no longer news."""
    change = {**record["change"], "pixels_new": 0, "objects_new": 0}
    return {
        "counts": dict(NOTHING),
        "change": change,
        "alerts": [],
        "notes": record.get("standing", record["notes"]),
        "message": f"no news: {record['until'][:10]} is the last date",
    }


# ---------------------------------------------------------------- look and advance


def forget(state: Path) -> None:
    """Removes every state; what alerts were raised is kept, so that nobody is told twice."""
    import shutil

    for path in state.glob("*"):
        if path.is_dir() and path.name != "alerts":
            shutil.rmtree(path)


def open_context(invocation: Invocation, progress: Progress) -> MonitorContext:
    """What is watched, and with what. Trains and calibrates where the watch begins. Raises StateError, RequestError."""
    from pipelines.cube.store import grid_of, head_snapshot, open_cube
    from pipelines.monitoring.replay import Monitoring
    from pipelines.monitoring.state import check_cube, check_identity
    from pipelines.monitoring.updates import dates_of

    run, folder = invocation.run, invocation.folder
    snapshot = head_snapshot(folder.cube_uri)
    dataset = open_cube(folder.cube_uri, snapshot)
    dates, grid, start = dates_of(dataset), grid_of(dataset), build_monitor.start_ns(run)
    if not any(date.time_ns < start for date in dates):
        first = dates[0].name if dates else "no date"
        raise RequestError(
            f"monitoring.start is {run.monitoring.start:%Y-%m-%d} and the cube begins on {first}: "
            "there is no history to learn from; set a later start"
        )
    expected = build_monitor.build_expected_values(run, dataset, folder.state, progress)
    state_folder = folder.state / expected.name
    known = read_monitoring(state_folder)
    check_asked(known, run, state_folder)
    detector, rests_on = make_detector(run, expected, known, dataset)
    made_for = build_monitor.build_identity(run, detector.key, grid)
    if known:
        check_identity(known["made_for"], made_for, state_folder)
    check_cube([(int(time), str(content)) for time, content in known.get("dates", [])], dates, state_folder)
    write_monitoring(state_folder, {**known, "made_for": asdict(made_for), "asked": asked_of(run), **rests_on})
    monitoring = Monitoring(
        dataset,
        dates,
        detector,
        build_monitor.build_variable(run),
        made_for,
        start,
        state_folder / "tiles",
        state_folder / "layers",
        run.monitoring.keep_every,
    )
    return MonitorContext(monitoring, grid, snapshot, expected.name, expected.fallback)


def make_detector(run: Any, expected: Any, known: dict[str, Any], dataset: Any) -> tuple[Any, dict[str, Any]]:
    """(the detector, what its threshold rests on). What was calibrated when the watch began stays until `--restart`."""
    calibration = build_monitor.read_calibration(run, known.get("calibration"))
    rests_on = {"calibrated_on": known.get("calibrated_on")}
    if calibration is None:
        calibration, report = build_monitor.calibrate(run, expected.value_model, dataset)
        rests_on = {"calibrated_on": report}
    return build_monitor.build_detector(run, expected.value_model, calibration), {"calibration": asdict(calibration), **rests_on}


def read_monitoring(state_folder: Path) -> dict[str, Any]:
    """What `write_monitoring` left; empty if there is nothing, or nothing that can be read: then it is found out anew."""
    path = state_folder / RECORD
    try:
        content = read_json(path if path.exists() else state_folder / EARLIER_RECORD, "")
    except (ArtefactDamaged, MissingInput):
        return {}
    is_monitoring = isinstance(content, dict) and all(
        isinstance(content.get(name), dict) for name in ("made_for", "asked", "calibration")
    )
    return content if is_monitoring and {"threshold", "false_alarms", "maxima"} <= content["calibration"].keys() else {}


def write_monitoring(state_folder: Path, content: dict[str, Any]) -> None:
    """What the states in `state_folder` are made for and with: settings, calibration, and the dates of the last look."""
    if read_monitoring(state_folder) != json.loads(json.dumps(content)):
        write_json(state_folder / RECORD, content)


def asked_of(run: Any) -> dict[str, Any]:
    """The settings that decide about the detector."""
    monitoring = run.monitoring.model_dump(mode="json")
    return {name: monitoring[name] for name in ("model", "test", "min_history")}


def check_asked(known: dict[str, Any], run: Any, state_folder: Path) -> None:
    """Raises StateError unless the state was made with the config's settings."""
    from pipelines.monitoring.state import refuse

    was, now = known.get("asked", asked_of(run)), asked_of(run)
    was = {"model" if name == "expectation" else name: value for name, value in was.items()}  # 0.1.0 wrote expectation
    for section, value in now.items():
        if was.get(section) != value:
            key, value, before = _first_difference(f"monitoring.{section}", value, was.get(section))
            raise refuse(state_folder, "detector", f"{key}: {value}", before)


def _first_difference(key: str, now: Any, was: Any) -> tuple[str, Any, Any]:
    """(key, value now, value then) of the first setting that differs, so that a message shows it and not all that is alike."""
    if isinstance(now, dict) and isinstance(was, dict) and now.keys() == was.keys():
        name = next(name for name in now if now[name] != was[name])
        return _first_difference(f"{key}.{name}", now[name], was[name])
    return key, now, was


def advance(context: MonitorContext, progress: Progress) -> Any:
    from pipelines.monitoring.replay import advance_all

    return advance_all(context.monitoring, progress)


# ---------------------------------------------------------------- news


def find_updates(invocation: Invocation, context: MonitorContext) -> tuple[Any, Any, Any]:
    """(the book of alerts with this look in it, what is new, the patches as a GeoDataFrame)."""
    from flows.stages.monitor_products import outline
    from pipelines.monitoring.alerts import flat_indices, patches_of, update_alert_log
    from pipelines.monitoring.detector import CHANGED
    from pipelines.monitoring.layers import Layers

    run, layers = invocation.run, Layers.open(context.monitoring.layers)
    frame = outline(run, layers, context.grid)
    changed = flat_indices(layers.map("status"), CHANGED)
    patches, settings = patches_of(frame, context.grid), build_monitor.build_alert_settings(run)
    alert_log, updates = update_alert_log(
        open_alert_log(invocation, context.monitoring.made_for.grid), changed, patches, settings, context.snapshot
    )
    return alert_log, updates, frame


def open_alert_log(invocation: Invocation, grid: str | None = None) -> Any:
    """What was alerted so far. A list that is damaged, or counts the pixels of another `grid`, is put aside and begun anew."""
    from pipelines.monitoring.alerts import AlertLog, read_alert_log

    folder = invocation.folder
    try:
        alert_log = read_alert_log(folder.alerts, folder.state / "alerts")
    except ArtefactDamaged as e:
        why, aside = f"{e}: what was sent before may be sent again", folder.alerts.with_suffix(".damaged.json")
    else:
        if grid is None or alert_log.grid == grid:
            return alert_log
        if not folder.alerts.exists():
            return AlertLog.empty(grid)
        why, aside = "the alerts so far lie on another grid", folder.alerts.with_suffix(".before.json")
    folder.alerts.replace(aside)
    invocation.steps.log(f"monitor: {why}; that list lies in {aside} now, and a new one is begun")
    return AlertLog.empty(grid or "")


def remember(invocation: Invocation, context: MonitorContext, alert_log: Any) -> None:
    """The look is over: its alerts and its dates count as known."""
    from pipelines.monitoring.alerts import write_alert_log

    folder, monitoring = invocation.folder, context.monitoring
    write_alert_log(folder.alerts, folder.state / "alerts", alert_log)
    dates = [[date.time_ns, date.content_hash] for date in monitoring.dates]
    state_folder = folder.state / context.name
    write_monitoring(state_folder, {**read_monitoring(state_folder), "dates": dates})


def notify(invocation: Invocation) -> list[str]:
    """Sends what has not been sent; notes for people."""
    from pipelines.monitoring.alerts import write_alert_log

    folder, run = invocation.folder, invocation.run
    alert_log = open_alert_log(invocation)
    _, notes = send_alerts(
        alert_log,
        run.alerts.notify,
        run.name,
        folder.alerts,
        lambda alert_log: write_alert_log(folder.alerts, folder.state / "alerts", alert_log),
    )
    return notes


# ---------------------------------------------------------------- words


def make_record(
    invocation: Invocation, key: str, context: MonitorContext, counts: Any, updates: Any, products: list[Path]
) -> dict[str, Any]:
    from flows.stages.monitor_messages import message_of, passing_notes, standing_notes

    folder, dates = invocation.folder, context.monitoring.dates
    standing, passing = standing_notes(invocation, context), passing_notes(counts)
    change = {
        "pixels": updates.pixels,
        "objects": updates.objects,
        "pixels_new": updates.pixels_new,
        "objects_new": updates.objects_new,
    }
    return {
        "key": key,
        "snapshot": context.snapshot,
        "model": context.name,
        "fallback": context.fallback,
        "detector": context.monitoring.made_for.detector,
        "threshold": context.monitoring.detector.calibration.threshold,
        "until": _iso(dates[-1].time_ns),
        "dates": len(dates),
        "counts": {name: getattr(counts, name) for name in NOTHING},
        "change": change,
        "alerts": list(updates.alerts),
        "degraded": [*standing, *passing],
        "standing": standing,
        "notes": [*standing, *passing],
        "products": [str(path.relative_to(folder.path)) for path in products],
        "message": message_of(counts, updates),
        "code": code_version(),
    }


def _iso(time_ns: int) -> str:
    import numpy as np

    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[s]')}Z"
