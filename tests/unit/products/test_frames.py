import numpy as np

from pipelines.products import frames
from pipelines.products.frames import Frame, Shades, extent_of, shades_for, step_for, thin_rows
from pipelines.products.predicted import thin


def of(offset: float = 0.0) -> list[Frame]:
    values = np.random.default_rng(0).random((30, 40)) + offset
    return [Frame(np.datetime64("2020-01-01", "ns"), values.astype(np.float32))]


def test_colours_fit_the_variable():
    assert shades_for("ndvi", of()).colours == "YlGn"
    assert shades_for("rain", of()) == Shades("YlGnBu", 0.0, shades_for("x", of()).high)
    assert shades_for("temperature", of()).colours == "viridis"
    signed = shades_for("anomaly", of(-0.5))
    assert signed.colours == "BrBG"
    assert signed.low == -signed.high


def test_large_rasters_are_thinned_alike():
    large = np.arange(1500 * 20).reshape(1500, 20)
    np.testing.assert_array_equal(thin_rows(large), large[::3, ::3])
    assert step_for((700, 10)) == 1


def test_large_fields_are_thinned(make_staged, monkeypatch):
    staged, grid = make_staged((40, 60))
    monkeypatch.setattr(frames, "MOST_PX", 20)
    small = thin(staged, staged.fields[0])
    assert small.shape == (14, 20)
    np.testing.assert_array_equal(small, staged.read(staged.fields[0], slice(None))[::3, ::3])
    assert extent_of(grid) == (500000.0, 500600.0, 4999600.0, 5000000.0)
