"""The ready-made runs that the docs show."""

import re
from pathlib import Path

import pytest

from configs.load import load_run
from flows import demo_medical, disaster, dynamic_series
from flows.demo import DATA
from pipelines.samples.drawn_uptake import TISSUES

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "page"), [("sinop", "docs/own-data.md"), ("radar", "docs/own-data.md"), ("demo-change", "README.md")]
)
def test_the_docs_show_the_ready_made_runs_verbatim(name, page):
    path = ROOT / "configs" / f"{name}.yaml"
    shown = re.search(rf"```yaml\n(name: {name}\n.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    made = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert shown
    assert shown[1] == "".join(line for line in made if not line.startswith("#"))
    assert load_run(path, inputs_must_exist=False).name == name


def test_the_config_of_labelled_change_in_the_docs_is_whole(tmp_path):
    shown = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/change.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "run.yaml").write_text(shown[1])
    assert load_run(tmp_path / "run.yaml", inputs_must_exist=False).task == "change"


@pytest.mark.parametrize(("name", "data"), [("demo", DATA), ("demo-change", DATA), ("demo-medical", demo_medical.DATA)])
def test_the_data_of_the_demos_lie_in_the_working_folder(name, data, tmp_path, monkeypatch):
    """`driftline demo` fetches them there; the config may lie in an installed package."""
    monkeypatch.chdir(tmp_path)
    run = load_run(ROOT / "configs" / f"{name}.yaml", inputs_must_exist=False)
    assert (Path(run.source.path).parent, run.runs) == (data, "runs")


def test_the_cine_of_the_recipe_is_whole():
    run = load_run(ROOT / "configs" / "cine.yaml", inputs_must_exist=False)
    assert (run.name, Path(run.source.path).name, run.samples.horizon) == ("cine", "cine.dcm", 1)


def test_the_made_disaster_is_where_its_module_writes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, products in (("disaster-segment", disaster.SEGMENT), ("disaster-monitor", disaster.MONITOR)):
        run = load_run(ROOT / "configs" / f"{name}.yaml", inputs_must_exist=False)
        assert Path(run.source.path).parent == disaster.FOLDER
        assert Path(run.runs, run.name) == products.parent


def test_the_made_series_of_volumes_are_where_their_module_writes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = {
        name: load_run(ROOT / "configs" / f"{name}.yaml", inputs_must_exist=False)
        for name in ("dynamic-series", "travelling-bolus")
    }
    assert Path(runs["dynamic-series"].source.path).parent == dynamic_series.FOLDER
    assert Path(runs["dynamic-series"].runs, "dynamic-series") == dynamic_series.MAP.parents[1]
    assert Path(runs["travelling-bolus"].source.path) == dynamic_series.BOLUS
    assert runs["dynamic-series"].labels.classes == list(TISSUES)


@pytest.mark.parametrize(
    "name", ["mnist-rows", "moving-digits", "moving-boxes", "describe-digits", "generate-digits", "lung-ultrasound", "tree-cover"]
)
def test_the_ready_made_runs_on_samples_are_whole(name):
    assert load_run(ROOT / "configs" / f"{name}.yaml", inputs_must_exist=False).name == name


def test_the_windows_of_tree_cover_are_cut_out_of_a_cube_that_a_ready_made_run_makes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree, scenes = (
        load_run(ROOT / "configs" / f"{name}.yaml", inputs_must_exist=False) for name in ("tree-cover", "romania-20m")
    )
    assert tree.source.cube == f"{scenes.runs}/{scenes.name}/cube"
    assert [band.name for band in tree.source.bands] == [band.name for band in scenes.source.bands]


@pytest.mark.parametrize(("name", "task"), [("my-clips", "classify"), ("my-fields", "regress")])
def test_the_configs_of_samples_in_the_docs_are_whole(name, task, tmp_path):
    shown = re.search(rf"```yaml\n(name: {name}\n.*?)```", (ROOT / "docs/labels.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "run.yaml").write_text(shown[1])
    assert load_run(tmp_path / "run.yaml", inputs_must_exist=False).task == task
