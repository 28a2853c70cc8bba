"""A stored run is the old or the new version, whole, whatever is stopped when and whoever else publishes."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import stored_runs
from pipelines.errors import ArtefactDamaged, MissingInput, RunBusy, StateError
from pipelines.stored_files import FolderFiles
from pipelines.stored_runs import StoredRun, Turns, Version
from pipelines.working_copies import WorkingCopy, copy_folder, open_stored

FIRST = {"config.yaml": "a", "stages/train.json": "1", "steps.jsonl": "x", "model/weights": "w" * 100}
PUBLISHED = {"products/a.tif": "A", "products/collection.json": "./a.tif", "report.html": "r", "summary.json": "{}"}


class Killed(Exception):
    """The process ends here."""


@dataclass(frozen=True)
class Fragile(FolderFiles):
    """Ends the process before its n-th write."""

    after: int = 10**9
    written: list[str] = field(default_factory=list)

    def write(self, name: str, content: bytes) -> None:
        self.count(name)
        super().write(name, content)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        self.count(name)
        with super().writing(name) as draft:
            yield draft

    def count(self, name: str) -> None:
        if len(self.written) >= self.after:
            raise Killed
        self.written.append(name)


@dataclass(frozen=True)
class Line:
    """The order of versions in memory."""

    versions: list[str] = field(default_factory=list)

    def begin(self) -> None:
        pass

    def last(self) -> str:
        return self.versions[-1] if self.versions else ""

    def follow(self, before: str, version: str) -> bool:
        if self.last() != before:
            return False
        self.versions.append(version)
        return True


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredRun:
    monkeypatch.setattr(stored_runs, "AT_ONCE", 1)
    return StoredRun(FolderFiles(tmp_path / "bucket"), Line())


@pytest.fixture
def copy(stored: StoredRun, tmp_path: Path) -> Callable[[str], WorkingCopy]:
    return lambda machine: WorkingCopy(tmp_path / machine / "run", stored)


def put(copy: WorkingCopy, files: dict[str, str]) -> None:
    for name, text in files.items():
        (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (copy.folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def as_read(stored: StoredRun) -> dict[str, str]:
    """What a reader finds, who follows the marker."""
    version = stored.read()
    return {name: stored.files.read(file.object).decode() for name, file in version.files.items()} if version else {}


Copy = Callable[[str], WorkingCopy]


def test_another_machine_has_the_same_files_and_publishes_nothing(copy: Copy, stored: StoredRun) -> None:
    one, other = copy("one"), copy("other")
    assert one.fetch() == []
    put(one, {**FIRST, "samples/cache": "big", "staging/x": "y", "model/.draft": "z"})
    assert one.publish() is not None
    put(one, PUBLISHED)
    (one.folder / "config.yaml").unlink()
    version = one.publish()
    assert version is not None
    assert one.publish() is None
    (note,) = other.fetch()
    assert note.startswith(f"fetched version {version.version} of ")
    expected = {name: text for name, text in {**FIRST, **PUBLISHED}.items() if name != "config.yaml"}
    assert content(other.folder) == as_read(stored) == expected
    put(other, {"steps.jsonl": "longer"})
    assert other.publish() is None, "the log alone is no version"
    assert other.fetch() == []
    assert content(other.folder)["steps.jsonl"] == "longer"
    assert version.files["model/weights"].object.split("/")[1] == version.before, "what has not changed is not stored again"


def test_what_is_linked_lies_together(copy: Copy) -> None:
    one = copy("one")
    put(one, {**FIRST, **PUBLISHED})
    one.publish()
    put(one, {"report.html": "new"})
    version = one.publish()
    assert version is not None
    assert {name for name, file in version.files.items() if version.version in file.object} == {*PUBLISHED, "steps.jsonl"}


def test_a_kill_at_any_write_leaves_a_whole_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_runs, "AT_ONCE", 1)
    old, new = FIRST, {**FIRST, **PUBLISHED, "model/weights": "other"}
    kills = 0
    for after in range(20):
        stored = StoredRun(FolderFiles(tmp_path / str(after) / "bucket"), Line())
        one = WorkingCopy(tmp_path / str(after) / "one", stored)
        put(one, old)
        one.publish()
        put(one, new)
        fragile = replace(one, stored=replace(stored, files=Fragile(tmp_path / str(after) / "bucket", after)))
        try:
            fragile.publish()
        except Killed:
            kills += 1
        assert as_read(stored) in (old, new)
        one.fetch()
        assert content(one.folder) == new, "the same machine goes on with what it has"
        one.publish()
        assert as_read(stored) == new
    assert kills == 8  # six new files, version.json, current.json


def test_a_kill_before_the_marker_is_made_good_by_the_next_writer(copy: Copy, stored: StoredRun, tmp_path: Path) -> None:
    one = copy("one")
    put(one, FIRST)
    one.publish()
    put(one, {"config.yaml": "b"})
    with pytest.raises(Killed):
        replace(one, stored=replace(stored, files=Fragile(tmp_path / "bucket", 3))).publish()
    assert as_read(stored) == FIRST
    copy("other").fetch()
    assert as_read(stored)["config.yaml"] == content(copy("other").folder)["config.yaml"] == "b"


def test_the_second_of_two_writers_finds_out_and_destroys_nothing(copy: Copy, stored: StoredRun) -> None:
    one, other = copy("one"), copy("other")
    put(one, FIRST)
    one.publish()
    other.fetch()
    put(one, {"config.yaml": "ones"})
    put(other, {"config.yaml": "others", "evaluation.json": "dear"})
    one.publish()
    with pytest.raises(RunBusy, match=r"was published since this command fetched version .*; nothing of it is replaced"):
        other.publish()
    assert as_read(stored)["config.yaml"] == "ones"
    aside, fetched = other.fetch()
    assert "what it left is kept in" in aside
    assert fetched.startswith("fetched version")
    assert content(other.folder)["config.yaml"] == "ones"
    assert content(Path(aside.rsplit(" ", 1)[1]))["evaluation.json"] == "dear"


def test_a_turn_that_another_takes_during_the_upload_is_lost(copy: Copy, stored: StoredRun, tmp_path: Path) -> None:
    one, other = copy("one"), copy("other")
    put(one, FIRST)
    one.publish()
    other.fetch()
    put(one, {"config.yaml": "ones"})
    put(other, {"config.yaml": "others"})

    @dataclass(frozen=True)
    class Slow(Fragile):
        def count(self, name: str) -> None:
            if not self.written:
                self.written.append(name)
                one.publish()

    with pytest.raises(RunBusy):
        replace(other, stored=replace(stored, files=Slow(tmp_path / "bucket"))).publish()
    assert as_read(stored)["config.yaml"] == "ones"


def test_each_conflict_keeps_what_it_sets_aside(copy: Copy) -> None:
    one, other = copy("one"), copy("other")
    put(one, FIRST)
    one.publish()
    other.fetch()
    for number in ("1", "2", "3"):
        put(one, {"config.yaml": f"ones {number}"})
        one.publish()
        put(other, {"evaluation.json": number})
        kept = Path(other.fetch()[0].rsplit(" ", 1)[1])
        assert kept.name == (".run.set-aside" if number == "1" else f".run.set-aside-{number}")
    assert [content(path)["evaluation.json"] for path in sorted(other.folder.parent.glob(".run.set-aside*"))] == ["1", "2", "3"]


def test_a_writer_that_sleeps_after_its_turn_does_not_put_the_marker_back(copy: Copy, stored: StoredRun) -> None:
    one, other = copy("one"), copy("other")
    put(one, FIRST)
    one.publish()

    @dataclass(frozen=True)
    class Sleeping(Line):
        def follow(self, before: str, version: str) -> bool:
            has_turn = super().follow(before, version)
            other.fetch()  # writes the marker that is owed
            put(other, {"config.yaml": "newest"})
            assert other.publish() is not None
            return has_turn

    put(one, {"config.yaml": "older"})
    assert replace(one, stored=replace(stored, order=Sleeping(stored.order.versions))).publish() is not None
    assert as_read(stored)["config.yaml"] == "newest"
    assert stored.read().version == stored.order.last()
    put(one, {"config.yaml": "oldest"})
    with pytest.raises(RunBusy):
        one.publish()


def test_trials_stay_on_the_machine_that_made_them(copy: Copy, stored: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = {"choice/scores.json": "{}", "sweep/trials/0001/stages/ingest.json": "{}"}
    put(copy("one"), {**FIRST, **trials, "sweep/journal.log": "j", "model/choice/a": "no trial"})
    published = {**FIRST, "sweep/journal.log": "j", "model/choice/a": "no trial"}
    copy("one").publish()
    assert as_read(stored) == published
    assert copy("one").fetch() == []
    assert content(copy("one").folder).keys() > trials.keys(), "the search goes on"
    with monkeypatch.context() as patched:  # as an earlier release did
        patched.setattr("pipelines.working_copies.NOT_STORED", set())
        copy("one").publish()
    assert as_read(stored).keys() > trials.keys()
    copy("two").fetch()
    assert content(copy("two").folder) == published
    assert copy("two").publish() is not None
    assert as_read(stored) == published


def test_opened_versions_are_removed_once_nothing_uses_them(
    copy: Copy, stored: StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoredRun, "at", lambda uri: stored)
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path / "cache"))
    opened = list[Path]()
    for number in range(3):
        put(copy("one"), {**FIRST, "config.yaml": str(number)})
        copy("one").publish()
        opened.append(open_stored("s3://bucket/run"))
        assert open_stored("s3://bucket/run") == opened[-1]
        left = opened[0].parent.with_name(f"20250101T00000{number}-aaaa")  # by a process that has ended
        (left / "run").mkdir(parents=True)
        recent = left.with_name(f"20250102T00000{number}-aaaa")
        recent.mkdir()
        for folder in (left, *(path.parent for path in opened)):
            os.utime(folder, (0, 0))
    folders = {path.name for path in left.parent.iterdir() if path.is_dir()}
    used = {path.parent.name for path in opened}
    assert folders == {*used, left.name, *(f"20250102T00000{number}-aaaa" for number in range(3))}
    assert [content(path)["config.yaml"] for path in opened] == ["0", "1", "2"], "this process uses them"


def test_a_fetch_that_was_stopped_goes_on(copy: Copy, stored: StoredRun, monkeypatch: pytest.MonkeyPatch) -> None:
    put(copy("one"), {**FIRST, **PUBLISHED})
    copy("one").publish()
    put(copy("one"), {"config.yaml": "b", "products/a.tif": "B"})
    other, fetch, count = copy("other"), StoredRun.fetch, iter(range(3))
    other.fetch()
    copy("one").publish()

    def stopping(self: StoredRun, file: stored_runs.StoredFile, path: Path) -> None:
        if next(count) == 1:
            raise Killed
        fetch(self, file, path)

    with monkeypatch.context() as patched:
        patched.setattr(StoredRun, "fetch", stopping)
        with pytest.raises(Killed):
            other.fetch()
    assert other.fetch() == [] or content(other.folder) == as_read(stored)
    assert content(other.folder) == as_read(stored)


def test_damage_is_named_and_not_used(copy: Copy, stored: StoredRun, tmp_path: Path) -> None:
    put(copy("one"), FIRST)
    version = copy("one").publish()
    assert version is not None
    path = tmp_path / "bucket" / version.files["model/weights"].object
    path.write_text("w" * 99 + "v")
    with pytest.raises(ArtefactDamaged, match=r"model/weights: its SHA-256 is not .*, as the marker says"):
        copy("other").fetch()
    path.unlink()
    with pytest.raises(ArtefactDamaged, match="an object that the marker names is not there"):
        copy("third").fetch()
    (tmp_path / "bucket" / "current.json").write_text("{")
    with pytest.raises(ArtefactDamaged, match=r"current.json cannot be read .*copy the version.json of the newest folder"):
        copy("other").fetch()


def test_a_version_names_no_file_outside_of_the_run() -> None:
    content = {"version": "v", "before": "", "written_utc": "", "host": ""}
    for name in ("../x", "/x", "a/../../x"):
        with pytest.raises(ValueError, match="outside of the run"):
            Version.from_json({**content, "files": {name: {"object": "o", "bytes": 1, "sha256": ""}}})


def test_superseded_objects_are_those_that_no_kept_version_needs(
    copy: Copy, stored: StoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoredRun, "at", lambda uri: stored)
    with pytest.raises(MissingInput, match="holds no run"):
        stored_runs.superseded("s3://bucket/run")
    versions = []
    for number in range(3):
        put(copy("one"), {**FIRST, "config.yaml": str(number)})
        versions.append(copy("one").publish())
    assert stored_runs.superseded("s3://bucket/run") == [], "they are young"
    named = stored_runs.superseded("s3://bucket/run", keep=1, grace=timedelta(seconds=-5))
    assert {Path(one.name).name for one in named} == {"config.yaml", "steps.jsonl", "version.json"}
    for one in named:
        stored.files.discard(one.name)
    assert as_read(stored) == {**FIRST, "config.yaml": "2"}
    assert stored_runs.check("s3://bucket/run") == stored_runs.CheckedRun(versions[-1].version, 4, 103, ())
    (stored.files.folder / versions[0].files["model/weights"].object).unlink()
    assert len(stored_runs.check("s3://bucket/run").damages) == 1


def test_two_writers_of_a_bucket_have_one_winner(bucket: str) -> None:
    turns = Turns(f"{bucket}/turns-{id(bucket)}/turns")
    assert turns.last() == ""
    turns.begin()
    first, second = "20260101T000000-aaaa", "20260101T000001-bbbb"
    assert turns.follow("", first)
    assert not turns.follow("", second)
    assert turns.last() == first
    assert turns.follow(first, second)
    assert turns.last() == second


def test_a_bucket_that_is_not_there_is_one_message(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path))
    copy = WorkingCopy(copy_folder("s3://no-such-bucket/runs") / "x", StoredRun.at("s3://no-such-bucket/runs/x"))
    for call in (copy.fetch, copy.begin):
        with pytest.raises(
            StateError, match=r"s3://no-such-bucket/runs/x: cannot be read or written: .*NoSuchBucket.*; check the"
        ):
            call()
    with pytest.raises(MissingInput, match=r"holds no run \(no current.json\)"):
        open_stored(f"{bucket}/runs/nothing")


def test_one_prefix_at_two_endpoints_has_two_copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    aws = copy_folder("s3://fields/runs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert copy_folder("s3://fields/runs") != aws
    assert json.dumps(str(aws)).count("fields-runs") == 1
