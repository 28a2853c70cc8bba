"""Labelled change from config to result on tiny sites, without a server: what a run leaves, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from flows.stages.run import run_change

from configs.load import load_run
from flows.invocation import Invocation, open_invocation, remembering_folder
from flows.planning import make_plan
from flows.stages.change_evaluate import change_evaluate
from flows.stages.change_ingest import change_ingest
from flows.stages.change_networks import Sites
from flows.stages.change_predict import change_predict, members_of
from flows.stages.change_train import change_train
from pipelines.change.groups import group_sites
from pipelines.errors import ArtefactDamaged, MissingInput, NotPublished, RequestError
from pipelines.tiles import Tile
from tests.flows.change_sites import CHANGED, SIDE_PX, UNCHANGED, write_raster, write_site, write_sites

LEAVES = ("summary.json", "report.html", "quicklook.png", "quicklook-alpha.png", "evaluation.json", "config.yaml", "steps.jsonl",
          "model/model.safetensors", "products/collection.json", "products/alpha-mask.tif", "products/alpha-probability.tif",
          "products/alpha-changes.gpkg", "products/alpha-changes.geojson", "cubes/alpha", "cubes/gamma")  # fmt: skip


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    return tmp_path


def carry_out(body: Callable[[Invocation], dict[str, Any]], config: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    invocation = open_invocation(config, overrides, **options)
    with remembering_folder(invocation):
        return body(invocation)


def test_a_run_finds_the_squares_and_a_second_one_does_nothing(workplace: Path) -> None:
    config = write_sites(workplace)
    first = carry_out(run_change, config)
    folder = Path("runs/tiny")
    assert [name for name in LEAVES if not (folder / name).exists()] == []
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["model"] == "siamese_dcrn"
    assert list(evaluation["methods"]) == [
        "siamese_dcrn", "siamese_dcrn alone", "change_vector", "ir_mad", "change_vector, Otsu", "ir_mad, chi square, 1 %",
    ]  # fmt: skip
    assert evaluation["methods"]["change_vector"]["pooled"]["f1"] > 0.8
    assert evaluation["methods"]["siamese_dcrn"]["pooled"]["f1"] > 0.8
    assert evaluation["area"]["alpha"]["labelled_m2"] == pytest.approx(64 * 100, rel=2e-3)  # on the ellipsoid
    report = (folder / "report.html").read_text()
    for said in ("Stated probability against what happened", "48 x 48 pixels of 10, EPSG:32635", "2.78% changed"):
        assert said in report, said
    assert first["sites"]["alpha"]["patches"] >= 1
    assert first["largest"][0]["first_date"] is None  # of a pair nobody knows when: no NaT, which a report would print
    json.dumps(first["largest"], allow_nan=False)
    patches = geopandas.read_file(folder / "products" / "alpha-changes.gpkg")
    assert patches["area_m2"].max() == pytest.approx(6400, rel=0.35)
    with rasterio.open(folder / "products" / "beta-mask.tif") as mask, rasterio.open("sites/beta/label.tif") as label:
        found, truth = mask.read(1) == 1, label.read(1) == CHANGED
    assert np.count_nonzero(found & truth) > 0.8 * np.count_nonzero(truth)

    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    second = carry_out(run_change, config)
    assert second["skipped"]
    assert "nothing to do" in second["message"]
    changed = {p.name for p, when in written.items() if p.stat().st_mtime_ns != when}
    assert changed <= {"steps.jsonl", "config.yaml", "ingest.json", "refused.json", "cube.lock", ".run.lock"} | {
        path.name for path in (folder / "labels").iterdir()
    }
    check_small_tiles_give_the_same(config, folder)
    check_damage_is_mended(config, folder)
    check_a_loser_is_not_published(config, folder)


def check_small_tiles_give_the_same(config: Path, folder: Path) -> None:
    def layers() -> dict[str, np.ndarray]:
        found = {}
        for path in sorted((folder / "products").glob("*.tif")):
            with rasterio.open(path) as raster:
                found[path.name] = raster.read(1)
        return found

    whole = layers()
    shutil.rmtree(folder / "scores")
    carry_out(change_predict, config, "prediction.tile_px=16")
    tiled = layers()
    assert tiled.keys() == whole.keys()
    for name, layer in whole.items():
        np.testing.assert_allclose(tiled[name], layer, atol=1e-5)
    shutil.rmtree(folder / "scores")
    carry_out(run_change, config)


def check_damage_is_mended(config: Path, folder: Path) -> None:
    """Whatever is damaged below the run's folder is made anew by the same command, and comes out the same."""
    before = {
        name: (folder / name).read_bytes() for name in ("evaluation.json", "model/model.safetensors", "products/alpha-mask.tif")
    }
    (folder / "evaluation.json").write_text('{"methods": {')
    (folder / "model" / "model.safetensors").write_bytes(b"damaged")
    (folder / "samples" / "beta" / "site.json").write_text("{")
    (folder / "samples" / ".beta.4711").mkdir()
    (folder / "products" / "alpha-mask.tif").unlink()
    carry_out(run_change, config)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not (folder / "samples" / ".beta.4711").exists()


