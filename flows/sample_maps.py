"""The map of a run on windows of a cube: the answer of every pixel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from configs.cube_windows import build_windows
from configs.labels import build_span
from configs.load import config_hash
from configs.trained import used_by
from flows.folder import code_version, require
from flows.sample_runs import kept_of
from flows.task import Building, Invocation, Record
from flows.trained import same_folds
from pipelines.learning.result import Evaluation

if TYPE_CHECKING:
    import numpy as np

    from flows.tasks.samples import SampleTask
    from models.sequence_model import SequenceModel
    from pipelines.samples.cube_windows import CubeWindows
    from pipelines.samples.labels import Span

MAPPED_BY = ("pipelines.inference.window_maps", "pipelines.inference.sample_labels", "models.sequence_model")


def map_windows(
    task: SampleTask, context: Invocation, model: SequenceModel, evaluation: Evaluation | None, building: Building
) -> Record:
    """Rasters, STAC and picture of the source's span, else the latest one of the labels; from the version that was cut."""
    from dataclasses import replace

    from pipelines.inference.window_maps import WindowMapWork, folds_of_blocks, predict_windows
    from pipelines.products.cog import Lineage, iso
    from pipelines.products.window_map_products import MapSettings, write_window_map

    run, folder, do = context.run, context.folder, partial(context.steps.do, "predict")
    trained, cut_from = require(folder, "train"), require(folder, "ingest")["cut_from"]
    windows = build_windows(run.source, run.labels, cut_from)
    span = build_span(run.source) or windows.spans[-1]
    own = same_folds(context, task.labelled(context, "predict", model.outputs)) if used_by(run) is None else None
    kept = kept_of(context, "map", MAPPED_BY, cut_from=cut_from, windows=repr(windows.settings), bands=windows.names)
    work = WindowMapWork(windows, span, model, folds_of_blocks(own) if own else {}, run.split.networks)
    found = do("map every pixel", lambda show: predict_windows(work, kept, run.compute.build(), show))
    found = replace(found, answer_KHW=task.within(context, found.answer_KHW))
    inside_T = span.holds(windows.dataset["time"].values)
    dates = windows.dataset["time"].values[inside_T]
    scenes = tuple(map(str, windows.dataset["scene_id"].values[inside_T]))
    lineage = Lineage(cut_from, trained["model_hash"], config_hash(run), code_version(), iso(dates[-1]), scenes)
    figures = evaluation.methods[evaluation.shipped] if evaluation else {}
    settings = MapSettings(
        run=run.name,
        task=run.task,
        outputs=model.outputs,
        is_number=model.is_number,
        unit=run.number.unit if model.is_number else "",
        first_utc=f"{span.start.astype('datetime64[s]')}Z",
        known_HW=known_on_grid(windows, span, model.outputs, is_number=model.is_number),
        metrics={name: one for name, one in figures.items() if isinstance(one, float)},
    )
    about = do("write the map", lambda _: write_window_map(found, windows.grid, settings, lineage, building.products))
    return {"map": about, "issued_utc": lineage.issued_utc, "target_utc": [lineage.issued_utc]}


def known_on_grid(windows: CubeWindows, span: Span, outputs: tuple[str, ...], *, is_number: bool) -> np.ndarray:
    """known_HW float64: the number, or the code of the class, of labels of the span; NaN elsewhere."""
    import numpy as np

    known_HW = np.full(windows.grid.shape_yx, np.nan)
    codes = {name: k + 1.0 for k, name in enumerate(outputs)}
    for place in windows.places.values() if windows.labels is not None else ():
        if place.span == span:
            known_HW[place.row, place.column] = float(place.answer) if is_number else codes.get(place.answer, np.nan)
    return known_HW
