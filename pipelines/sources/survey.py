"""What the files of all scenes say, compared: the most frequent value is the cube's, everything else is counted in words."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np

from pipelines.errors import RequestError, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band, Scene, is_storable
from pipelines.sources.facts import FileFacts, is_close, why_not
from pipelines.sources.grid_words import why_not_on
from pipelines.sources.isolation import Limits, isolated
from pipelines.sources.layers import BandRequest, Layer
from pipelines.sources.opening import files_kept_open
from pipelines.sources.other_notations import kind_of
from pipelines.sources.products import baseline_remark

BATCH = 16  # the most groups of scenes that are looked at in one call of a worker
Value = TypeVar("Value", bound=Hashable)


class Opens(Protocol):
    """What the survey needs of a source."""

    requested: BandRequest

    def open_layer(self, scene: Scene, name: str) -> AbstractContextManager[Layer]: ...


@dataclass(frozen=True)
class Seen:
    """What the files of one scene say of each band, by name; `refused` if they cannot be read."""

    scene: Scene
    facts: Mapping[str, FileFacts] = field(default_factory=dict, hash=False)
    refused: SceneRefused | None = None


@dataclass(frozen=True)
class SourceInfo:
    """Bands, dtype and grid of the cube that a source makes, and the description of each band in most files."""

    bands: tuple[Band, ...]
    dtype: np.dtype
    grid: Grid
    described: Mapping[str, str] = field(default_factory=dict, hash=False)

    def why_not(self, facts: FileFacts, band: Band, asked: Band) -> tuple[str, str] | None:
        """(reason, detail) why a file with these facts cannot give this band, as the config asks for it; None if it can."""
        usual = self.described.get(band.name, "")
        if usual and facts.description and facts.description != usual:
            detail = f"band {band.name} is described as {facts.description!r}, in the other scenes as {usual!r}"
            return "missing-band", f"{detail}; write the bands in one order, or name them by their descriptions"
        if text := facts.contradiction(asked):
            return "wrong-scale", text
        return why_not(facts.with_request(asked), band, self.dtype)


def look_at(source: Opens, scenes: Sequence[Scene]) -> list[Seen]:
    """What the files of `scenes` (of mosaics: of their parts) say, in their order."""
    threads = os.cpu_count() or 1

    def look(groups: list[list[Scene]]) -> list[Seen]:
        paths = [path for group in groups for scene in group for path in scene.paths]
        label = groups[0][0].id
        try:
            return isolated(_look_at_groups, source, groups, label=label, paths=paths, limits=Limits(shared_by=threads))
        except SceneRefused as refusal:
            if len(groups) > 1:  # one of the files ended the worker
                return [one for group in groups for one in look([group])]
            return [Seen(scene, {}, SceneRefused(scene.id, refusal.reason, refusal.detail)) for scene in groups[0]]

    parts = [part for scene in scenes for part in (scene.parts or (scene,))]
    groups = [list(alike) for _, alike in itertools.groupby(parts, lambda part: {asset.path for asset in part.assets.values()})]
    size = min(BATCH, -(-len(groups) // threads))  # few files occupy all workers too, so that memory does not depend on them
    batches = [groups[first : first + size] for first in range(0, len(groups), max(1, size))]
    with ThreadPoolExecutor(threads) as pool:
        return [one for seen in pool.map(look, batches) for one in seen]


def _look_at_groups(source: Opens, groups: list[list[Scene]]) -> list[Seen]:
    """What the files say, each opened once for the scenes of a group."""
    seen = []
    for group in groups:
        with files_kept_open():
            seen += [_look_at_one(source, scene) for scene in group]
    return seen


def _look_at_one(source: Opens, scene: Scene) -> Seen:
    facts = {}
    try:
        for band in source.requested.bands:
            with source.open_layer(scene, band.name) as layer:
                facts[band.name] = layer.facts
    except SceneRefused as refusal:
        return Seen(scene, {}, SceneRefused(scene.id, refusal.reason, refusal.detail))  # of a file, a data set
    return Seen(scene, facts)


def most_frequent(values: Sequence[Value]) -> Value:
    """Of equally frequent ones the first."""
    return Counter(values).most_common(1)[0][0]


def summarise(
    seen: Sequence[Seen], requested: BandRequest, unlisted: Sequence[SceneRefused], where: str, *, are_described: bool
) -> SourceInfo:
    """Bands, dtype and grid of most scenes; values that the config states count for all.

    are_described: descriptions in the files are those of bands (in stacks they are of dates).

    Raises RequestError if no scene can be read, bands differ in dtype, or a nodata does not fit into it.
    """
    readable = [one.facts for one in seen if one.facts]
    if not readable:
        problems = [*unlisted, *(one.refused for one in seen if one.refused)]
        shown = "\n".join(f"  {problem}" for problem in problems[:3]) or "  there are no scenes"
        raise RequestError(f"none of the {len(seen) + len(unlisted)} scenes of {where} can be read:\n{shown}")
    first = requested.bands[0].name
    dtype = most_frequent([facts[first].dtype for facts in readable])
    alike = [facts for facts in readable if facts[first].dtype == dtype]
    for band in requested.bands:
        other = most_frequent([facts[band.name].dtype for facts in alike])
        if other != dtype:
            differ = f"bands differ in dtype: {first} is {dtype}, {band.name} is {other} in most scenes"
            raise RequestError(f"{differ}; a cube has one dtype: remove one of them")
    for band in requested.bands:
        if all(texts := [facts[band.name].contradiction(band) for facts in alike]):
            raise RequestError(texts[0])
    bands = tuple(_band(band, [facts[band.name] for facts in alike], dtype) for band in requested.bands)
    usual = {band.name: most_frequent([facts[band.name].description for facts in alike]) for band in requested.bands}
    described = usual if are_described else {}
    return SourceInfo(bands, dtype, _usual_grid([facts[first].grid for facts in alike])[0], described)


def _band(asked: Band, facts: Sequence[FileFacts], dtype: np.dtype) -> Band:
    completed = [one.with_request(asked) for one in facts]
    scale, offset = most_frequent([(one.scale, one.offset) for one in completed])
    stated = [value for one in facts for value in one.nodata[:1] if np.isfinite(value) and is_storable(value, dtype)]
    nodata = asked.nodata if asked.nodata is not None else most_frequent(stated) if stated else None
    if nodata is not None and not is_storable(nodata, dtype):
        raise RequestError(f"nodata {nodata:g} of band {asked.name} does not fit into {dtype}, the dtype of the files")
    units = [one.unit for one in completed if one.unit]
    return replace(asked, nodata=nodata, scale=scale, offset=offset, unit=most_frequent(units) if units else "")


def _usual_grid(grids: Sequence[Grid]) -> list[Grid]:
    """The different grids, the most frequent first."""
    counted: list[tuple[Grid, int]] = []
    for grid, count in Counter(grids).items():
        at = next((n for n, (other, _) in enumerate(counted) if other.is_aligned(grid)), None)
        if at is None:
            counted.append((grid, count))
        else:
            counted[at] = counted[at][0], counted[at][1] + count
    return [grid for grid, _ in sorted(counted, key=lambda pair: -pair[1])]


# ---------------------------------------------------------------- what differs


def refusals_of(seen: Sequence[Seen], info: SourceInfo, requested: BandRequest, only_on: Grid | None) -> list[SceneRefused]:
    """The scenes that reading will refuse for what their files say."""
    refused = []
    for one in seen:
        if one.refused is not None:
            refused.append(one.refused)
            continue
        if reason := _refusal_of(one, info, requested):
            refused.append(SceneRefused(one.scene.id, *reason))
        elif only_on is not None:
            others = (why_not_on(name, facts.grid, only_on) for name, facts in one.facts.items())
            refused += [SceneRefused(one.scene.id, *reason) for reason in [next(filter(None, others), None)] if reason]
    return refused


def _refusal_of(one: Seen, info: SourceInfo, requested: BandRequest) -> tuple[str, str] | None:
    """(reason, detail) of the first band that the cube cannot take."""
    reasons = (info.why_not(one.facts[band.name], band, requested.band(band.name)) for band in info.bands)
    return next(filter(None, reasons), None)


def remarks_on(seen: Sequence[Seen], info: SourceInfo, requested: BandRequest, *, counts_planes: bool) -> list[str]:
    """What is converted, overridden or not used, one line each, with the number of scenes and the first one."""
    readable, lines = [one for one in seen if one.facts], []
    converted = [one for one in readable if not _refusal_of(one, info, requested)]
    for band in info.bands:
        asked = requested.band(band.name)
        facts = {one.scene.id: one.facts[band.name] for one in converted}
        for describe in (_packing, _override, _nodata, _range, _mask, _codes, _unit, _unread, _product, _said):
            texts = {scene: text for scene, one in facts.items() if (text := describe(one, band, asked))}
            for text in dict.fromkeys(texts.values()):
                of_text = [scene for scene, other in texts.items() if other == text]
                lines.append(f"band {band.name}: {_share(len(of_text), len(readable), of_text[0])} {text}")
    planes = {max(facts.planes for facts in one.facts.values()): one.scene.id for one in reversed(readable)}
    if counts_planes and (most := max(planes, default=1)) > len(requested.names):
        lines.append(f"files hold up to {most} bands or planes ({planes[most]}), of which {len(requested.names)} are used")
    unstated = [one for one in readable if all(facts.offset == 0 and facts.product is None for facts in one.facts.values())]
    if remark := baseline_remark([path for one in unstated for path in one.scene.paths[:1]], info.bands[0].offset):
        lines.append(remark)
    spacings = {band.name: readable[0].facts[band.name].grid.spacing for band in info.bands} if readable else {}
    sizes = {name: " x ".join(f"{size:.6g}" for size in spacing) for name, spacing in spacings.items()}
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{name} {size}" for name, size in sizes.items())
        lines.append(
            f"the bands have pixels of several sizes ({each}); a cube without `grid` has those of the first: list that one first"
        )
    grids = _usual_grid([one.facts[info.bands[0].name].grid for one in readable])
    if len(grids) > 1:
        lines.append(
            f"the scenes lie on {len(grids)} different grids; the most frequent is {grids[0].shape} at {grids[0].bounds_xy}"
        )
    return lines


def is_plain(one: Seen, info: SourceInfo, requested: BandRequest) -> bool:
    """True if the scene is read right without its own record: by the cube's values alone."""
    if one.refused is not None:
        return False
    for band in info.bands:
        facts, asked = one.facts[band.name], requested.band(band.name)
        if info.why_not(facts, band, asked) or any(tell(facts, band, asked) for tell in (_packing, _nodata, _range, _mask)):
            return False
    return True


