"""Decisions of readers: how they are read, which lesion they mean, and what becomes of those that mean none."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import MissingInput, RequestError
from pipelines.follow_up.decisions import COLUMNS, Decision, decide, read_decisions, require_table
from pipelines.follow_up.events import EventSettings, follow_lesions
from tests.made_lesions import GRID, ellipsoid, sphere

A, B, C = (-22.0, -20.0, -12.0), (0.0, 20.0, 0.0), (22.0, -10.0, 12.0)
VISITS = ("1", "2")
HEAD = ",".join(COLUMNS)


def followed():  # type: ignore[no-untyped-def]
    return follow_lesions(np.stack([sphere(A, 0.3) | sphere(B, 0.3), sphere(B, 0.6) | sphere(C, 0.3)]), GRID, EventSettings())


def decided(*decisions: Decision) -> tuple[dict[str, str], list[Decision]]:
    """(event -> status, decisions that find no lesion)."""
    lesions, unmatched = decide(followed(), GRID, "p", VISITS, decisions)
    return {one.change.event: one.status for one in lesions}, unmatched


def test_a_decision_means_the_lesion_at_its_place() -> None:
    found, unmatched = decided(Decision("p", VISITS, C, "confirm"), Decision("p", VISITS, A, "reject"))
    assert found == {"disappearing": "rejected", "enlarging": "proposed", "new": "confirmed"}
    assert unmatched == []


def test_a_place_at_the_edge_still_means_it_and_one_beyond_its_reach_none() -> None:
    radius = (300 * 6 / np.pi) ** (1 / 3) / 2
    near, far = (C[0] + radius + 2, C[1], C[2]), (C[0] + radius + 5, C[1], C[2])
    assert decided(Decision("p", VISITS, near, "confirm"))[0]["new"] == "confirmed"
    lost = Decision("p", VISITS, far, "confirm")
    assert decided(lost) == ({"disappearing": "proposed", "enlarging": "proposed", "new": "proposed"}, [lost])


def test_other_visits_and_patients_are_other_lesions() -> None:
    wrong = Decision("p", ("2", "3"), C, "reject")
    found, unmatched = decided(wrong, Decision("q", VISITS, C, "reject"))
    assert set(found.values()) == {"proposed"}
    assert unmatched == [wrong]


def test_a_later_line_replaces_an_earlier_one() -> None:
    assert decided(Decision("p", VISITS, C, "reject"), Decision("p", VISITS, C, "confirm"))[0]["new"] == "confirmed"


def test_a_moved_lesion_has_its_new_place_and_is_still_found_by_the_old_one() -> None:
    lesions, _ = decide(followed(), GRID, "p", VISITS, [Decision("p", VISITS, C, "move", (1.0, 2.0, 3.0))])
    moved = next(one for one in lesions if one.status == "moved")
    assert moved.place_mm == (1.0, 2.0, 3.0)
    assert np.linalg.norm(np.subtract(moved.change.place_mm, C)) < 1
    assert moved.counts


def statuses(*decisions: Decision, last: np.ndarray | None = None) -> dict[tuple[int, str], str]:
    """(interval, event) -> status of three visits: a lesion at C from the second one on; of `last` also at the third."""
    third = sphere(C, 0.3) if last is None else last
    lesions, _ = decide(
        follow_lesions(
            np.stack([sphere(A, 0.3), sphere(A, 0.3) | sphere(C, 0.3), sphere(A, 0.3) | third]), GRID, EventSettings()
        ),
        GRID,
        "p",
        ("1", "2", "3"),
        decisions,
    )
    return {(one.change.interval, f"{one.change.event} {one.change.number}"): one.status for one in lesions}


def test_what_is_rejected_is_no_lesion_at_later_visits() -> None:
    reject = Decision("p", VISITS, C, "reject")
    rejected = statuses(reject)
    assert rejected == {
        (0, "stable 1"): "proposed",
        (0, "new 2"): "rejected",
        (1, "stable 1"): "proposed",
        (1, "stable 2"): "rejected",
    }
    own = statuses(reject, Decision("p", ("2", "3"), C, "confirm"))
    assert own[1, "stable 2"] == "confirmed"
    assert statuses(Decision("p", ("2", "3"), C, "reject"))[0, "new 2"] == "proposed"


def test_what_merges_with_a_lesion_that_counts_counts() -> None:
    bridge = ellipsoid((0.0, -15.0, 0.0), (56.0, 26.0, 36.0))
    found = statuses(Decision("p", VISITS, C, "reject"), last=bridge | sphere(C, 0.3))
    assert [status for (interval, event), status in found.items() if interval == 1] == ["proposed"], found


def test_what_a_page_saves_is_read_as_it_was(tmp_path: Path) -> None:
    rows = [Decision("p", VISITS, C, "confirm", event="new"), Decision("p", VISITS, A, "move", (1.0, 2.0, 3.0), "disappearing")]
    text = "\n".join([HEAD, *(",".join(one.row().values()) for one in rows)])
    (tmp_path / "a.csv").write_text(text + "\n")
    (tmp_path / "b.csv").write_text(HEAD + "\n")
    found = read_decisions(tmp_path)
    assert [(one.place_mm, one.kind, one.new_mm, one.event) for one in found] == [
        (one.place_mm, one.kind, one.new_mm, one.event) for one in rows
    ]
    assert found[1].line == "a.csv:3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("patient,decision\np,confirm\n", "no column from_visit, to_visit, x_mm, y_mm, z_mm"),
        (f"{HEAD}\np,1,2,1,2,3,new,maybe,,,\n", r"d.csv:2: decision is 'maybe'; expected confirm, reject, move"),
        (f"{HEAD}\np,1,2,1,2,far,new,confirm,,,\n", r"d.csv:2: x_mm, y_mm, z_mm are positions in mm"),
        (f"{HEAD}\np,1,2,1,2,nan,new,confirm,,,\n", r"d.csv:2: x_mm, y_mm, z_mm are positions in mm, all of them numbers"),
        (f"{HEAD}\np,1,2,1,2,3,new,move,,,\n", r"d.csv:2: new_x_mm, new_y_mm, new_z_mm are positions in mm"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "d.csv").write_text(content)
    with pytest.raises(RequestError, match=message):
        read_decisions(tmp_path / "d.csv")


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no decisions here"):
        read_decisions(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "large.csv").write_bytes(b"")
    os.truncate(tmp_path / "large.csv", 10_000_001)
    with pytest.raises(RequestError, match=r"^large.csv: larger than 10 MB"):
        require_table(tmp_path / "large.csv")
    with pytest.raises(RequestError, match=r"x.csv: not a CSV file in UTF-8"):
        read_decisions(tmp_path / "x.csv")
