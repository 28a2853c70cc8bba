"""Old versions of a cube go, and nothing that is needed with them; on a disk and in a bucket."""

import importlib.util
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk
import pytest

from pipelines.cube import housekeeping
from pipelines.cube.checking import check_cube
from pipelines.cube.checksums import forget_sums
from pipelines.cube.history import list_versions
from pipelines.cube.housekeeping import Removal, remove_versions
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube, open_repository
from pipelines.errors import CubeBusy, MissingInput, RequestError
from pipelines.stored_files import files_at

_spec = importlib.util.spec_from_file_location("cube_sources", Path(__file__).parent / "cube_sources.py")
cube_sources = sys.modules.setdefault("cube_sources", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube_sources)
PickedSource, RULE = cube_sources.PickedSource, cube_sources.RULE

SETTINGS = IngestSettings(chunk_px=16, workers=1)
SCENES = PickedSource(dates=6, shape_yx=(24, 40))


def write_versions(uri: str) -> list[str]:
    """Five versions: three scenes, then each of them brighter, then a scene more; their ids, oldest first."""
    few = replace(SCENES, picked=(0, 1, 2))
    changed = [{}, {0: 5}, {0: 5, 1: 5}, {0: 5, 1: 5, 2: 5}]
    ids = [ingest(replace(few, brighter=brighter), RULE, uri, None, SETTINGS).snapshot for brighter in changed]
    return [*ids, ingest(replace(SCENES, picked=(0, 1, 2, 3), brighter=changed[-1]), RULE, uri, None, SETTINGS).snapshot]


@pytest.fixture
def versions(tmp_path: Path) -> tuple[str, list[str]]:
    uri = str(tmp_path / "cube")
    return uri, write_versions(uri)


def values(uri: str, snapshot: str) -> list:
    return open_cube(uri, snapshot).image.values.tolist()


def test_what_no_record_names_goes_and_the_rest_reads_as_before(versions):
    uri, ids = versions
    open_repository(uri).create_tag("published", ids[3])
    before = {snapshot: values(uri, snapshot) for snapshot in (ids[1], ids[3], ids[4])}
    shown = remove_versions(uri, {ids[1], "0123456789ABCDEFGHJK"}, datetime.now(UTC), is_rehearsal=True)
    names = set(files_at(uri).names(""))
    assert (shown.versions, shown.named) == (2, 1)
    assert shown.bytes > 0
    assert [one.snapshot for one in list_versions(uri)] == ids[::-1], "a rehearsal changes nothing"

    assert remove_versions(uri, {ids[1]}, datetime.now(UTC), is_rehearsal=False) == shown
    left = set(files_at(uri).names(""))
    assert len(names - left) == shown.files
    assert {snapshot: values(uri, snapshot) for snapshot in before} == before
    for gone in (ids[0], ids[2]):
        with pytest.raises(MissingInput, match="has no version"):
            open_cube(uri, gone)
    report = check_cube(uri)
    assert not report.files, "the list of checksums is that of the files that are left"
    assert not report.damages
    assert ingest(SCENES, RULE, uri, None, SETTINGS).is_new

    later = remove_versions(uri, (), datetime.now(UTC), is_rehearsal=False)  # nothing names it any more, and a version is new
    assert (later.versions, later.named) == (2, 0)
    assert not [name for name in open_repository(uri).list_branches() if name.startswith(housekeeping.KEPT)]
    assert remove_versions(uri, (), datetime.now(UTC), is_rehearsal=False) == Removal()


def test_recent_versions_and_a_cube_that_is_being_written_stay(versions):
    uri, _ = versions
    assert remove_versions(uri, (), datetime.now(UTC) - timedelta(days=1), is_rehearsal=False) == Removal()
    from pipelines.cube.store import exclusive_writer

    with exclusive_writer(uri), pytest.raises(CubeBusy):
        remove_versions(uri, (), datetime.now(UTC), is_rehearsal=False)


@pytest.mark.parametrize("after", ["forget_sums", "create_branch", "expire_snapshots", "garbage_collect"])
def test_a_kill_leaves_a_whole_cube(after, versions, monkeypatch):
    """The process ends once that step is done; the next call ends the work."""
    uri, ids = versions
    before = {snapshot: values(uri, snapshot) for snapshot in (ids[1], ids[4])}
    real = housekeeping._remove

    class Killed(BaseException):
        pass

    def remove(repository, files, *rest):
        if after == "forget_sums":
            raise Killed
        monkeypatch.setattr(icechunk.Repository, after, ending(getattr(icechunk.Repository, after)))
        return real(repository, files, *rest)

    def ending(step):
        def carry_out(*arguments, **options):
            step(*arguments, **options)
            raise Killed

        return carry_out

    with monkeypatch.context() as patched:
        calls = iter([real, remove])  # the rehearsal is not disturbed
        patched.setattr(housekeeping, "_remove", lambda *arguments: next(calls)(*arguments))
        kept = {name: getattr(icechunk.Repository, name) for name in ("create_branch", "expire_snapshots", "garbage_collect")}
        with pytest.raises(Killed):
            remove_versions(uri, {ids[1]}, datetime.now(UTC), is_rehearsal=False)
        for name, step in kept.items():
            monkeypatch.setattr(icechunk.Repository, name, step)
    assert {snapshot: values(uri, snapshot) for snapshot in before} == before
    assert not check_cube(uri).files
    remove_versions(uri, {ids[1]}, datetime.now(UTC), is_rehearsal=False)
    assert {snapshot: values(uri, snapshot) for snapshot in before} == before
    assert not check_cube(uri).files
    with pytest.raises(MissingInput):
        open_cube(uri, ids[2])


def test_a_reader_of_the_newest_version_reads_on(versions):
    uri, ids = versions
    cube, expected = open_cube(uri), values(uri, ids[4])
    done = threading.Event()

    def clean():
        remove_versions(uri, (), datetime.now(UTC), is_rehearsal=False)
        done.set()

    thread = threading.Thread(target=clean)
    thread.start()
    while not done.is_set():
        assert cube.image.values.tolist() == expected
    thread.join()
    assert cube.image.values.tolist() == expected


@pytest.mark.slow
def test_in_a_bucket_an_ingest_goes_on_meanwhile(bucket, request, monkeypatch):
    """Objects that are younger than a day stay there, so an ingest that has not committed loses nothing."""
    uri = f"{bucket}/{request.node.name}"
    ids = write_versions(uri)
    with pytest.raises(RequestError, match="--keep-days 1"):
        remove_versions(uri, (), datetime.now(UTC), is_rehearsal=True)
    expected = values(uri, ids[4])
    assert remove_versions(uri, (), datetime.now(UTC) - timedelta(days=2), is_rehearsal=False) == Removal()

    real = icechunk.Session.commit

    def commit(session, *arguments, **options):
        monkeypatch.setattr(icechunk.Session, "commit", real)
        remove_versions(uri, (), datetime.now(UTC) - housekeeping.YOUNG, is_rehearsal=False)
        forget_sums(files_at(uri), files_at(uri).names("snapshots"))
        open_repository(uri).expire_snapshots(datetime.now(UTC))
        return real(session, *arguments, **options)

    monkeypatch.setattr(icechunk.Session, "commit", commit)
    report = ingest(SCENES, RULE, uri, None, SETTINGS)
    assert len(open_cube(uri, report.snapshot).time) == 6
    assert values(uri, ids[4]) == expected
    assert not check_cube(uri).files
