"""Keys of earlier versions: read under their new names, each with one note."""

from pathlib import Path

import pytest

from configs.load import load_run
from configs.renamed import RENAMED, Renamed, apply_renamed
from configs.tasks import TASKS
from configs.yaml_positions import Document, parse_yaml
from flows.steps import Silent
from flows.task import open_invocation

TABLE = {
    "old": Renamed("group.new"),
    "list.*.width": Renamed("list.*.width_px", "pixels"),
    "gone": Renamed(None, "nothing reads it"),
    "section": Renamed("part"),
    "source.kind": Renamed("source.kind", values={"locations": "sites"}, text=("{place}", "{site}")),
}


def applied(text: str, overrides: dict[str, str] | None = None) -> tuple[Document, list[str]]:
    document, notes = parse_yaml(text, "run.yaml"), []
    for key, place in (overrides or {}).items():
        document.key_positions[(key,)] = document.value_positions[(key,)] = place
    apply_renamed(document, notes.append, TABLE)
    return document, notes


def test_a_renamed_key_moves_with_its_line():
    document, notes = applied("name: x\nold: 3\n")
    assert document.data == {"name": "x", "group": {"new": 3}}
    assert document.position_of_value(("group", "new")) == "run.yaml:2"
    assert notes == ["run.yaml:2: old is now called group.new"]


def test_entries_of_lists_and_whole_sections_move():
    document, notes = applied("list: [{width: 1}, {other: 2}, {width: 3}]\nsection: {a: 1}\npart: {b: 2}\n")
    assert document.data == {"list": [{"width_px": 1}, {"other": 2}, {"width_px": 3}], "part": {"a": 1, "b": 2}}
    assert notes[0] == "run.yaml:1: list.0.width is now called list.0.width_px: pixels"
    assert len(notes) == 3


def test_a_retired_key_is_removed_and_a_renamed_value_replaced():
    document, notes = applied("gone: 1\nsource: {kind: locations}\n")
    assert document.data == {"source": {"kind": "sites"}}
    assert notes == [
        "run.yaml:1: gone no longer has an effect: nothing reads it",
        "run.yaml:2: `source.kind: locations` is now called `source.kind: sites`",
    ]


def test_old_and_new_name_together_are_a_mistake():
    document, _ = applied("old: 3\ngroup: {new: 4}\n")
    assert document.data == {"group": {"new": 4}}
    assert [(m.position, m.key, m.remedy) for m in document.mistakes] == [
        ("run.yaml:1", "old", "group.new is at run.yaml:2; keep that one")
    ]


def test_an_old_name_given_with_set_wins_over_the_file():
    document, _ = applied("old: 3\ngroup: {new: 4}\n", {"old": "--set old=3"})
    assert document.data == {"group": {"new": 3}}
    assert not document.mistakes


def test_values_that_are_not_mappings_are_left_to_the_schema():
    document, notes = applied("list: 3\nsource: [1]\ngroup: 5\nold: 1\n")
    assert document.data == {"list": 3, "source": [1], "group": 5}
    assert notes == ["run.yaml:4: old is now called group.new"]


def test_a_key_is_old_only_for_the_tasks_that_had_it():
    document, notes = parse_yaml("task: change\nevaluation: {bootstrap: 100}\n", "run.yaml"), []
    apply_renamed(document, notes.append)
    assert document.data["evaluation"] == {"bootstrap": 100}  # an unknown key, as before
    assert notes == []
    assert all(set(one.tasks) <= set(TASKS) for one in RENAMED.values())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "scenes").mkdir()
    path = tmp_path / "run.yaml"
    path.write_text(
        "name: small\n"
        f'source: {{kind: folder, path: "{tmp_path}/scenes", pattern: "{{date:%Y%m%d}}_{{band}}.tif", bands: [B4]}}\n'
        "samples: {variables: [{name: red, bands: [B4]}]}\n"
        "split: {validation_from: 2019-01-01, test_from: 2020-01-01}\n"
        f'runs: "{tmp_path}/runs"\n'
        "evaluation: {bootstrap: 100}\n"
    )
    return path


class Display(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def log(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("is_deployed", [False, True], ids=["plain", "deployed: the config is read twice"])
def test_the_retired_number_of_resamples_is_noted_once(config: Path, is_deployed: bool):
    display = Display()
    open_invocation(config, display=display, inputs_must_exist=False, is_deployed=is_deployed)
    assert len(display.notes) == 1
    assert display.notes[0].startswith(f"{config}:6: evaluation.bootstrap no longer has an effect")


def test_without_a_display_the_note_is_logged(config: Path, caplog: pytest.LogCaptureFixture):
    load_run(config, inputs_must_exist=False)
    assert len(caplog.records) == 1
    assert "evaluation.bootstrap no longer has an effect" in caplog.text
