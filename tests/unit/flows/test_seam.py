"""Whether tiles of a network without a finite halo may be published."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.stages import predict
from pipelines.errors import NotPublished
from pipelines.inference.ledger import Record, append_record, start_ledger


@pytest.fixture
def invocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose staged tiles disagree by a fifth of the intervals' half width."""
    start_ledger(tmp_path, {"key": "k"})
    append_record(tmp_path, Record("a", "0", seam_mean=0.01, seam_max=0.1, seam_count=30, seam_share=0.1))
    append_record(tmp_path, Record("b", "0", seam_mean=0.05, seam_max=0.2, seam_count=10, seam_share=0.5))
    reports: list[Any] = []
    monkeypatch.setattr(predict, "report", reports.append)
    steps = SimpleNamespace(skip=lambda stage, why: None)
    run = SimpleNamespace(prediction=SimpleNamespace(max_seam=0.1))
    return SimpleNamespace(folder=SimpleNamespace(staging=tmp_path), run=run, even_if_worse=False, steps=steps, reports=reports)


def test_tiles_that_do_not_agree_are_not_published(invocation: Any) -> None:
    with pytest.raises(NotPublished, match=r"disagree by 0\.200 half widths.*max_seam allows 0\.1\..*--even-if-worse"):
        predict.check_seams(invocation)
    assert invocation.reports == [invocation]


def test_they_are_where_that_is_wanted(invocation: Any) -> None:
    invocation.even_if_worse = True
    seam = predict.check_seams(invocation)
    assert (seam.count, seam.largest) == (40, 0.2)
    assert seam.share == pytest.approx(0.2)
    assert seam.mean == pytest.approx(0.02)


def test_tiles_that_agree_well_enough_are(invocation: Any) -> None:
    invocation.run.prediction.max_seam = 0.2001
    assert predict.check_seams(invocation).count == 40
    assert invocation.reports == []
