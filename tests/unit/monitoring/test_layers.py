"""The map of a state: blocks of tiles in region files, read by rows."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import MissingInput, StateError
from pipelines.inference.regions import Regions
from pipelines.monitoring.layers import Layers
from pipelines.monitoring.replay import advance_all, advance_slice, require_copied, require_current
from pipelines.slices import Slice

_spec = importlib.util.spec_from_file_location("monitored_cube", Path(__file__).parent / "monitored_cube.py")
assert _spec is not None
assert _spec.loader is not None
cube = sys.modules.setdefault("monitored_cube", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube)


def test_layers_that_were_made_from_another_state_are_written_again(tmp_path, monkeypatch):
    monitoring = cube.make_monitoring(dict.fromkeys(range(55), "first"), tmp_path)
    advance_all(monitoring)
    before = Layers.open(monitoring.layers).map("score")[:]

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    later = cube.make_monitoring(dict.fromkeys(range(60), "first"), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Regions, "writing", killed)
        with pytest.raises(KeyboardInterrupt):
            advance_all(later)
    np.testing.assert_array_equal(Layers.open(later.layers).map("score")[:], before)
    assert advance_all(later).steps > 0, "the block that was killed and those after it"
    require_current(later)
    score = Layers.open(later.layers).map("score")
    assert (score[:] > before).any()
    assert score.at(3, 9) == score[3:4][0, 9]
    advance_all(cube.make_monitoring(dict.fromkeys(range(60), "first"), tmp_path / "fresh"))
    assert {k: v for k, v in cube.digests(tmp_path).items() if not k.startswith("fresh")} == cube.digests(tmp_path / "fresh")


def test_layers_that_change_while_they_are_copied_are_refused(tmp_path, bucket):
    monitoring, later = (cube.make_monitoring(dict.fromkeys(range(n), "first"), f"{bucket}/changing") for n in (50, 55))

    def advance_meanwhile(copied: Regions) -> None:
        require_copied(monitoring, copied)
        advance_slice(later, Slice(1, 2))
        require_copied(monitoring, copied)

    advance_all(monitoring)
    with pytest.raises(StateError, match=r"1 block of 2 changed while the layers were copied: r000000.*run `driftline monitor"):
        Layers.open(monitoring.layers, advance_meanwhile).map("score")


def test_a_state_without_layers_is_named(tmp_path):
    with pytest.raises(MissingInput, match="no change layers here; run `driftline monitor CONFIG` first"):
        Layers.open(cube.make_monitoring({0: "first"}, tmp_path).layers)
