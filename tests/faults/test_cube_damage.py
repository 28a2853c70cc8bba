"""Damaged cubes: flipped bits, files cut, removed or exchanged, arrays and attributes edited by others."""

import importlib.util
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipelines.cube import store
from pipelines.cube.checking import check_cube
from pipelines.cube.checksums import NAME as SUMS
from pipelines.cube.edits import drop_scene, mark_damaged
from pipelines.cube.export import export_zarr
from pipelines.cube.history import describe, list_versions
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.errors import ArtefactDamaged, DriftlineError

_spec = importlib.util.spec_from_file_location("cube_sources", Path(__file__).parents[1] / "unit" / "cube" / "cube_sources.py")
cube_sources = sys.modules.setdefault("cube_sources", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube_sources)

SETTINGS = IngestSettings(chunk_px=16, workers=2)
SOURCE = cube_sources.PickedSource(dates=5, shape_yx=(24, 40))
FLIPS = 40


def write(uri, source=SOURCE):
    return ingest(source, cube_sources.RULE, str(uri), None, SETTINGS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A cube of two versions."""
    uri = tmp_path_factory.mktemp("whole") / "cube"
    write(uri, cube_sources.PickedSource(dates=5, shape_yx=(24, 40), picked=(0, 1, 3)))
    write(uri)
    return uri


@pytest.fixture
def cube(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "cube"))


def files_of(cube, folder="."):
    return sorted(path for path in (cube / folder).rglob("*") if path.is_file())


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_forty_of_forty_flipped_bits_are_seen(cube):
    """Spread evenly over the kinds of files of both versions. Where reading gives other values, reading itself refuses."""
    expected, draw = open_cube(str(cube)).load(), random.Random(20201129)
    kinds = ("chunks", "manifests", "refs", "snapshots", "transactions", SUMS)
    files = {kind: [path for path in files_of(cube) if path.relative_to(cube).parts[0] == kind] for kind in kinds}
    assert sum(map(len, files.values())) == len(files_of(cube))
    seen, messages = 0, []
    for number in range(FLIPS):
        path = draw.choice(files[kinds[number % len(kinds)]])
        content = path.read_bytes()
        flip(path, draw.randrange(8 * len(content)))
        try:
            assert open_cube(str(cube)).load().identical(expected)
            seen += path.relative_to(cube).as_posix() in {damage.file for damage in check_cube(str(cube)).files}
        except ArtefactDamaged as e:
            messages.append(str(e))
        finally:
            path.write_bytes(content)
    assert seen + len(messages) == FLIPS
    assert all(str(cube) in message for message in messages)
    assert len(messages) >= FLIPS / 5  # which bits are flipped depends on the names that Icechunk draws


def test_checksums_of_files_follow_every_writer_and_open_with_other_tools(cube):
    drop_scene(str(cube), "fake-0-0001")
    assert check_cube(str(cube)).files == ()
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=cube, check=True, capture_output=True)
    (cube / SUMS).write_text("damaged")  # read as before there was a list; the next writer makes a new one
    assert [damage.file for damage in check_cube(str(cube)).files] == [SUMS]
    write(cube, cube_sources.PickedSource(dates=6, shape_yx=(24, 40)))
    assert check_cube(str(cube)).files == ()
    max(files_of(cube, "transactions")).unlink()
    assert [damage.reason for damage in check_cube(str(cube)).files] == ["is missing"]


def test_a_damaged_chunk_is_named_and_read_again_by_the_next_ingest(cube):
    expected = open_cube(str(cube)).load()
    chunk = max(files_of(cube, "chunks"), key=lambda path: path.stat().st_size)
    flip(chunk, 800)
    with pytest.raises(
        ArtefactDamaged, match=r"image of \d{4}-.* \(scene fake-0-000\d\), rows 0 to 15, columns .*driftline check"
    ):
        open_cube(str(cube)).load()
    (damage,) = check_cube(str(cube)).damages
    assert (damage.array, damage.box[:15], damage.reason) == (
        "image",
        "rows 0 to 15, c",
        "Stored and computed checksum do not match",
    )
    (file,) = check_cube(str(cube)).files
    assert cube / file.file == chunk
    mark_damaged(str(cube), [damage.scene_id], [file.file])
    with pytest.raises(ArtefactDamaged, match=rf"{damage.scene_id}\); run `driftline ingest CONFIG`"):
        open_cube(str(cube))
    assert describe(str(cube))["damaged"] == [damage.scene_id]
    assert list_versions(str(cube))[0].damaged == (damage.scene_id,)
    assert write(cube).replaced == (damage.scene_id,)
    assert (check_cube(str(cube)).damages, check_cube(str(cube)).files) == ((), ())  # the earlier version's is known
    same = open_cube(str(cube)).load()
    assert same.drop_vars("ingested_utc").identical(expected.drop_vars("ingested_utc"))


def test_a_damaged_date_can_be_dropped_where_its_source_is_gone(cube):
    flip(max(files_of(cube, "chunks"), key=lambda path: path.stat().st_size), 800)
    (scene_id,) = check_cube(str(cube)).scene_ids
    drop_scene(str(cube), scene_id)
    assert check_cube(str(cube)).damages == ()
    assert open_cube(str(cube)).load().sizes["time"] == 4


def edit(cube, change):
    """Another program's version of the cube: committed by Icechunk, unknown to driftline."""
    session = store.open_repository(str(cube)).writable_session("main")
    change(zarr.open_group(session.store, mode="r+"))
    session.commit("edited")


def without_seal(cube):
    """As cubes of earlier versions: no seal, pixels without checksums are told by the content hash."""
    edit(cube, lambda root: root.attrs.pop("seal"))


@pytest.mark.parametrize("rows_px", [24, 16], ids=["whole scenes", "strips"])
def test_pixels_of_older_cubes_are_compared_with_the_content_hash(tmp_path, rows_px):
    uri = str(tmp_path / "cube")
    memory_mb = 512 if rows_px == 24 else 0  # too little for a scene: ingest writes strips
    ingest(SOURCE, cube_sources.RULE, uri, None, IngestSettings(chunk_px=16, workers=1, memory_mb=memory_mb))
    without_seal(uri)
    assert check_cube(uri).damages == ()

    def brighten(root):
        root["image"][2, 0, 3, 4] += np.uint16(1)

    edit(uri, brighten)
    (damage,) = check_cube(uri).damages
    assert (damage.scene_id, damage.box) == ("fake-0-0002", "whole scene")
    assert "content_hash" in damage.reason


def each_file(folder, work):
    return lambda cube: [work(path) for path in files_of(cube, folder)]


def largest_file(folder, work):
    return lambda cube: work(max(files_of(cube, folder), key=lambda path: path.stat().st_size))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_folder(path):
    path.unlink()
    path.mkdir()


WORKS = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": cut,
    "removed": Path.unlink,
    "text": lambda path: path.write_text("<html>404 not found</html>"),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0" * 100),
}
OF_FILES = {
    f"{folder} {name}": apply(folder, work)
    for folder, apply in (("chunks", largest_file), ("manifests", largest_file), ("snapshots", each_file), ("refs", each_file))
    for name, work in WORKS.items()
} | {
    "all chunks removed": lambda cube: shutil.rmtree(cube / "chunks"),
    "all manifests removed": lambda cube: shutil.rmtree(cube / "manifests"),
    "all refs removed": lambda cube: shutil.rmtree(cube / "refs"),
    "a chunk is a folder": largest_file("chunks", make_folder),
    "another snapshot": lambda cube: next((cube / "refs").rglob("ref.json")).write_text('{"snapshot":"AAAAAAAAAAAAAAAAAAAA"}'),
}


