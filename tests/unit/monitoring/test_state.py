"""The saved state: whatever comes in whatever order, it ends as if everything had been there from the start."""

import contextlib
import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from numcodecs.blosc import Blosc

from pipelines.compute import Compute
from pipelines.errors import ArtefactDamaged, StateError
from pipelines.monitoring.blocks import Counts
from pipelines.monitoring.detector import LAYER_DTYPES
from pipelines.monitoring.detector import monitoring as monitor_all
from pipelines.monitoring.layers import Layers
from pipelines.monitoring.replay import advance_all, advance_slice, require_current, sweep
from pipelines.monitoring.sequential_test import Arrays
from pipelines.monitoring.state import FITTED, STATE, Identity, check_cube, check_identity, kept_kind
from pipelines.samples.variables import decode
from pipelines.slices import Slice
from pipelines.stored_files import FolderFiles

_spec = importlib.util.spec_from_file_location("monitored_cube", Path(__file__).parent / "monitored_cube.py")
assert _spec is not None
assert _spec.loader is not None
cube = sys.modules.setdefault("monitored_cube", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube)

ALL = dict.fromkeys(range(cube.DATES), "first")
TILES = 6


def without(*numbers: int) -> dict[int, str]:
    return {number: version for number, version in ALL.items() if number not in numbers}


def work(counts: Counts) -> tuple[int, int, int, int, int]:
    return counts.tiles, counts.steps, counts.replays, counts.fits, counts.dates_read


