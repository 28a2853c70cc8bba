"""Pictures of lesions have the proportions of the patient, on grids in every direction."""

import numpy as np
import pytest

from pipelines.follow_up.analysis import FollowedPatient
from pipelines.follow_up.decisions import DecidedLesion
from pipelines.follow_up.events import EventSettings, follow_lesions
from pipelines.follow_up.patient import Patient
from pipelines.grid import Grid, PatientFrame
from pipelines.products.canvas import drawing
from pipelines.products.follow_up_pictures import _draw_row
from tests.made_lesions import sphere

ROWS_TO_THE_BACK = ((0.5, 0, 0, -30), (0, 2.0, 0, -30), (0, 0, 3.0, -30))
ROWS_TO_THE_LEFT = ((0, 2.0, 0, -30), (0.5, 0, 0, -30), (0, 0, 3.0, -30))


@pytest.mark.parametrize("matrix", [ROWS_TO_THE_BACK, ROWS_TO_THE_LEFT])
def test_a_sphere_is_drawn_round(matrix: tuple[tuple[float, ...], ...], tmp_path) -> None:  # type: ignore[no-untyped-def]
    grid = Grid.from_centres(PatientFrame(), matrix, (20, 30, 120))
    mask = sphere((0.0, 0.0, 0.0), 4.0, grid)
    followed = follow_lesions(np.stack([mask, mask]), grid, EventSettings())
    images = np.stack([mask, mask]).astype(np.float32)
    times = np.array(["2020-01-01", "2020-07-01"], "datetime64[ns]")
    patient = Patient("made", grid, times, ("1", "2"), images)
    lesions = tuple(DecidedLesion(change) for change in followed.changes)
    none = np.zeros((1, *grid.shape), np.float32)
    found = FollowedPatient(patient, 3.5, none.astype(np.int8), none, followed, lesions, (), True)
    with drawing(tmp_path / "lesion.png", (6, 2)) as figure:
        row = figure.subplots(1, 3)
        _draw_row(found, lesions[0], row)
        for axes in row[:2]:
            shown = np.asarray(axes.images[0].get_array()) > 0.5
            height, width = (int(np.ptp(np.flatnonzero(shown.any(axis=1 - n)))) + 1 for n in range(2))
            assert height * axes.get_aspect() / width == pytest.approx(1, abs=0.15)
        assert row[2].get_aspect() == row[0].get_aspect()
