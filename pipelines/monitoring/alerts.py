"""What is new since the last run: changed pixels, patches, and the alerts that are raised for them, each one once.

A patch is known by its pixels. Every pixel that ever belonged to one keeps its number, so a patch that grows, merges or
vanishes for one run and comes back is not new. `alerts.json` names the file with these pixels; replacing it is what counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from pipelines.errors import ArtefactDamaged, StateError
from pipelines.files import write_bytes, write_text
from pipelines.grid import Grid
from pipelines.monitoring.detector import CHANGED
from pipelines.monitoring.layers import LayerRows, Layers
from pipelines.monitoring.sequential_test import Arrays

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

Facts = dict[str, Any]  # of a patch or an alert, JSON values
FORMAT = 1
PIXELS = ("changed", "pixel", "number")  # arrays of the log
SAME = 0.5  # share of a patch's pixels that make it a known one


@dataclass(frozen=True)
class Patch:
    """A patch of changed pixels: sorted flat indices (row * width + column), and its facts as JSON values."""

    pixels: np.ndarray
    facts: Facts


@dataclass(frozen=True)
class AlertSettings:
    """Which new patches raise an alert, and who is notified (slugs of notification blocks)."""

    min_area_m2: float = 0.0
    min_confidence: float = 0.0
    notify: tuple[str, ...] = ()

    def is_met(self, facts: Facts) -> bool:
        """A patch whose confidence is not known passes."""
        confidence = facts.get("confidence")
        return facts["area_m2"] >= self.min_area_m2 and (confidence is None or confidence >= self.min_confidence)


@dataclass(frozen=True)
class AlertLog:
    """All that was found so far. `changed`: the changed pixels of the last run; `pixel` and `number`: whose patch a pixel was.

    An alert is a JSON object: `number`, `look` (the number of the run that raised it, counting those that raised any), the
    patch's facts as they are now, `is_standing` (it is still there), and `notify`: the time at which each block was notified
    (ISO 8601, UTC), "" for one that has not been reached yet.

    `unreported`: what was found since the last run that was published, `pixels_new`, `objects_new` and the numbers of `alerts`: a
    run that is killed before it publishes has reported nothing, so the next one does.
    """

    changed: np.ndarray
    pixel: np.ndarray
    number: np.ndarray
    alerts: tuple[Facts, ...] = ()
    snapshot: str = ""
    grid: str = ""  # that the pixels are counted on
    unreported: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls, grid: str = "") -> AlertLog:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), grid=grid)

    def unsent(self, slug: str) -> list[Facts]:
        """Alerts that have not been sent to the block yet."""
        return [alert for alert in self.alerts if alert["notify"].get(slug) == ""]


@dataclass(frozen=True)
class Updates:
    """What is new since the last run that was published, beside what there is."""

    pixels: int
    pixels_new: int
    objects: int
    objects_new: int
    alerts: tuple[Facts, ...]  # those raised since


def find_updates(
    layers: Layers, frame: GeoDataFrame, grid: Grid, alert_log: AlertLog, settings: AlertSettings, snapshot: str
) -> tuple[AlertLog, Updates]:
    """(the log with this run in it, what is new). `frame`: the outlines of the patches in the layers."""
    changed = flat_indices(layers.map("status"), CHANGED)
    return update_alert_log(alert_log, changed, patches_of(frame, grid), settings, snapshot)


def update_alert_log(
    alert_log: AlertLog, changed: np.ndarray, patches: Sequence[Patch], settings: AlertSettings, snapshot: str
) -> tuple[AlertLog, Updates]:
    """The log after a run. `changed`: sorted flat indices of all changed pixels; `patches` lie within them."""
    known = {int(n): int(count) for n, count in zip(*np.unique(alert_log.number, return_counts=True), strict=True)}
    following = int(alert_log.number.max(initial=0)) + 1
    standing: dict[int, Facts] = {}
    owners: list[int] = []
    for patch in patches:
        owner = _owner(patch.pixels, alert_log, known)
        if owner is None:
            owner, following = following, following + 1
        owners.append(owner)
        if owner not in standing or patch.facts["pixels"] > standing[owner]["pixels"]:
            standing[owner] = patch.facts
    raised_before = {alert["number"] for alert in alert_log.alerts}
    alerts = [{**one, **standing.get(one["number"], {}), "is_standing": one["number"] in standing} for one in alert_log.alerts]
    run_number = 1 + max((alert.get("look", 0) for alert in alert_log.alerts), default=0)
    alerts += [
        {"number": n, "look": run_number, **facts, "is_standing": True, "notify": dict.fromkeys(settings.notify, "")}
        for n, facts in sorted(standing.items())
        if n not in raised_before and settings.is_met(facts)
    ]
    before, raised = alert_log.unreported, [alert["number"] for alert in alerts if alert["number"] not in raised_before]
    unreported = {
        "pixels_new": int((~np.isin(changed, alert_log.changed)).sum()) + before.get("pixels_new", 0),
        "objects_new": sum(owner not in known for owner in owners) + before.get("objects_new", 0),
        "alerts": [*before.get("alerts", ()), *raised],
    }
    log = AlertLog(changed, *_give(alert_log, patches, owners), tuple(alerts), snapshot, alert_log.grid, unreported)
    reported = tuple(alert for alert in alerts if alert["number"] in unreported["alerts"])
    return log, Updates(changed.size, unreported["pixels_new"], len(patches), unreported["objects_new"], reported)


def _owner(patch: np.ndarray, alert_log: AlertLog, known: dict[int, int]) -> int | None:
    """The known patch (number -> pixels) that this one is: that one continues in it, or most of this one was it; None: new."""
    if not alert_log.pixel.size:
        return None
    at = np.searchsorted(alert_log.pixel, patch).clip(max=alert_log.pixel.size - 1)
    owners, counts = np.unique(alert_log.number[at[alert_log.pixel[at] == patch]], return_counts=True)
    shares = ((int(owner), count / min(known[int(owner)], patch.size)) for owner, count in zip(owners, counts, strict=True))
    return min((owner for owner, share in shares if share >= SAME), default=None)


def _give(alert_log: AlertLog, patches: Sequence[Patch], owners: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(pixel, number) sorted by pixel: every patch's pixels are its owner's now, all others stay whose they were."""
    given = np.concatenate([patch.pixels for patch in patches] or [np.empty(0, np.int64)])
    to = np.repeat(np.array(owners, np.int64), [patch.pixels.size for patch in patches])
    is_other = ~np.isin(alert_log.pixel, given)
    pixel, number = np.concatenate([alert_log.pixel[is_other], given]), np.concatenate([alert_log.number[is_other], to])
    order = np.argsort(pixel, kind="stable")
    return pixel[order], number[order]