def check_a_loser_is_not_published(config: Path, folder: Path) -> None:
    record = folder / "stages" / "evaluate.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "is_publishable": False}))
    (folder / "report.html").unlink()
    with pytest.raises(NotPublished, match="--even-if-worse"):
        carry_out(change_predict, config)
    assert (folder / "report.html").exists()
    assert not carry_out(change_predict, config, even_if_worse=True).get("skipped")
    description = folder / "model" / "model.json"
    description.write_text(description.read_text() + " ")
    with pytest.raises(ArtefactDamaged, match=r"holds the detector \w+, but \w+ was trained here: run `driftline train CONFIG`"):
        carry_out(change_predict, config, "prediction.min_area_px=9", even_if_worse=True)
    with pytest.raises(RequestError, match="was trained with another training than the config says"):
        carry_out(change_evaluate, config, "training.seed=5")


def test_a_place_without_a_label_is_only_predicted_and_must_be_named(workplace: Path) -> None:
    config = write_sites(workplace)
    changed = write_site(workplace / "sites" / "delta", seed=9, with_label=False)
    with pytest.raises(MissingInput, match=r"label.tif.*delta.*name it in prediction.sites"):
        carry_out(change_ingest, config)
    record = carry_out(run_change, config, "prediction.sites=[delta]")
    assert list(record["sites"]) == ["delta"]
    with rasterio.open("runs/tiny/products/delta-mask.tif") as mask:
        found = mask.read(1) == 1
    assert np.count_nonzero(found & changed) > 0.8 * np.count_nonzero(changed)
    assert "delta" not in json.loads(Path("runs/tiny/evaluation.json").read_text())["area"]


def test_a_place_is_judged_by_the_network_that_has_not_seen_it() -> None:
    sites = Sites(
        {name: SimpleNamespace(shape_yx=(40, 50)) for name in ("a", "b", "c", "new")},
        ("a", "b", "c"),
        group_sites(dict.fromkeys("abc", (40, 50)), [["a", "c"]], least_px=5, gap_px=0),
        {},
        "",
    )
    detector = SimpleNamespace(members=[0, 1, 2, 3])
    strips = {name: members_of(sites, detector, name) for name in sites.all}
    assert len(sites.grouping) == 4  # two groups: strips
    assert strips["new"] == {Tile(0, 40, 0, 50): [0, 1, 2, 3]}
    assert [members for tile, members in strips["a"].items() if tile != Tile(0, 40, 0, 50)] == [[0], [1], [2], [3]]
    sites = replace(sites, grouping=group_sites(dict.fromkeys("abcd", (40, 50)), [["a", "c"]], least_px=5, gap_px=0))
    whole = Tile(0, 40, 0, 50)
    assert [members_of(sites, detector, name)[whole] for name in ("a", "b", "c", "new")] == [[0], [1], [0], [0, 1, 2, 3]]


