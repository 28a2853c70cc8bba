"""Sites that several slices of a run decode at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from pipelines.change.sites import SiteSettings, open_sites
from pipelines.compute import HERE, Compute
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import head_snapshot
from pipelines.progress import ignore_progress
from pipelines.samples import pairs
from pipelines.samples.decoded_sites import SiteFiles
from pipelines.sources.fake import FakeSource

SLICES = 3
SETTINGS = SiteSettings(pairs.PairSettings(coregister=False))


def test_slices_that_start_together_decode_a_site_once_and_see_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, samples = str(tmp_path / "cube"), tmp_path / "samples"
    ingest(FakeSource(dates=2, shape_yx=(40, 32)), None, uri, None, IngestSettings(chunk_px=32))
    measured, together, measure_site = [], Barrier(SLICES), pairs.measure_site

    def measure_slowly(*arguments: object) -> pairs.SiteFrame:
        measured.append(arguments)
        time.sleep(0.3)
        return measure_site(*arguments)

    def open_in_slice(made_from: str) -> np.ndarray:
        files = {"a": SiteFiles(uri, head_snapshot(uri), None, samples / "a", {"code": made_from})}
        together.wait()
        return np.array(open_sites(files, SETTINGS, print, ignore_progress).all["a"].x_TCHW)

    monkeypatch.setattr(pairs, "measure_site", measure_slowly)
    half = samples / ".b.123" / "x.npy"  # of a slice that decodes another site
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    with ThreadPoolExecutor(SLICES) as pool:
        for count, made_from in enumerate(("one release", "another"), start=1):  # the second one replaces what is there
            one, *others = pool.map(open_in_slice, [made_from] * SLICES)
            assert len(measured) == count
            for other in others:
                np.testing.assert_array_equal(one, other)
    assert half.exists()


@pytest.mark.parametrize(
    "compute", [Compute(workers=3), pytest.param(Compute("processes", workers=2), marks=pytest.mark.exhaustive)]
)
def test_sites_decoded_by_workers_are_those_of_one(tmp_path: Path, compute: Compute) -> None:
    said: dict[str, list[str]] = {"here": [], "there": []}
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        source = FakeSource(dates=2, shape_yx=(40, 32), seed=seed)
        ingest(source, None, str(tmp_path / name), None, IngestSettings(chunk_px=32))
    for folder, who in (("here", HERE), ("there", compute)):
        files = {}
        for name in ("c", "a", "b"):
            uri = str(tmp_path / name)
            files[name] = SiteFiles(uri, head_snapshot(uri), None, tmp_path / folder / name, {"site": name})
        settings = SiteSettings(pairs.PairSettings(coregister=True))
        opened = open_sites(files, settings, said[folder].append, ignore_progress, who)
        assert list(opened.all) == ["c", "a", "b"]
    here, there = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
        for folder in (tmp_path / "here", tmp_path / "there")
    )
    assert here == there
    assert len(here) >= 3 * 4
    assert said["here"] == said["there"]
    assert len(set(said["here"])) >= 3
