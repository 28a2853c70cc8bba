"""A reader sees the old or the new file, never half of one; a full disk is named; nothing is left behind but by a kill."""

import errno
import json
import math
import os
import sys
from pathlib import Path

import pytest
from rasterio.errors import RasterioIOError

from flows.folder import RunFolder, sweep
from pipelines.errors import RequestError, StorageFull
from pipelines.files import cache_folder, naming_full_disk, replace_folder, replacing, write_bytes, write_json, write_text
from pipelines.working_copies import copy_folder


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_replaced_whole_and_only_once_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "a.txt", []
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(path.read_text()))
    write_text(path, "é")
    write_bytes(path, b"no flush", flush=False)
    assert seen == ["old"]
    assert path.read_bytes() == b"no flush"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(errno.EDQUOT, "quota"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_file_and_no_draft(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises((StorageFull, KeyboardInterrupt)) as caught:
        write()
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"
    assert str(caught.value) in (
        "",
        f"{path}: no space left; free space and run the same command again, what was finished is kept",
    )


def test_only_a_full_disk_is_storage_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageFull, match=r"no space left for 2\.0 MiB; free space"), naming_full_disk(tmp_path, 2**21):
        raise OSError(errno.ENOSPC, "No space left on device")
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr("pipelines.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(StorageFull), naming_full_disk(tmp_path, 2**21):
        raise RasterioIOError("Write failed. See previous exception for details.")
    with pytest.raises(RasterioIOError), naming_full_disk(tmp_path):
        raise RasterioIOError("not a GeoTIFF")
    with pytest.raises(PermissionError), naming_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "denied")


def test_what_a_kill_left_is_swept_or_overwritten(tmp_path: Path) -> None:
    for name in ("summary.json", "report.html", "report.md", "config.yaml", "stages/train.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with replacing(tmp_path / name) as draft:
            draft.write_text("half")
            os.link(draft, draft.with_name(draft.name + "0"))  # as a process of another number would have left it
    sweep(RunFolder(tmp_path, ""))
    (tmp_path / ".a.json.partial").write_text("half")
    write_text(tmp_path / "a.json", "{}", mark="partial")
    assert not [name for name in names(tmp_path) if name.startswith((".", "stages/."))]


def test_json_for_others_is_strict_and_ours_takes_any_value(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"é": 1}, is_strict=True)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": math.nan}, is_strict=True)
    assert path.read_text() == '{\n  "é": 1\n}\n'
    write_json(path, {"a": math.nan, "b": Path("x")})
    assert json.loads(path.read_text())["b"] == "x"


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("new", "products", ".products-old"):  # the last: left by a kill
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "products")
    assert names(tmp_path) == ["products", "products/new"]


@pytest.mark.skipif(sys.platform != "linux", reason="the place of caches of another platform")
def test_the_cache_needs_a_home_folder_only_where_no_place_is_named(no_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in (cache_folder, lambda: copy_folder("s3://fields/runs")):
        with pytest.raises(RequestError, match=r"no folder for caches, since there is no home folder .*; set DRIFTLINE_CACHE"):
            wanted()
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/driftline")
    monkeypatch.setenv("DRIFTLINE_CACHE", "/ours")
    assert cache_folder() == Path("/ours")
    assert copy_folder("s3://fields/runs").parent == Path("/ours/runs")
    monkeypatch.setenv("DRIFTLINE_CACHE", "~/ours")
    with pytest.raises(RequestError, match="no home folder"):
        cache_folder()
