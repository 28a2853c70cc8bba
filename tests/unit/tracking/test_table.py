import numpy as np
import pytest

from pipelines.grid import Grid
from pipelines.tracking.objects import Space
from pipelines.tracking.table import as_tables
from pipelines.tracking.tracks import track_objects

GRID = Grid("EPSG:3035", (10.0, 0, 5000000.0, 0, -10.0, 2700000.0), (20, 30))
DATES = [np.datetime64("2020-06-01"), np.datetime64("2020-07-01"), np.datetime64("2020-08-01T10:05")]


def masks():
    frames = np.zeros((3, 20, 30), bool)
    frames[:, 2:6, 2:8] = True
    frames[0, 2:6, 4:6] = False  # two objects that merge
    frames[2, 12:14, 20:22] = True
    frames[2, 2:6, 2:8] = False
    return frames


def test_the_tables_by_hand():
    space = Space.of_grid(GRID)
    objects, events, tracks = as_tables(track_objects(masks(), DATES, space), space)
    assert objects.columns.tolist() == [
        "date", "track_id", "event", "parents", "area_m2", "perimeter_m", "major_m", "minor_m", "moved_m", "change", "x", "y",
        "lon", "lat", "row", "row_from", "row_to", "column", "column_from", "column_to", "pixels", "seen_share", "at_edge",
    ]  # fmt: skip
    assert objects.date.dtype == "datetime64[ns]"
    assert objects.track_id.tolist() == [1, 2, 1, 3]
    assert objects.area_m2.tolist() == pytest.approx([800, 800, 2400, 400], rel=1e-4)  # EPSG:3035 keeps areas
    merged = objects.iloc[2]
    assert (merged.event, merged.parents, merged.pixels, merged.at_edge) == ("merged", "2", 24, False)
    assert (merged.row, merged.row_from, merged.row_to, merged.column_from, merged.column_to) == (3.5, 2, 6, 2, 8)
    assert (merged.x, merged.y) == (5000000 + 50, 2700000 - 40)
    assert merged.moved_m == pytest.approx(20, rel=2e-2)
    assert events[["track_id", "event", "others"]].to_numpy().tolist() == [
        [1, "first seen", ""], [2, "first seen", ""], [1, "merged", "2"], [1, "gone", ""], [3, "new", ""]
    ]  # fmt: skip
    assert tracks[["track_id", "began", "ended", "dates", "dates_seen"]].to_numpy().tolist() == [
        [1, "first seen", "gone", 2, 2], [2, "first seen", "merged into 1", 1, 1], [3, "new", "", 1, 1]
    ]  # fmt: skip
    assert tracks.largest_area_m2[0] == pytest.approx(2400, rel=1e-4)


def test_medical_frames_are_in_mm_and_steps():
    frames = np.zeros((2, 4, 8, 8), bool)
    frames[:, 1:3, 2:4, 2:4] = True
    space = Space.of_spacing((3.0, 1.0, 1.0))
    objects, events, tracks = as_tables(track_objects(frames, [0.0, 1.0], space), space)
    assert objects.volume_mm3.tolist() == [24.0, 24.0]
    assert {"surface_mm2", "major_mm", "minor_mm", "moved_mm", "slice_from", "z", "step"} <= set(objects.columns)
    assert "lon" not in objects
    assert events.step.tolist() == [0.0, 1.0]
    assert tracks.last_volume_mm3.tolist() == [24.0]


def test_no_object_gives_empty_tables():
    space = Space.of_grid(GRID)
    objects, events, tracks = as_tables(track_objects(np.zeros((2, 20, 30), bool), DATES[:2], space), space)
    assert len(objects) == len(events) == len(tracks) == 0
    assert events.columns.tolist() == ["date", "track_id", "event", "others", "change"]