def mark_sent(alert_log: AlertLog, slug: str, at_utc: str) -> AlertLog:
    """The log with every alert marked as sent to the block `slug`."""
    alerts = [
        {**alert, "notify": {**alert["notify"], slug: at_utc}} if alert["notify"].get(slug) == "" else alert
        for alert in alert_log.alerts
    ]
    return replace(alert_log, alerts=tuple(alerts))


# ---------------------------------------------------------------- from maps and outlines


def flat_indices(status: np.ndarray | LayerRows, code: int, strip: int = 1024) -> np.ndarray:
    """Sorted flat indices (int64) of the pixels of `status` (Y, X) that are `code`."""
    height, width = status.shape
    found = [np.flatnonzero(status[row : row + strip] == code) + row * width for row in range(0, height, strip)]
    return np.concatenate(found).astype(np.int64)


def patches_of(frame: GeoDataFrame, grid: Grid) -> list[Patch]:
    """Outlines in the grid's CRS as patches; facts are all columns but the outline."""
    from rasterio.features import rasterize

    patches = []
    for row in frame.to_dict("records"):
        outline = row.pop(frame.geometry.name)
        window = _window(outline.bounds, grid)
        part = grid.window(*window)
        mask = rasterize([(outline, 1)], out_shape=part.shape_yx, transform=part.affine, dtype=np.uint8)
        rows, columns = np.nonzero(mask)
        pixels = (rows + window[0].start).astype(np.int64) * grid.shape_yx[1] + columns + window[1].start
        patches.append(Patch(pixels, {name: _plain(value) for name, value in row.items()}))
    return patches


def _window(bounds_xy: tuple[float, float, float, float], grid: Grid) -> tuple[slice, slice]:
    """(rows, columns) of the raster that hold a box in CRS units, also for a rotated grid."""
    left, bottom, right, top = bounds_xy
    corners = np.array([~grid.affine @ corner for corner in product((left, right), (bottom, top))])
    first = np.floor(corners.min(axis=0) + 1e-6).clip(min=0).astype(int)
    last = np.ceil(corners.max(axis=0) - 1e-6).clip(max=grid.shape_yx[::-1]).astype(int)
    return slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0]))


