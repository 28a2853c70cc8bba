"""Which files growth and motion leave, of which series; nothing of another kind stays."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from flows.track import track
from pipelines.products.track_series import NAMES

GROWTH = {"growth.csv", "totals.csv", "growth.png"}
MOTION = {"motion.csv", "cycle.csv", "motion.png"}


def write_visits(folder: Path, count: int) -> Path:
    """Masks of two lesions (1 x 1 x 2 mm) at visits 100 days apart: one grows, one stays."""
    folder.mkdir(exist_ok=True)
    for t in range(count):
        mask = np.zeros((30, 24, 16), np.uint8)
        mask[3 : 9 + 2 * t, 3:9, 3:8] = mask[20:27, 14:20, 5:10] = 1
        day = np.datetime64("2024-01-01") + np.timedelta64(100 * t, "D")
        nibabel.save(nibabel.Nifti1Image(mask, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"visit_{day}.nii.gz")
    return folder


def write_frames(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for t in range(count):
        mask = np.zeros((40, 50), np.uint8)
        mask[5 : 25 + round(8 * np.cos(2 * np.pi * t / 8)), 10:30] = 1
        Image.fromarray(mask).save(folder / f"label_{t:02d}.png")
    return folder


def there(out: Path) -> set[str]:
    return {name for name in NAMES if (out / name).is_file()}


def test_visits_have_growth_and_a_check_from_the_third_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    record = track([write_visits(tmp_path / "in", 2)], out)
    assert there(out) == GROWTH
    assert "no track has three visits" in record["growth"]["intervals"]
    assert any("all objects together: +" in line for line in record["lines"])
    record = track([write_visits(tmp_path / "in", 4)], out)
    assert there(out) == GROWTH | {"growth_check.csv"}
    assert {str(out / name) for name in there(out)} <= set(record["files"])
    assert record["growth"]["check"]["tracks"] == 2
    table = pd.read_csv(out / "growth.csv")
    assert table.columns.tolist() == [
        "track_id", "visits", "first_date", "last_date", "last_volume_mm3", "percent_per_month", "percent_per_month_low",
        "percent_per_month_high", "direction", "doubling_days", "doubling_days_low", "doubling_days_high", "halving_days",
        "halving_days_low", "halving_days_high", "next_date", "next_volume_mm3", "next_volume_mm3_low", "next_volume_mm3_high",
        "ended", "at_edge",
    ]  # fmt: skip
    assert table.next_date.tolist() == ["2025-02-04"] * 2
    with Image.open(out / "growth.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_frames_have_motion_and_what_growth_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    track([write_visits(tmp_path / "in", 4)], out)
    record = track([write_frames(tmp_path / "frames", 24)], out, pattern="label_{frame}.png")
    assert there(out) == MOTION
    assert record["motion"] == {"regions": 1, "with_period": 1, "unit": "steps"}
    assert pd.read_csv(out / "cycle.csv").period_steps[0] == pytest.approx(8, rel=0.02)
    with Image.open(out / "motion.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    track([write_frames(tmp_path / "few", 5)], out, pattern="label_{frame}.png")
    assert there(out) == GROWTH | {"growth_check.csv"}


def test_the_next_visit_and_the_error_of_outlines_can_be_stated(tmp_path: Path) -> None:
    visits, runner = write_visits(tmp_path / "in", 2), CliRunner()
    widths = []
    for error in ("0.1", "0.4"):
        command = ["track", str(visits), "--out", str(tmp_path / "out"), "--next-in", "30", "--edge-error", error, "--json"]
        result = runner.invoke(app, command)
        assert result.exit_code == 0, result.output
        assert error in json.loads(result.stdout)["growth"]["intervals"]
        table = pd.read_csv(tmp_path / "out" / "growth.csv")
        assert table.next_date.tolist() == ["2024-05-10"] * 2
        rates = 1 + table[["percent_per_month_low", "percent_per_month_high"]].to_numpy() / 100
        widths.append(np.log(rates[:, 1] / rates[:, 0]))
    np.testing.assert_allclose(widths[1], 4 * widths[0])
