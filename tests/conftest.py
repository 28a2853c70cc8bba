"""Fixtures for every test: the shared real data, and an environment without side effects."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `flows` does, before torch is loaded

# No deadline: times are not tested. In CI the same examples every time, so that a failure comes from a change.
settings.register_profile("driftline", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("driftline")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("satellite/oscd")` is that folder of the real data; without it the test is skipped with the reason."""
    folder = Path(os.environ.get("DRIFTLINE_DATA", ROOT.parent / "shared" / "data"))

    def find(relative: str) -> Path:
        path = folder / relative
        if not path.exists():
            pytest.skip(f"real data not here: {path} (set DRIFTLINE_DATA to the folder that holds satellite/, medical/, digits/)")
        return path

    return find
