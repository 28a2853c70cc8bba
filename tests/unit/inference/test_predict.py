from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.calendar import to_days
from pipelines.cube.store import bands_of
from pipelines.errors import ArtefactDamaged, CubeBusy, NotPublished, RequestError, StateError
from pipelines.inference.predict import SeamError, check_seam, finish, open_staging, predict_region, seam_error
from pipelines.inference.staging import Field
from pipelines.predictors import Combination
from pipelines.samples.variables import decode


def whole_image(dataset, forecaster, arguments):
    """The forecast of the whole raster in one piece, directly through the contract, unusable dates included."""
    bands = bands_of(dataset)
    x, valid = decode(dataset["image"].values, dataset["valid"].values, bands, arguments["variables"])
    with torch.inference_mode():
        y = forecaster.forecast(
            torch.from_numpy(x),
            torch.from_numpy(valid),
            torch.from_numpy(to_days(dataset["time"].values)),
            torch.from_numpy(arguments["context_T"]),
            torch.from_numpy(arguments["usable_N"]),
            torch.from_numpy(arguments["target_days_K"]),
        ).numpy()
    y[..., ~valid[arguments["usable_N"]].any(0)] = np.nan
    y[:, 0] = y[:, 0].clip(-1, 1)  # the range of the NDVI; the other variable has none
    return y


@pytest.mark.parametrize("shape_yx", [(64, 64), (70, 53), (5, 90)])
@pytest.mark.parametrize("tile_px", [16, 32, 100])
@pytest.mark.parametrize("memory_mb", [0, 64])
def test_tiles_with_their_halo_equal_the_whole_image(run, cube, conv, default_arguments, shape_yx, tile_px, memory_mb):
    dataset = cube(*shape_yx)
    staged, fields = run(dataset, conv, tile_px=tile_px, memory_mb=memory_mb)
    expected = whole_image(dataset, conv, default_arguments)
    forecast = np.stack([fields[i] for i, field in enumerate(staged.fields) if field.role == "forecast"])
    np.testing.assert_array_equal(forecast, expected.reshape(-1, *shape_yx))


def test_a_halo_larger_than_the_tile_is_exact_too(run, cube, default_arguments, conv):
    conv.halo = 20, 17  # larger than needed and than the tile
    dataset = cube(41, 37)
    _, fields = run(dataset, conv, tile_px=8)
    np.testing.assert_array_equal(fields[0], whole_image(dataset, conv, default_arguments)[0, 0])


def test_a_combination_in_tiles_equals_the_whole_image(run, cube, conv, pooled, default_arguments):
    """Its members reach differently far, and one of them starts at multiples of 4."""
    dataset, both = cube(41, 37), Combination({"network": conv, "pooled": pooled})
    _, fields = run(dataset, both, tile_px=16)
    np.testing.assert_array_equal(fields[0], whole_image(dataset, both, default_arguments)[0, 0])


def test_intervals_are_staged_beside_the_forecast(run, cube, conv):
    staged, fields = run(cube(20, 20), conv, tile_px=16)
    assert staged.fields[:3] == (Field(0, "ndvi", "forecast"), Field(0, "ndvi", "lower"), Field(0, "ndvi", "upper"))
    np.testing.assert_allclose(fields[2] - fields[1], np.where(np.isnan(fields[0]), np.nan, 0.2), atol=1e-6)


class Wide:
    """Intervals wider than the variable's range."""

    def bounds(self, y_KCHW):
        return y_KCHW - 5.0, y_KCHW + 5.0


def test_forecast_and_bounds_stay_within_the_valid_range(run, cube, conv):
    """A lower bound of rain is never below 0, whatever the width of the interval."""
    staged, fields = run(cube(20, 20), conv, tile_px=16, intervals=Wide())
    reach = {f: (np.nanmin(image), np.nanmax(image)) for f, image in zip(staged.fields, fields, strict=True)}
    assert reach[Field(0, "ndvi", "lower")] == (-1, -1)
    assert reach[Field(0, "ndvi", "upper")] == (1, 1)
    assert reach[Field(0, "red", "lower")][1] < -1  # without a valid range
    assert np.isnan(fields[:, 2, 3]).all()


def test_without_intervals_there_is_one_field_per_variable_and_date(run, cube, conv):
    staged, _ = run(cube(20, 20), conv, tile_px=16, intervals=None)
    assert [field.role for field in staged.fields] == ["forecast"] * 4


def test_only_a_pixel_never_observed_is_nan(run, cube, conv):
    dataset = cube(20, 20)
    dataset["valid"].values[:] = True
    dataset["valid"].values[[0, 1, 3], 2, 3] = False  # valid only on dates that are not usable
    _, fields = run(dataset, conv, tile_px=16)
    assert np.isnan(fields[:, 2, 3]).all()
    assert np.isnan(fields).sum() == len(fields)


