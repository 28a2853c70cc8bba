"""`cube.shard_px` through the command line: what plan and info say of it."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipelines.cube.store import open_cube

runner = CliRunner()
SHARDS = ["--set", "cube.chunk_px=16", "--set", "cube.shard_px=32"]


def call(*arguments: str) -> tuple[int, str]:
    found = runner.invoke(app, [*arguments])
    return found.exit_code, found.output


@pytest.mark.torch
def test_plan_and_info_say_that_blocks_are_stored_together(tiny_run: Path) -> None:
    said = "blocks of 16 px are stored together in objects 32 px wide (cube.shard_px)"
    assert said in call("ingest", str(tiny_run), *SHARDS, "--dry-run")[1]
    assert "stored together" not in call("ingest", str(tiny_run), "--dry-run")[1]
    assert call("ingest", str(tiny_run), *SHARDS)[0] == 0
    assert "in objects of 1 x 1 x 16 x 32" in call("info", "runs/tiny/cube")[1]
    assert said not in call("ingest", str(tiny_run), *SHARDS, "--dry-run")[1]  # a cube keeps what it has
    assert "60 unchanged" in call("ingest", str(tiny_run))[1]
    assert call("ingest", str(tiny_run), "--set", "name=usual")[0] == 0
    one, other = open_cube("runs/tiny/cube"), open_cube("runs/usual/cube")
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.content_hash, other.content_hash)


@pytest.mark.parametrize("width", [24, 8])
def test_a_width_that_is_no_multiple_is_a_mistake(tiny_run: Path, width: int) -> None:
    code, text = call("ingest", str(tiny_run), "--set", "cube.chunk_px=16", "--set", f"cube.shard_px={width}")
    assert code == 2
    assert "cube.shard_px: " in text