def _share(count: int, total: int, first: str) -> str:
    return f"all {total} scenes" if count == total else f"{count} of {total} scenes (first {first})"


def _packing(facts: FileFacts, band: Band, asked: Band) -> str:
    there = facts.with_request(asked)
    if is_close(there.scale, band.scale) and is_close(there.offset, band.offset):
        return ""
    cube = f"the cube {band.scale:g} and {band.offset:g}"
    return f"have scale {there.scale:g} and offset {there.offset:g}, {cube}: converted; values that do not fit are missing"


def _override(facts: FileFacts, band: Band, asked: Band) -> str:
    named = [
        (name, getattr(facts, name), getattr(asked, name), usual) for name, usual in (("scale", 1), ("offset", 0), ("unit", ""))
    ]
    other = [
        f"{name} {found} (the config: {ours})"
        for name, found, ours, usual in named
        if usual not in (found, ours) and found != ours
    ]
    return f"state {', '.join(other)}: the config counts" if other else ""


def _nodata(facts: FileFacts, band: Band, asked: Band) -> str:
    other = [value for value in facts.nodata if value != band.nodata and np.isfinite(value)]
    if not other:
        return ""
    kept = "is missing; the cube has no nodata value" if band.nodata is None else f"becomes the cube's nodata {band.nodata:g}"
    return f"state nodata {', '.join(f'{value:g}' for value in other)}, which {kept}"