def test_a_killed_training_ends_with_the_same_detector(workplace: Path) -> None:
    config = write_sites(workplace)
    carry_out(change_ingest, config)
    whole = carry_out(change_train, config)["model_hash"]
    shutil.rmtree("runs/tiny/model")
    Path("runs/tiny/stages/train.json").unlink()
    invocation = open_invocation(config)
    invocation.steps.call = killed_at("train without gamma")
    with pytest.raises(KeyboardInterrupt), remembering_folder(invocation):
        change_train(invocation)
    assert not Path("runs/tiny/stages/train.json").exists()
    record = carry_out(change_train, config)
    assert record["model_hash"] == whole
    assert [member["resumed"] for member in record["training"]["members"]] == [True, True, False]


def killed_at(name: str) -> Any:
    def call(_stage: str, step: str, work: Callable[[], Any]) -> Any:
        if step == name:
            raise KeyboardInterrupt
        return work()

    return call


def test_the_order_of_places_in_the_config_decides_nothing(workplace: Path) -> None:
    config = write_sites(workplace)
    there = carry_out(change_ingest, config)["snapshot"]
    assert carry_out(change_ingest, config, "source.sites=[gamma, alpha, beta, alpha]")["snapshot"] == there


def test_the_plan_counts_groups_and_pairs_of_them(workplace: Path) -> None:
    config = write_sites(workplace, ("alpha", "beta", "gamma", "delta", "omega"))
    for line in ("evaluation.groups=[[alpha, beta]]", "source.sites=[alpha]"):  # one site: four strips
        plan = make_plan(load_run(config, [line]), "run")
        assert {step["stage"]: step["what"] for step in plan["steps"]}["train"] == "4 networks"


def test_three_dates_and_places_of_other_lengths(workplace: Path) -> None:
    config = write_sites(workplace)
    write_site(workplace / "sites" / "beta", seed=1, dates=3)
    carry_out(change_ingest, config)
    carry_out(change_train, config)
    evaluation = carry_out(change_evaluate, config)
    assert evaluation["metrics"]["siamese_dcrn"]["f1"] > 0.8
    with pytest.raises(RequestError, match=r"fc_ef compares exactly 2 dates.*beta has 3"):
        carry_out(change_train, config, "model.kind=fc_ef")


def test_two_places_that_are_too_small_for_strips_are_refused(workplace: Path) -> None:
    config = write_sites(workplace, ("alpha", "beta"))
    carry_out(change_ingest, config)
    with pytest.raises(RequestError, match=r"there are 2 groups of sites, and leaving one out takes 3.*add labelled sites"):
        carry_out(change_train, config)


def test_a_place_where_nothing_changed_is_learnt_from_with_others(workplace: Path) -> None:
    config = write_sites(workplace, ("alpha", "beta", "gamma", "omega"))
    write_raster(workplace / "sites" / "beta" / "label.tif", np.full((SIDE_PX, SIDE_PX), UNCHANGED, np.uint8))
    record = carry_out(change_ingest, config)
    assert record["sites"]["beta"]["notes"] == ["label.tif has no changed pixel"]
    with pytest.raises(RequestError, match=r"the group beta \(beta\) holds only the class 'unchanged'.*evaluation.groups"):
        carry_out(change_train, config)
    grouped = "evaluation.groups=[[beta, omega]]"
    carry_out(change_train, config, grouped)
    carry_out(change_evaluate, config, grouped)
    evaluation = json.loads(Path("runs/tiny/evaluation.json").read_text())
    assert evaluation["methods"]["change_vector"]["sites"]["beta"]["recall"] is None  # nothing there to find
    assert evaluation["methods"]["change_vector"]["pooled"]["f1"] > 0.8
    carry_out(change_predict, config, grouped, even_if_worse=True)
    assert Path("runs/tiny/quicklook-beta.png").exists()


def test_every_bad_place_is_named_with_a_way_to_go_on(workplace: Path) -> None:
    config = write_sites(workplace, ("alpha", "beta", "gamma", "omega"))
    (workplace / "sites" / "beta" / "label.tif").write_bytes(b"")
    path = workplace / "sites" / "gamma" / "2" / "nir.tif"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(RequestError, match=r"2 of 4 sites cannot be used") as informative:
        carry_out(change_ingest, config)
    assert "beta: the label sites/beta/label.tif cannot be used: label.tif has 0 bytes" in str(informative.value)
    assert "gamma: 1 of its dates can be used (gamma/1), change needs two; gamma/2: truncated" in str(informative.value)
    assert "to go on without: source.sites: [alpha, omega]" in str(informative.value)
    assert list(carry_out(change_ingest, config, "source.sites=[alpha, omega]")["sites"]) == ["alpha", "omega"]


