"""The corpus: every hostile file, in one order, and a stratified sample of it."""

from __future__ import annotations

from collections import defaultdict

from tests.hostile import hdf5s, others, tiffs
from tests.hostile.case import Case


def all_cases() -> list[Case]:
    return [*tiffs.cases(), *hdf5s.cases(), *others.cases()]


def sample(cases: list[Case], count: int) -> list[Case]:
    """About `count` of them: of every kind in every group its share, spread evenly, at least one."""
    kinds: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        kinds[case.group, case.kind].append(case)
    chosen = []
    for alike in kinds.values():
        number = max(1, round(count * len(alike) / len(cases)))
        chosen += [alike[(2 * n + 1) * len(alike) // (2 * number)] for n in range(number)]
    return chosen
