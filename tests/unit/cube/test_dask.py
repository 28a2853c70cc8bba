import dask
import numpy as np
import pytest

from pipelines.compute import Compute
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.sources.fake import FakeSource
from pipelines.sources.quality import SclMask


@pytest.mark.slow
@pytest.mark.parametrize("in_processes", [False, True])
def test_workers_of_a_cluster_give_the_same_cube(tmp_path, in_processes):
    """Workers in threads or in spawned processes; each scene is pickled for them, into a fork of the session."""
    from distributed import LocalCluster

    source, quality_mask = FakeSource(dates=5, shape_yx=(24, 40), cloud_fraction=0.6), SclMask(keep=(4,))
    settings = {"chunk_px": 16, "min_valid_fraction": 0.3}
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    expected = ingest(source, quality_mask, here, None, IngestSettings(**settings))
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}),
        LocalCluster(
            n_workers=2 if in_processes else 1,
            threads_per_worker=1 if in_processes else 2,
            processes=in_processes,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
    ):
        with_dask = IngestSettings(**settings, compute=Compute("dask", address=cluster.scheduler_address))
        report = ingest(source, quality_mask, there, None, with_dask)
        assert report.added == expected.added
        assert [e.reason for e in report.refused] == [e.reason for e in expected.refused]
        assert ingest(source, quality_mask, there, None, with_dask).snapshot == report.snapshot
    a, b = open_cube(here), open_cube(there)
    for name in ("time", "scene_id", "content_hash", "image", "valid"):
        assert np.array_equal(a[name].values, b[name].values), name