def test_dates_that_are_hardly_alike_are_told_in_the_report(workplace: Path) -> None:
    config = write_sites(workplace)
    for band in ("red", "nir"):
        (workplace / "sites" / "beta" / "2" / f"{band}.tif").write_bytes(
            (workplace / "sites" / "gamma" / "2" / f"{band}.tif").read_bytes()
        )
    carry_out(run_change, config)
    assert "beta, date 2: hardly like the first date" in (Path("runs/tiny") / "report.html").read_text()


def test_a_bad_place_that_is_only_predicted_is_left_out(workplace: Path) -> None:
    config = write_sites(workplace)
    for name in ("delta", "omega"):
        write_site(workplace / "sites" / name, seed=9, with_label=False)
    (workplace / "sites" / "omega" / "dates.txt").unlink()
    record = carry_out(run_change, config, "prediction.sites=[delta, omega]")
    assert list(record["sites"]) == ["delta"]
    (refused,) = json.loads(Path("runs/tiny/refused.json").read_text())
    assert (refused["scene_id"], refused["reason"]) == ("omega", "site")
    assert "dates.txt" in refused["detail"]
    with pytest.raises(RequestError, match=r"none of prediction.sites \(omega\) can be used"):
        carry_out(run_change, config, "prediction.sites=[omega]", "source.sites=[alpha, beta, gamma, omega]")


def test_a_crs_of_no_place_on_earth_is_refused_before_anything_is_learnt(workplace: Path) -> None:
    config = write_sites(workplace)
    with pytest.raises(
        RequestError, match=r"3 of 3 sites.*\n  alpha: its CRS is of no site on Earth .*set source.crs: EPSG:3857"
    ):
        carry_out(change_ingest, config, 'source.crs="LOCAL_CS[\\"pixels\\",UNIT[\\"metre\\",1]]"')


def test_a_label_of_another_place_is_refused(workplace: Path) -> None:
    config = write_sites(workplace)
    write_raster(workplace / "sites" / "beta" / "label.tif", np.full((7, 9), UNCHANGED, np.uint8))
    with pytest.raises(RequestError, match=r"label.*7 x 9 pixels"):
        carry_out(change_ingest, config, "labels.grid_of=first")


def test_dates_in_the_wrong_order_are_refused(workplace: Path) -> None:
    config = write_sites(workplace)
    (workplace / "sites" / "beta" / "dates.txt").write_text("date_1: 20190601\ndate_2: 20180601\n")
    with pytest.raises(RequestError, match="the dates are in the wrong order"):
        carry_out(change_ingest, config)


def test_a_place_of_other_bands_is_refused(workplace: Path) -> None:
    config = write_sites(workplace)
    for step in ("1", "2"):
        (workplace / "sites" / "beta" / step / "nir.tif").rename(workplace / "sites" / "beta" / step / "blue.tif")
    with pytest.raises(RequestError, match=r"beta.*nir"):
        carry_out(change_ingest, config)


def test_groups_name_places_that_are_there(workplace: Path) -> None:
    config = write_sites(workplace)
    carry_out(change_ingest, config)
    with pytest.raises(RequestError, match=r"evaluation.groups.0.1: names 'omega', which is no site of this run"):
        carry_out(run_change, config, "evaluation.groups=[[alpha, omega]]")
    with pytest.raises(RequestError, match=r"prediction.sites.0: names 'alfa', .*\n.*did you mean 'alpha'"):
        carry_out(run_change, config, "prediction.sites=[alfa]")
    with pytest.raises(RequestError, match=r"evaluation.groups names 'omega', which is no site of this run"):
        carry_out(change_train, config, "evaluation.groups=[[alpha, omega]]", inputs_must_exist=False)
