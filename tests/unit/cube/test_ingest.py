import importlib.util
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.cube.history import describe, list_versions
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import head_snapshot, open_cube
from pipelines.errors import CubeMismatch, MissingInput, RequestError, StateError
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.reading import SceneReader

_spec = importlib.util.spec_from_file_location("cube_sources", Path(__file__).parent / "cube_sources.py")
cube_sources = sys.modules.setdefault("cube_sources", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube_sources)
PickedSource, RULE = cube_sources.PickedSource, cube_sources.RULE

SETTINGS = IngestSettings(chunk_px=16, workers=2)
SMALL = {"dates": 6, "shape_yx": (24, 40)}


def ingest_into(uri, settings=SETTINGS, grid=None, **changes):
    return ingest(PickedSource(**{**SMALL, **changes}), RULE, str(uri), grid, settings)


def ids(report):
    return [scene_id[-1] for scene_id in report]


def same_content(one, other):
    a, b = open_cube(str(one)), open_cube(str(other))
    return all(
        np.array_equal(a[n].values, b[n].values) for n in ("time", "scene_id", "content_hash", "valid_fraction", "image", "valid")
    )


@pytest.fixture
def uri(tmp_path):
    return tmp_path / "cube"


def test_the_cube_equals_the_source(uri):
    report = ingest_into(uri)
    source = PickedSource(**SMALL)
    cube = open_cube(str(uri))
    assert ids(report.added) == list("012345")
    assert report.snapshot == head_snapshot(str(uri))
    assert cube.image.dtype == np.uint16
    assert cube.valid.dtype == bool
    assert cube.time.dtype == np.dtype("datetime64[ns]")
    for index, scene in enumerate(source.list_scenes().scenes):
        expected = SceneReader(source, RULE, source.native_grid()).read(scene)
        assert np.array_equal(cube.image[index].values, expected.image_BYX)
        assert np.array_equal(cube.valid[index].values, expected.valid_YX)
        assert cube.scene_id.values[index] == scene.id
        assert cube.content_hash.values[index] == expected.content_hash
        assert cube.valid_fraction.values[index] == pytest.approx(expected.valid_YX.mean())


def test_a_slow_scene_keeps_no_others_from_being_read(uri, tmp_path):
    others = threading.Barrier(2, timeout=20)

    class SlowSource(PickedSource):
        def read(self, scene, grid, names, *how):
            if names != ("SCL",) and scene.assets["SCL"].index in (0, 2):  # the first one is read until the third one is
                others.wait()
            return PickedSource.read(self, scene, grid, names, *how)

    report = ingest(SlowSource(**SMALL), RULE, str(uri), None, SETTINGS)
    assert ids(report.added) == list("012345")
    ingest_into(tmp_path / "usual")
    assert same_content(uri, tmp_path / "usual")


def test_a_repeated_ingest_commits_nothing(uri):
    first = ingest_into(uri)
    again = ingest_into(uri)
    assert again.snapshot == first.snapshot
    assert again.unchanged == first.added
    assert not again.added
    assert len(list_versions(str(uri))) == 1


def test_late_scenes_are_inserted_at_their_date(uri, tmp_path):
    ingest_into(uri, picked=(1, 2, 5))
    assert ids(ingest_into(uri, picked=(0, 1, 2, 3, 5)).added) == ["0", "3"]
    assert ids(ingest_into(uri).added) == ["4"]
    ingest_into(tmp_path / "at_once")
    assert same_content(uri, tmp_path / "at_once")
    assert len(open_cube(str(uri), list_versions(str(uri))[-1].snapshot).time) == 3


def test_a_reprocessed_scene_replaces_the_previous_one(uri, tmp_path):
    ingest_into(uri)
    report = ingest_into(uri, brighter={2: 7})
    assert ids(report.replaced) == ["2"]
    assert ids(report.unchanged) == list("01345")
    ingest_into(tmp_path / "fresh", brighter={2: 7})
    assert same_content(uri, tmp_path / "fresh")


def test_a_corrected_date_moves_the_scene(uri, tmp_path):
    ingest_into(uri)
    report = ingest_into(uri, moved={1: "2018-02-20"})
    assert ids(report.replaced) == ["1"]
    ingest_into(tmp_path / "fresh", moved={1: "2018-02-20"})
    assert same_content(uri, tmp_path / "fresh")


