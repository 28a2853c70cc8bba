"""Places from which files are removed are no places of others."""

from pathlib import Path

import pytest

from configs.load import load_run
from pipelines.errors import ConfigError

SOURCE = {"kind": "netcdf", "path": "a.nc", "bands": ["red"]}
CONTENT = {
    "name": "site",
    "task": "monitor",
    "source": SOURCE,
    "variable": {"name": "red", "bands": ["red"]},
    "monitoring": {"start": "2019-12-01"},
}


@pytest.fixture(autouse=True)
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "runs")


def load(changes: dict[str, str]) -> None:
    load_run(CONTENT, [f"{key}={value}" for key, value in changes.items()], inputs_must_exist=False)


@pytest.mark.parametrize("key", ["monitoring.state", "cube.staging"])
@pytest.mark.parametrize(
    ("asked", "others", "what"),
    [
        ("runs", {}, "the run's folder"),
        ("file://./link/", {}, "the run's folder"),
        ("runs/site/stages", {}, "the run's folder"),
        ("runs/site", {"runs": "runs/site/site"}, "the run's folder"),
        ("s3://b/runs/", {"runs": "s3://b/runs"}, "the run's folder"),
        ("s3://b/cubes", {"cube.uri": "s3://b/cubes/site"}, "the cube"),
        ("s3://b/cubes", {"cube.uri": "s3://b/cubes/site/below"}, "the cube"),
        ("s3://b/cubes/other", {"cube.uri": "s3://b/cubes"}, "the cube"),
    ],
)
def test_a_place_of_the_run_or_its_cube_is_refused(key: str, asked: str, others: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=rf"--set {key}=.*holds or lies in {what}\n +-> name a place of its own"):
        load({key: asked, **others})


@pytest.mark.parametrize(
    ("asked", "others"),
    [
        ("elsewhere", {}),
        ("runs/site/state", {}),
        ("s3://b/runs", {"runs": "s3://b/runs2"}),
        ("s3://b/cube", {"cube.uri": "s3://b/cubes/site"}),
        ("s3://b/runs", {}),
    ],
)
def test_a_place_of_its_own_is_not(asked: str, others: dict[str, str]) -> None:
    load({"monitoring.state": asked, **others})