def acquisitions(number: int, version: str = "first") -> list[bool]:
    """Which of the six tiles see anything of a scene."""
    _, valid_YX = cube.scene(number, version)
    return [bool(tile.any()) for rows in np.split(valid_YX, 2) for tile in np.split(rows, 3, axis=1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder after one look at everything, which must not be written to."""
    folder = tmp_path_factory.mktemp("whole")
    counts = advance_all(cube.make_monitoring(ALL, folder))
    assert (counts.tiles, counts.fits, counts.replays) == (TILES, TILES, 0)
    assert counts.steps == sum(sum(acquisitions(number)) for number in range(cube.HISTORY, cube.DATES))
    return folder


def same(one: Path, other: Path) -> bool:
    return cube.digests(one) == cube.digests(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "compute",
    [Compute(workers=3), Compute("processes", workers=2), pytest.param(Compute("dask", workers=2), marks=pytest.mark.exhaustive)],
)
def test_wherever_blocks_are_computed_the_bytes_are_the_same(tmp_path, whole, compute):
    half = advance_all(cube.make_monitoring(dict.fromkeys(range(50), "first"), tmp_path), compute)
    rest = advance_all(cube.make_monitoring(ALL, tmp_path), compute)
    assert (half.fits, half.steps + rest.steps) == (TILES, sum(sum(acquisitions(n)) for n in range(cube.HISTORY, cube.DATES)))
    assert same(tmp_path, whole)


def test_no_news_computes_nothing_and_writes_nothing(tmp_path):
    advance_all(cube.make_monitoring(ALL, tmp_path))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("header.json")}
    counts = advance_all(cube.make_monitoring(ALL, tmp_path))
    assert counts == Counts()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("header.json")} == written


@pytest.mark.parametrize("cuts", [(41,), (45, 46, 47, 59), tuple(range(40, 60))])
def test_night_by_night_ends_in_the_same_bytes_as_all_at_once(tmp_path, whole, cuts):
    for last in (*cuts, cube.DATES):
        counts = advance_all(cube.make_monitoring(dict.fromkeys(range(last), "first"), tmp_path))
    assert counts.fits == counts.replays == 0
    assert same(tmp_path, whole)


def test_a_new_date_is_one_step_for_each_tile_that_sees_it_whatever_lies_before(tmp_path):
    for last in (45, 55, 59):
        advance_all(cube.make_monitoring(dict.fromkeys(range(last), "first"), tmp_path))
        counts = advance_all(cube.make_monitoring(dict.fromkeys(range(last + 1), "first"), tmp_path))
        seen = sum(acquisitions(last))
        assert work(counts) == (seen, seen, 0, 0, 2)  # two blocks
        assert (counts.noted, counts.unseen) == (TILES - seen, TILES - seen)


def test_new_dates_are_read_once_for_a_block_of_several_parts(tmp_path):
    for last in (56, cube.DATES):
        folder = tmp_path / "nights"
        counts = advance_all(cube.make_monitoring(dict.fromkeys(range(last), "first"), folder, block_px=16))
    assert (counts.replays, counts.fits, counts.dates_read) == (0, 0, 4)
    advance_all(cube.make_monitoring(ALL, tmp_path / "once", block_px=16))
    assert same(tmp_path / "nights", tmp_path / "once")


@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_for_a_few_new_dates_no_process_is_started(tmp_path, whole, kind, monkeypatch):
    advance_all(cube.make_monitoring(without(58, 59), tmp_path))
    monkeypatch.setattr("pipelines.compute.ProcessPoolExecutor", None)
    monkeypatch.setattr("pipelines.compute.local_cluster", None)
    with pytest.raises(TypeError, match="not callable"):  # what went away takes many steps back
        advance_all(cube.make_monitoring(without(45), tmp_path), Compute(kind, workers=2))
    counts = advance_all(cube.make_monitoring(ALL, tmp_path), Compute(kind, workers=2))
    assert work(counts)[2:4] == (0, 0)
    assert same(tmp_path, whole)


def test_a_state_that_an_earlier_version_packed_goes_on_and_holds_the_same(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("pipelines.monitoring.state.CODEC", Blosc("zstd", clevel=1, shuffle=Blosc.SHUFFLE))
        advance_all(cube.make_monitoring(without(59), tmp_path))
    counts = advance_all(cube.make_monitoring(ALL, tmp_path))
    assert (counts.steps, counts.replays, counts.fits, counts.rebuilt) == (sum(acquisitions(59)), 0, 0, [])
    one, other = tensors(tmp_path), tensors(whole)
    assert one.keys() == other.keys()
    for name, arrays in one.items():
        assert arrays.keys() == other[name].keys()
        for part, array in arrays.items():
            assert (array.dtype, array.tobytes()) == (other[name][part].dtype, other[name][part].tobytes()), (name, part)
    assert advance_all(cube.make_monitoring(ALL, tmp_path)) == Counts()


def tensors(folder: Path) -> dict[tuple[str, str], Arrays]:
    """Every piece of a state, unpacked, by (tile, kind)."""
    monitoring, found = cube.make_monitoring(ALL, folder), {}
    for block in monitoring.blocks:
        files = monitoring.files_of(block)
        header = files.read_header(monitoring.made_for, [tile.key for tile in block.tiles])
        for key, tile in header.tiles.items():
            kept = {kept_kind(one.after): one.piece for one in tile.kept}
            for kind, piece in ({FITTED: tile.fitted, STATE: tile.state.piece} | kept).items():
                found[key, kind] = files.read_arrays(header, kind, piece)
    return found


@pytest.mark.parametrize("late", [40, 45, 53])
def test_a_late_scene_is_as_if_it_had_come_in_time_and_touches_only_tiles_that_see_it(tmp_path, whole, late):
    advance_all(cube.make_monitoring(without(late), tmp_path))
    counts = advance_all(cube.make_monitoring(ALL, tmp_path))
    assert (counts.tiles, counts.replays, counts.fits) == (sum(acquisitions(late)), sum(acquisitions(late)), 0)
    assert 0 < sum(acquisitions(late)) < TILES
    # at most the dates since the last kept state are taken again, beside the new one
    assert counts.steps <= sum(acquisitions(late)) * (cube.DATES - late + cube.KEEP_EVERY)
    assert same(tmp_path, whole)


def test_a_late_scene_of_the_history_fits_the_tiles_that_see_it(tmp_path, whole):
    advance_all(cube.make_monitoring(without(7), tmp_path))
    counts = advance_all(cube.make_monitoring(ALL, tmp_path))
    assert (counts.tiles, counts.replays, counts.fits) == (sum(acquisitions(7)), 0, sum(acquisitions(7)))
    assert 0 < sum(acquisitions(7)) < TILES
    assert same(tmp_path, whole)


@pytest.mark.parametrize("number", [3, 47, 53])
def test_a_reprocessed_scene_is_as_if_it_had_always_been_so(tmp_path, whole, number):
    advance_all(cube.make_monitoring({**ALL, number: "older"}, tmp_path))
    counts = advance_all(cube.make_monitoring(ALL, tmp_path))
    touched = sum(old or new for old, new in zip(acquisitions(number, "older"), acquisitions(number), strict=True))
    assert counts.tiles == touched == (counts.fits if number == 3 else counts.replays)
    assert same(tmp_path, whole)


def test_a_clouded_scene_is_not_seen_it_changes_no_pixel_and_is_not_even_read(tmp_path):
    before = without(58)
    advance_all(cube.make_monitoring(before, tmp_path))
    was = cube.digests(tmp_path)
    counts = advance_all(cube.make_monitoring({**before, 58: cube.CLOUDED, 60: cube.CLOUDED}, tmp_path))
    assert work(counts) == (0, 0, 0, 0, 0)
    assert (counts.noted, counts.unseen) == (TILES, 2 * TILES)
    changed = {name for name, digest in cube.digests(tmp_path).items() if was[name] != digest}
    assert {Path(name).name for name in changed} == {"header.json"}
    assert advance_all(cube.make_monitoring({**before, 58: cube.CLOUDED, 60: cube.CLOUDED}, tmp_path)) == Counts()


def test_a_date_that_went_away_is_taken_back_and_said(tmp_path, whole):
    advance_all(cube.make_monitoring({**ALL, 60: "first", 61: "first"}, tmp_path))
    counts = advance_all(cube.make_monitoring(ALL, tmp_path))
    assert counts.gone == {"2018-10-14 (S060)", "2018-11-06 (S061)"}
    assert counts.replays > 0
    assert same(tmp_path, whole)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_the_cube_the_state_ends_as_a_fresh_one(tmp_path, seed):
    rng, scenes = random.Random(seed), dict(without(*range(35, 45), *range(50, 60)))
    for _ in range(8):
        for _ in range(rng.randint(0, 3)):
            number = rng.randrange(30, cube.DATES)
            match rng.choice(("come", "come", "again", "cloud", "go")):
                case "come":
                    scenes.setdefault(number, "first")
                case "again":
                    scenes[number] = f"version {rng.random()}"
                case "cloud":
                    scenes[number] = cube.CLOUDED
                case "go":
                    scenes.pop(number, None)
        advance_all(cube.make_monitoring(scenes, tmp_path / "state"))
    advance_all(cube.make_monitoring(scenes, tmp_path / "fresh"))
    assert same(tmp_path / "state", tmp_path / "fresh")


@pytest.mark.parametrize("spoil", ["cut", "flip", "remove"])
@pytest.mark.parametrize("kind", ["fitted", "state", "header"])
def test_a_damaged_tile_is_computed_again_and_said(tmp_path, whole, kind, spoil):
    before = without(59)
    advance_all(cube.make_monitoring(before, tmp_path))
    block = min((tmp_path / "blocks").iterdir())
    (path,) = block.glob(f"{kind}*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    match spoil:
        case "cut":
            path.write_bytes(content[:-9])
        case "flip":
            path.write_bytes(content)
        case "remove":
            path.unlink()
    counts = advance_all(cube.make_monitoring(ALL, tmp_path))
    if not (kind == "header" and spoil == "remove"):  # without a header it is a new block
        (text,) = counts.rebuilt
        assert ("tile " if kind != "header" and spoil == "flip" else f"block {block.name}") in text
    assert same(tmp_path, whole)


@pytest.mark.parametrize("spoil", ["remove", "flip"])
def test_layers_that_were_lost_are_written_again_without_a_step(tmp_path, whole, spoil):
    advance_all(cube.make_monitoring(ALL, tmp_path))
    layers = min((tmp_path / "layers").glob("*/*.region"))
    match spoil:
        case "remove":
            layers.unlink()
        case "flip":
            layers.write_bytes(b"spoilt" + layers.read_bytes()[6:])
    counts = advance_all(cube.make_monitoring(ALL, tmp_path))
    assert work(counts) == (0, 0, 0, 0, 0)
    assert same(tmp_path, whole)


def test_the_layers_are_those_of_the_whole_raster_watched_in_one_piece(whole):
    dataset = cube.make_cube(ALL)
    bands = cube.make_monitoring(ALL, whole)
    x, valid = decode(dataset["image"].values, dataset["valid"].values, (_band(),), (bands.cube.variable,))
    days = np.array([date.day for date in bands.cube.dates])
    fitted = cube.DETECTOR.fit(x[: cube.HISTORY, 0], valid[: cube.HISTORY], days[: cube.HISTORY])
    state = monitor_all(cube.DETECTOR, fitted, x[cube.HISTORY :, 0], valid[cube.HISTORY :], days[cube.HISTORY :])
    layers = Layers.open(bands.layers)
    for name, expected in cube.DETECTOR.layers(fitted, state).items():
        np.testing.assert_allclose(layers.map(name)[:], expected, atol=1e-5, equal_nan=True, err_msg=name)
    changed = np.argwhere(layers.map("status")[:] == 2)
    assert len(changed) >= 20  # of the 25 that lost something
    assert (changed.max(axis=1) > 4).sum() <= 1


def _band():
    from pipelines.scene import Band

    return Band("red", 1e-4, 0.0, 0.0)


def test_large_tiles_and_small_ones_show_the_same(tmp_path, whole):
    advance_all(cube.make_monitoring(ALL, tmp_path, tile_px=16))
    made = (cube.make_monitoring(ALL, folder, tile_px=size) for folder, size in ((whole, 4), (tmp_path, 16)))
    one, other = (Layers.open(monitoring.layers) for monitoring in made)
    for name in one.dtypes:
        np.testing.assert_allclose(one.map(name)[:], other.map(name)[:], atol=1e-5, equal_nan=True, err_msg=name)


# ---------------------------------------------------------------- slices, and a bucket


@pytest.mark.parametrize("seed", range(3))
def test_slices_in_any_order_killed_and_repeated_end_in_the_same_bytes(tmp_path, whole, seed, monkeypatch):
    rng = random.Random(seed)
    before = cube.make_monitoring(without(45, 59), tmp_path)
    advance_all(before)
    monitoring, shares = cube.make_monitoring(ALL, tmp_path), [Slice(number, 3) for number in (1, 2, 3)]
    with pytest.raises(StateError, match=r"of 2, 2 blocks are missing, damaged, or not at the dates .*: r000000-000008_c000000"):
        require_current(monitoring)
    for share in rng.sample(shares, 3):
        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            kill_after(patched, rng.randint(0, 6))
            advance_slice(monitoring, share)
    found = [advance_slice(monitoring, share) for share in rng.sample(shares, 3)]
    assert sum(done.size for done in found) == len(monitoring.blocks)
    assert {done.made for done in map(advance_slice, 3 * [monitoring], shares)} == {0}
    require_current(monitoring)
    sweep(monitoring)
    assert same(tmp_path, whole)


def kill_after(patched: pytest.MonkeyPatch, changes: int) -> None:
    """Ends the work at a change to the stored files."""
    left = [changes]

    def counted(original):
        def call(self, *arguments):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return original(self, *arguments)

        return call

    for name in ("write", "writing", "discard"):
        patched.setattr(FolderFiles, name, counted(getattr(FolderFiles, name)))


def test_a_state_in_a_bucket_is_that_of_a_disk(tmp_path, whole, bucket):
    for scenes in (without(45, 58, 59), without(58), ALL):  # nights, a late scene
        monitoring = cube.make_monitoring(scenes, f"{bucket}/state")
        advance_all(monitoring)
    require_current(monitoring)
    for name in monitoring.files.names(""):
        FolderFiles(tmp_path).write(name, monitoring.files.read(name))
    assert same(tmp_path, whole)
    one, other = (Layers.open(made.layers) for made in (monitoring, cube.make_monitoring(ALL, whole)))
    for name in one.dtypes:
        np.testing.assert_array_equal(one.map(name)[:], other.map(name)[:])


# ---------------------------------------------------------------- refusals


def test_a_state_of_another_detector_is_refused_with_the_remedy(tmp_path, whole):
    from dataclasses import replace

    from pipelines.monitoring.detector import Calibration

    other = replace(cube.DETECTOR, calibration=Calibration(6.0))
    with pytest.raises(StateError, match=r"made for another detector .*begin anew with `driftline monitor CONFIG --restart`"):
        advance_all(cube.make_monitoring(ALL, whole, detector=other))


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("grid", "another grid"),
        ("variable", "another variable"),
        ("start", r"another monitoring\.start"),
        ("tile_px", "other tiles"),
    ],
)
def test_every_difference_is_named(field, text):
    from dataclasses import asdict, replace

    identity = Identity("d", "v", "s", "g", 256)
    other = replace(identity, **{field: 3 if field == "tile_px" else "x"})
    check_identity(asdict(identity), identity, "state")
    with pytest.raises(StateError, match=f"{text}.*expected .*found") as caught:
        check_identity(asdict(other), identity, "state")
    assert not isinstance(caught.value, ArtefactDamaged)  # not to be mended by computing it again


def test_a_cube_that_shares_no_scene_is_another_one():
    dates = cube.make_monitoring(ALL, Path()).cube.dates
    known = [(date.time_ns, date.content_hash) for date in dates]
    check_cube([*known[:1], (1, "gone")], dates, "state")
    check_cube([], dates, "state")
    others = [(time, "of another place") for time, _ in known]
    with pytest.raises(StateError, match=r"another cube: of the 60 dates that it has consumed, this cube holds not one"):
        check_cube(others, dates, "state")


# ---------------------------------------------------------------- a detector that looks around


class AroundDetector:
    """Adds up the mean of the usable pixels of each 3 x 3 window; covers what it is handed, as the contract says."""

    halo_px, key = 1, "around"

    def fit(self, x_NYX, valid_NYX, days_N):
        return {"count": valid_NYX.sum(axis=0, dtype=np.int32)}

    def begin(self, fitted):
        return {"sum": np.zeros(fitted["count"].shape, np.float64)}

    def advance(self, fitted, state, x_YX, valid_YX, day):
        x, valid = np.pad(np.where(valid_YX, x_YX, 0), 1), np.pad(valid_YX, 1)
        windows = [(slice(r, r + x_YX.shape[0]), slice(c, c + x_YX.shape[1])) for r in range(3) for c in range(3)]
        mean = sum(x[w] for w in windows) / np.maximum(sum(valid[w].astype(int) for w in windows), 1)
        return {"sum": state["sum"] + mean}

    def layers(self, fitted, state):
        return {name: state["sum"].astype(dtype) for name, dtype in LAYER_DTYPES.items()}


def test_a_detector_with_a_halo_shows_the_same_in_tiles_as_in_one_piece(tmp_path):
    made = []
    for tile_px in (4, 16):
        made.append(cube.make_monitoring(ALL, tmp_path / str(tile_px), tile_px=tile_px, detector=AroundDetector()))
        advance_all(made[-1])
    one, other = (Layers.open(monitoring.layers).map("change_day")[:] for monitoring in made)
    np.testing.assert_allclose(one, other, rtol=1e-12)
    assert one.min() > 0
