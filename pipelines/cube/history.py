"""Versions and present state of a cube, and removal of unused chunks."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import zarr

from pipelines.calendar import iso_utc, median_step_days
from pipelines.cube import store
from pipelines.cube.integrity import naming_damage
from pipelines.cube.plan import Step
from pipelines.cube.steps import read_steps
from pipelines.grid import Grid, ImagePlane, PatientFrame

BAND_KEYS = ("name", "scale", "offset", "nodata", "unit")


@dataclass(frozen=True)
class Version:
    """One committed state of a cube. `refused` are (scene id, reason, detail) of the scenes that were read for this version."""

    snapshot: str
    written_utc: datetime
    message: str
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    dropped: tuple[str, ...]
    refused: tuple[tuple[str, str, str], ...]
    damaged: tuple[str, ...] = ()  # found by `driftline check`


def list_versions(uri: str) -> list[Version]:
    """Every version of the cube, newest first, without the one that created the empty repository."""
    with naming_damage(uri, "has a damaged history"):
        return [
            Version(
                snapshot=entry.id,
                written_utc=entry.written_at,
                message=entry.message,
                added=tuple(entry.metadata.get("added", ())),
                replaced=tuple(entry.metadata.get("replaced", ())),
                dropped=tuple(entry.metadata.get("dropped", ())),
                refused=tuple((r["scene_id"], r["reason"], r["detail"]) for r in entry.metadata.get("refused", ())),
                damaged=tuple(entry.metadata.get("damaged", ())),
            )
            for entry in store.open_repository(uri).ancestry(branch=store.BRANCH)
            if entry.parent_id is not None
        ]


def steps_of(uri: str) -> tuple[Step, ...]:
    """The dates of the newest version, also damaged ones. Raises MissingInput, ArtefactDamaged."""
    store.open_cube(uri, accept_damaged=True)
    with naming_damage(uri):
        return read_steps(zarr.open_group(store.open_repository(uri).readonly_session(store.BRANCH).store, mode="r"))


REGISTRATION = "driftline_registration"  # attribute of the cube of a patient's visits: how each lies on the others


def describe(uri: str, snapshot: str | None = None) -> dict[str, Any]:
    """Summary of a cube, ready for JSON: shape, dates with their valid fraction, bands, grid, bytes, snapshot; the ids of
    scenes that are damaged or kept out by `driftline drop`, and what ingest refused and does not read again.

    `stored_bytes` is the size of the chunks of all versions; `pixel_bytes` the uncompressed size of this version.
    """
    cube = store.open_cube(uri, snapshot, accept_damaged=True)
    listed = cube["scene_id"].attrs
    grid, is_undated = store.grid_of(cube), cube["time"].attrs.get("time_origin") == "unknown"
    count = cube.sizes["time"]
    times, fractions = cube["time"].values, cube["valid_fraction"].values
    dates = [
        {"time": iso_utc(time).removesuffix("Z"), "scene_id": scene_id, "valid_fraction": round(float(fraction), 4)}
        for time, scene_id, fraction in zip(times, cube["scene_id"].values, fractions, strict=True)
    ]
    return {
        "uri": uri,
        "snapshot": snapshot or store.head_snapshot(uri),
        "versions": len(list_versions(uri)),
        "shape": {str(dim): cube.sizes[dim] for dim in cube[store.IMAGE].dims},
        "chunks": list(cube[store.IMAGE].encoding["chunks"]),
        "shards": list(cube[store.IMAGE].encoding.get("shards") or []),
        "dtype": str(cube[store.IMAGE].dtype),
        "pixel_bytes": int(cube[store.IMAGE].nbytes + cube["valid"].nbytes),
        "stored_bytes": _stored_bytes(uri),
        "time_origin": "unknown" if is_undated else "UTC",
        "first": dates[0]["time"] if dates else None,
        "last": dates[-1]["time"] if dates else None,
        "median_step_days": round(median_step_days(times), 11) if count > 1 else None,
        "mean_valid_fraction": round(float(np.mean(fractions)), 4) if dates else None,
        "bands": [{key: store.band_as_json(band)[key] for key in BAND_KEYS} for band in store.bands_of(cube)],
        "grid": _describe_grid(grid),
        "format": cube.attrs["driftline_format"],
        "damaged": cube["scene_id"].values[cube["content_hash"].values == ""].tolist(),
        "registration": json.loads(cube.attrs.get(REGISTRATION, "null")),
        "kept_out": json.loads(listed.get("dropped", "[]")),
        "refused": json.loads(listed.get("refused", "[]")),
        "dates": dates,
    }


def _stored_bytes(uri: str) -> int:
    with naming_damage(uri):
        return int(store.open_repository(uri).chunk_storage_stats().native_bytes)


def _describe_grid(grid: Grid) -> dict[str, Any]:
    if isinstance(grid.frame, PatientFrame):
        frame = {"patient_frame": "LPS", "frame_of_reference_uid": grid.frame.uid}
        return {**frame, **{key: list(getattr(grid, key)) for key in ("transform", "spacing", "bounds")}}
    if isinstance(grid.frame, ImagePlane):
        return {"image_plane": grid.unit, **{key: list(getattr(grid, key)) for key in ("transform", "spacing", "bounds")}}
    keys = ("transform", "spacing", "bounds") if grid.is_volume else ("transform", "resolution_xy", "bounds_xy")
    return {"crs": grid.crs, **{key: list(getattr(grid, key)) for key in keys}}


def collect_garbage(uri: str) -> int:
    """Removes unreferenced chunks (of killed ingests) and returns their number.

    Holds the writer's lock, since chunks of a running ingest are unreferenced too. On S3 there is no lock: run it only when
    nothing is being ingested.
    """
    with store.exclusive_writer(uri):
        return int(store.open_repository(uri).garbage_collect(datetime.now(UTC)).chunks_deleted)
