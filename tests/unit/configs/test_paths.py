"""Inputs are found relative to the config, `data` and `runs` relative to the working folder; a run holds one or the other."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from configs.load import config_hash, load_run, write_resolved
from configs.paths import Named, input_keys, models_in, text_beside
from configs.tasks import TASKS, AnyRun
from pipelines.errors import ConfigError

HEAD = "source: {kind: netcdf, path: PATH, bands: [red]}\n"
FORECAST = (
    "name: small\n" + HEAD + "samples: {variables: [{name: red, bands: [red]}]}\n"
    "split: {validation_from: 2019-01-01, test_from: 2020-01-01}\n"
)
MONITOR = (
    "name: small\ntask: monitor\n" + HEAD + "variable: {name: red, bands: [red]}\n"
    "monitoring: {start: 2019-01-01, model: {kind: forecaster, run: RUN}}\n"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a folder `configs` in it."""
    work = tmp_path / "work"
    (work / "configs").mkdir(parents=True)
    monkeypatch.chdir(work)
    return work


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def load(config: str | Path, path: str, *overrides: str) -> tuple[AnyRun, list[str]]:
    """The run of a config with `source.path: path`, and the notes to the user."""
    Path(config).parent.mkdir(parents=True, exist_ok=True)
    Path(config).write_text(FORECAST.replace("PATH", path))
    notes: list[str] = []
    return load_run(config, overrides, notify=notes.append), notes


def test_every_input_of_every_task_is_known() -> None:
    certificates = [("compute", "tls", name) for name in ("ca", "cert", "key")]
    found = {task: input_keys(tree) for task, tree in TASKS.items()}
    assert all(set(certificates) <= set(keys) for task, keys in found.items() if task != "pair")
    assert {task: [key for key in keys if key not in certificates] for task, keys in found.items()} == {
        "forecast": [
            ("source", "path"),
            ("source", "mask_file"),
            ("covariates", "static", "path"),
            ("covariates", "drivers", "path"),
            ("model", "use"),
            ("training", "start_from"),
        ],
        "monitor": [("source", "path"), ("source", "mask_file"), ("monitoring", "model", "run")],
        "change": [("source", "path"), ("model", "use"), ("training", "start_from")],
        "pair": [("images", "before"), ("images", "after"), ("detection", "model")],
        "segment": [
            ("source", "path"),
            ("source", "mask_file"),
            ("labels", "path"),
            ("model", "use"),
            ("training", "start_from"),
        ],
        "pretrain": [("source", "path"), ("source", "mask_file"), ("model", "use")],
        **{
            task: [("source", "mask_file"), ("source", "path"), ("source", "cube"), ("labels", "path"), ("model", "use")]
            for task in ("classify", "regress", "detect", "describe")
        },
        "generate": [("source", "path"), ("model", "use")],
        "follow_up": [("source", "path"), ("decisions",)],
    }


def test_a_tilde_means_the_home_folder_everywhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    make("home/a.nc")
    run, _ = load("configs/run.yaml", "~/a.nc", "runs=~/x", "cube.uri=~/cube")
    assert [run.source.path, run.runs, run.cube.uri] == [str(here / "home" / name) for name in ("a.nc", "x", "cube")]


def test_inputs_in_a_list_are_found_beside_the_config_and_written_beside_it(here: Path) -> None:
    make("configs/a.nc", "configs/dem.tif", "configs/rain.csv")
    text = FORECAST.replace("PATH", "a.nc") + (
        "covariates:\n  static: [{name: dem, path: dem.tif}]\n  drivers: [{name: rain, path: ./rain.csv, known: past}]\n"
    )
    Path("configs/run.yaml").write_text(text)
    run = load_run("configs/run.yaml")
    paths = [run.covariates.static[0].path, run.covariates.drivers[0].path]
    assert paths == ["configs/dem.tif", "configs/rain.csv"]
    write_resolved(run, Path("runs/small/config.yaml"))
    assert "path: ../../configs/dem.tif" in Path("runs/small/config.yaml").read_text()
    assert config_hash(load_run("runs/small/config.yaml")) == config_hash(run)
    with pytest.raises(ConfigError, match=r"no file at configs/snow.tif"):
        load_run("configs/run.yaml", ["covariates.static=[{name: snow, path: configs/snow.tif}]"])


