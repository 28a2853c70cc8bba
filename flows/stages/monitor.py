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

NOTHING = {"tiles": 0, "steps": 0, "replays": 0, "fits": 0, "noted": 0, "unseen": 0, "dates_read": 0}


@dataclass(frozen=True)
class Watching:
    """One look at the cube: the watch (pipelines.change.replay), the grid, and how far the wanted detector was to be had."""

    watch: Any
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
        return close(invocation, {**record, **no_news(record)}, is_new=False)
    looking = steps.do("monitor", "compare state and cube", lambda progress: look(invocation, progress))
    counts = steps.do("monitor", "advance the state", lambda progress: advance(looking, progress))
    book, news, frame = steps.do("monitor", "find what is new", lambda progress: find_news(invocation, looking))
    products = steps.do("monitor", "write and publish", lambda progress: publish(invocation, looking, frame, progress))
    remember(invocation, looking, book)
    record = make_record(invocation, key, looking, counts, news, products)
    return close(invocation, record, is_new=True)


def close(invocation: Invocation, record: dict[str, Any], *, is_new: bool) -> dict[str, Any]:
    """Tells people, says what is to be said, writes record and report."""
    from flows.stages.monitor_report import product_lines, report
    from flows.stages.reported import is_reported

    folder, steps = invocation.folder, invocation.steps
    if is_new:
        write_json(folder.done("monitor"), record)  # before anyone is told: a kill from here on tells nobody twice
    record = {**record, "notified": tell(invocation)}
    for line in [*record["notes"], *record["notified"]]:
        steps.say(f"monitor: {line}")
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
        and (folder.state / record["expectation"] / "watch.json").exists()
        and folder.alerts.exists()
        and all((folder.path / name).exists() for name in record["products"])
    )


def no_news(record: dict[str, Any]) -> dict[str, Any]:
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


def look(invocation: Invocation, progress: Progress) -> Watching:
    """What is watched, and with what. Trains and calibrates where the watch begins. Raises StateError, RequestError."""
    from pipelines.change.news import dates_of
    from pipelines.change.replay import Watch
    from pipelines.change.state import check_cube, check_identity
    from pipelines.cube.store import grid_of, head_snapshot, open_cube

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
    expected = build_monitor.build_expectation(run, dataset, folder.state, progress)
    place = folder.state / expected.name
    known = read_watch(place)
    check_asked(known, run, place)
    detector, rests_on = make_detector(run, expected, known, dataset)
    made_for = build_monitor.build_identity(run, detector.key, grid)
    if known:
        check_identity(known["made_for"], made_for, place)
    check_cube([(int(time), str(content)) for time, content in known.get("dates", [])], dates, place)
    write_watch(place, {**known, "made_for": asdict(made_for), "asked": asked_of(run), **rests_on})
    watch = Watch(
        dataset, dates, detector, build_monitor.build_variable(run), made_for, start, place / "tiles", place / "layers",
        run.monitoring.keep_every,
    )  # fmt: skip
    return Watching(watch, grid, snapshot, expected.name, expected.fallback)


def make_detector(run: Any, expected: Any, known: dict[str, Any], dataset: Any) -> tuple[Any, dict[str, Any]]:
    """(the detector, what its threshold rests on). What was calibrated when the watch began stays until `--restart`."""
    calibration = build_monitor.read_calibration(run, known.get("calibration"))
    rests_on = {"calibrated_on": known.get("calibrated_on")}
    if calibration is None:
        calibration, report = build_monitor.calibrate(run, expected.expectation, dataset)
        rests_on = {"calibrated_on": report}
    return build_monitor.build_detector(run, expected.expectation, calibration), {"calibration": asdict(calibration), **rests_on}


def read_watch(place: Path) -> dict[str, Any]:
    """What `write_watch` left; empty if there is nothing, or nothing that can be read: then it is found out anew."""
    try:
        content = read_json(place / "watch.json", "")
    except (ArtefactDamaged, MissingInput):
        return {}
    is_watch = isinstance(content, dict) and all(
        isinstance(content.get(name), dict) for name in ("made_for", "asked", "calibration")
    )
    return content if is_watch and {"threshold", "false_alarms", "maxima"} <= content["calibration"].keys() else {}


def write_watch(place: Path, content: dict[str, Any]) -> None:
    """What the states in `place` are made for and with: settings, calibration, and the dates of the last look."""
    if read_watch(place) != json.loads(json.dumps(content)):
        write_json(place / "watch.json", content)


def asked_of(run: Any) -> dict[str, Any]:
    """The settings that decide about the detector."""
    monitoring = run.monitoring.model_dump(mode="json")
    return {name: monitoring[name] for name in ("expectation", "test", "min_history")}


