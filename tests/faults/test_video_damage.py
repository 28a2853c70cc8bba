"""Damaged video files end as messages: no process dies or hangs, and no truncated file is taken for a whole one."""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av")
_spec = importlib.util.spec_from_file_location("clips", Path(__file__).parents[1] / "unit" / "sources" / "clips.py")
clips = sys.modules.setdefault("clips", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(clips)
FRAMES = 12


@pytest.mark.slow
@pytest.mark.parametrize("suffix", clips.CODECS)
def test_damaged_clips_are_refused_or_read_and_nothing_dies(tmp_path: Path, suffix: str):
    whole, damaged = clips.make_clip(tmp_path / f"whole{suffix}", FRAMES).read_bytes(), tmp_path / "damaged"
    damaged.mkdir()
    cuts = sorted({len(whole) * part // 20 for part in range(1, 20)} | {len(whole) - n for n in range(1, 8)})
    for cut in cuts:
        (damaged / f"cut{cut:07d}{suffix}").write_bytes(whole[:cut])
        (damaged / f"zero{cut:07d}{suffix}").write_bytes(whole[:cut] + bytes(len(whole) - cut))
    draw = random.Random(suffix)
    for number in range(30):
        flipped = bytearray(whole)
        for _ in range(1 + number):
            flipped[draw.randrange(len(flipped))] = draw.randrange(256)
        (damaged / f"flip{number:02d}{suffix}").write_bytes(flipped)
    driver = [sys.executable, str(Path(__file__).with_name("video_driver.py")), str(damaged)]
    done = subprocess.run(driver, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = dict(map(json.loads, done.stdout.splitlines()))
    assert len(results) == 2 * len(cuts) + 30
    assert [name for name, result in results.items() if name.startswith("cut") and "refused" not in result] == []
    # what is zero in a file may have been zero before; but never are there fewer frames than the file holds
    assert {result for name, result in results.items() if name.startswith("zero")} - {f"{FRAMES} frames"} != set()
    assert all(result == f"{FRAMES} frames" or "refused" in result for name, result in results.items() if name[:4] == "zero")
