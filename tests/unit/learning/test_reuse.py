"""What a model was trained on against what there is."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.errors import RequestError
from pipelines.grid import Grid, PatientFrame
from pipelines.learning.reuse import BandRange, Inputs, compare, known_areas, pixel_metres, require_bands

TRAINED = Inputs((BandRange("red", "1", 0.1, 0.02),), step_days=10.0, pixel_m=10.0, areas={"a": [20.0, 40.0, 21.0, 41.0]})


def with_band(**changes: object) -> Inputs:
    return replace(TRAINED, bands=(replace(TRAINED.bands[0], **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("here", "problem"),
    [
        (TRAINED, None),
        (with_band(median=0.29), None),
        (with_band(median=0.31), "differ by a factor of 3.1"),
        (with_band(median=1000.0), r"differ by a factor of 1e\+04"),
        (with_band(unit="DN"), "red is in DN here, the model was trained on 1"),
        (with_band(unit=""), None),
        (replace(TRAINED, step_days=14.9), None),
        (replace(TRAINED, step_days=15.1), "steps are 15.1 days here, the model was trained on steps of 10 days"),
        (replace(TRAINED, step_days=6.0), "steps are 6 days"),
        (replace(TRAINED, pixel_m=30.0), None),
    ],
)
def test_what_differs_too_much_is_refused(here: Inputs, problem: str | None) -> None:
    match = compare(TRAINED, here)
    if problem is None:
        match.require(as_is=False)
        return
    with pytest.raises(RequestError, match=problem):
        match.require(as_is=False)
    assert "although" in match.require(as_is=True)[0]


def test_values_around_zero_are_compared_by_their_spread() -> None:
    rain = Inputs((BandRange("rain", "mm", 0.0, 0.2),))
    assert compare(rain, Inputs((BandRange("rain", "mm", 0.01, 0.3),))) == compare(rain, rain)
    assert "factor of 10" in compare(rain, Inputs((BandRange("rain", "mm", 0.0, 2.0),))).problems[0]


def test_another_pixel_size_and_what_is_unknown_are_said() -> None:
    assert "pixels are 20 m here, the model was trained on 10 m" in compare(TRAINED, replace(TRAINED, pixel_m=20.0)).warnings[0]
    unknown = compare(Inputs((BandRange("red"),)), TRAINED)
    assert not unknown.problems
    assert "unknown for red" in unknown.warnings[0]
    assert "could not be compared" in compare(TRAINED, with_band(median=None, spread=None)).warnings[0]


def test_bands_are_required_by_name() -> None:
    require_bands(["B4"], ["B8", "B4"])
    with pytest.raises(RequestError, match="needs the bands B2, B8; the images have B4"):
        require_bands(["B2", "B4", "B8"], ["B4"])


def test_inputs_come_back_from_json() -> None:
    assert Inputs.from_json(TRAINED.to_json()) == TRAINED


@pytest.mark.parametrize(
    ("area", "is_known"), [([20.5, 40.5, 22.0, 42.0], True), ([21.0, 40.0, 22.0, 41.0], False), ([0.0, 0.0, 1.0, 1.0], False)]
)
def test_areas_that_the_model_has_seen_are_found(area: list[float], is_known: bool) -> None:
    assert known_areas(TRAINED, replace(TRAINED, areas={"b": area})) == (["b"] if is_known else [])


@pytest.mark.parametrize(
    ("grid", "metres"),
    [
        (Grid("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (4, 4)), 10.0),
        (Grid("EPSG:2263", (30.0, 0.0, 1e6, 0.0, -30.0, 2e5), (4, 4)), 9.144),  # US survey feet
        (Grid("EPSG:4326", (0.001, 0.0, 20.0, 0.0, -0.001, 60.0), (4, 4)), 111.32 * np.sqrt(0.5)),
        (Grid.from_centres(PatientFrame(), ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 8, 0)), (4, 4, 4)), 0.002),
    ],
)
def test_the_pixel_size_is_in_metres_whatever_the_crs(grid: Grid, metres: float) -> None:
    assert pixel_metres(grid) == pytest.approx(metres, rel=2e-3)
