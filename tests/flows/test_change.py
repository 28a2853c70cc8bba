"""Labelled change from config to result on tiny sites, without a server: what a run leaves, and what is refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio

from configs.load import load_run
from flows import stage
from flows.code import closure
from flows.planning import make_plan, plan_lines
from flows.task import open_invocation, remembering_folder
from flows.tasks.change import Change
from pipelines.errors import ArtefactDamaged, MissingInput, NotPublished, RequestError
from tests.flows.change_sites import CHANGED, SIDE_PX, UNCHANGED, write_raster, write_site, write_sites

LEAVES = ("summary.json", "report.html", "report.md", "quicklook.png", "quicklook-alpha.png", "evaluation.json", "evaluation.md",
          "config.yaml", "steps.jsonl", "model/model.safetensors", "products/collection.json", "products/alpha-mask.tif",
          "products/alpha-probability.tif", "products/alpha-changes.gpkg", "products/alpha-changes.geojson", "cubes/alpha",
          "cubes/gamma")  # fmt: skip
FOLDER = Path("runs/tiny")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    return tmp_path


def carry_out(verb: str, config: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    invocation = open_invocation(config, overrides, **options)
    with remembering_folder(invocation):
        return stage.carry_out(invocation, verb)


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def layers() -> dict[str, np.ndarray]:
    """name -> the first band of every raster of the products."""
    found = {}
    for path in sorted((FOLDER / "products").glob("*.tif")):
        with rasterio.open(path) as raster:
            found[path.name] = raster.read(1)
    return found


def test_a_run_finds_the_squares_and_a_second_one_does_nothing(workplace: Path) -> None:
    config = write_sites(workplace)
    first = carry_out("run", config)
    assert [name for name in LEAVES if not (FOLDER / name).exists()] == []
    evaluation, summary = read("evaluation.json"), read("summary.json")
    assert list(evaluation["methods"]) == [
        "siamese_dcrn", "siamese_dcrn alone", "change_vector", "ir_mad", "change_vector, Otsu", "ir_mad, chi square, 1 %",
    ]  # fmt: skip
    assert min(evaluation["methods"][name]["f1"] for name in ("siamese_dcrn", "change_vector")) > 0.8
    clues = {clue["name"] for clue in evaluation["details"]["audit"]["clues"]}
    assert {"date", "season", "position", "size", "missing share", "site"} <= clues
    assert evaluation["verdict"]["confounded_by"] == []
    assert evaluation["details"]["area"]["alpha"]["labelled_m2"] == pytest.approx(64 * 100, rel=2e-3)  # on the ellipsoid
    assert summary["sentence"].startswith(
        "In 3 sites 3 patches (2.2 ha) are mapped as changed between 2018-06-01 and 2019-06-01; on"
    )
    report = (FOLDER / "report.html").read_text()
    for text in (
        "Stated probability against what happened",
        "48 x 48 pixels of 10, EPSG:32635",
        "2.78 % changed",
        "metadata alone",
        "The largest patches in words",
        "of alpha (",
        "of such pixels had changed on sites left out",
    ):
        assert text in report, text
    assert first["sites"]["alpha"]["patches"] >= 1
    assert first["largest"][0]["first_date"] is None  # of a pair nobody knows when: no NaT, which a report would print
    json.dumps(first["largest"], allow_nan=False)
    patches = geopandas.read_file(FOLDER / "products" / "alpha-changes.gpkg")
    assert {"probability"} == {"probability", "confidence"} & set(patches.columns)
    assert patches["area_m2"].max() == pytest.approx(6400, rel=0.35)
    with rasterio.open("sites/beta/label.tif") as label:
        truth = label.read(1) == CHANGED
    assert np.count_nonzero((layers()["beta-mask.tif"] == 1) & truth) > 0.8 * np.count_nonzero(truth)
    pictures = [asset["href"] for asset in read("products/collection.json")["assets"].values()]
    assert sorted(pictures) == [f"../quicklook-{name}.png" for name in ("alpha", "beta", "gamma")]

    written = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*") if path.is_file()}
    second = carry_out("run", config)
    assert second["skipped"]
    assert "nothing to do" in second["message"]
    changed = {p.name for p, when in written.items() if p.stat().st_mtime_ns != when}
    assert changed <= {"steps.jsonl", "config.yaml", "ingest.json", "refused.json", "cube.lock", ".run.lock"} | {
        path.name for path in (FOLDER / "labels").iterdir()
    }
    check_small_tiles_give_the_same(config)
    check_damage_is_repaired(config)
    check_identity_comes_before_nothing_to_do(config)
    check_a_loser_is_withdrawn(config)


def check_small_tiles_give_the_same(config: Path) -> None:
    whole = layers()
    shutil.rmtree(FOLDER / "scores")
    carry_out("predict", config, "prediction.tile_px=16")
    tiled = layers()
    assert tiled.keys() == whole.keys()
    for name, layer in whole.items():
        np.testing.assert_allclose(tiled[name], layer, atol=1e-5)
    shutil.rmtree(FOLDER / "scores")
    carry_out("run", config)


def check_damage_is_repaired(config: Path) -> None:
    """Whatever is damaged below the run's folder is made anew by the same command, and comes out the same."""
    names = ("evaluation.json", "evaluation.md", "model/model.safetensors", "products/alpha-mask.tif")
    before = {name: (FOLDER / name).read_bytes() for name in names}
    (FOLDER / "evaluation.json").write_text('{"methods": {')
    (FOLDER / "evaluation.md").unlink()
    (FOLDER / "model" / "model.safetensors").write_bytes(b"damaged")
    (FOLDER / "samples" / "beta" / "site.json").write_text("{")
    (FOLDER / "samples" / ".beta.partial").mkdir()
    (FOLDER / "products" / "alpha-mask.tif").unlink()
    carry_out("run", config)
    assert {name: (FOLDER / name).read_bytes() for name in before} == before
    assert not (FOLDER / "samples" / ".beta.partial").exists()


