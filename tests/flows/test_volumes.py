"""A series of volumes whose truth is known, from scans to tracks: a sphere of a patient that grows, moves and vanishes."""

import subprocess
import sys
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest

from models.baselines.pointwise import Persistence
from models.losses import masked_huber
from models.networks.conv_gru_forecaster import ConvGRUSettings
from models.networks.encoder_forecaster import ConvLSTMSettings
from models.networks.patched import PatchedSettings
from models.networks.predrnn_forecaster import PredRNNSettings
from models.residual_forecaster import Scaling, build_forecaster
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import grid_of, open_cube
from pipelines.errors import SceneRefused
from pipelines.grid import Grid, PatientFrame
from pipelines.inference.job import Prediction, plan_job
from pipelines.inference.predict import predict
from pipelines.learning.member import VALIDATION_LOSS, TrainingSettings, frame_weight
from pipelines.learning.training import train
from pipelines.samples.audit import audit
from pipelines.samples.cache import build_samples
from pipelines.samples.plan import Sampling, Split
from pipelines.samples.prepare import SampleSettings, channel_statistics, plan_cube
from pipelines.samples.variables import Variable
from pipelines.samples.windows import steps_from
from pipelines.scene import Asset, Band, Scene
from pipelines.sources.source import Listing, Resampling
from pipelines.tracking.objects import Space
from pipelines.tracking.table import as_tables
from pipelines.tracking.tracks import TrackSettings, track_objects

DATES, VANISHES, FIRST = 12, 10, np.datetime64("2024-01-01", "ns")
VARIABLE = Variable("intensity", "band", ("t1",))
MM_ZYX = (3.0, 0.8, 0.8)


def oblique(shape: tuple[int, ...]) -> Grid:
    """Voxels of 0.8 x 0.8 x 3 mm, turned by 30 degrees about x."""
    cos, sin = np.cos(np.pi / 6), 0.5
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.diag(MM_ZYX[::-1])
    return Grid.from_centres(PatientFrame("1.2.840.1"), np.column_stack([turn, [-20.0, -15.0, 40.0]]), shape)


@dataclass(frozen=True)
class SphereSource:
    """A bright sphere: radius 6 mm + 0.4 mm a date, its centre moves by 1 mm a date along x; none from `VANISHES` on."""

    shape: tuple[int, ...] = (14, 36, 40)
    bands: tuple[Band, ...] = field(default=(Band("t1", nodata=0, unit="1"),))

    def dtype(self) -> np.dtype:
        return np.dtype("uint16")

    def native_grid(self) -> Grid:
        return oblique(self.shape)

    def grid_of(self, scene: Scene, name: str) -> Grid:
        return self.native_grid()

    def list_scenes(self) -> Listing:
        days = FIRST + 30 * np.arange(DATES) * np.timedelta64(1, "D")
        return Listing([Scene(f"scan-{n:02d}", day, {"t1": Asset("made", index=n)}) for n, day in enumerate(days)])

    def read(
        self, scene: Scene, grid: Grid, names: tuple[str, ...], resampling: Resampling, rows: slice | None = None
    ) -> np.ndarray:
        if not grid.is_aligned(self.native_grid()):
            raise SceneRefused(scene.id, "wrong-grid", "made volumes are not resampled")
        number = scene.assets["t1"].index
        noise = np.random.default_rng(number).normal(0, 20, self.shape)
        values = np.where(self.mask(number), 900, 300) + noise
        return values.astype("uint16")[None, rows or slice(None)]

    def mask(self, number: int) -> np.ndarray:
        """Which voxels the sphere covers, bool (z, y, x)."""
        z, y, x = (size * (np.arange(count) + 0.5) for size, count in zip(MM_ZYX, self.shape, strict=True))
        centre = (20.0, 14.0, 12.0 + number)
        away = (z[:, None, None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[2]) ** 2
        return (away <= (6 + 0.4 * number) ** 2) & (number < VANISHES)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("volumes") / "cube")
    report = ingest(SphereSource(), None, uri, None, IngestSettings(chunk_px=64))
    assert (len(report.added), len(report.refused)) == (DATES, 0)
    return uri


def test_a_cube_of_volumes_holds_what_was_scanned_where_it_was(cube):
    dataset, source = open_cube(cube), SphereSource()
    assert dataset.image.dims == ("time", "band", "z", "y", "x")
    assert dataset.attrs["driftline_format"] == 2
    for number, scene in enumerate(source.list_scenes().scenes):
        expected = source.read(scene, source.native_grid(), ("t1",), "nearest")
        np.testing.assert_array_equal(dataset.image[number].values, expected)
    assert grid_of(dataset) == source.native_grid()
    assert not ingest(source, None, cube, None, IngestSettings(chunk_px=64)).is_new
    np.testing.assert_allclose(np.diff(dataset.z), 3.0)


