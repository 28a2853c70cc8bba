"""Mistakes of a config: all of them at once, each with its line, key and remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from configs.load import config_hash, load_run, write_resolved
from pipelines.errors import ConfigError, MissingInput, RequestError

ROOT = Path(__file__).resolve().parents[3]
GOOD = """\
name: small
source:
  kind: folder
  path: scenes
  pattern: "{date:%Y%m%d}_{band}.tif"
  bands: [B4, B8]
samples:
  variables:
    - {name: ndvi, formula: normalized_difference, bands: [B8, B4]}
split:
  validation_from: 2019-01-01
  test_from: 2020-01-01
"""

Mistakes = Callable[[str], dict[str, tuple[str, str, str]]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scenes").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mistakes(folder: Path) -> Mistakes:
    """key -> (position, problem, remedy) of a config text."""

    def find(text: str) -> dict[str, tuple[str, str, str]]:
        Path("run.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_run("run.yaml")
        return {m.key: (m.position, m.problem, m.remedy) for m in caught.value.mistakes}

    return find


def test_a_good_config_loads_with_its_defaults(folder: Path) -> None:
    Path("run.yaml").write_text(GOOD)
    run = load_run("run.yaml")
    assert (run.name, run.training.epochs, [b.name for b in run.source.bands]) == ("small", 30, ["B4", "B8"])


def test_a_model_without_a_kind_is_the_convlstm(folder: Path) -> None:
    Path("run.yaml").write_text(GOOD + "model: {hidden: [8], peepholes: true}\n")
    model = load_run("run.yaml").model
    assert (model.kind, model.hidden, model.peepholes) == ("convlstm", [8], True)


@pytest.mark.parametrize(
    ("text", "overrides", "members"), [("auto", [], 1), ("{kind: auto, members: 3}", [], 3), ("auto", ["model.members=3"], 3)]
)
def test_a_model_that_is_to_be_chosen_is_one_word_or_a_section(
    folder: Path, text: str, overrides: list[str], members: int
) -> None:
    Path("run.yaml").write_text(GOOD + f"model: {text}\n")
    run = load_run("run.yaml", [*overrides, "samples.context=auto"])
    assert (run.model.kind, run.model.members, run.samples.context) == ("auto", members, "auto")
    with pytest.raises(ConfigError, match=r"training.start_from: has an architecture of its own"):
        load_run("run.yaml", ["training.start_from=."])


def test_each_kind_of_model_has_its_own_keys(mistakes: Mistakes) -> None:
    found = mistakes(GOOD + "model: {kind: convgru, peepholes: true}\n")
    known = "use, as_is, kind, hidden, kernel, frame_dropout, feedback, patch_px, baseline, members"
    assert found == {"model.peepholes": ("run.yaml:13", "unknown key", f"valid keys here: {known}")}


def test_predrnn_needs_layers_of_one_width(mistakes: Mistakes) -> None:
    found = mistakes(GOOD + "model: {kind: predrnn, hidden: [8, 16]}\n")
    assert found["model.hidden"][:2] == ("run.yaml:13", "the layers share a memory and need equal numbers, got [8, 16]")


def test_patches_are_written_only_if_there_are_any(folder: Path) -> None:
    """The hash of a run from before there were patches is that of a run without them."""
    written = []
    for model in ("{kind: convgru}", "{kind: convgru, patch_px: 2}"):
        Path("run.yaml").write_text(f"{GOOD}model: {model}\n")
        written.append(load_run("run.yaml").model.model_dump())
    assert "patch_px" not in written[0]
    assert written[1]["patch_px"] == 2


def test_the_seam_limit_is_written_only_if_set(folder: Path) -> None:
    """The result of a network with a finite halo does not depend on it, so its default is not part of the hash."""
    Path("run.yaml").write_text(GOOD)
    default, chosen = load_run("run.yaml"), load_run("run.yaml", ["prediction.max_seam=0.05"])
    assert "max_seam" not in default.model_dump()["prediction"]
    assert chosen.model_dump()["prediction"]["max_seam"] == 0.05
    assert config_hash(load_run("run.yaml", ["prediction.max_seam=0.1"])) == config_hash(default) != config_hash(chosen)


def test_ready_made_runs_are_valid() -> None:
    names = {load_run(path, inputs_must_exist=False).name for path in (ROOT / "configs").glob("*.yaml")}
    assert {"demo", "sinop", "radar"} <= names


def test_all_mistakes_are_reported_with_line_key_and_remedy(mistakes: Mistakes) -> None:
    text = (
        GOOD.replace("bands: [B4, B8]", "bandz: [B4, B8]")
        .replace("bands: [B8, B4]", "bands: [B9, B4]")
        .replace("path: scenes", "path: scenez")
        .replace("%Y%m%d", "%Y%m%Q")
    )
    found = mistakes(text + "training: {epochs: many}\nmodel: {kind: convlstn}\n")
    assert found["source.bandz"] == ("run.yaml:6", "unknown key", "did you mean 'bands'?")
    assert found["samples.variables.0.bands.0"] == ("run.yaml:9", "unknown band 'B9'", "the source's bands are B4, B8")
    assert found["source.path"] == ("run.yaml:4", "no folder at scenez", "did you mean scenes?")
    assert found["source.pattern"][:2] == ("run.yaml:5", "unknown date directive %Q")
    assert found["training.epochs"][:2] == ("run.yaml:13", "expected a whole number, found 'many'")
    requested = "expected one of 'convlstm', 'convgru', 'trajgru', 'predrnn', 'simvp', 'history', 'auto', found kind 'convlstn'"
    assert found["model"] == ("run.yaml:14", requested, "did you mean 'convlstm'?")
    assert len(found) == 6


@pytest.mark.parametrize(
    ("line", "key", "problem"),
    [
        ("samples.steps={mode: regular}", "samples.steps", "regular steps need every_days"),
        ("samples.steps={every_days: 5}", "samples.steps.every_days", "no meaning for observed steps"),
        ("split.test_from=2018-01-01", "split.test_from", "must be after validation_from"),
        (
            "split={block_px: 64, buffer_px: 32, validation_from: 2019-01-01, test_from: 2020-01-01}",
            "split.buffer_px",
            "leaves nothing of a block of 64",
        ),
        ("samples.context=auto", "samples.context", "auto is chosen with the model, which is stated"),
        ("samples.context=0", "samples.context", "a number of at least 1"),
        ("model={kind: auto, hidden: [8]}", "model.hidden", "unknown key"),
        ("split.test_fraction=0.9", "split.test_fraction", "no block to train on"),
        ('source.pattern="{band}.tif"', "source.pattern", "has no {date}"),
        ('source.pattern="{date:%H}.tif"', "source.pattern", "has no year"),
        ("source.transform=[500000, 10, 0, 5000000, 0, -10]", "source.transform", "in the order of GDAL"),
        ("source.transform=[10, 0, 0, -10, 500005, 4999995]", "source.transform", "in the order of a world file"),
        ('source.pattern="{dat:%Y%j}.tif"', "source.pattern", "unknown field {dat}|has no {date}"),
        ("source.crs=EPSG:999999", "source.crs", "PROJ does not know the CRS"),
        ("source.bands=[B4, B8, B8]", "source.bands.2", "listed twice"),
        ("grid={crs: EPSG:3035, resolution: 10, bounds: [10, 0, 0, 10]}", "grid.bounds", "has no area"),
        ("evaluation={publish: worst}", "evaluation.publish", "best"),
        ("prediction={issue: 2020-06-01, dates: [2020-05-01]}", "prediction.dates", "not after the issue date"),
        ("prediction={dates: []}", "prediction.dates", "the list is empty"),
        ("prediction.issue=soon", "prediction.issue", "expected a date such as 2020-06-30 or one of 'latest'"),
        ("samples.horizon=0", "samples.horizon", "a number of at least 1, found 0"),
        ("split.test_from=2020-13-01", "split.test_from", "expected a date such as 2020-06-30, found '2020-13-01'"),
        ("split.test_from=9999-01-01", "split.test_from", "a date between 1678 and 2261"),
        ("split.validation_from=0001-01-01T00:00:00+14:00", "split.validation_from", "between 1678 and 2261"),
        ("name=" + "a" * 101, "name", "at most 100 characters"),
        ('runs="a\\0b"', "runs", "printable"),
        ("name=true", "name", "expected text, found True"),
        ('name=""', "name", "a name of letters, digits, `_`, `-` and `.`, found ''"),
        ("cube={1: 2}", "cube.1", "text as a key"),
        ("prediction.issue=20200625", "prediction.issue", "expected a date such as 2020-06-30 or one of 'latest'"),
        ('split.test_from="20200101"', "split.test_from", "expected a date such as 2020-06-30, found '20200101'"),
        ("split.seed=-1", "split.seed", "a number of at least 0"),
        ("training={seed: 5000000000}", "training.seed", "a number less than 4294967296"),
        ("model={hidden: [16, 1000000000]}", "model.hidden.1", "a number of at most 4096"),
        ("model={hidden: [true]}", "model.hidden.0", "expected a whole number, found True"),
        ("samples.horizon=true", "samples.horizon", "expected a whole number, found True"),
        ("samples.horizon=1:30", "samples.horizon", "expected a whole number, found '1:30'"),
        ('samples.horizon="3"', "samples.horizon", "expected a whole number, found '3'"),
        ("training={learning_rate: true}", "training.learning_rate", "expected a number, found True"),
        ("source.scale=0", "source.scale", "a scale of 0 leaves nothing"),
        ("source.bands.0={name: B4, scale: 0}", "source.bands.0.scale", "a scale of 0 leaves nothing"),
        ("runs=~nobody-of-that-name/x", "runs", "home folder of somebody on this machine"),
    ],
)
def test_invalid_values_are_reported(folder: Path, line: str, key: str, problem: str) -> None:
    Path("run.yaml").write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_run("run.yaml", [line])
    found = [m for m in caught.value.mistakes if m.key == key]
    assert found, caught.value
    assert any(any(option in m.problem for option in problem.split("|")) for m in found)
    assert not any(m.remedy == "did you mean ''?" for m in found)


def test_a_stack_needs_a_file_for_every_band_and_its_dates(folder: Path) -> None:
    Path("run.yaml").write_text(
        GOOD.replace("kind: folder", "kind: stack").replace(
            'pattern: "{date:%Y%m%d}_{band}.tif"', "files: {B4: b4.tif, B5: b5.tif}\n  dates: timeline"
        )
    )
    with pytest.raises(ConfigError) as caught:
        load_run("run.yaml")
    text = str(caught.value)
    assert "no file is named for band 'B8'" in text
    assert "'B5' is not one of the bands" in text
    assert "no file at scenes/timeline" in text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"run.yaml:1  \(whole file\): the file is empty"),
        ("- a\n", "found a list"),
        ("name: a\nname: b\n", r"run.yaml:2  name: duplicate key\n    -> its first position is run.yaml:1"),
        ("name: [a\nb: c\n", "run.yaml:2  YAML syntax"),
        ("name: a\n\tb: c\n", "indent with spaces, not tabs"),
        ("name: !!python/object/apply:os.system [ls]\n", "the tag .*os.system' is not supported"),
        ("name: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("name: " + "{a: " * 3000 + "}" * 3000, "nested too deeply"),
        ("name: &x [*x]\n", "alias of itself"),
        (
            "a: &a [x, x]\n" + "".join(f"{c}: &{c} [{('*' + p + ', ') * 40}]\n" for p, c in zip("abcd", "bcde", strict=True)),
            "aliases of",
        ),
        ("[a, b]: 3\n", "expected text as a key"),
        ("a: &a\n  b: *a\n", "alias of itself|YAML"),
    ],
)
def test_files_that_are_not_configs_are_refused(folder: Path, text: str, problem: str) -> None:
    Path("run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        load_run("run.yaml")


def test_missing_files_raise_missing_input(folder: Path) -> None:
    Path("run.yaml").write_text(GOOD)
    with pytest.raises(MissingInput, match=r"no config file at runn.yaml; did you mean run.yaml\?"):
        load_run("runn.yaml")
    with pytest.raises(MissingInput, match="is a folder, expected a config file"):
        load_run("scenes")
    Path("scenes/config.yaml").write_text("name: x")
    with pytest.raises(MissingInput, match=r"it is the folder of a run: name the config of that run, or .*config\.yaml"):
        load_run("scenes")


def test_a_path_out_of_the_working_folder_is_shown_whole(folder: Path) -> None:
    Path("run.yaml").write_text(GOOD.replace("path: scenes", "path: ../nowhere/scenes"))
    with pytest.raises(ConfigError, match=rf"no folder at {folder.parent}/nowhere/scenes\n.*--set source.path="):
        load_run("run.yaml")


def test_overrides_replace_values_and_are_named_in_mistakes(folder: Path) -> None:
    Path("run.yaml").write_text(GOOD)
    run = load_run("run.yaml", ["training.epochs=3", "samples.variables.0.name=greenness"])
    assert (run.training.epochs, run.samples.variables[0].name) == (3, "greenness")
    assert load_run("run.yaml", ["evaluation.moving=no"]).evaluation.moving == "no", "which YAML reads as false"
    with pytest.raises(ConfigError, match=r"--set training.epoch=3  training.epoch: unknown key\n    -> did you mean 'epochs'"):
        load_run("run.yaml", ["training.epoch=3"])
    with pytest.raises(ConfigError, match=r"--set foo.bar=1  foo: unknown key"):
        load_run("run.yaml", ["foo.bar=1"])
    for key in ("name", "source.path"):
        with pytest.raises(RequestError, match=f"{key} is a value and no section"):
            load_run("run.yaml", [f"{key}.x=1"])
    with pytest.raises(RequestError, match="expected KEY=VALUE"):
        load_run("run.yaml", ["training.epochs"])


def test_the_resolved_config_reads_back_to_the_same_run_and_hash(folder: Path) -> None:
    Path("run.yaml").write_text(GOOD)
    run = load_run("run.yaml")
    write_resolved(run, Path("out/config.yaml"))
    again = load_run("out/config.yaml")
    assert again == run
    assert config_hash(again) == config_hash(run)
    assert config_hash(load_run("run.yaml", ["training.seed=1"])) != config_hash(run)
    shuffled = yaml.safe_load(GOOD)
    Path("shuffled.yaml").write_text(yaml.safe_dump(dict(reversed(shuffled.items())), sort_keys=False))
    assert config_hash(load_run("shuffled.yaml")) == config_hash(run)


def test_dates_with_a_zone_become_utc(folder: Path) -> None:
    Path("run.yaml").write_text(GOOD.replace("2019-01-01", "2019-01-01T02:00:00+02:00"))
    assert str(load_run("run.yaml").split.validation_from) == "2019-01-01 00:00:00"


def test_a_wrong_date_or_tag_hides_no_other_mistake(mistakes: Mistakes) -> None:
    text = GOOD.replace("test_from: ", "test_from: 2021-13-01 # ").replace("name: ", "name: !!set {a} # ", 1)
    found = mistakes(text + "trainig: {}\n")
    assert "2021-13-01" in found["split.test_from"][1]
    assert "is not supported" in found["name"][1]
    assert found["trainig"][2] == "did you mean 'training'?"


@pytest.mark.parametrize(
    ("files", "key", "problem", "remedy"),
    [
        (["20200105_B4.tif"], "source.bands.1", "no file below scenes is of band 'B8'", "the names hold B4"),
        (["20200105_B4.tif", "20200105_B08.tif"], "source.bands.1", "of band 'B8'", "did you mean 'B08'?"),
        (
            ["05012020_B4.tif", "30012020_B4.tif"],
            "source.pattern",
            "no date in the names has the form '%Y%m%d'",
            "try {date:%d%m%Y}",
        ),
        (["a/20200105_B4.tif", "a/20200205_B4.tif"], "source.pattern", "it fits none of the 2 files", "try"),
    ],
)
def test_a_pattern_that_matches_no_names_is_a_mistake(
    mistakes: Mistakes, files: list[str], key: str, problem: str, remedy: str
) -> None:
    for name in files:
        path = Path("scenes") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = mistakes(GOOD)[key]
    assert found[0].startswith("run.yaml:")
    assert problem in found[1]
    assert remedy in found[2]


def test_a_rate_of_all_pixels_is_a_mistake(mistakes: Mistakes) -> None:
    source, _, _ = GOOD.partition("samples:")
    task = "task: monitor\nvariable: {name: ndvi, formula: normalized_difference, bands: [B8, B4]}\n"
    found = mistakes(source + task + "monitoring: {start: 2019-01-01, test: {false_alarms: 1000}}\n")
    assert list(found) == ["monitoring.test.false_alarms"]
    assert found["monitoring.test.false_alarms"][1:] == (
        "1000 of 1000 stable pixels a year are all of them",
        "a rate far below 1000, e.g. 10",
    )
