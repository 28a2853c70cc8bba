"""A sample of the hostile files (all of them: `make test-hostile`), by the command that users call."""

from pathlib import Path

import pytest

from tests.hostile.__main__ import run_all
from tests.hostile.batch import MEMORY_MB
from tests.hostile.case import Case
from tests.hostile.corpus import all_cases, sample
from tests.hostile.single import run_singles


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return all_cases()


def test_the_corpus_is_large_and_each_file_has_its_own_name(cases: list[Case]) -> None:
    assert len(cases) >= 1500
    assert len({(case.group, case.kind, case.name) for case in cases}) == len(cases)


def test_no_hostile_file_ends_an_ingest_or_is_read_as_something_else(cases: list[Case], tmp_path: Path) -> None:
    chosen = [case for case in sample(cases, 150) if not case.group.endswith("-warped")]
    total = run_all(chosen, tmp_path, divides=False)
    assert total.is_clean, total.line + "\n" + "\n".join(total.faults)
    assert total.files == len(chosen) > 130
    assert total.refused > 0.4 * total.files
    assert total.peak_mb <= 1.5 * MEMORY_MB


def test_cubes_stacks_and_labels_answer_with_values_or_a_refusal(tmp_path: Path) -> None:
    total = run_singles(tmp_path, every=19)
    assert total.is_clean, total.line + "\n" + "\n".join(total.faults)
    assert total.refused > 0 < total.accepted
    assert total.files > 20
