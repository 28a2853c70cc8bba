"""`index.json` of tracked frames or volumes: which files there are, their times and their grid; what the report shows of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.calendar import iso_utc
from pipelines.cube.store import release
from pipelines.grid import Grid
from pipelines.products.json_values import plain
from pipelines.products.section import Picture, Section
from pipelines.products.volume_products import grid_facts, time_origin

ROLES = {
    "objects.csv": "measurements: size, position and shape of every object at every time",
    "events.csv": "events of every object",
    "tracks.csv": "one row for every object",
    "tracks.png": "size over time and positions",
    "growth.csv": "growth rate and size at the next visit of every object",
    "growth_check.csv": "the last visit of every object, forecast from those before",
    "totals.csv": "sum of all objects at every visit, and its change",
    "growth.png": "growth, and the next visit",
    "motion.csv": "size, centre and displacement of every region at every frame",
    "cycle.csv": "largest and smallest size, displacement and period of every region",
    "motion.png": "size and displacement over time",
    "key_images.png": "the frames with the largest and the smallest objects",
    "tracks.nii.gz": "track of each voxel, 0: none",
    "viewer.html": "the tracks in a page for a browser",
}
DICOM = {"seg": "DICOM SEG", "seg-objects": "DICOM SEG of single objects", "sr": "DICOM SR: measurements"}  # by folder
MOST_DICOM = 3  # links for each folder; of more files the folder


def index_of(
    name: str, files: Sequence[str], grid: Grid, times: Sequence[np.datetime64], snapshot: str, lines: Sequence[str] = ()
) -> dict[str, Any]:
    """The content, ready for JSON. `files` are names below the folder of the index, `lines` what was found, in sentences."""
    listed = [{"file": file, "role": ROLES.get(file, DICOM.get(Path(file).parent.name, ""))} for file in files]
    content = {
        "driftline_index": 1,
        "name": name,
        "kind": "tracks",
        "found": list(lines),
        "files": listed,
        "times": [iso_utc(time) for time in times],
        "time_origin": time_origin(times[0]),
        "grid": grid_facts(grid),
        "lineage": {"cube_snapshot": snapshot, "driftline": release()},
    }
    return dict(plain(content))


def tracks_section(run: Path) -> Section:
    """What `driftline track --run` left in the folder of a run, with a link to each file; empty where there is nothing."""
    folder = run / "track"
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        files, found = {one["file"]: one["role"] for one in index["files"]}, [str(line) for line in index.get("found", ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        files, found = {}, []  # none, or not ours
    there = {f"track/{file}": f"{Path(file).name}: {role}" for file, role in files.items() if (folder / file).is_file()}
    for below, role in DICOM.items():
        objects = [path for path in there if path.startswith(f"track/{below}/")]
        if len(objects) > MOST_DICOM:
            there = {path: text for path, text in there.items() if path not in objects}
            there[f"track/{below}/"] = f"{below}: {role}, {len(objects)} files"
    pictures = [Picture(run / path, text) for path, text in there.items() if path.endswith(".png")]
    links = {path: text for path, text in there.items() if not path.endswith(".png")}
    return Section("tracks", "Tracked objects", text=found, pictures=pictures, links=links)
