"""Configs of labelled change: what is wrong is said before anything is computed, with the key and a remedy."""

from pathlib import Path

import pytest

from configs.load import load_run
from pipelines.errors import ConfigError

GOOD = """
name: tiny
task: change
source: {kind: places, path: places, pattern: "{place}/{step}/{band}.tif", dates: "{place}/dates.txt", bands: [red, nir]}
labels: {path: "{place}/label.tif"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three places by name only: a config's check opens no image."""
    monkeypatch.chdir(tmp_path)
    for name in ("alpha", "beta", "gamma"):
        (tmp_path / "places" / name / "1").mkdir(parents=True)
        (tmp_path / "places" / name / "1" / "red.tif").touch()
        (tmp_path / "places" / name / "label.tif").touch()
    (tmp_path / "run.yaml").write_text(GOOD)
    return tmp_path


def test_a_good_config_is_good(folder: Path) -> None:
    run = load_run("run.yaml", ["evaluation.groups=[[alpha, beta]]", "prediction.places=[gamma]"])
    assert run.evaluation.groups == [["alpha", "beta"]]


@pytest.mark.parametrize(
    ("lines", "key", "problem", "remedy"),
    [
        (["evaluation.groups=[[alpha, betta]]"], "evaluation.groups.0.1", "no place of this run", "did you mean 'beta'?"),
        (["prediction.places=[zz]"], "prediction.places.0", "names 'zz', which is no place", "are alpha, beta, gamma"),
        (["source.places=[alpha]", "prediction.places=[beta]"], "prediction.places.0", "no place of this run", "alpha"),
        (["source.places=[alpha, zz]"], "source.places.1", "no place 'zz' below places", "alpha, beta, gamma"),
        (["evaluation.groups=[[alpha], [alpha]]"], "evaluation.groups.1", "'alpha' is in two groups", "one group"),
        (["source.places=[]"], "source.places", "at least 1 entries", ""),
        (["prediction.places=[]"], "prediction.places", "at least 1 entries", ""),
        (["model.widths=[0]"], "model.widths.0", "at least 1, found 0", ""),
        (["labels.changed=[2]", "labels.unchanged=[2, 3]"], "labels.changed", r"codes [2] mean changed and unchanged", "one of"),
        (["labels.path=label.tif"], "labels.path", "every place would get the same label", "{place}"),
    ],
)
def test_mistakes_are_told_with_key_and_remedy(folder: Path, lines: list[str], key: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as told:
        load_run("run.yaml", lines)
    found = [mistake for mistake in told.value.mistakes if mistake.key == key]
    assert found, told.value
    assert any(problem in mistake.problem and remedy in mistake.remedy for mistake in found), found


def test_what_is_wrong_in_itself_is_told_once(folder: Path) -> None:
    with pytest.raises(ConfigError) as told:
        load_run("run.yaml", ["labels.changed=2", "labels.unchanged=[1]"])
    assert [mistake.problem for mistake in told.value.mistakes] == ["expected a list, found 2"]