def settings() -> SampleSettings:
    split = Split(block_px=12, buffer_px=1, validation_from="2024-07-15", test_from="2024-09-15")
    return SampleSettings((VARIABLE,), split, Sampling(), context=2, horizon=1, min_valid_fraction=0.1)


NETWORKS = {
    "convlstm": ConvLSTMSettings(hidden=(4,)),
    "convgru": ConvGRUSettings(hidden=(4,)),
    "patched predrnn": PatchedSettings(PredRNNSettings(hidden=(4,)), 2),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_forecaster_of_volumes_learns_and_its_tiles_equal_the_whole(cube, network, tmp_path: Path):
    dataset = open_cube(cube)
    plan = plan_cube(dataset, settings())
    assert audit(plan).ok
    statistics = channel_statistics(dataset, plan, (VARIABLE,))
    scaling = Scaling(statistics.mean, statistics.std, ("none",), step_days=30.0)
    forecaster = build_forecaster(Persistence(), scaling, context=2, horizon=1, network=network, axes=3)
    cache = build_samples(dataset, "snapshot", tmp_path, plan, (VARIABLE,), forecaster.prepare, prepare_key="test")
    assert all(len(shape) == 3 for shape in cache.part("train").shapes)
    training, validation = (cache.part(part, augment=part == "train") for part in ("train", "validation"))
    chosen, learnt = TrainingSettings(epochs=4, batch=8), {"target_of": itemgetter("target_KCHW"), "weight_of": frame_weight}
    report = train(forecaster, training, validation, masked_huber, chosen, tmp_path / "model", key="test", **learnt)
    losses = [row[VALIDATION_LOSS] for row in report.members[0].curve]
    assert losses[-1] < losses[0]
    steps = steps_from(dataset.time.values, Sampling(), 2, 1)

    def fields(name: str, **options: int) -> np.ndarray:
        job = plan_job(dataset, "snapshot", forecaster, [VARIABLE], steps, **options)
        staged = predict(Prediction(job, dataset, forecaster, None, tmp_path / name))
        return staged.read(staged.fields[0], slice(None))

    whole, tiled = fields("whole", tile_px=64), fields("tiled", tile_px=16, memory_mb=1)
    assert whole.shape == (14, 36, 40)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=2e-4)  # of values around 300; float32 sums in another order


def test_a_sphere_is_tracked_in_millimetres_until_it_vanishes():
    source = SphereSource()
    space = Space.of_grid(source.native_grid())
    dates = [scene.observed_utc for scene in source.list_scenes().scenes]
    sequence = track_objects(map(source.mask, range(DATES)), dates, space, settings=TrackSettings(tolerance=0.05))
    objects, events, tracks = as_tables(sequence, space)
    assert len(tracks) == 1
    assert list(events["event"])[:2] == ["first seen", "grown"]
    assert (events["event"].iloc[-1], events["date"].iloc[-1]) == ("gone", dates[VANISHES])
    radius_mm = 6 + 0.4 * np.arange(VANISHES)
    np.testing.assert_allclose(objects["volume_mm3"] / 1000, 4 / 3 * np.pi * radius_mm**3 / 1000, rtol=0.04)  # ml
    np.testing.assert_allclose(objects["moved_mm"].iloc[1:], 1.0, atol=0.1)
    along_x = objects[["x", "y", "z"]].diff().iloc[1:].to_numpy()
    np.testing.assert_allclose(along_x, np.tile([1.0, 0.0, 0.0], (VANISHES - 1, 1)), atol=0.25)  # a twelfth of a slice
    assert objects["major_mm"].iloc[0] == pytest.approx(12, rel=0.05)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_memory_of_a_prediction_does_not_grow_with_the_volume(tmp_path: Path):
    peaks = []
    for name, shape in (("small", (24, 64, 64)), ("large", (48, 128, 128))):
        script = [sys.executable, "-c", MEASURED, str(tmp_path / name), *map(str, shape)]
        peaks.append(float(subprocess.run(script, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < 1.2 * peaks[0], peaks


MEASURED = """
import resource, sys
from operator import itemgetter
from pathlib import Path
from tests.flows.test_volumes import *
folder, shape = Path(sys.argv[1]), tuple(map(int, sys.argv[2:]))
uri = str(folder / "cube")
ingest(SphereSource(shape), None, uri, None, IngestSettings(chunk_px=64, workers=1, commit_mb=16))
dataset = open_cube(uri)
scaling = Scaling((300.0,), (100.0,), ("none",), step_days=30.0)
forecaster = build_forecaster(Persistence(), scaling, context=2, horizon=1, network=ConvGRUSettings(hidden=(2,)), axes=3)
steps = steps_from(dataset.time.values, Sampling(), 2, 1)
job = plan_job(dataset, "s", forecaster, [VARIABLE], steps, tile_px=16, memory_mb=16)
predict(Prediction(job, dataset, forecaster, None, folder / "staging"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