def test_dates_that_are_not_usable_do_not_matter(run, cube, conv):
    one, other = cube(20, 20), cube(20, 20)
    other["image"].values[[2, 4, 5]] = 1
    other["valid"].values[[2, 4, 5]] = True
    np.testing.assert_array_equal(run(one, conv, "one", tile_px=16)[1], run(other, conv, "other", tile_px=16)[1])


def test_several_workers_write_the_same_bytes(run, cube, conv):
    dataset = cube(150, 90)
    run(dataset, conv, "one", tile_px=16, memory_mb=0)
    staged, _ = run(dataset, conv, "two", tile_px=16, memory_mb=0, workers=3)
    written = sorted(Path(staged.uri).glob("*.region"))
    assert len(written) > 3
    for path in written:
        assert path.read_bytes() == (path.parents[2] / "one" / path.parent.name / path.name).read_bytes()


def test_regions_predicted_in_any_order_and_twice_give_the_same(run, cube, conv, predict_into, tmp_path):
    dataset = cube(100, 60)
    _, fields = run(dataset, conv, tile_px=16, memory_mb=0)
    other = predict_into(dataset, conv, tmp_path / "other", tile_px=16, memory_mb=0)
    regions = open_staging(other)
    assert len(regions) > 3
    with pytest.raises(StateError, match=rf"{len(regions)} of {len(regions)} regions are missing or damaged: {regions[0].key}"):
        finish(other)
    for region in [*reversed(regions), regions[0]]:
        predict_region(other, region)
    again = finish(other)
    np.testing.assert_array_equal(np.stack([again.read(field, slice(None)) for field in again.fields]), fields)


def test_finished_regions_are_not_computed_again(run, cube, conv, monkeypatch):
    dataset = cube(40, 40)
    run(dataset, conv, tile_px=16)
    monkeypatch.setattr(conv, "forecast", lambda **_: pytest.fail("computed again"))
    run(dataset, conv, tile_px=16)


def test_a_damaged_region_is_computed_again(run, cube, conv, caplog):
    dataset = cube(40, 40)
    staged, fields = run(dataset, conv, tile_px=16)
    path = next(Path(staged.uri).glob("*.region"))
    content = path.read_bytes()
    for damaged in (content[:100] + bytes([content[100] ^ 1]) + content[101:], content[:-1], content[:50], b""):
        path.write_bytes(damaged)
        _, again = run(dataset, conv, tile_px=16)
        np.testing.assert_array_equal(again, fields)
        assert path.read_bytes() == content
        assert "it is predicted again" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    "change",
    [{"snapshot": "OTHER"}, {"model_hash": "other"}, {"target_days_K": np.array([18301.0, 18310.0])}, {"intervals": None}],
)
def test_another_request_starts_again(run, cube, conv, change):
    dataset = cube(40, 40)
    run(dataset, conv, tile_px=16)
    seen: list[int] = []
    run(dataset, conv, tile_px=16, progress=lambda done, _: seen.append(done), **change)
    assert seen[0] == 0


def test_progress_counts_batches_and_ends_at_the_total(run, cube, conv):
    seen = []
    run(cube(100, 60), conv, tile_px=16, memory_mb=0, progress=lambda *pair: seen.append(pair))
    assert seen == [(n, seen[-1][1]) for n in range(seen[-1][1] + 1)]


def test_windows_with_an_unbounded_halo_are_blended_and_the_seam_measured(run, cube, unbounded):
    dataset = cube(70, 60)
    whole, one = run(dataset, unbounded, "whole", tile_px=128, blend_px=8)
    staged, fields = run(dataset, unbounded, "tiled", tile_px=32, blend_px=8, memory_mb=0)
    seam = seam_error(staged)
    assert seam_error(whole) == SeamError()
    assert 0 < seam.mean < seam.largest < 0.1
    assert seam.share == pytest.approx(seam.mean / 0.1)  # the intervals' half width
    assert np.nanmax(np.abs(fields[0] - one[0])) < 0.1  # close to, not equal to, the whole
    _, broad = run(dataset, unbounded, "wide", tile_px=32, blend_px=8, memory_mb=64)
    np.testing.assert_array_equal(broad, fields)  # the grouping of tiles has no effect


def test_tiles_that_disagree_are_refused(run, cube, unbounded):
    staged, _ = run(cube(70, 60), unbounded, tile_px=32, blend_px=8)
    share = seam_error(staged).share
    assert check_seam(staged, share) == seam_error(staged)
    with pytest.raises(NotPublished, match=r"disagree by 0\.\d{3} half widths .* prediction.max_seam allows 0\.001\. Raise"):
        check_seam(staged, 0.001)


def test_tiles_with_a_finite_halo_are_never_refused(run, cube, conv):
    staged, _ = run(cube(70, 60), conv, tile_px=32)
    assert check_seam(staged, 1e-9) == SeamError()


class Exact:
    """Intervals of no width."""

    def bounds(self, y_KCHW):
        return y_KCHW, y_KCHW


