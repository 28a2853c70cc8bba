"""Archived forecasts against the dates that the cube has by now: sums of errors over usable pixels, target by target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from pipelines.calendar import iso_utc, nearest_observations, parse_utc
from pipelines.cube.store import bands_of, grid_of, space_dims
from pipelines.errors import ArtefactDamaged
from pipelines.inference.archive import CHUNK_PX, Archived, ArchivedFields, Who, digest_of_grid
from pipelines.inference.tiling import chunk_length
from pipelines.learning.verification import ABSOLUTE, INSIDE, PIXELS, SIGNED, SUMS, TRUTH, TRUTH_SQUARED, Scored, Target
from pipelines.progress import Progress
from pipelines.samples.variables import decode

EXACT = np.timedelta64(1, "ms")  # of an issue date as text


def observations(times: np.ndarray, archived: Archived) -> np.ndarray:
    """(K,) int64: the index into the sorted `times` of each target's observation, -1 = none within the tolerance."""
    later = np.flatnonzero(times > parse_utc(archived.issued_utc) + EXACT)
    targets = np.array([parse_utc(date) for date in archived.target_utc])
    if not later.size:
        return np.full(len(targets), -1)
    found = nearest_observations(times[later], targets, archived.tolerance_days)
    return np.where(found >= 0, later[np.maximum(found, 0)], -1)


def verify(
    dataset: xr.Dataset, archive: Path, archived: Mapping[str, Archived], known: Mapping[str, Scored],
    progress: Progress | None = None,
) -> tuple[dict[str, Scored], int, list[str]]:  # fmt: skip
    """(scores by the forecast's name; how many targets were scored now; sentences on forecasts that cannot be scored).

    `known`: scores of before. A target is scored again only if its observation has another content: a scene that was
    reprocessed, or one that came late and is nearer. Scores stay of forecasts whose fields are not there any more.
    """
    found, problems, new = dict(known), list[str](), 0
    for done, (name, one) in enumerate(archived.items()):
        if progress:
            progress(done, len(archived))
        try:
            found[name], fresh = score_forecast(dataset, ArchivedFields(archive / name), one, known.get(name))
            new += fresh
        except ArtefactDamaged as e:
            problems.append(str(e))
    return found, new, problems


def score_forecast(dataset: xr.Dataset, fields: ArchivedFields, archived: Archived, known: Scored | None) -> tuple[Scored, int]:
    """(scores of one forecast, how many targets were scored now). Raises ArtefactDamaged."""
    times, hashes = dataset["time"].values, dataset["content_hash"].values
    before = {target.lead: target for target in known.targets} if known else {}
    at_K, targets, new = observations(times, archived), list[Target](), 0
    for k, (lead, index) in enumerate(zip(archived.lead_K, at_K.tolist(), strict=True)):
        if index < 0:
            continue
        seen = iso_utc(times[index]), str(hashes[index])
        earlier = before.get(lead)
        if earlier is None or (earlier.observed_utc, earlier.content_hash) != seen:
            if new == 0:
                if digest_of_grid(grid_of(dataset)) != archived.grid:
                    raise ArtefactDamaged(f"{fields.path}: made on another grid than the cube has now; it is not scored")
                fields.check()
            earlier = Target(lead, archived.target_utc[k], *seen, score(dataset, archived, fields, k, index))
            new += 1
        targets.append(earlier)
    missing = [date for index, date in zip(at_K.tolist(), archived.target_utc, strict=True) if index < 0]
    unseen = sum(bool(parse_utc(date) < times[-1]) for date in missing)
    about = archived.issued_utc, archived.archived_utc, archived.method, archived.rival, archived.model_hash, archived.interval
    names = tuple(str(variable["name"]) for variable in archived.variables)
    return Scored(*about, names, tuple(targets), len(missing) - unseen, unseen), new


def score(
    dataset: xr.Dataset, archived: Archived, fields: ArchivedFields, target: int, index: int
) -> dict[str, dict[str, list[float]]]:
    """Method -> variable -> sums (`pipelines.learning.verification.SUMS`) over the pixels that all methods forecast and date
    `index` of the cube shows; read strip by strip.
    """
    methods: dict[str, Who] = {archived.method: "published"}
    if archived.rival:
        methods[archived.rival] = "rival"
    variables, bands = archived.to_variables(), bands_of(dataset)
    names = [variable.name for variable in variables]
    sums = {method: {name: np.zeros(len(SUMS)) for name in names} for method in methods}
    for rows in strips(dataset):
        part = dataset.isel({"time": [index], space_dims(dataset)[0]: rows})
        x_NCYX, valid_NYX = decode(part["image"].values, part["valid"].values, bands, variables)
        for name, truth in zip(names, x_NCYX[0], strict=True):
            y = {method: fields.read(who, name, "forecast", target, rows) for method, who in methods.items()}
            usable = valid_NYX[0] & np.all([np.isfinite(field) for field in y.values()], axis=0)
            seen = truth[usable].astype(np.float64)
            for method, who in methods.items():
                error = y[method][usable] - seen
                low, high = (fields.read(who, name, role, target, rows)[usable] for role in ("lower", "upper"))
                of_strip = np.zeros(len(SUMS))
                of_strip[[PIXELS, ABSOLUTE, SIGNED]] = seen.size, np.abs(error).sum(), error.sum()
                of_strip[INSIDE] = ((low <= truth[usable]) & (truth[usable] <= high)).sum()
                of_strip[[TRUTH, TRUTH_SQUARED]] = seen.sum(), (seen**2).sum()
                sums[method][name] += of_strip
    return {method: {name: of_name.tolist() for name, of_name in of.items()} for method, of in sums.items()}


def strips(dataset: xr.Dataset) -> Iterable[slice]:
    """Ranges on the first axis of space, each of whole stored chunks and of at most `CHUNK_PX` rows where a chunk allows it."""
    rows, chunk = dataset.sizes[space_dims(dataset)[0]], chunk_length(dataset)
    strip = max(chunk, CHUNK_PX // chunk * chunk) if len(space_dims(dataset)) == 2 else chunk
    return (slice(start, min(start + strip, rows)) for start in range(0, rows, strip))
