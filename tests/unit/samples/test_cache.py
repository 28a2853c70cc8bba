import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.cube.store import bands_of
from pipelines.errors import ArtefactDamaged, RequestError, StorageFull
from pipelines.samples import cache as cache_module
from pipelines.samples.cache import GrowingArray, build_samples, group_tiles
from pipelines.samples.sampling import open_samples
from pipelines.samples.variables import decode
from pipelines.tiles import Box


def prepare(x_NCHW, valid_NHW, days_N, context_T, usable_N, target_days_K):
    """Context, its mask, elapsed days, and a mean over the usable dates."""
    weight = (valid_NHW & usable_N[:, None, None]).float()
    mean_CHW = (x_NCHW * weight[:, None]).sum(0) / weight.sum(0).clamp(min=1)
    return {
        "x_TCHW": x_NCHW[context_T],
        "valid_THW": valid_NHW[context_T],
        "baseline_CHW": mean_CHW,
        "lead_K": target_days_K - days_N[context_T[-1]],
    }


@pytest.fixture
def build(cube, plan, ndvi, tmp_path):
    """`build(**changes)` builds, or opens, the cache of the small cube."""

    def run(**changes):
        arguments = {"dataset": cube, "snapshot": "S1", "folder": tmp_path, "plan": plan, "variables": ndvi, **changes}
        return build_samples(**arguments)

    return run


def windows_of(cache):
    return [window for part in ("train", "validation", "test") for window in cache.windows(part)]


def test_windows_are_slices_of_the_decoded_cube(build, cube, plan, ndvi):
    x, valid = decode(cube.image.values, cube.valid.values, bands_of(cube), ndvi)
    cache = build()
    assert len(cache) == len(plan.windows)
    for window, found in zip(plan.windows, windows_of(cache), strict=True):
        rows, columns = window.tile.rows, window.tile.columns
        np.testing.assert_array_equal(found.x_NCHW, x[:, :, rows, columns])
        np.testing.assert_array_equal(found.valid_NHW, valid[:, rows, columns])
        np.testing.assert_array_equal(found.target_KCHW, x[list(window.target_K)][:, :, rows, columns])
        np.testing.assert_array_equal(found.target_valid_KHW, valid[list(window.target_K)][:, rows, columns])
        assert found.context_T.tolist() == list(window.context_T)
        assert found.usable_N.tolist() == plan.usable(window).tolist()
        assert (found.tile, found.part) == (window.tile, window.part)
        assert set(found.arguments()) == {"x_NCHW", "valid_NHW", "days_N", "context_T", "usable_N", "target_days_K"}


def sample_of(samples, i):
    return {name: tensor[0] for name, tensor in samples.gather([i]).items()}


def test_samples_hold_the_results_of_prepare(build, plan):
    cache = build(prepare=prepare, prepare_key="mean")
    for part in ("train", "validation", "test"):
        samples = cache.part(part)
        assert len(samples) == len(cache.windows(part)) == cache.counts()[part]
        for i, window in enumerate(cache.windows(part)):
            sample, expected = sample_of(samples, i), prepare(**window.arguments())
            assert set(sample) == {*expected, "target_KCHW", "target_valid_KHW", "target_seconds_K"}
            for name, tensor in expected.items():
                torch.testing.assert_close(sample[name], tensor, rtol=0, atol=0)
            torch.testing.assert_close(sample["target_KCHW"], window.target_KCHW, rtol=0, atol=0)


def test_without_prepare_a_sample_is_context_and_target(build):
    sample = sample_of(build().part("test"), 0)
    assert {name: tuple(t.shape[:2]) for name, t in sample.items() if name.endswith("CHW")} == {
        "x_TCHW": (3, 1),
        "target_KCHW": (2, 1),
    }


def test_a_cache_is_reused_for_an_equal_key_only(build, tmp_path):
    def count(*_):
        calls.append(1)

    calls: list[int] = []
    first = build(progress=count)
    blocks = len(calls)
    assert blocks == len({w.tile for w in first.plan.windows})
    assert build(progress=count).folder == first.folder
    assert len(calls) == blocks
    for changes in ({"snapshot": "S2"}, {"prepare": prepare, "prepare_key": "m"}, {"min_valid_fraction": 0.5}):
        other = build(**changes)
        assert other.folder != first.folder
        assert [path.name for path in tmp_path.iterdir()] == [other.folder.name]


def test_prepare_without_a_key_raises(build):
    with pytest.raises(ValueError, match="needs a prepare_key"):
        build(prepare=prepare)


def test_windows_with_few_valid_targets_are_left_out(build, cube, plan):
    clouded = cube.copy(deep=True)
    target = plan.of_part("test")[0].target_K[0]
    clouded["valid"][target] = False
    kept = build(dataset=clouded, min_valid_fraction=0.6)
    assert 0 < len(kept) < len(plan.windows)
    for part in ("train", "validation", "test"):
        assert all(float(w.target_valid_KHW.float().mean()) >= 0.6 for w in kept.windows(part))
    assert all(target not in plan.windows[n].target_K for group in kept.groups for n in group.numbers)


