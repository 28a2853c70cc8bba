"""`driftline track --run`: masks of the frames or volumes of a run, at its times and on its grid; what is made beside tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.folder import RunFolder, finished
from flows.seg import Segments, segments_of, series_to_name, write_labels
from flows.sr import OBJECTS, SEG, SR, write_sr
from pipelines.errors import MissingInput, RequestError
from pipelines.files import write_json
from pipelines.wording import counted

if TYPE_CHECKING:
    import xarray as xr

    from configs.run import CubeRun
    from pipelines.grid import Grid
    from pipelines.products.track_files import Tables
    from pipelines.sources.dicom import DicomSource
    from pipelines.tracking.label_series import LabelSeries
    from pipelines.tracking.objects import Space

INDEX, KEY_IMAGES = "index.json", "key_images.png"
HIDDEN = {1, 255}  # values of a mask where 255 may stand for what was not observed


@dataclass(frozen=True)
class RunFrames:
    """The frames or volumes of a run's cube."""

    folder: Path
    run: CubeRun
    cube: xr.Dataset

    @property
    def grid(self) -> Grid:
        from pipelines.cube.store import grid_of

        return grid_of(self.cube)

    @property
    def times(self) -> list[np.datetime64]:
        return list(self.cube["time"].values)

    @property
    def snapshot(self) -> str:
        return str((finished(RunFolder(self.folder, "", self.run.task), "ingest") or {}).get("snapshot", ""))


def frames_of(folder: Path) -> RunFrames:
    """What a run's folder holds. Raises MissingInput (no run, no cube), RequestError (images of places)."""
    from configs.load import load_run
    from configs.privacy import privacy_of
    from configs.run import CubeRun
    from pipelines.cube.store import open_cube

    config = folder / "config.yaml"
    if not config.is_file():
        raise MissingInput(f"{folder} has no config.yaml; --run names the folder of a run: runs/NAME")
    run = load_run(config, inputs_must_exist=False, notify=lambda note: None)
    if not privacy_of(run):
        raise RequestError(
            f"{folder} is a run over images of places, whose masks have dates and a grid of their own: leave --run out"
        )
    assert isinstance(run, CubeRun)
    return RunFrames(folder, run, open_cube(RunFolder.at(folder, run).cube_uri))


def masks_of_frames(paths: Sequence[Path], frames: RunFrames, code: int | None) -> tuple[LabelSeries, list[str]]:
    """(the masks on the grid and at the times of the cube, notes), one mask for each time; with `code`, of that value alone.

    Raises what `read_labels` and `on_grid` raise.
    """
    from pipelines.tracking.label_files import read_labels
    from pipelines.tracking.label_series import LabelSeries, on_grid, values_in

    drawn, times = read_labels(paths), frames.times
    if len(drawn.times) != len(times):
        counts = f"there are {counted(len(drawn.times), 'mask')}, the cube of {frames.folder} has {counted(len(times), 'time')}"
        raise RequestError(f"{counts}: give one mask for each, empty ones too; or leave --run out")
    labels, notes = on_grid(drawn, len(times), frames.grid)
    if code is not None:
        labels = np.where(labels == code, labels, 0)
    elif set(values_in(labels)) == HIDDEN:
        raise RequestError("the masks hold 1 and 255, which elsewhere is what was not observed; --code 1 takes the objects alone")
    return LabelSeries(labels, frames.grid, times, drawn.names), notes


def require_names(masks: LabelSeries, segments: Segments | None) -> None:
    """Raises RequestError for masks with a value that no class of several that are named has."""
    from pipelines.tracking.label_series import values_in

    named = [one.value for one in segments.classes] if segments else []
    if named and (unknown := sorted(set(values_in(masks.labels)) - set(named))):
        raise RequestError(f"the masks hold {unknown[:5]}, which no --class names (named: {named}); name a class for each value")


def remove_stale(folder: Path, names: Sequence[str]) -> None:
    """Removes files of an earlier call: those of these names, and the SEG and SR files."""
    made = {folder / SEG: "seg*.dcm", folder / OBJECTS: "seg*.dcm", folder / SR: "sr*.dcm"}
    for path in [*(folder / name for name in names), *(path for below, form in made.items() for path in below.glob(form))]:
        path.unlink(missing_ok=True)
    for below in made:
        if below.is_dir() and not any(below.iterdir()):
            below.rmdir()


def write_products(
    frames: RunFrames, masks: LabelSeries, ids: Sequence[np.ndarray], tables: Tables, space: Space, folder: Path,
    files: Sequence[str], segments: Segments | None, found: Sequence[str] = (),
) -> tuple[list[str], list[str]]:  # fmt: skip
    """(names of all files, notes): beside `files` key images and, of a DICOM series, SEG and SR, with an index of everything.

    `ids`: the track of each pixel at each time. `found`: sentences for the report.
    """
    from pipelines.products.key_images import draw_key_images
    from pipelines.products.track_index import index_of
    from pipelines.products.track_plot import colours_of

    colours = colours_of(tables.objects, tables.size)
    draw_key_images(frames.cube, ids, space, colours, folder / KEY_IMAGES, f"Tracked objects of {frames.run.name}")
    written, notes = _write_dicom(frames, masks, ids, tables, folder, segments or segments_of((), "AUTOMATIC"))
    names = [*files, KEY_IMAGES, *written]
    about = index_of(frames.run.name, names, frames.grid, frames.times, frames.snapshot, found)
    write_json(folder / INDEX, about, is_strict=True)
    return [*names, INDEX], notes


def _write_dicom(
    frames: RunFrames, masks: LabelSeries, ids: Sequence[np.ndarray], tables: Tables, folder: Path, segments: Segments
) -> tuple[list[str], list[str]]:
    """(names of the SEG and SR files, notes); why there is none where the series is not there, or may name a patient."""
    from pipelines.tracking.label_series import LabelSeries

    tracked = LabelSeries(np.where(np.stack(ids) > 0, masks.labels, np.uint8(0)), masks.grid, masks.times, masks.names)
    try:
        referred = series_to_name(_series_of(frames), folder / SEG, len(masks.times))
        record = write_labels(tracked, referred, folder / SEG, segments)
    except (RequestError, MissingInput) as e:
        return [], [f"no DICOM SEG: {e}"]
    written, notes = [Path(path) for path in record["files"]], list(record["notes"])
    try:
        written += write_sr(tracked, ids, tables, referred, folder, segments)
    except RequestError as e:
        notes.append(f"no DICOM SR: {e}")
    return [path.relative_to(folder).as_posix() for path in written], notes


def _series_of(frames: RunFrames) -> DicomSource:
    """The series that the cube was made from: its de-identified copy. Raises RequestError, MissingInput."""
    from configs.build import build_source
    from configs.privacy import COPY, PrivacyConfig
    from pipelines.sources.dicom import DicomSource

    run = frames.run
    if run.source.kind != "dicom":
        raise RequestError(f"the images of the run are no DICOM series (source.kind: {run.source.kind})")
    is_copied = (run.privacy or PrivacyConfig()).deidentify
    path = frames.folder / COPY if is_copied else Path(run.source.path)
    if not path.exists():
        remedy = "`driftline ingest CONFIG` makes it again" if is_copied else "name its place as source.path"
        raise MissingInput(f"the series that the cube was made from is not there any more ({path}); {remedy}")
    source = build_source(run, path)
    assert isinstance(source, DicomSource)
    return source