def _range(facts: FileFacts, band: Band, asked: Band) -> str:
    return (
        ""
        if facts.valid_range is None
        else "state the valid range {:g} to {:g}: values outside are missing".format(*facts.valid_range)
    )


def _mask(facts: FileFacts, band: Band, asked: Band) -> str:
    article = "an" if facts.mask.startswith("a") else "a"
    return f"have {article} {facts.mask}: masked pixels are missing" if facts.mask else ""


def _codes(facts: FileFacts, band: Band, asked: Band) -> str:
    return f"hold codes ({facts.codes}): no measurements, and no mean of two of them has a meaning" if facts.codes else ""


def _unit(facts: FileFacts, band: Band, asked: Band) -> str:
    is_taken = band.unit not in ("", "1") and not facts.with_request(asked).unit
    return f"state no unit: taken as {band.unit!r}, the cube's" if is_taken else ""


def _unread(facts: FileFacts, band: Band, asked: Band) -> str:
    known = {"scale": band.scale, "offset": band.offset, "nodata": band.nodata}

    def is_known(text: str) -> bool:
        key, _, number = text.rpartition("=")
        value = known.get(kind_of(key))
        return value is not None and is_close(float(number), value)

    other = [text for text in facts.unread if not is_known(text)]
    if not other:
        return ""
    return f"state {', '.join(other)} in a way that is not read: correct the files, or state it in the config if it holds"


def _product(facts: FileFacts, band: Band, asked: Band) -> str:
    there, product = facts.with_request(asked), facts.product
    if product is None or abs(there.offset / there.scale - product.offset / product.scale) < 0.5:
        return ""
    baseline = f" (processing baseline {product.baseline})" if product.baseline else ""
    has = f"have scale {product.scale:g} and offset {product.offset:g} by {product.name}{baseline}"
    return f"{has}, and are read with {there.scale:g} and {there.offset:g}: state source.offset, unless they were harmonised"


def _said(facts: FileFacts, band: Band, asked: Band) -> str:
    return "; ".join(facts.said)