def attribute(name, key, value):
    def change(root):
        (root[name] if name else root).attrs[key] = value

    return change


def replace_array(name, **how):
    def change(root):
        del root[name]
        if how:
            root.create_array(name, **how)

    return change


def dates_back(root):
    root["time"][:] = root["time"][:][::-1].copy()


def shorten(root):
    root["scene_id"].resize((3,))


BY_OTHERS = {
    "no bands": attribute("image", "bands", "[]"),
    "bands are no JSON": attribute("image", "bands", "red, nir"),
    "no affine": attribute("spatial_ref", "affine", None),
    "affine of text": attribute("spatial_ref", "affine", "north up"),
    "format of the future": attribute("", "driftline_format", 99),
    "a CRS that is a file": attribute("", "proj:code", "/etc/hosts"),
    "valid is missing": replace_array("valid"),
    "times are missing": replace_array("time"),
    "scene ids are missing": replace_array("scene_id"),
    "scene ids are numbers": replace_array("scene_id", shape=(5,), dtype="int64", dimension_names=("time",)),
    "image has no bands": replace_array("image", shape=(5, 24, 40), dtype="uint16", dimension_names=("time", "y", "x")),
    "image is smaller": replace_array("image", shape=(2, 2, 2, 2), dtype="uint16", dimension_names=("time", "band", "y", "x")),
    "dates go back": dates_back,
    "a column is shorter": shorten,
}


@pytest.mark.parametrize("name", OF_FILES)
def test_damaged_files_end_in_a_message_with_place_and_remedy(cube, tmp_path, name):
    expected = open_cube(str(cube)).load()
    OF_FILES[name](cube)
    try:
        assert open_cube(str(cube)).load().identical(expected)
        is_whole = name.endswith("longer")  # what follows the end of a chunk is not read
    except ArtefactDamaged:
        is_whole = False
    assert require_messages(cube, tmp_path) or is_whole


@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "older"])
@pytest.mark.parametrize("name", BY_OTHERS)
def test_cubes_that_others_edited_end_in_a_message(cube, tmp_path, name, is_sealed):
    if not is_sealed:
        without_seal(cube)
    edit(cube, BY_OTHERS[name])
    assert require_messages(cube, tmp_path)


def require_messages(cube, tmp_path):
    """Every way to read or write: some fail, and those that fail say where and what to do."""
    uri, messages = str(cube), []
    ways = (
        lambda: open_cube(uri).load(),
        lambda: describe(uri),
        lambda: list_versions(uri),
        lambda: check_cube(uri),
        lambda: export_zarr(uri, tmp_path / "copy.zarr"),
        lambda: drop_scene(uri, "fake-0-0001"),
        lambda: write(uri),
    )
    for way in ways:
        try:
            way()
        except DriftlineError as e:
            messages.append(str(e))
    for message in messages:
        assert uri in message, message
        assert any(word in message for word in ("`driftline", "restore", "update driftline", "ingest it again")), message
        assert len(message) < 700, message
    return messages