def check_identity_comes_before_nothing_to_do(config: Path) -> None:
    """All is up to date, but another model or cube lies there, or the config describes another model."""
    description = FOLDER / "model" / "model.json"
    text = description.read_text()
    description.write_text(text + " ")
    for verb in ("evaluate", "predict"):
        with pytest.raises(ArtefactDamaged, match=r"holds the model \w+, but \w+ was trained here: run `driftline train CONFIG`"):
            carry_out(verb, config)
    description.unlink()
    with pytest.raises(MissingInput, match=r"no change-detector in .*; run `driftline train CONFIG`"):
        carry_out("predict", config)
    description.write_text(text)
    for verb in ("evaluate", "predict", "report"):
        with pytest.raises(RequestError, match=r"was trained with training.seed = 0, the config says 5"):
            carry_out(verb, config, "training.seed=5")
    (FOLDER / "cubes" / "beta").rename(FOLDER / "beta")
    with pytest.raises(MissingInput, match="beta"):
        carry_out("predict", config)
    (FOLDER / "beta").rename(FOLDER / "cubes" / "beta")
    assert carry_out("predict", config)["skipped"]


def check_a_loser_is_withdrawn(config: Path) -> None:
    """Nothing can beat the index by 0.9: what the model before it published is withdrawn, until somebody insists."""
    lost = ("evaluation.must_beat=[change_vector]", "evaluation.margin=0.9")
    assert not carry_out("evaluate", config, *lost)["is_publishable"]
    criterion, *_ = read("evaluation.json")["criteria"]
    assert (criterion["name"], criterion["requested"], criterion["is_met"]) == ("F1 above change_vector", 0.9, False)
    assert criterion["value"] < 0.1
    (FOLDER / "report.html").unlink()
    with pytest.raises(NotPublished, match="--even-if-worse"):
        carry_out("predict", config, *lost)
    assert (FOLDER / "report.html").exists()
    assert not (FOLDER / "products").exists()
    assert not (FOLDER / "quicklook-alpha.png").exists()
    assert read("summary.json")["products"]["files"] == []
    assert not carry_out("predict", config, *lost, even_if_worse=True)["skipped"]
    assert read("summary.json")["products"]["even_if_worse"]

    carry_out("train", config, "training.epochs=1")  # another model: nothing stands for the products any more
    carry_out("evaluate", config, "training.epochs=1")
    carry_out("report", config, "training.epochs=1")
    assert not (FOLDER / "products").exists()
    assert "No change is published for tiny" in read("summary.json")["sentence"]


