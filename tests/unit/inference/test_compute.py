"""A prediction by threads, processes, Dask workers and slices is the same, byte for byte, also when workers are lost."""

import hashlib
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.compute import Compute
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.errors import RequestError, StateError
from pipelines.inference.predict import finish, predict, predict_slice
from pipelines.samples.variables import Variable
from pipelines.slices import Slice, SliceDone
from pipelines.sources.fake import FakeSource

sys.path.insert(0, str(Path(__file__).parent))  # workers import what they unpickle; importlib mode does not add test folders
from compute_driver import Deadly

KINDS = {
    "threads": Compute(workers=3),
    "processes": Compute("processes", workers=2),
    "dask": Compute("dask", workers=2),
}
ARGUMENTS = {"variables": (Variable("nir", "band", ("nir",)), Variable("red", "band", ("red",))), "intervals": None}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("compute") / "cube")
    ingest(FakeSource(dates=6, shape_yx=(90, 70), bands=("red", "nir")), None, uri, None, IngestSettings(chunk_px=32))
    return open_cube(uri)


@pytest.fixture
def arrange(dataset, predict_into, monkeypatch):
    """`arrange(folder, forecaster)`: a prediction of the stored cube in about 16 regions."""
    monkeypatch.setattr("pipelines.inference.tiling.TILES_PER_BATCH", 2)
    snapshot = {"snapshot": None}

    def of(folder, forecaster):
        return predict_into(dataset, forecaster, folder, tile_px=16, memory_mb=0, **ARGUMENTS, **snapshot)

    return of


def digests(prediction) -> dict[str, str]:
    files = sorted(Path(prediction.regions.uri).glob("*.region"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_wherever_it_is_predicted_the_bytes_are_the_same(arrange, conv, tmp_path, kind):
    here, there = arrange(tmp_path / "here", conv), arrange(tmp_path / "there", conv)
    predict(here)
    seen = []
    predict(there, KINDS[kind], lambda done, total: seen.append((done, total)))
    assert len(digests(here)) > 8
    assert digests(there) == digests(here)
    assert seen == [(n, len(digests(here))) for n in range(len(digests(here)) + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", pytest.param("dask", marks=pytest.mark.exhaustive)])  # that: test_class_map
def test_lost_workers_change_nothing(arrange, tmp_path, kind):
    expected = arrange(tmp_path / "expected", Deadly(tmp_path / "harmless"))
    predict(expected)
    deadly = tmp_path / "deadly"
    deadly.mkdir()
    (deadly / "kill-0").touch()
    prediction = arrange(tmp_path / "lost", Deadly(deadly))
    predict(prediction, KINDS[kind])
    assert digests(prediction) == digests(expected)
    assert not list(deadly.glob("kill-*"))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_workers_that_always_die_end_the_run_with_a_message(arrange, tmp_path):
    for number in range(40):
        (tmp_path / f"kill-{number:02}").touch()
    with pytest.raises(StateError, match=r"worker processes ended 3 times in a row .* lower compute.workers"):
        predict(arrange(tmp_path / "staging", Deadly(tmp_path)), Compute("processes", workers=1))


def test_an_error_of_a_worker_is_that_of_the_run(arrange, conv, tmp_path):
    conv.targets = 7
    with pytest.raises(Exception, match="unflatten"):
        predict(arrange(tmp_path, conv), Compute("processes", workers=1))


def test_slices_in_any_order_and_interrupted_make_the_whole(arrange, conv, tmp_path):
    whole, sliced = arrange(tmp_path / "whole", conv), arrange(tmp_path / "sliced", conv)
    predict(whole)
    generator = random.Random(0)
    rounds = [Slice(number, 5) for number in range(1, 6)]
    generator.shuffle(rounds)
    done = [predict_slice(sliced, one) for one in rounds[:-1]]
    assert all(one.made == one.size for one in done)
    assert predict_slice(sliced, rounds[0]) == SliceDone(0, done[0].size)
    with pytest.raises(StateError, match=rf"of {len(whole.regions.parts)} regions are missing or damaged"):
        finish(sliced)
    predict_slice(sliced, rounds[-1])
    finish(sliced)
    assert digests(sliced) == digests(whole)
    assert sorted(region.key for one in rounds for region in one.of(whole.regions.parts)) == sorted(
        region.key for region in whole.regions.parts
    )


def test_no_scheduler_no_gpu(arrange, conv, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.compute.SECONDS_TO_CONNECT", 1)
    prediction = arrange(tmp_path, conv)
    with pytest.raises(RequestError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 "):
        predict(prediction, Compute("dask", address="tcp://127.0.0.1:9"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RequestError, match=r"compute.gpus is set, but PyTorch sees no GPU here"):
        predict(replace(prediction, job=replace(prediction.job, device="cuda")))
    assert replace(prediction.job, device="cuda").key != prediction.job.key


def test_a_forecast_in_a_bucket_is_that_of_a_folder(arrange, conv, tmp_path, bucket):
    here, there = arrange(tmp_path / "here", conv), arrange(f"{bucket}/staging", conv)
    one, other = predict(here), predict(there, Compute(workers=2))
    for field in one.fields:
        np.testing.assert_array_equal(other.read(field, slice(3, 60)), one.read(field, slice(3, 60)))
    assert predict_slice(there, Slice(1, 1)).made == 0
    files, name = there.regions.files, there.regions.name_of(there.regions.parts[0])
    content = files.read(name)
    for damaged in (content[:-1], content[:10], b""):  # as an upload that was interrupted leaves it
        files.write(name, damaged)
        assert [bool(why) for _, why in there.regions.missing()] == [True]
    assert predict_slice(there, Slice(1, 1)).made == 1
    assert files.read(name) == content
    there.regions.sweep()
    assert there.regions.missing() == []
