"""What a run may access: compared after links and `..` are resolved, for every key with a location."""

import copy
import json
import shutil
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from configs.load import load_run
from configs.paths import Named, NamedPath, named_paths
from configs.schema import CubeUri
from configs.tasks import TASKS
from flows.limits import LIMITS_VARIABLE, Limits, default_limits, limits_here
from flows.task import open_invocation
from pipelines.errors import ConfigError, RequestError, StateError

RUN: dict[str, Any] = {
    "name": "tiny",
    "source": {
        "kind": "stack", "path": "scenes", "files": {"red": "red.tif"}, "dates": "dates.csv", "bands": ["red"],
    },
    "samples": {"variables": [{"name": "red", "bands": ["red"]}]},
    "split": {"validation_from": "2019-01-01", "test_from": "2020-01-01"},
}  # fmt: skip
CLUSTER = {"address": "tls://10.0.0.5:8786", "tls": dict.fromkeys(("ca", "cert", "key"), "scenes/red.tif")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder `work` with scenes and a config, and a folder `outside` next to it."""
    work = tmp_path / "work"
    for folder in (work / "scenes", tmp_path / "outside"):
        folder.mkdir(parents=True)
        (folder / "dates.csv").write_text("2018-01-01\n")
        (folder / "red.tif").write_text("")
    monkeypatch.chdir(work)
    write_config(work)
    write_config(tmp_path / "outside")
    return work


def write_config(folder: Path, **sections: Any) -> None:
    content = copy.deepcopy(RUN)
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section} if isinstance(section, dict) else section
    (folder / "run.yaml").write_text(yaml.safe_dump(content))


IS_PATH = CubeUri.__metadata__[0]  # the first validator of every type of path or URI


def holds_path(annotation: Any) -> bool:
    """True if `annotation` contains a path or URI."""
    return IS_PATH in getattr(annotation, "__metadata__", ()) or any(map(holds_path, typing.get_args(annotation)))


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation, *(m for info in annotation.model_fields.values() for m in models_in(info.rebuild_annotation()))]
    return [m for one in typing.get_args(annotation) for m in models_in(one)]


@pytest.mark.parametrize("task", TASKS)
def test_every_path_key_states_its_access(task: str) -> None:
    marked = set()
    for model in models_in(TASKS[task]):
        for name, info in model.model_fields.items():
            is_marked = any(isinstance(one, Named) for one in info.metadata)
            assert is_marked or not holds_path(info.rebuild_annotation()), (model.__name__, name)
            marked |= {name} if is_marked else set()
    named = {"before", "after", "model"} if task == "pair" else {"path", "address"}
    assert {*named, "uri", "runs"} <= marked


def test_the_locations_of_a_run(here: Path) -> None:
    write_config(here, cube={"uri": "s3://bucket/cube"}, compute=CLUSTER)
    found = {".".join(map(str, one.key)): (one.text, one.access) for one in named_paths(load_run("run.yaml"))}
    assert found == {
        "source.path": ("scenes", "read"),
        "source.files.red": ("scenes/red.tif", "read"),
        "source.dates": ("scenes/dates.csv", "read"),
        "cube.uri": ("s3://bucket/cube", "write"),
        "compute.address": ("tls://10.0.0.5:8786", "connect"),
        **{f"compute.tls.{name}": ("scenes/red.tif", "read") for name in ("ca", "cert", "key")},
        "runs": ("runs", "write"),
    }


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["runs=../outside"], "runs"),
        (["runs=link"], "runs"),
        (["runs=runs/../../outside"], "runs"),
        (["source.path=../outside"], "source.path"),
        (["source.files.red=../../outside/red.tif"], "source.files.red"),
        (["source.dates=/etc/passwd"], "source.dates"),
        (["source.files.red=/vsicurl/http://127.0.0.1:9/x.tif"], "source.files.red"),
        (["cube.uri=../outside/cube"], "cube.uri"),
        (["cube.uri=file:///tmp/cube"], "cube.uri"),
        (["cube.uri=~/cube"], "cube.uri"),
        (["cube.uri=s3://bucket/cubes-of-others"], "cube.uri"),
        (["cube.uri=s3://bucket/cubes/../others"], "cube.uri"),
        (["cube.uri=s3://bucket/cubes/%2e%2e/others"], "cube.uri"),
        (["compute.address=tls://10.0.0.6:8786"], "compute.address"),
        (["compute.address=tls://10.0.0.5:8785"], "compute.address"),
        (["compute.tls.ca=/etc/passwd"], "compute.tls.ca"),
    ],
)
def test_locations_outside_are_refused_before_any_access(
    here: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], key: str
) -> None:
    (here / "link").symlink_to(here.parent / "outside")
    write_config(here, compute=CLUSTER)
    limits = default_limits(None, None, ["s3://bucket/cubes", "tls://10.0.0.5:8786"])
    monkeypatch.setenv(LIMITS_VARIABLE, limits.as_text())
    with pytest.raises(RequestError) as caught:
        open_invocation("run.yaml", overrides)
    assert f"  {key}: may not " in str(caught.value)
    assert "--allow LOCATION" in str(caught.value)
    assert not (here.parent / "outside" / "tiny").exists()


@pytest.mark.parametrize("config", ["../outside/run.yaml", "/etc/passwd", "nowhere\0.yaml", "/dev/zero"])
def test_a_config_outside_is_not_read(here: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    monkeypatch.setenv(LIMITS_VARIABLE, default_limits(None, None).as_text())
    with pytest.raises(RequestError, match="config: may not read"):
        open_invocation(config)


@pytest.mark.parametrize(
    "overrides",
    [
        ["runs=.", "name=link"],
        ["name=inner"],
        ["name=deep"],
        ["cube.uri=cube"],
        ["cube.uri=runs/.prefect/cube"],
        ["runs=other/.prefect"],
    ],
)
def test_links_and_the_servers_own_folder_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]) -> None:
    outside = here.parent / "outside"
    (here / "link").symlink_to(outside)
    (here / "runs" / "inner").mkdir(parents=True)
    (here / "runs" / "inner" / "products").symlink_to(outside)
    for deep in (here / "runs" / "deep" / "cube", here / "cube"):
        deep.mkdir(parents=True)
        (deep / "chunks").symlink_to(outside)
    monkeypatch.setenv(LIMITS_VARIABLE, default_limits(None, None).as_text())
    before = sorted(outside.iterdir())
    with pytest.raises(RequestError, match="may not write"):
        open_invocation("run.yaml", overrides)
    assert sorted(outside.iterdir()) == before
    assert open_invocation("run.yaml", ["name=other"]).run.name == "other"


def test_locations_of_the_config_and_allowed_ones_are_accepted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = here.parent / "outside"
    write_config(
        here, source={"path": str(outside)}, cube={"uri": "s3://bucket/cubes/tiny"}, compute={"address": "tcp://127.0.0.1:8786"}
    )
    limits = default_limits("run.yaml", load_run("run.yaml"), ["s3://bucket/others"])
    assert limits == Limits((str(outside),), (str(here), "s3://bucket/cubes/tiny", "tcp://127.0.0.1:8786", "s3://bucket/others"))
    monkeypatch.setenv(LIMITS_VARIABLE, limits.as_text())
    assert limits_here() == limits
    assert open_invocation("run.yaml").run.source.path == str(outside)
    assert open_invocation("run.yaml", ["cube.uri=s3://bucket/others/deep/er"]).run.name == "tiny"
    assert open_invocation("run.yaml", ["runs=s3://bucket/others/runs/"]).folder.stored == "s3://bucket/others/runs/tiny"
    for runs in (outside, "s3://bucket/runs"):  # read only; not named
        with pytest.raises(RequestError, match="runs: may not write"):
            open_invocation("run.yaml", [f"runs={runs}"])


def test_the_home_folder_as_working_folder_is_not_allowed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here.parent / "homes").symlink_to(here)
    for home in (here, here / "me", here.parent / "homes", here.parent / "homes" / "me"):
        monkeypatch.setenv("HOME", str(home))
        assert default_limits("run.yaml", load_run("run.yaml")) == Limits(
            (str(here / "run.yaml"), str(here / "scenes")), (str(here / "runs"),)
        )
    monkeypatch.setenv("HOME", str(here.parent / "me"))
    assert default_limits(None, None).write == (str(here),)


def test_the_resolved_input_is_what_limits_see(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input beside the config; where it is not allowed, nothing tells whether it is there."""
    outside = here.parent / "outside"
    shutil.copytree(here / "scenes", outside / "scenes")
    limits = default_limits(str(outside / "run.yaml"), load_run(outside / "run.yaml"))
    assert limits.read == (str(outside / "run.yaml"), str(outside / "scenes"))
    monkeypatch.setenv(LIMITS_VARIABLE, limits.as_text())
    assert open_invocation(outside / "run.yaml").run.source.path == str(outside / "scenes")
    (here / "configs").mkdir()
    for path in ("../../outside", "../../nowhere"):
        write_config(here / "configs", source={"path": path})
        with pytest.raises(RequestError, match=rf"source\.path: may not read {path.removeprefix('../')}\n"):
            open_invocation("configs/run.yaml")


def test_limits_that_cannot_be_parsed_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "nonsense", "{}", json.dumps({"read": []}), json.dumps({"read": 1, "write": []})):
        monkeypatch.setenv(LIMITS_VARIABLE, text)
        with pytest.raises(StateError, match=LIMITS_VARIABLE):
            limits_here()
    assert not Limits().allow(NamedPath(("runs",), "runs", "write"))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("s3://bucket/a/../b", "expected a plain URI"),
        ("http://example.org", "expected a folder, s3://BUCKET/PREFIX, or tcp://HOST:PORT"),
        ("tcp://host", "expected a folder"),
        ("tcp://host:port", "Port could not be cast"),
        ("s3://", "expected a folder"),
        ("nowhere", "no such folder"),
    ],
)
def test_an_allowed_location_must_be_valid(here: Path, location: str, message: str) -> None:
    with pytest.raises(RequestError, match=rf"--allow .*{message}"):
        default_limits(None, None, [location])