def test_refused_scenes_are_listed_and_the_others_written(uri, tmp_path):
    settings = replace(SETTINGS, refused_json=tmp_path / "run" / "refused.json")
    report = ingest_into(uri, settings, unreadable=(0,), empty=(2,), cloudy=(3,))
    assert [(e.scene_id[-1], e.reason) for e in report.refused] == [("0", "unreadable"), ("2", "all-nodata"), ("3", "all-cloud")]
    assert ids(report.added) == ["1", "4", "5"]
    written = json.loads((tmp_path / "run" / "refused.json").read_text())
    assert [entry["reason"] for entry in written] == ["unreadable", "all-nodata", "all-cloud"]
    assert [reason for _, reason, _ in list_versions(str(uri))[0].refused] == ["unreadable", "all-nodata", "all-cloud"]
    assert ingest_into(uri, settings, unreadable=(0,), empty=(2,), cloudy=(3,)).snapshot == report.snapshot


def test_too_few_usable_pixels_are_refused(uri):
    report = ingest_into(uri, replace(SETTINGS, min_valid_fraction=0.9))
    assert {e.reason for e in report.refused} == {"few-usable"}
    assert "cube.min_valid_fraction requires 90.00%" in str(report.refused[0])
    assert (open_cube(str(uri)).valid_fraction.values >= 0.9).all()


DATES = [str(scene.observed_utc) for scene in PickedSource(**SMALL).list_scenes().scenes]
CHANGES = {
    "clouded": {"cloudy": (2, 4)},
    "stricter": {"settings": replace(SETTINGS, min_valid_fraction=0.9)},
    "brighter": {"brighter": {1: 7}},
    "renamed": {"renamed": {2: "rival"}},
    "two of a date": {"moved": {1: DATES[2]}},
    "dates swapped": {"moved": {1: DATES[3], 3: DATES[1]}},
    "other valid range": {"bands": (Band("red", 1e-4, 0, 0, valid_range=(1, 1200)), Band("nir", 1e-4, 0, 0))},
}