def test_a_part_without_windows_is_refused_without_leftovers(build, tmp_path):
    with pytest.raises(
        RequestError, match=r"no train window has 99% of its target pixels valid; the best has 9\d\.\d%: lower samples"
    ):
        build(min_valid_fraction=0.99)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_shares_a_tile_is_refused(build, plan):
    stolen = replace(plan.of_part("test")[0], tile=plan.of_part("train")[0].tile)
    with pytest.raises(ArtefactDamaged, match=r"gives tile r.* to two parts"):
        build(plan=replace(plan, windows=(*plan.windows, stolen)))


def test_target_steps_without_observation_are_invalid(build, plan):
    first = plan.of_part("test")[0]
    lacking = replace(first, target_K=(first.target_K[0], -1))
    windows = tuple(lacking if w is first else w for w in plan.windows)
    cache = build(plan=replace(plan, windows=windows))
    window = next(iter(cache.windows("test")))
    assert not window.target_valid_KHW[1].any()
    assert (window.target_KCHW[1] == 0).all()
    assert torch.equal(sample_of(cache.part("test"), 0)["target_valid_KHW"], window.target_valid_KHW)


def test_writing_to_a_window_does_not_change_the_file(build):
    cache = build()
    window = windows_of(cache)[0]
    before = float(window.x_NCHW[0, 0, 0, 0])
    window.x_NCHW[0, 0, 0, 0] = 77.0
    assert float(windows_of(open_samples(cache.folder))[0].x_NCHW[0, 0, 0, 0]) == before


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "json", "plan"])
def test_damage_is_detected_and_repaired(build, caplog, damage):
    whole = build()
    expected = windows_of(whole)[0].x_NCHW.clone()
    values = next(whole.folder.glob("train-*/values.npy"))
    content = values.read_bytes()
    match damage:
        case "flip":
            values.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            values.write_bytes(content[:-100])
        case "remove":
            values.unlink()
        case "json":
            (whole.folder / "cache.json").write_text("{")
        case "plan":
            (whole.folder / "plan.json").unlink()
    with pytest.raises(ArtefactDamaged, match=r"sample cache .*remove the folder to build it again"):
        open_samples(whole.folder)
    assert torch.equal(windows_of(build())[0].x_NCHW, expected)
    assert "is built again" in caplog.text


def test_a_full_disk_is_reported_without_leftovers(build, tmp_path, monkeypatch):
    def full(self, row):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(GrowingArray, "append", full)
    with pytest.raises(StorageFull, match="no space left while writing samples"):
        build()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_larger_than_the_disk_is_refused_after_one_block(build, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 50_000})
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageFull, match=r"needs about .* MB \(\d+ blocks\), .* has 0\.1 MB free"):
        build()
    assert list(tmp_path.iterdir()) == []


def test_incomplete_caches_of_dead_processes_are_removed(build, tmp_path):
    import socket

    dead, other = tmp_path / f".building-abc-{socket.gethostname()}-4194305", tmp_path / ".building-abc-elsewhere-1"
    dead.mkdir()
    other.mkdir()
    build()
    assert not dead.exists()
    assert other.exists()


def test_the_cache_of_a_faster_process_is_kept(build, tmp_path, monkeypatch):
    first = build()
    copy = tmp_path / "copy"
    first.folder.rename(copy)
    rename = Path.rename

    def lose(self, target):
        rename(copy, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", lose)
    assert len(build()) == len(first)


def test_the_list_of_files_names_the_snapshot(build):
    content = json.loads((build().folder / "cache.json").read_text())
    assert content["snapshot"] == "S1"
    assert content["variables"] == ["ndvi"]


def test_tiles_of_one_chunk_are_read_together_while_they_fit():
    tiles = [Box((r, c), (r + 4, c + 4)) for r in range(0, 16, 4) for c in range(0, 16, 4)]
    regions = list(group_tiles(tiles, chunk=8, bytes_per_pixel=1))
    assert [region.shape for region, _ in regions] == [(8, 8)] * 4
    assert sorted(tile for _, members in regions for tile in members) == tiles
    assert [members for _, members in group_tiles(tiles, 8, 2**40)] == [[t] for _, m in regions for t in m]


def test_a_stored_cube_gives_the_same_cache(build, cube, tmp_path):
    import xarray as xr

    cube.drop_vars("band").to_zarr(tmp_path / "cube.zarr", encoding={"image": {"chunks": (1, 2, 8, 8)}}, consolidated=False)
    stored = xr.open_zarr(tmp_path / "cube.zarr", chunks=None, consolidated=False)
    here, there = build(folder=tmp_path / "a"), build(folder=tmp_path / "b", dataset=stored)
    assert here.folder.name == there.folder.name
    for one, other in zip(windows_of(here), windows_of(there), strict=True):
        assert torch.equal(one.x_NCHW, other.x_NCHW)