@pytest.mark.parametrize(("path", "found"), [
    ("a.nc", "configs/a.nc"), ("../a.nc", "a.nc"), ("../../far/a.nc", "../far/a.nc"), ("./data/a.nc", "configs/data/a.nc"),
    ("data/a.nc", "data/a.nc"), ("runs/a.nc", "runs/a.nc"),
])  # fmt: skip
def test_an_input_is_found_beside_the_config(here: Path, path: str, found: str) -> None:
    make(found, "data/a.nc", "runs/a.nc")
    run, notes = load("configs/run.yaml", path)
    assert (run.source.path, notes) == (found, [])
    assert (run.runs, run.cube.uri) == ("runs", None)


def test_labels_of_sites_are_below_the_source_wherever_the_config_is(here: Path) -> None:
    make("oscd/rome/imgs_1/a_B02.tif", "oscd/rome/imgs_2/a_B02.tif", "oscd/rome/rome-cm.tif", "oscd/rome/dates.txt")
    Path("configs/run.yaml").write_text(
        "name: small\ntask: segment\npairs: {}\nsource: {kind: sites, path: ../oscd, pattern: '{site}/imgs_{step}/*_{band}.tif', "
        "dates: '{site}/dates.txt', bands: [B02]}\n"
        "labels: {kind: site_rasters, path: '{site}/{site}-cm.tif', codes: {1: unchanged, 2: changed}}\n"
    )
    run = load_run("configs/run.yaml")
    assert (run.source.path, run.labels.path) == ("oscd", "{site}/{site}-cm.tif")


def test_what_lies_beside_the_config_wins(here: Path) -> None:
    make("a.nc", "configs/a.nc")
    assert load("configs/run.yaml", "a.nc") == (load_run("configs/run.yaml", ["source.path=configs/a.nc"]), [])


def test_the_old_reading_is_used_with_a_note_where_only_that_is_there(here: Path) -> None:
    make("scenes/a.nc")
    run, (note,) = load("configs/run.yaml", "scenes/a.nc")
    assert run.source.path == "scenes/a.nc"
    assert note == (
        f"configs/run.yaml:2: source.path: there is no configs/scenes/a.nc, so {here}/scenes/a.nc is used, from the working "
        "folder as in earlier versions; write ../scenes/a.nc, relative to the config: this is read for one more version"
    )