@pytest.mark.parametrize("size", [2, pytest.param(64, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_cube_does_not_depend_on_what_was_ingested_before(uri, tmp_path, changes, size):
    settings = replace(changes.get("settings", SETTINGS), commit_scenes=size)
    how = {name: value for name, value in changes.items() if name != "settings"}
    ingest_into(uri)
    report = ingest_into(uri, settings, **how)
    ingest_into(tmp_path / "fresh", settings, **how)
    assert same_content(uri, tmp_path / "fresh")
    assert open_cube(str(uri)).image.attrs == open_cube(str(tmp_path / "fresh")).image.attrs
    assert ingest_into(uri, settings, **how).snapshot == report.snapshot
    ingest_into(uri)
    ingest_into(tmp_path / "back")
    assert same_content(uri, tmp_path / "back")


def test_a_scene_that_is_refused_now_is_dropped_and_the_version_says_so(uri):
    ingest_into(uri)
    report = ingest_into(uri, cloudy=(2,), picked=(1, 2))
    assert (ids(report.dropped), ids(report.unchanged), report.is_new) == (["2"], ["1"], True)
    newest, first = list_versions(str(uri))
    assert newest.message == "ingest: 0 added, 0 replaced, 1 dropped, 1 refused"
    assert (ids(newest.dropped), [reason for _, reason, _ in newest.refused]) == (["2"], ["all-cloud"])
    assert [scene_id[-1] for scene_id in open_cube(str(uri)).scene_id.values] == list("01345")  # not listed: they stay
    assert len(open_cube(str(uri), first.snapshot).time) == 6


def test_a_scene_that_cannot_be_read_now_keeps_its_date(uri, tmp_path):
    ingest_into(uri, picked=(0, 1, 2))
    report = ingest_into(uri, unreadable=(0, 1, 2))
    assert ([e.reason for e in report.refused], report.dropped) == (["unreadable"] * 3, ())
    ingest_into(tmp_path / "fresh")
    assert same_content(uri, tmp_path / "fresh")


def test_a_version_lists_only_the_refusals_of_its_own(uri):
    ingest_into(uri, replace(SETTINGS, commit_scenes=3), cloudy=(1, 4))
    assert [[scene_id[-1] for scene_id, _, _ in version.refused] for version in list_versions(str(uri))] == [["4"], ["1"]]


def test_a_cube_that_would_lose_every_date_stays(uri):
    before = ingest_into(uri).snapshot
    with pytest.raises(StateError, match="none of the 6 scenes was accepted, so no cube was written"):
        ingest_into(uri, replace(SETTINGS, commit_scenes=4), cloudy=tuple(range(6)))
    assert head_snapshot(str(uri)) == before


def test_two_scenes_of_one_date_in_a_listing(uri, tmp_path):
    date = str(PickedSource(**SMALL).list_scenes().scenes[1].observed_utc)
    report = ingest_into(uri, moved={2: date})
    assert [(e.scene_id[-1], e.reason) for e in report.refused] == [("2", "duplicate-date")]
    mosaic = ingest_into(tmp_path / "mosaic", replace(SETTINGS, same_date="mosaic"), moved={2: date})
    assert len(mosaic.added) == 5
    assert not mosaic.refused


def test_a_mosaic_with_new_parts_is_replaced(uri, tmp_path):
    date = str(PickedSource(**SMALL).list_scenes().scenes[1].observed_utc)
    settings = replace(SETTINGS, same_date="mosaic")
    ingest_into(uri, settings, moved={2: date}, picked=(0, 1, 3))
    report = ingest_into(uri, settings, moved={2: date}, picked=(0, 1, 2, 3))
    assert report.replaced == ("mosaic_20180115",)
    ingest_into(tmp_path / "fresh", settings, moved={2: date}, picked=(0, 1, 2, 3))
    assert same_content(uri, tmp_path / "fresh")


def test_scenes_larger_than_memory_are_written_in_strips(uri, tmp_path, monkeypatch):
    ingest_into(tmp_path / "whole")
    monkeypatch.setattr("pipelines.cube.writing.MB", 1)  # memory_mb is bytes now
    ingest_into(uri, replace(SETTINGS, memory_mb=12_000), cloudy=(3,))
    ingest_into(uri, replace(SETTINGS, memory_mb=12_000))
    a, b = open_cube(str(uri)), open_cube(str(tmp_path / "whole"))
    for name in ("time", "scene_id", "image", "valid", "valid_fraction"):
        assert np.array_equal(a[name].values, b[name].values), name


def test_batches_are_versions(uri):
    ingest_into(uri, replace(SETTINGS, commit_scenes=4))
    assert [len(version.added) for version in list_versions(str(uri))] == [2, 4]


def test_progress_reaches_the_total(uri):
    reported = []
    ingest(PickedSource(**SMALL), RULE, str(uri), None, SETTINGS, lambda done, total: reported.append((done, total)))
    assert reported == [(n, 6) for n in range(1, 7)]


def test_a_cube_with_another_layout_is_not_changed(uri):
    ingest_into(uri)
    before = head_snapshot(str(uri))
    elsewhere = Grid("EPSG:32633", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), (24, 40))
    with pytest.raises(CubeMismatch, match="omit the grid, or name a new cube"):
        ingest_into(uri, grid=elsewhere)
    with pytest.raises(CubeMismatch, match="has the bands"):
        ingest_into(uri, bands=("red", "blue"))
    with pytest.raises(CubeMismatch, match="has the bands"):
        ingest_into(uri, bands=(Band("red", scale=1e-3, nodata=0), "nir"))
    assert issubclass(CubeMismatch, RequestError)  # exit code 2: the config is to be changed
    assert head_snapshot(str(uri)) == before


def test_a_scene_of_another_dtype_is_refused(uri):
    with pytest.raises(StateError, match=r"(?s)none of the 6 scenes.*wrong-dtype: the cube stores uint16, the scene is int32"):
        ingest_into(uri, stored="int32")


@pytest.mark.parametrize("match", ["none of the 6 scenes was accepted"])
def test_a_new_cube_without_scenes_is_an_error(uri, match):
    with pytest.raises(StateError, match=match):
        ingest_into(uri, unreadable=tuple(range(6)))
    with pytest.raises(MissingInput, match="holds no finished version yet"):
        open_cube(str(uri))
    assert len(ingest_into(uri).added) == 6


def test_a_source_without_scenes(uri):
    with pytest.raises(MissingInput, match="lists no scenes"):
        ingest_into(uri, picked=())


def test_describe(uri):
    ingest_into(uri)
    facts = describe(str(uri))
    assert facts["shape"] == {"time": 6, "band": 2, "y": 24, "x": 40}
    assert facts["grid"]["crs"] == "EPSG:32633"
    assert facts["median_step_days"] == 10
    assert facts["dates"][0]["scene_id"] == "fake-0-0000"
    json.dumps(facts)