def _plain(value: object) -> object:
    """A JSON value: dates as ISO 8601, NaN and missing dates as None."""
    if value is None or value != value:
        return None
    if hasattr(value, "strftime"):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value.item() if isinstance(value, np.generic) else value


# ---------------------------------------------------------------- on disk


@dataclass(frozen=True)
class Stored:
    """A file of tensors: its name, the SHA-256 (hex) of its bytes, and how many they are."""

    file: str
    sha256: str
    size: int


def read_arrays(folder: Path, stored: Stored) -> Arrays:
    """The tensors of a file. Raises ArtefactDamaged unless its bytes are those that were written."""
    path = folder / stored.file
    try:
        content = path.read_bytes()
    except OSError as e:
        raise ArtefactDamaged(f"{path} cannot be read ({e.strerror})") from e
    if hashlib.sha256(content).hexdigest() != stored.sha256:
        raise ArtefactDamaged(f"{path} is not what was written (its SHA-256 differs)")
    try:
        return safetensors.numpy.load(content)
    except SafetensorError as e:
        raise ArtefactDamaged(f"{path} is not a safetensors file ({e})") from e


def write_arrays(folder: Path, kind: str, arrays: Mapping[str, np.ndarray]) -> Stored:
    """Puts tensors into a file that is named by its content; the same tensors are written once. Raises StorageFull."""
    content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    stored = Stored(f"{kind}-{sha256[:16]}.safetensors", sha256, len(content))
    path = folder / stored.file
    if not path.exists() or path.read_bytes() != content:  # compared in full: a damaged file keeps its name
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content, flush=False, mark="partial")
    return stored


def write_alert_log(path: Path, folder: Path, alert_log: AlertLog) -> None:
    """Writes the log to `path` (JSON, for people and programs) and its pixels to `folder`; one rename makes both count."""
    stored = write_arrays(folder, "alerted", {name: getattr(alert_log, name) for name in PIXELS})
    content = {
        "format": FORMAT,
        "snapshot": alert_log.snapshot,
        "grid": alert_log.grid,
        "pixels": astuple(stored),
        "alerts": list(alert_log.alerts),
        "unreported": dict(alert_log.unreported),
    }
    write_text(path, json.dumps(content, indent=1) + "\n", flush=False, mark="partial")
    for old in folder.glob("alerted-*.safetensors"):
        if old.name != stored.file:
            old.unlink(missing_ok=True)


def read_alert_log(path: Path, folder: Path) -> AlertLog:
    """The log that `write_alert_log` left; an empty one if there is none. Raises ArtefactDamaged, StateError
    (of another version)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise StateError(f"{path} has format {content['format']}, this version reads {FORMAT}: use the version that wrote it")
        arrays = read_arrays(folder, Stored(*content["pixels"]))
        changed, pixel, number = (arrays[name] for name in PIXELS)
        alerts, unreported = tuple(content["alerts"]), content.get("unreported", {})
        return AlertLog(changed, pixel, number, alerts, content["snapshot"], content["grid"], unreported)
    except FileNotFoundError:
        return AlertLog.empty()
    except (ValueError, KeyError, TypeError) as e:
        raise ArtefactDamaged(f"{path} is not a list of alerts ({type(e).__name__}: {e})") from e


def has_alert_log(path: Path, folder: Path) -> bool:
    """True if there is a log that can be read. Raises StateError for one of another version."""
    try:
        read_alert_log(path, folder)
    except ArtefactDamaged:
        return False
    return path.exists()


def open_alert_log(path: Path, folder: Path, grid: str | None = None) -> tuple[AlertLog, str]:
    """(the log, "" or what happened to it). One that is damaged, or counts the pixels of another `grid`, is put aside."""
    try:
        alert_log = read_alert_log(path, folder)
    except ArtefactDamaged as e:
        why, aside = f"{e}: what was sent before may be sent again", path.with_suffix(".damaged.json")
    else:
        if grid is None or alert_log.grid == grid:
            return alert_log, ""
        if not path.exists():
            return AlertLog.empty(grid), ""
        why, aside = "the alerts so far are on another grid", path.with_suffix(".before.json")
    path.replace(aside)
    return AlertLog.empty(grid or ""), f"{why}; that list is now {aside}, and a new one is started"
