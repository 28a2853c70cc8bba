"""What is archived of a forecast: whole or not at all, under a name of its own; which observation is the truth of a target."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.errors import ArtefactDamaged
from pipelines.grid import Grid
from pipelines.inference.archive import Archived, ArchivedFields, keep, read_archive, tolerance_days
from pipelines.inference.regions import Regions
from pipelines.inference.staging import ROLES, Field, Staged
from pipelines.inference.verification import observations
from pipelines.samples.plan import Sampling
from pipelines.tiles import Box

GRID = Grid("EPSG:32635", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), (6, 8))
NDVI = {"name": "ndvi", "formula": "band", "bands": ["ndvi"], "transform": "none", "valid_range": [-1.0, 1.0]}
ONE = Archived(
    "2020-06-05T10:15:59Z", ("2020-06-15T10:16:00Z", "2020-06-25T10:16:00Z"), (1, 2), "model", "climatology", "abc", "S1",
    (NDVI,), 0.9, 0.5, (6, 8), "grid", "2020-06-06T00:00:00",
)  # fmt: skip


def staged(folder: Path, value: float) -> Staged:
    """All fields of `ONE`: the value, its bounds 1 below and above."""
    fields, whole = tuple(Field(k, "ndvi", role) for k in range(2) for role in ROLES), Box.whole((6, 8))
    regions = Regions(str(folder), "key", tuple(field.plane for field in fields), whole.shape, (whole,))
    offset = {"forecast": 0, "lower": -1, "upper": 1}
    with regions.writing(whole) as writer:
        writer.write(whole, {one.plane: np.full((6, 8), value + offset[one.role] + 10 * one.target) for one in fields})
    return Staged(regions, fields)


def test_fields_come_back_and_open_in_xarray(tmp_path: Path) -> None:
    path = keep(ONE, GRID, {"published": staged(tmp_path / "a", 1.0), "rival": staged(tmp_path / "b", 2.0)}, tmp_path / "archive")
    assert path.name.startswith("20200605T101559Z-")
    assert read_archive(tmp_path / "archive") == ({path.name: ONE}, [])
    fields = ArchivedFields(path)
    fields.check()
    assert (fields.read("rival", "ndvi", "upper", 1, slice(2, 5)) == np.full((3, 8), 13.0)).all()
    with xr.open_zarr(path / "fields.zarr", group="published", consolidated=False) as dataset:
        assert dataset["ndvi_lower"].dims == ("target", "y", "x")
        assert dataset["target"].values[0] == np.datetime64("2020-06-15T10:16:00")
    assert ONE.to_variables()[0].valid_range == (-1.0, 1.0)


def test_another_model_or_method_lies_beside_it_and_a_half_written_one_nowhere(tmp_path: Path) -> None:
    fields = {"published": staged(tmp_path / "a", 1.0)}
    others = (ONE, replace(ONE, model_hash="def"), replace(ONE, method="climatology", rival="model"), replace(ONE, snapshot="S2"))
    assert len({keep(one, GRID, fields, tmp_path / "archive").name for one in others}) == 4
    assert keep(replace(ONE, archived_utc="later"), GRID, fields, tmp_path / "archive").name == ONE.name
    assert read_archive(tmp_path / "archive")[0][ONE.name].archived_utc == ONE.archived_utc, "the first one stays"
    next((tmp_path / "a").rglob("*.region")).write_bytes(b"short")
    with pytest.raises(ArtefactDamaged):
        keep(replace(ONE, model_hash="new"), GRID, fields, tmp_path / "archive")
    assert len(list((tmp_path / "archive").iterdir())) == 4


def test_damage_is_seen(tmp_path: Path) -> None:
    path = keep(ONE, GRID, {"published": staged(tmp_path / "a", 1.0)}, tmp_path / "archive")
    chunk = path / "fields.zarr/published/ndvi_forecast/c/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[-6] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ArtefactDamaged, match=r"ndvi, forecast of published, cannot be read .* it is not scored"):
        ArchivedFields(path).read("published", "ndvi", "forecast", 0, slice(0, 6))
    chunk.unlink()
    with pytest.raises(ArtefactDamaged, match="parts of published/ndvi_forecast are missing"):
        ArchivedFields(path).check()
    for content in ("{", "[]", json.dumps(asdict(ONE) | {"issued_utc": "yesterday"}), json.dumps(asdict(ONE) | {"lead_K": [1]})):
        (path / "archived.json").write_text(content)
        found, problems = read_archive(tmp_path / "archive")
        assert (found, len(problems)) == ({}, 1)
    (path / "archived.json").unlink()
    assert keep(ONE, GRID, {"published": staged(tmp_path / "b", 2.0)}, tmp_path / "archive") == path
    assert read_archive(tmp_path / "archive") == ({path.name: ONE}, [])
    ArchivedFields(path).check()


@pytest.mark.parametrize(
    ("dates", "tolerance", "expected"),
    [
        (["2020-06-05T10:15:59.000", "2020-06-15T10:12", "2020-06-25T10:16"], 0.5, [1, 2]),
        (["2020-06-05T10:15:59.000", "2020-06-14T10:12", "2020-06-25T23:16"], 0.5, [-1, -1]),
        (["2020-06-05T10:15:59.000", "2020-06-14T10:12", "2020-06-16T10:12"], 5.0, [2, -1]),  # the nearest, and each once
        (["2020-06-05T10:15:59.000"], 20.0, [-1, -1]),  # the issue date itself is no truth
    ],
)
def test_the_truth_is_the_nearest_later_date_within_the_tolerance(
    dates: list[str], tolerance: float, expected: list[int]
) -> None:
    times = np.array(dates, "datetime64[ns]")
    assert observations(times, replace(ONE, tolerance_days=tolerance)).tolist() == expected


def test_tolerance_follows_the_steps() -> None:
    daily, fast = (np.datetime64("2020-01-01", "ns") + np.arange(5) * np.timedelta64(step, "m") for step in (1440, 5))
    assert tolerance_days(daily, Sampling("observed")) == 0.5
    assert tolerance_days(fast, Sampling("observed")) == pytest.approx(2.5 / 1440)
    assert tolerance_days(daily, Sampling("regular", 16.0, 3.0)) == 3.0
