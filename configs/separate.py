"""Staged tiles and states lie apart from the run and its cube: `driftline gc` and `--restart` remove what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator

from configs.schema import Finding, Sections
from pipelines.stored_files import absolute, is_remote

KEPT = (("monitoring", "state"), ("prediction", "staging"), ("cube", "staging"))  # section, key: also its folder in the run's


def check_separate(sections: Sections) -> Iterator[Finding]:
    """Findings for places whose folder of the run's name is, holds or lies in the run's folder or its cube."""
    name, runs, uri = sections.get("name"), sections.get("runs"), getattr(sections.get("cube"), "uri", None)
    if name is None or runs is None:
        return
    run, cube = parts_of(f"{runs}/{name}"), None if uri is None else parts_of(uri)
    for section, key in KEPT:
        asked = getattr(sections.get(section), key, None)
        if asked is None:
            continue
        place = parts_of(f"{asked}/{name}")
        is_own = place[: len(run) + 1] == (*run, key)
        others = {"the run's folder": None if is_own else run, "the cube": cube}
        for what, other in others.items():
            if other is not None and (place[: len(other)] == other or other[: len(place)] == place):
                problem = f"keeps files of this run in {asked.rstrip('/')}/{name}, which is, holds or lies in {what}"
                remedy = f"name a place of its own, or leave it out: then they are in {runs}/{name}/{key}"
                yield Finding((section, key), problem, remedy)
                break


def parts_of(uri: str) -> tuple[str, ...]:
    """What two names of one place share: links on a disk are followed."""
    scheme, _, path = uri.partition("://") if is_remote(uri) else ("", "", os.path.realpath(absolute(uri)))
    return scheme, *(part for part in path.split("/") if part)
