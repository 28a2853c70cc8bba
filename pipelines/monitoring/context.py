"""What a state is made for and with, and the context in which it advances: cube, calibrated detector, folders.

`check_state` comes before "nothing to do", `open_context` before `replay.advance_all`, `remember_dates` once the alerts are
written.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.errors import RequestError
from pipelines.grid import Grid
from pipelines.monitoring.areas import MonitoredCube, read_areas
from pipelines.monitoring.blocks import Monitoring
from pipelines.monitoring.calibration import calibrate
from pipelines.monitoring.detector import Calibration, Detector, Direction, ValueModel
from pipelines.monitoring.sequential_test import SequentialTest
from pipelines.monitoring.state import EARLIER_FORMATS, FORMAT, Identity, check_cube, check_identity, refuse
from pipelines.stored_files import files_at

RECORD, EARLIER_RECORD = "monitoring.json", "watch.json"  # the second as version 0.1.0 wrote it
MARKS = re.compile(
    r"(?!model/)([^/]+)/(?:monitoring\.json|watch\.json|networks/[^/]+/model\.json)"
)  # of a state; `model` is that of a run
Content = Mapping[str, Any]  # JSON values


@dataclass(frozen=True)
class ExpectedValues:
    """The model of expected values. `name` is the folder of its state; `fallback` says why another one than asked for is used."""

    name: str
    value_model: ValueModel
    fallback: str = ""


@dataclass(frozen=True)
class MonitorSettings:
    """How observations are tested, and what a state of these settings is made for.

    `false_alarms` per 1000 stable pixels and year set the threshold where `threshold` is None. `keep_every`: dates between the
    states that are kept. `asked`: the settings that the detector depends on, `variable` and `start`: as texts; JSON values.
    """

    test: SequentialTest
    direction: Direction
    min_history: int
    false_alarms: float
    threshold: float | None
    tile_px: int
    keep_every: int
    asked: Content
    variable: str
    start: str

    def detector(self, value_model: ValueModel, calibration: Calibration) -> Detector:
        return Detector(value_model, self.test, calibration, self.direction, self.min_history)

    def identity(self, detector_key: str, grid: Grid) -> Identity:
        """What a state of these settings is made for."""
        place = json.dumps([grid.wkt, grid.transform, grid.shape_yx])
        name = f"{grid.shape_yx[0]} x {grid.shape_yx[1]} px, {hashlib.sha256(place.encode()).hexdigest()[:16]}"
        return Identity(detector_key, self.variable, self.start, name, self.tile_px)


@dataclass(frozen=True)
class MonitorContext:
    """One run over the cube: what is monitored, with its state, and the model of expected values. `note`: what to say of it."""

    monitoring: Monitoring
    expected: ExpectedValues
    note: str = ""

    @property
    def cube(self) -> MonitoredCube:
        return self.monitoring.cube


def open_context(cube: MonitoredCube, expected: ExpectedValues, settings: MonitorSettings, state: str) -> MonitorContext:
    """The context of a state below `state`; the detector is calibrated where monitoring begins, and then stays until `--restart`.

    A state of the earlier format keeps its calibration, and everything else of it is computed again from the cube. Raises
    StateError for a state of other settings or of another cube, RequestError where the history is too short.
    """
    folder, note = f"{state}/{expected.name}", ""
    known = read_record(folder)
    rests_on: Content | None
    if not known:
        calibration, rests_on = calibrate_on(cube, expected.value_model, settings)
        known = read_record(folder)  # another slice may have left its own meanwhile
    if known:
        check_asked(known, settings.asked, folder)
        found, rests_on = known["calibration"], known.get("calibrated_on")
        calibration = Calibration(float(found["threshold"]), found["false_alarms"], tuple(found["maxima"]))
    detector = settings.detector(expected.value_model, calibration)
    made_for = settings.identity(detector.key, cube.grid)
    if known:
        check_made_for(known, made_for, cube, folder)
    found = {"made_for": asdict(made_for), "asked": dict(settings.asked), "calibration": asdict(calibration)}
    if known and known["made_for"]["format"] in EARLIER_FORMATS:
        note = f"the state in {folder} has the format of an earlier version: it is computed again from the cube"
    write_record(folder, {**known, **found, "calibrated_on": rests_on})
    return MonitorContext(Monitoring(cube, detector, made_for, folder, settings.keep_every), expected, note)


def calibrate_on(cube: MonitoredCube, value_model: ValueModel, settings: MonitorSettings) -> tuple[Calibration, Content]:
    """(calibration, what it rests on): the threshold that gives the wanted false alarms on the history of the cube. Raises
    RequestError where the history is too short for that and no threshold is given."""
    threshold, rate = settings.threshold, settings.false_alarms
    detector = settings.detector(value_model, Calibration(threshold or math.inf))
    history = read_areas(cube, cube.history)
    try:
        detector, report = calibrate(detector, history, false_alarms=rate, start_day=cube.start_day, threshold=threshold)
    except RequestError:
        if threshold is None:
            raise
        return Calibration(threshold), {}  # confidence is 0 or 1: there are no years to learn it from
    return detector.calibration, asdict(report)


# ---------------------------------------------------------------- what a state was made for


def check_state(cube: MonitoredCube, settings: MonitorSettings, folder: str) -> None:
    """Raises StateError unless the state in `folder`, if there is one, is of these settings and of this cube. The detector's own
    key is compared when it is built, in `open_context`."""
    if known := read_record(folder):
        check_asked(known, settings.asked, folder)
        check_made_for(known, settings.identity(known["made_for"].get("detector", ""), cube.grid), cube, folder)


def check_made_for(known: Content, requested: Identity, cube: MonitoredCube, folder: str) -> None:
    """Raises StateError unless what is `known` of the state was made for `requested` and from this cube."""
    found = known["made_for"]
    check_identity({**found, "format": FORMAT} if found.get("format") in EARLIER_FORMATS else found, requested, folder)
    check_cube([(int(time), str(content)) for time, content in known.get("dates", [])], cube.dates, folder)


def check_asked(known: Content, asked: Content, folder: str) -> None:
    """Raises StateError unless the state was made with the settings `asked`; it names the first that differs."""
    was = {"model" if name == "expectation" else name: value for name, value in known["asked"].items()}  # as 0.1.0 wrote it
    for section, value in asked.items():
        if was.get(section) != value:
            key, now, before = first_difference(f"monitoring.{section}", value, was.get(section))
            raise refuse(folder, "detector", f"{key}: {now}", before)


def first_difference(key: str, now: object, was: object) -> tuple[str, object, object]:
    """(key, value now, value then) of the first setting that differs, so that a message shows only that one."""
    if isinstance(now, dict) and isinstance(was, dict) and now.keys() == was.keys():
        name = next(name for name in now if now[name] != was[name])
        return first_difference(f"{key}.{name}", now[name], was[name])
    return key, now, was


def read_record(folder: str) -> Content:
    """What the states in `folder` are made for and with; {} if there is nothing that can be read: then it is made anew."""
    for name in (RECORD, EARLIER_RECORD):
        try:
            content = json.loads(files_at(folder).read(name))
        except FileNotFoundError:
            continue
        except ValueError:
            return {}
        sections = ("made_for", "asked", "calibration")
        is_record = isinstance(content, dict) and all(isinstance(content.get(name), dict) for name in sections)
        return content if is_record and {"threshold", "false_alarms", "maxima"} <= content["calibration"].keys() else {}
    return {}


def write_record(folder: str, content: Content) -> None:
    """Replaces the record by `content` in one step, unless it says so already. Raises StorageFull."""
    if read_record(folder) != json.loads(json.dumps(content)):
        files_at(folder).write(RECORD, json.dumps(content, indent=1).encode())


def remember_dates(context: MonitorContext) -> None:
    """The dates of the cube count as known: a later run is of the same cube if it holds any of them."""
    folder, dates = context.monitoring.folder, [[date.time_ns, date.content_hash] for date in context.cube.dates]
    write_record(folder, {**read_record(folder), "dates": dates})


def has_record(folder: str) -> bool:
    """True if there is a state in `folder` of this version."""
    return bool(read_record(folder).get("made_for", {}).get("format") == FORMAT)


def forget(*places: str) -> None:
    """Removes every state below these places, and the networks that belong to it. All else stays: the alerts that were raised, so
    that nobody is notified twice, and what is no state."""
    for files in map(files_at, places):
        names = files.names("")
        found = {match[1] for match in map(MARKS.fullmatch, names) if match}
        for name in reversed(names):  # in a bucket one by one: the record last, so that the next call goes on after a kill
            if name.partition("/")[0] in found and not MARKS.fullmatch(name):
                files.discard(name)
        for name in found:
            files.remove(name)
