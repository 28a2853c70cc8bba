"""Configs of labelled change: mistakes are reported before anything is computed, with the key and a remedy."""

from pathlib import Path

import pytest

from configs.load import load_run
from configs.tasks.change import build_site_settings
from configs.tasks.change_detectors import build_indices, build_methods
from pipelines.errors import ConfigError

GOOD = """
name: tiny
task: change
source: {kind: sites, path: sites, pattern: "{site}/{step}/{band}.tif", dates: "{site}/dates.txt", bands: [red, nir]}
labels: {path: "{site}/label.tif"}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three sites by name only: a config's check opens no image."""
    monkeypatch.chdir(tmp_path)
    for name in ("alpha", "beta", "gamma"):
        (tmp_path / "sites" / name / "1").mkdir(parents=True)
        (tmp_path / "sites" / name / "1" / "red.tif").touch()
        (tmp_path / "sites" / name / "label.tif").touch()
    (tmp_path / "run.yaml").write_text(GOOD)
    return tmp_path


def test_a_good_config_is_good(folder: Path) -> None:
    run = load_run("run.yaml", ["evaluation.groups=[[alpha, beta]]", "prediction.sites=[gamma]"])
    assert run.evaluation.groups == [["alpha", "beta"]]


@pytest.mark.parametrize(
    ("lines", "key", "problem", "remedy"),
    [
        (["evaluation.groups=[[alpha, betta]]"], "evaluation.groups.0.1", "no site of this run", "did you mean 'beta'?"),
        (["prediction.sites=[zz]"], "prediction.sites.0", "names 'zz', which is no site", "are alpha, beta, gamma"),
        (["source.sites=[alpha]", "prediction.sites=[beta]"], "prediction.sites.0", "no site of this run", "alpha"),
        (["source.sites=[alpha, zz]"], "source.sites.1", "no site 'zz' below sites", "alpha, beta, gamma"),
        (["evaluation.groups=[[alpha], [alpha]]"], "evaluation.groups.1", "'alpha' is in two groups", "one group"),
        (["source.sites=[]"], "source.sites", "at least 1 entries", ""),
        (["prediction.sites=[]"], "prediction.sites", "at least 1 entries", ""),
        (["model.widths=[0]"], "model.widths.0", "at least 1, found 0", ""),
        (["labels.changed=[2]", "labels.unchanged=[2, 3]"], "labels.changed", r"codes [2] mean changed and unchanged", "one of"),
        (["labels.path=label.tif"], "labels.path", "every site would get the same label", "{site}"),
    ],
)
def test_mistakes_have_key_and_remedy(folder: Path, lines: list[str], key: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as informative:
        load_run("run.yaml", lines)
    found = [mistake for mistake in informative.value.mistakes if mistake.key == key]
    assert found, informative.value
    assert any(problem in mistake.problem and remedy in mistake.remedy for mistake in found), found


def test_what_is_wrong_in_itself_is_reported_once(folder: Path) -> None:
    with pytest.raises(ConfigError) as informative:
        load_run("run.yaml", ["labels.changed=2", "labels.unchanged=[1]"])
    assert [mistake.problem for mistake in informative.value.mistakes] == ["expected a list, found 2"]


def test_a_model_that_comes_twice_is_compared_once_and_each_has_a_name(folder: Path) -> None:
    compare = "evaluation.compare=[{kind: fc_ef, fuse_with: none}, {kind: siamese_dcrn}, {kind: siamese_dcrn, widths: [4]}]"
    run = load_run("run.yaml", [compare, "evaluation.seeds=2", "training.seed=3"])
    methods = build_methods(run)
    assert {name: [[*variants] for variants in seeds] for name, seeds in methods.items()} == {
        "siamese_dcrn": [["siamese_dcrn", "siamese_dcrn alone"]] * 2,
        "fc_ef": [["fc_ef"]] * 2,
        "siamese_dcrn-2": [["siamese_dcrn-2", "siamese_dcrn-2 alone"]] * 2,
    }
    assert [variants["fc_ef"].seed for variants in methods["fc_ef"]] == [3, 4]
    assert list(build_site_settings(run).pair_networks) == ["fc_ef"]


def test_an_index_that_must_be_beaten_is_evaluated_once(folder: Path) -> None:
    run = load_run("run.yaml", ["evaluation.references=[ir_mad, change_vector]", "evaluation.must_beat=[change_vector]"])
    assert [(one.name, one.is_comparable) for one in build_indices(run)] == [("ir_mad", False), ("change_vector", True)]