@pytest.mark.parametrize("intervals", [Exact(), None], ids=["no width", "no intervals"])
def test_a_seam_without_intervals_is_refused(run, cube, unbounded, intervals):
    staged, _ = run(cube(70, 60), unbounded, tile_px=32, blend_px=8, intervals=intervals)
    with pytest.raises(NotPublished, match="disagree by inf"):
        check_seam(staged, 1e6)


def test_the_halo_is_that_of_the_requested_steps(run, cube, conv, monkeypatch):
    asked = []
    monkeypatch.setattr(conv, "halo_px", lambda steps: asked.append(steps) or (2, 2))
    run(cube(40, 40), conv, tile_px=16)
    assert asked == [3 + 2]  # context and targets


@pytest.mark.parametrize("tile_px", [16, 50])
def test_windows_of_a_pooling_network_start_at_its_cells(run, cube, pooled, default_arguments, tile_px):
    dataset = cube(331, 187)
    _, fields = run(dataset, pooled, tile_px=tile_px, memory_mb=0, intervals=None)
    expected = whole_image(dataset, pooled, default_arguments).reshape(-1, 331, 187)
    np.testing.assert_allclose(fields, expected, atol=1e-6)
    pooled.stride_px = 1, 1  # a wrong value changes the result
    _, wrong = run(dataset, pooled, "wrong", tile_px=50, memory_mb=0, intervals=None)
    assert np.nanmax(np.abs(wrong - expected)) > 1e-3


def test_a_forecaster_with_other_axes_is_refused(run, cube, conv):
    conv.halo = 2, 2, 2
    with pytest.raises(
        StateError, match=r"ConvForecaster states halo \(2, 2, 2\) .* one number for each of the cube's axes \(y, x\)"
    ):
        run(cube(20, 20), conv, tile_px=16)


def test_blending_a_network_with_a_finite_halo_leaves_no_seam(run, cube, conv, default_arguments):
    dataset = cube(70, 60)
    conv.halo = None
    _, fields = run(dataset, conv, tile_px=32, blend_px=8)
    np.testing.assert_allclose(fields[0], whole_image(dataset, conv, default_arguments)[0, 0], atol=0.05)


def test_a_second_process_is_refused_while_the_folder_is_locked(run, cube, conv, tmp_path):
    from filelock import FileLock

    (tmp_path / "staging").mkdir()
    with FileLock(tmp_path / "staging" / "lock"), pytest.raises(CubeBusy, match="another process predicts into this folder"):
        run(cube(20, 20), conv, tile_px=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"usable_N": np.ones(5, bool)}, "`usable` covers 5 dates, the cube has 6"),
        ({"usable_N": np.zeros(6, bool)}, "no usable date"),
        ({"target_days_K": np.array([])}, "no target date"),
        ({"context_T": np.array([1, 2])}, r"context dates \[2\] are not among the usable dates"),
    ],
)
def test_a_request_that_does_not_match_the_cube_is_refused(run, cube, conv, change, message):
    with pytest.raises(RequestError, match=message):
        run(cube(20, 20), conv, tile_px=16, **change)


def test_tiles_too_small_to_blend_are_refused(run, cube, unbounded):
    with pytest.raises(RequestError, match="tile_px 16 must be at least 64"):
        run(cube(20, 20), unbounded, tile_px=16, blend_px=32)


def test_a_forecaster_with_a_wrong_output_shape_is_named(run, cube, conv, monkeypatch):
    monkeypatch.setattr(conv, "forecast", lambda **_: torch.zeros(1, 2, 3))
    with pytest.raises(StateError, match=r"returned \(1, 2, 3\), expected \(targets, variables, y, x\)"):
        run(cube(20, 20), conv, tile_px=16)


def test_each_band_of_rows_is_read_once(run, cube, conv, monkeypatch):
    from pipelines.inference import window

    loaded = []
    load = window.Slab._load

    def counting_load(self, rows, held):
        load(self, rows, held)
        loaded.append((held, self.first + self.image_NBR.shape[2]))

    monkeypatch.setattr(window.Slab, "_load", counting_load)
    monkeypatch.setattr("pipelines.inference.tiling.TILES_PER_BATCH", 100)
    run(cube(400, 160), conv, tile_px=32, memory_mb=64)
    assert loaded[0][0] == 0
    assert loaded[-1][1] == 400
    assert len(loaded) > 3
    assert all(stop == start for (_, stop), (start, _) in pairwise(loaded))
    assert all(stop % 16 == 0 for _, stop in loaded)


def test_a_forecast_without_a_number_is_not_finished(run, cube, conv):
    conv.second.bias.data[0] = float("nan")
    with pytest.raises(ArtefactDamaged, match=r"forecast of ndvi for target 1 has no number on any pixel.*driftline train"):
        run(cube(20, 20), conv, tile_px=16)
