"""A cube in a bucket, on a local moto server instead of S3. No traffic leaves this machine."""

import importlib.util
import random
import sys
from dataclasses import replace
from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr

from pipelines.cube.checking import check_cube
from pipelines.cube.history import list_versions
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube, open_repository
from pipelines.errors import DriftlineError, MissingInput

_spec = importlib.util.spec_from_file_location("cube_sources", Path(__file__).parent / "cube_sources.py")
cube_sources = sys.modules.setdefault("cube_sources", importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(cube_sources)
PickedSource, RULE = cube_sources.PickedSource, cube_sources.RULE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("moto") is None, reason="moto is not installed: pip install 'driftline[dev]'"),
]

SETTINGS = IngestSettings(chunk_px=16, workers=2)
FLIPS = 40
SCENES = PickedSource(dates=6, shape_yx=(24, 40))


@pytest.fixture
def uri(bucket, request):
    return f"{bucket}/{request.node.name}"


def test_a_cube_in_a_bucket_equals_the_local_cube(uri, tmp_path):
    with pytest.raises(MissingInput, match="holds no cube"):
        open_cube(uri)
    report = ingest(SCENES, RULE, uri, None, SETTINGS)
    assert len(report.added) == 6
    again = ingest(SCENES, RULE, uri, None, SETTINGS)
    assert again.snapshot == report.snapshot
    assert len(again.unchanged) == 6
    local = str(tmp_path / "cube")
    ingest(SCENES, RULE, local, None, SETTINGS)
    here, there = open_cube(local), open_cube(uri)
    for name in ("time", "scene_id", "content_hash", "image", "valid"):
        assert np.array_equal(here[name].values, there[name].values), name
    assert not list(tmp_path.glob("*s3*")), "no lock file is created for a bucket"


def test_a_late_scene_in_a_bucket_is_inserted_at_its_date(uri):
    ingest(replace(SCENES, picked=(0, 1, 3, 4, 5)), RULE, uri, None, SETTINGS)
    ingest(SCENES, RULE, uri, None, SETTINGS)
    cube = open_cube(uri)
    assert (np.diff(cube["time"].values) > np.timedelta64(0)).all()
    assert cube["scene_id"].values.tolist() == [scene.id for scene in SCENES.list_scenes().scenes]
    assert len(list_versions(uri)) >= 2


def test_the_slower_of_two_writers_restarts_from_the_new_version(uri):
    """The second writer commits while the first is writing; the first must notice, and both keep their scenes."""
    ingest(replace(SCENES, picked=(0, 1)), RULE, uri, None, SETTINGS)
    intruded = []

    def intrude(done: int, total: int) -> None:
        if not intruded:
            intruded.append(ingest(replace(SCENES, picked=(0, 1, 2, 3)), RULE, uri, None, SETTINGS))

    report = ingest(replace(SCENES, picked=(0, 1, 4, 5)), RULE, uri, None, SETTINGS, progress=intrude)
    assert len(intruded) == 1
    assert intruded[0].added == tuple(scene.id for scene in SCENES.list_scenes().scenes[2:4])
    assert report.added == tuple(scene.id for scene in SCENES.list_scenes().scenes[4:6])
    cube = open_cube(uri)
    assert cube["scene_id"].values.tolist() == [scene.id for scene in SCENES.list_scenes().scenes]
    grid = SCENES.native_grid()
    for index, scene in enumerate(SCENES.list_scenes().scenes):
        assert np.array_equal(cube["image"][index].values, SCENES.read(scene, grid, ("red", "nir"), "nearest"))


class Bucket:
    """The objects of a cube; boto3 comes with moto."""

    def __init__(self, uri: str, endpoint: str):
        import boto3

        self.name, _, self.prefix = uri.removeprefix("s3://").partition("/")
        self.client = boto3.client("s3", endpoint_url=endpoint)

    def read_all(self) -> dict[str, bytes]:
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=f"{self.prefix}/")["Contents"]
        return {one["Key"]: self.client.get_object(Bucket=self.name, Key=one["Key"])["Body"].read() for one in listed}

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)


def test_every_flipped_bit_in_a_bucket_is_seen(uri, s3_endpoint):
    ingest(replace(SCENES, picked=(0, 1, 3)), RULE, uri, None, SETTINGS)
    ingest(SCENES, RULE, uri, None, SETTINGS)
    bucket = Bucket(uri, s3_endpoint)
    whole = {key: content for key, content in bucket.read_all().items() if content}
    clean = check_cube(uri)
    assert (clean.damages, clean.files) == ((), ())
    kinds = sorted({key.split("/")[1] for key in whole})
    assert {"chunks", "manifests", "refs", "snapshots", "transactions", "SHA256SUMS"} <= {*kinds}
    rng, unseen = random.Random(3), []
    for number in range(FLIPS):
        kind = kinds[number % len(kinds)]
        key = rng.choice([one for one in sorted(whole) if one.split("/")[1] == kind])
        changed, bit = bytearray(whole[key]), rng.randrange(8 * len(whole[key]))
        changed[bit // 8] ^= 1 << bit % 8
        bucket.put(key, bytes(changed))
        try:
            report = check_cube(uri)
            unseen += [] if report.damages or report.files else [(key, bit)]
        except DriftlineError:
            pass
        bucket.put(key, whole[key])
    assert not unseen


def test_a_stale_session_is_refused_by_the_bucket(uri):
    """The retry depends on this: the bucket itself, not a lock, refuses two commits from the same version."""
    ingest(replace(SCENES, picked=(0,)), RULE, uri, None, SETTINGS)
    repository = open_repository(uri)
    one, other = repository.writable_session("main"), repository.writable_session("main")
    for session, text in ((one, "one"), (other, "other")):
        zarr.open_group(session.store, mode="r+").attrs["title"] = text
    one.commit("one")
    with pytest.raises(icechunk.ConflictError):
        other.commit("other")