def test_what_is_nowhere_is_missed_beside_the_config(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file at configs/a\.nc\n    -> check the path: inputs are relative to the config"):
        load("configs/run.yaml", "a.nc")


@pytest.mark.parametrize("override", ["source.path=a.nc", "source={kind: netcdf, path: a.nc, bands: [red]}"])
def test_what_was_typed_is_relative_to_the_working_folder(here: Path, override: str) -> None:
    make("a.nc", "configs/a.nc")
    run, notes = load("configs/run.yaml", "a.nc", override)
    assert (run.source.path, notes) == ("a.nc", [])


def test_the_run_does_not_depend_on_how_the_config_is_named(here: Path) -> None:
    """A deployment names it by its absolute path."""
    make("a.nc")
    (here.parent / "link").symlink_to(here)
    for config, path in (("run.yaml", "a.nc"), ("configs/run.yaml", "../a.nc")):
        first, _ = load(config, path)
        for named in (here / config, here.parent / "link" / config, f"configs/../{config}"):
            assert config_hash(load_run(named)) == config_hash(first)
        assert first.source.path == "a.nc"


def test_a_config_outside_the_working_folder_means_the_same_from_everywhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = here.parent / "outside"
    make(str(outside / "a.nc"))
    first, _ = load(outside / "run.yaml", "a.nc")
    assert first.source.path == str(outside / "a.nc")
    (here.parent / "other").mkdir()
    monkeypatch.chdir(here.parent / "other")
    assert load_run(outside / "run.yaml") == first


@pytest.mark.parametrize("runs", ["runs", "../elsewhere", "."])
@pytest.mark.parametrize("path", ["../a.nc", "data/a.nc", "/ABSOLUTE/a.nc", "b.nc"])
def test_the_resolved_config_is_the_same_run(here: Path, runs: str, path: str) -> None:
    make("a.nc", "data/a.nc", "configs/b.nc")
    run, _ = load("configs/run.yaml", path.replace("/ABSOLUTE", str(here)))
    resolved = Path(runs) / "small" / "config.yaml"
    write_resolved(run, resolved)
    notes: list[str] = []
    again = load_run(resolved, notify=notes.append)
    assert (again, config_hash(again), notes) == (run, config_hash(run), [])


def test_the_run_of_a_forecaster_is_an_input(here: Path) -> None:
    make("a.nc", "archive/demo/x", "runs/demo/x")
    for written, found in (("../archive/demo", "archive/demo"), ("runs/demo", "runs/demo"), ("demo", "configs/demo")):
        Path("configs/run.yaml").write_text(MONITOR.replace("PATH", "../a.nc").replace("RUN", written))
        run = load_run("configs/run.yaml")
        assert run.monitoring.model.run == found
        write_resolved(run, Path("runs/small/config.yaml"))
        assert load_run("runs/small/config.yaml") == run


@pytest.mark.parametrize("path", ["[a]", "3", '"a\\0b"', '""', "null", "s3://bucket/a"])
def test_what_is_no_path_stays_a_mistake_of_the_config(here: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"configs/run.yaml:2  source\.path: "):
        load("configs/run.yaml", path)


def test_a_config_names_what_lies_elsewhere(here: Path) -> None:
    beside = {name: text_beside(name, Path("configs")) for name in ("scenes", "configs/scenes", "data/x", "configs/data/x")}
    assert beside == {
        "scenes": "../scenes", "configs/scenes": "scenes", "data/x": "data/x", "configs/data/x": "./data/x",
    }  # fmt: skip
    assert text_beside("scenes", Path()) == "scenes"
    assert text_beside(os.sep + "scenes", Path("configs")) == "/scenes"


IN_S3 = {  # every other key that names a path is on a disk
    "runs", "cube.uri", "cube.staging", "prediction.staging", "source.cube", "model.use", "training.start_from",
    "monitoring.state", "monitoring.model.run", "detection.model",
}  # fmt: skip
NOWHERE = [
    "s3://",
    "s3://bucket",
    "s3://bucket/",
    "s3:///prefix",
    "s3:/bucket/prefix",
    "gs://bucket/a",
    "s3://me:secret@bucket/a",
]


def named_keys(tree: type[BaseModel], above: str = "") -> Iterator[tuple[str, TypeAdapter[object]]]:
    """(key, what reads it) of everything that a config names by a path or a URI, but addresses that are connected to."""
    for name, info in tree.model_fields.items():
        mark = next((one for one in info.metadata if isinstance(one, Named)), None)
        if mark is not None and mark.access != "connect":
            yield f"{above}{name}", TypeAdapter(Annotated[info.annotation, *info.metadata])
        for model in models_in(info.rebuild_annotation()):
            yield from named_keys(model, f"{above}{name}.")


@pytest.mark.parametrize("task", TASKS)
def test_every_path_works_in_s3_or_is_refused_when_the_config_is_read(task: str) -> None:
    for key, reader in named_keys(TASKS[task]):
        is_refused = NOWHERE if key in IN_S3 else ["s3://bucket/prefix/a", *NOWHERE]
        for value in is_refused:
            with pytest.raises(ValidationError, match=r"s3://bucket/prefix|AWS_\*"):
                reader.validate_python({"red": value} if key == "source.files" else value)
        if key in IN_S3:
            assert reader.validate_python("s3://bucket/prefix/a") == "s3://bucket/prefix/a"