def test_a_cube_without_a_plain_uri_is_refused_at_the_start(here: Path) -> None:
    with pytest.raises(RequestError, match="expected a plain URI"):
        default_limits("run.yaml", load_run("run.yaml", ["cube.uri=s3://bucket/a/../b"]))


def test_a_separate_deployment_needs_absolute_paths(here: Path) -> None:
    with pytest.raises(RequestError) as caught:
        open_invocation("run.yaml", is_deployed=True)
    assert "  config: run.yaml" in str(caught.value)
    with pytest.raises(RequestError) as caught:
        open_invocation(here / "run.yaml", is_deployed=True)
    for location in ("source.path: scenes", "source.dates: scenes/dates.csv", "runs: runs"):
        assert f"\n  {location}\n" in str(caught.value)
    assert "--set runs=/data/runs" in str(caught.value)
    overrides = [f"runs={here}/runs", f"source.path={here}/scenes", "cube.uri=s3://bucket/cube"]
    assert open_invocation(here / "run.yaml", overrides, is_deployed=True).run.name == "tiny"


def test_a_deployment_of_its_own_finds_inputs_beside_its_config(
    here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("prefect"))
    run = open_invocation(here / "run.yaml", [f"runs={here}/runs"], is_deployed=True).run
    assert run.source.path == str(here / "scenes")
    with pytest.raises(RequestError, match="\n  runs: runs\n"):
        open_invocation(here / "run.yaml", is_deployed=True)


@pytest.mark.parametrize(
    ("override", "key", "problem"),
    [
        ("runs=s3://bucket", "runs", "a folder, or s3://bucket/prefix"),
        ("runs=s3:/bucket/runs", "runs", "a folder, or s3://bucket/prefix"),
        ("runs=file:///data/runs", "runs", "a folder, or s3://bucket/prefix"),
        ("source.path=https://example.org/scenes", "source.path", "a path on this machine"),
        ("source.dates=s3://bucket/dates.csv", "source.dates", "a path on this machine"),
        ("cube.uri=gs://bucket/cube", "cube.uri", "a folder, or s3://bucket/prefix"),
        ("cube.uri=http://127.0.0.1/cube", "cube.uri", "a folder, or s3://bucket/prefix"),
        ("source.crs=http://127.0.0.1:9/crs", "source.crs", "PROJ does not know the CRS"),
        ("source.crs=/etc/passwd", "source.crs", "PROJ does not know the CRS"),
    ],
)
def test_unsupported_locations_are_mistakes_of_the_config(here: Path, override: str, key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run("run.yaml", [override])
    assert any(mistake.key == key and problem in mistake.problem for mistake in caught.value.mistakes), caught.value