@pytest.mark.torch
@pytest.mark.exhaustive  # as in test_stages and test_monitor
def test_what_a_stage_imports_decides_its_key(workplace: Path) -> None:
    """A change of the products trains and evaluates nothing again; whatever a stage loads is digested by its key."""
    known = {name: closure(Change.code[name]) for name in ("train", "evaluate", "predict")}
    assert "pipelines.change.networks" in known["train"] & known["evaluate"] & known["predict"]
    assert not {name for name in known["train"] | known["evaluate"] if name.startswith("pipelines.products")}
    assert "pipelines.change.method_comparison" not in known["train"]
    assert not {"pipelines.products.report", "pipelines.products.tables"} & known["predict"]
    carry_out("ingest", write_sites(workplace))
    script = """
import json, sys
from flows.task import open_invocation
from flows.publish import new_building, read_evaluation
from flows.stage import run_stage
from flows.tasks.change import Change
context, task, loaded = open_invocation("tiny.yaml"), Change(), {}
for stage in ("train", "evaluate", "predict"):
    before = set(sys.modules)
    if stage == "predict":
        task.predict(context, read_evaluation(context.folder), new_building(context.folder))
    else:
        run_stage(task, context, stage)
    loaded[stage] = sorted(set(sys.modules) - before)
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    for name, modules in json.loads(done.stdout.splitlines()[-1]).items():
        ours = {one for one in modules if one.startswith(("configs.", "models.", "pipelines."))}
        assert ours
        assert ours <= known[name], name


@pytest.mark.exhaustive
def test_a_site_without_a_label_is_only_predicted_and_must_be_named(workplace: Path) -> None:
    config = write_sites(workplace)
    for name in ("delta", "omega"):
        changed = write_site(workplace / "sites" / name, seed=9, with_label=False)
    (workplace / "sites" / "omega" / "dates.txt").unlink()
    with pytest.raises(MissingInput, match=r"label.tif.*delta.*name it in prediction.sites"):
        carry_out("ingest", config, "source.sites=[alpha, beta, gamma, delta]")
    record = carry_out("run", config, "prediction.sites=[delta, omega]")
    assert list(record["sites"]) == ["delta"]
    found = layers()["delta-mask.tif"] == 1
    assert np.count_nonzero(found & changed) > 0.8 * np.count_nonzero(changed)
    assert "delta" not in read("evaluation.json")["details"]["area"]
    (refused,) = read("refused.json")
    assert (refused["scene_id"], refused["reason"]) == ("omega", "site")
    assert "dates.txt" in refused["detail"]
    with pytest.raises(RequestError, match=r"none of prediction.sites \(omega\) can be used"):
        carry_out("run", config, "prediction.sites=[omega]", "source.sites=[alpha, beta, gamma, omega]")


def test_a_killed_training_ends_with_the_same_model(workplace: Path) -> None:
    config = write_sites(workplace)
    carry_out("ingest", config)
    whole = carry_out("train", config)["model_hash"]
    shutil.rmtree("runs/tiny/model")
    Path("runs/tiny/stages/train.json").unlink()
    invocation = open_invocation(config)
    invocation.steps.call = killed_at("train without gamma")
    with pytest.raises(KeyboardInterrupt), remembering_folder(invocation):
        stage.carry_out(invocation, "train")
    assert not Path("runs/tiny/stages/train.json").exists()
    record = carry_out("train", config)
    assert record["model_hash"] == whole
    assert [member["resumed"] for member in record["training"]["members"]] == [True, True, False]


def killed_at(name: str) -> Any:
    def call(_stage: str, step: str, work: Callable[[], Any]) -> Any:
        if step == name:
            raise KeyboardInterrupt
        return work()

    return call


@pytest.mark.exhaustive
def test_an_edited_label_is_new_and_takes_another_training(workplace: Path) -> None:
    config = write_sites(workplace)
    carry_out("ingest", config)
    carry_out("train", config)
    assert carry_out("ingest", config)["message"] == "3 sites (nothing new)"
    edited = np.full((SIDE_PX, SIDE_PX), UNCHANGED, np.uint8)
    edited[:5, :5] = CHANGED
    write_raster(workplace / "sites" / "beta" / "label.tif", edited)
    record = carry_out("ingest", config)
    assert (record["message"], record["skipped"]) == ("3 sites, 1 with new scenes or labels", False)
    for verb in ("evaluate", "predict", "report"):
        with pytest.raises(RequestError, match="the labels have changed since the model was trained; run `driftline train"):
            carry_out(verb, config)
    assert not carry_out("train", config)["skipped"]


def test_the_order_of_sites_in_the_config_decides_nothing(workplace: Path) -> None:
    config = write_sites(workplace)
    there = carry_out("ingest", config)["snapshot"]
    assert carry_out("ingest", config, "source.sites=[gamma, alpha, beta, alpha]")["snapshot"] == there


def test_the_plan_counts_groups_and_pairs_of_them(workplace: Path) -> None:
    config = write_sites(workplace, ("alpha", "beta", "gamma", "delta", "omega"))
    for line in ("evaluation.groups=[[alpha, beta]]", "source.sites=[alpha]"):  # one site: four strips
        plan = make_plan(load_run(config, [line]), "run")
        what = {step["stage"]: step["what"] for step in plan["steps"]}
        assert what["train"] == "4 networks"
        assert what["evaluate"].startswith("6 networks, each without two of the 4 groups of sites")
        assert [step["stage"] for step in plan["steps"]] == ["ingest", "train", "evaluate", "predict"]
    assert what["ingest"] == "2 scenes into the cube"
    whole = make_plan(load_run(config), "ingest")
    assert whole["steps"][0]["what"] == "10 scenes into 5 cubes"
    assert "in 5 sites, " in plan_lines(whole)[1]
    assert whole["refused"] == {}


def test_the_plan_lists_what_an_ingest_of_sites_would_refuse(workplace: Path) -> None:
    config = write_sites(workplace)
    write_site(workplace / "sites" / "beta", seed=1, dates=3)
    (workplace / "sites" / "beta" / "3" / "nir.tif").write_text("hello")
    plan = make_plan(load_run(config), "ingest")
    assert plan["refused"] == {"driver": 1}
    assert plan["notes"][0].startswith("beta: 1 scene would be refused; the first: ")
    assert plan["steps"][0]["what"] == "6 scenes into 3 cubes"
    assert make_plan(load_run(config), "train")["refused"] == {}, "reads cubes"


@pytest.mark.exhaustive
def test_three_dates_and_sites_of_other_lengths(workplace: Path) -> None:
    config = write_sites(workplace)
    write_site(workplace / "sites" / "beta", seed=1, dates=3)
    carry_out("ingest", config)
    carry_out("train", config)
    evaluation = carry_out("evaluate", config)
    assert evaluation["metrics"]["siamese_dcrn"]["f1"] > 0.8
    with pytest.raises(RequestError, match=r"fc_ef compares exactly 2 dates.*beta has 3"):
        carry_out("train", config, "model.kind=fc_ef")


def test_two_sites_that_are_too_small_for_strips_are_refused(workplace: Path) -> None:
    config = write_sites(workplace, ("alpha", "beta"))
    carry_out("ingest", config)
    with pytest.raises(RequestError, match=r"there are 2 groups of sites, and leaving one out takes 3.*add labelled sites"):
        carry_out("train", config)


@pytest.mark.exhaustive
def test_a_site_where_nothing_changed_is_learnt_from_with_others(workplace: Path) -> None:
    config = write_sites(workplace, ("alpha", "beta", "gamma", "omega"))
    write_raster(workplace / "sites" / "beta" / "label.tif", np.full((SIDE_PX, SIDE_PX), UNCHANGED, np.uint8))
    record = carry_out("ingest", config)
    assert record["sites"]["beta"]["notes"] == ["label.tif has no changed pixel"]
    with pytest.raises(RequestError, match=r"the group beta \(beta\) holds only the class 'unchanged'.*evaluation.groups"):
        carry_out("train", config)
    grouped = "evaluation.groups=[[beta, omega]]"
    carry_out("train", config, grouped)
    carry_out("evaluate", config, grouped)
    measured = read("evaluation.json")["details"]["methods"]["change_vector"]
    assert measured["sites"]["beta"]["recall"] is None  # nothing there to find
    assert measured["pooled"]["f1"] > 0.8
    carry_out("predict", config, grouped, even_if_worse=True)
    assert Path("runs/tiny/quicklook-beta.png").exists()


def test_every_bad_site_is_named_with_a_way_to_go_on(workplace: Path) -> None:
    config = write_sites(workplace, ("alpha", "beta", "gamma", "omega"))
    (workplace / "sites" / "beta" / "label.tif").write_bytes(b"")
    path = workplace / "sites" / "gamma" / "2" / "nir.tif"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(RequestError, match=r"2 of 4 sites cannot be used") as informative:
        carry_out("ingest", config)
    assert "beta: the label sites/beta/label.tif cannot be used: label.tif has 0 bytes" in str(informative.value)
    assert "gamma: 1 of its dates can be used (gamma/1), change needs two; gamma/2: truncated" in str(informative.value)
    assert "to go on without: source.sites: [alpha, omega]" in str(informative.value)
    assert list(carry_out("ingest", config, "source.sites=[alpha, omega]")["sites"]) == ["alpha", "omega"]


@pytest.mark.exhaustive
def test_dates_that_are_hardly_alike_are_noted_in_the_report(workplace: Path) -> None:
    config = write_sites(workplace)
    for band in ("red", "nir"):
        shutil.copyfile(workplace / "sites" / "gamma" / "2" / f"{band}.tif", workplace / "sites" / "beta" / "2" / f"{band}.tif")
    carry_out("ingest", config)
    carry_out("train", config)
    (note,) = Change().find(open_invocation(config), None, {}).notes
    assert note.startswith("beta, date 2: hardly like the first date")


def test_a_crs_of_no_site_on_earth_is_refused_before_anything_is_learnt(workplace: Path) -> None:
    config = write_sites(workplace)
    with pytest.raises(RequestError, match=r"3 of 3 sites.*\n  alpha: .*no CRS of the Earth; .*source.crs, .* EPSG:3857"):
        carry_out("ingest", config, 'source.crs="LOCAL_CS[\\"pixels\\",UNIT[\\"metre\\",1]]"')


def test_a_label_of_another_site_is_refused(workplace: Path) -> None:
    config = write_sites(workplace)
    write_raster(workplace / "sites" / "beta" / "label.tif", np.full((7, 9), UNCHANGED, np.uint8))
    with pytest.raises(RequestError, match=r"label.*7 x 9 pixels"):
        carry_out("ingest", config, "labels.grid_of=first")


def test_dates_in_the_wrong_order_are_refused(workplace: Path) -> None:
    config = write_sites(workplace)
    (workplace / "sites" / "beta" / "dates.txt").write_text("date_1: 20190601\ndate_2: 20180601\n")
    with pytest.raises(RequestError, match="the dates are in the wrong order"):
        carry_out("ingest", config)


def test_a_site_of_other_bands_is_refused(workplace: Path) -> None:
    config = write_sites(workplace)
    for step in ("1", "2"):
        (workplace / "sites" / "beta" / step / "nir.tif").rename(workplace / "sites" / "beta" / step / "blue.tif")
    with pytest.raises(RequestError, match=r"beta.*nir"):
        carry_out("ingest", config)


def test_groups_name_sites_that_are_there(workplace: Path) -> None:
    config = write_sites(workplace)
    carry_out("ingest", config)
    with pytest.raises(RequestError, match=r"evaluation.groups.0.1: names 'omega', which is no site of this run"):
        carry_out("run", config, "evaluation.groups=[[alpha, omega]]")
    with pytest.raises(RequestError, match=r"prediction.sites.0: names 'alfa', .*\n.*did you mean 'alpha'"):
        carry_out("run", config, "prediction.sites=[alfa]")
    with pytest.raises(RequestError, match=r"evaluation.groups names 'omega', which is no site of this run"):
        carry_out("train", config, "evaluation.groups=[[alpha, omega]]", inputs_must_exist=False)
