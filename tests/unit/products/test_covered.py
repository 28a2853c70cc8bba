"""What products cover is read from the files that list them, and less is named with the numbers of both."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.products.covered import Area, Covered, covered_by, shortfalls

UTM = Area("EPSG:32635", (0.0, 0.0, 1000.0, 2000.0), (27.0, 45.0, 27.01, 45.02), (200, 100))


def item(folder: Path, name: str, area: Area, **about: Any) -> None:
    content = {
        "id": name, "bbox": area.lonlat,
        "properties": {"proj:code": area.crs, "proj:bbox": area.bounds, "proj:shape": area.shape, **about},
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(content))


def collection(folder: Path, *names: str) -> None:
    links = [{"rel": "root", "href": "./collection.json"}, *({"rel": "item", "href": f"./{name}.json"} for name in names)]
    (folder / "collection.json").write_text(json.dumps({"links": links}))


def test_a_forecast_has_dates_and_sites_have_areas(tmp_path: Path) -> None:
    assert covered_by(tmp_path) == Covered()
    for name in ("a", "b"):
        item(tmp_path, name, UTM, **{"forecast:reference_datetime": "2020-01-01T00:00:00Z"})
    collection(tmp_path, "a", "b")
    assert covered_by(tmp_path) == Covered({"": UTM}, dates=2)
    for name in ("a", "b"):
        item(tmp_path, name, UTM)
    assert covered_by(tmp_path) == Covered({"a": UTM, "b": UTM})
    collection(tmp_path, "a")
    assert covered_by(tmp_path, 7, 1) == Covered({"": UTM}, dates=7, refused=1)
    (tmp_path / "a.json").write_text("{}")
    assert covered_by(tmp_path, 7) == Covered(dates=7), "edited: nothing is known"


def test_an_index_has_samples_or_a_grid(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"samples": 15}))
    assert covered_by(tmp_path).samples == 15
    grid = {"shape": [20, 68, 52], "spacing": [6.0, 3.0, 2.0], "unit": "mm"}
    (tmp_path / "index.json").write_text(json.dumps({"target_times": ["1 s", "2 s"], "grid": grid}))
    assert covered_by(tmp_path) == Covered({"": Area("mm", (0.0, 0.0, 0.0, 104.0, 204.0, 120.0), (), (20, 68, 52))}, dates=2)


def moved(x: float = 0.0, width: float = 1000.0, columns: int = 100, **other: Any) -> Covered:
    degrees = x / 1e5
    lonlat = (27.0 + degrees, 45.0, 27.0 + degrees + width / 1e5, 45.02)
    return Covered({"": Area(other.get("crs", UTM.crs), (x, 0.0, x + width, 2000.0), lonlat, (200, columns))})


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (moved(), []),
        (moved(x=-500, width=1500, columns=150), []),
        (moved(width=1000, columns=50), []),  # coarser pixels
        (moved(x=9.0), []),  # less than a pixel
        (moved(width=500, columns=50), ["200 x 50 pixels instead of 200 x 100, from 0, 0 on instead of 0, 0"]),
        (moved(x=300.0), ["200 x 100 pixels instead of 200 x 100, from 300, 0 on instead of 0, 0"]),
        (moved(crs="EPSG:3857"), []),
        (moved(crs="EPSG:3857", width=500), ["200 x 100 pixels instead of 200 x 100"]),
        (Covered(), ["0 areas instead of 1"]),
    ],
)
def test_a_raster_that_reaches_less_far_is_named(after: Covered, found: list[str]) -> None:
    assert [one.split(", from")[0] for one in shortfalls(moved(), after)] == [one.split(", from")[0] for one in found]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (Covered(dates=3), Covered(dates=2), ["2 dates instead of 3"]),
        (Covered(dates=3), Covered(dates=2, refused=1), []),
        (Covered(dates=3, refused=4), Covered(dates=2, refused=4), ["2 dates instead of 3"]),
        (Covered(dates=3), Covered(), []),
        (Covered(samples=9), Covered(samples=8), ["8 samples instead of 9"]),
        (Covered(samples=9), Covered(), ["0 samples instead of 9"]),
        (Covered({"a": UTM, "b": UTM}), Covered({"a": UTM}), ["1 area instead of 2 (without b)"]),
        (Covered({"a": UTM, "b": UTM}), Covered({"a": UTM, "b": moved(x=90.0).areas[""]}), ["b: 200 x 100 pixels"]),
        (Covered({"a": UTM}), Covered({"a": UTM, "b": UTM}), []),
        (Covered({"": UTM}), Covered({"a": UTM, "b": UTM}), []),  # it was one of them
    ],
)
def test_fewer_dates_samples_and_sites_are_named(before: Covered, after: Covered, found: list[str]) -> None:
    assert [one.partition(" instead of 200")[0] for one in shortfalls(before, after)] == found