def check_asked(known: dict[str, Any], run: Any, place: Path) -> None:
    """Raises StateError unless the state was made with the config's settings."""
    from pipelines.change.state import refuse

    was, now = known.get("asked", asked_of(run)), asked_of(run)
    for section, value in now.items():
        if was.get(section) != value:
            key, value, before = _first_difference(f"monitoring.{section}", value, was.get(section))
            raise refuse(place, "detector", f"{key}: {value}", before)


def _first_difference(key: str, now: Any, was: Any) -> tuple[str, Any, Any]:
    """(key, value now, value then) of the first setting that differs, so that a message shows it and not all that is alike."""
    if isinstance(now, dict) and isinstance(was, dict) and now.keys() == was.keys():
        name = next(name for name in now if now[name] != was[name])
        return _first_difference(f"{key}.{name}", now[name], was[name])
    return key, now, was


def advance(looking: Watching, progress: Progress) -> Any:
    from pipelines.change.replay import advance_all

    return advance_all(looking.watch, progress)


# ---------------------------------------------------------------- news


def find_news(invocation: Invocation, looking: Watching) -> tuple[Any, Any, Any]:
    """(the book of alerts with this look in it, what is new, the patches as a GeoDataFrame)."""
    from flows.stages.monitor_products import outline
    from pipelines.change.alerts import flat_indices, patches_of, update_book
    from pipelines.change.detector import CHANGED
    from pipelines.change.layers import Layers

    run, layers = invocation.run, Layers.open(looking.watch.layers)
    frame = outline(run, layers, looking.grid)
    changed = flat_indices(layers.map("status"), CHANGED)
    patches, rule = patches_of(frame, looking.grid), build_monitor.build_alert_rule(run)
    book, news = update_book(open_book(invocation, looking.watch.made_for.grid), changed, patches, rule, looking.snapshot)
    return book, news, frame


def open_book(invocation: Invocation, grid: str | None = None) -> Any:
    """What was alerted so far. A list that is damaged, or counts the pixels of another `grid`, is put aside and begun anew."""
    from pipelines.change.alerts import AlertBook, read_book

    folder = invocation.folder
    try:
        book = read_book(folder.alerts, folder.state / "alerts")
    except ArtefactDamaged as e:
        why, aside = f"{e}: what was sent before may be sent again", folder.alerts.with_suffix(".damaged.json")
    else:
        if grid is None or book.grid == grid:
            return book
        if not folder.alerts.exists():
            return AlertBook.empty(grid)
        why, aside = "the alerts so far lie on another grid", folder.alerts.with_suffix(".before.json")
    folder.alerts.replace(aside)
    invocation.steps.say(f"monitor: {why}; that list lies in {aside} now, and a new one is begun")
    return AlertBook.empty(grid or "")


def remember(invocation: Invocation, looking: Watching, book: Any) -> None:
    """The look is over: its alerts and its dates count as known."""
    from pipelines.change.alerts import write_book

    folder, watch = invocation.folder, looking.watch
    write_book(folder.alerts, folder.state / "alerts", book)
    dates = [[date.time_ns, date.content_hash] for date in watch.dates]
    place = folder.state / looking.name
    write_watch(place, {**read_watch(place), "dates": dates})


def tell(invocation: Invocation) -> list[str]:
    """Sends what has not been sent; notes for people."""
    from pipelines.change.alerts import write_book

    folder, run = invocation.folder, invocation.run
    book = open_book(invocation)
    _, notes = send_alerts(
        book, run.alerts.notify, run.name, folder.alerts, lambda book: write_book(folder.alerts, folder.state / "alerts", book)
    )
    return notes


# ---------------------------------------------------------------- words


def make_record(
    invocation: Invocation, key: str, looking: Watching, counts: Any, news: Any, products: list[Path]
) -> dict[str, Any]:
    from flows.stages.monitor_words import message_of, passing_notes, standing_notes

    folder, dates = invocation.folder, looking.watch.dates
    standing, passing = standing_notes(invocation, looking), passing_notes(counts)
    change = {"pixels": news.pixels, "objects": news.objects, "pixels_new": news.pixels_new, "objects_new": news.objects_new}
    return {
        "key": key,
        "snapshot": looking.snapshot,
        "expectation": looking.name,
        "fallback": looking.fallback,
        "detector": looking.watch.made_for.detector,
        "threshold": looking.watch.detector.calibration.threshold,
        "until": _iso(dates[-1].time_ns),
        "dates": len(dates),
        "counts": {name: getattr(counts, name) for name in NOTHING},
        "change": change,
        "alerts": list(news.alerts),
        "degraded": [*standing, *passing],
        "standing": standing,
        "notes": [*standing, *passing],
        "products": [str(path.relative_to(folder.path)) for path in products],
        "message": message_of(counts, news),
        "code": code_version(),
    }


def _iso(time_ns: int) -> str:
    import numpy as np

    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[s]')}Z"
