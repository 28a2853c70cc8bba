"""Class maps from several sites; with two classes and a change network they share their numbers with `task: change`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml

from configs.tasks.change_detectors import build_recipe
from configs.tasks.segment import build_learner
from configs.tasks.segment import build_recipe as build_class_recipe
from flows.task import Invocation, open_invocation
from flows.tasks.change import open_scores
from flows.tasks.segment_cubes import open_samples
from pipelines.change.metrics import count_changes
from pipelines.change.windows import ChangeWindows
from pipelines.errors import ConfigError, RequestError
from pipelines.inference.class_scores import score_labels
from pipelines.learning.class_metrics import class_figure_of, confusion, decide
from pipelines.learning.training import train
from tests.flows.change_sites import CHANGED, TINY, UNCHANGED, write_site, write_sites
from tests.flows.small_runs import perform

SEGMENT: dict[str, Any] = {
    "name": "classes",
    "task": "segment",
    "source": TINY["source"],
    "cube": {**TINY["cube"], "on_other_grid": "reproject", "resampling": "bilinear"},
    "pairs": {},
    "labels": {"kind": "site_rasters", "path": "{site}/label.tif", "codes": {UNCHANGED: "same", CHANGED: "changed"}},
    "split": {"networks": 2},
    "model": {"kind": "siamese_dcrn", "widths": [4, 6], "dropout": 0.0},
    "training": {
        "epochs": 4, "windows": 24, "window_px": 16, "batch": 8, "learning_rate": 0.01, "accelerator": "cpu",
        "loss": "dice_focal", "class_weights": False, "draw": "classes", "decision": "largest_f1",
        "augment": {"noise": 0, "hidden_dates": 0, "early": 0, "jitter_days": 0},
    },
    "evaluation": {"measure": "mean_f1", "references": ["nearest_mean_curve"], "must_equal": []},
}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a config of class maps beside the tiny sites of `task: change`; None takes a section out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    write_sites(tmp_path)

    def write_config(**changes: Any) -> Path:
        path = tmp_path / "classes.yaml"
        content = {name: one for name, one in {**SEGMENT, **changes}.items() if one is not None}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write_config


def carry_out(verb: str, config: Path, *overrides: str, **options: Any) -> Invocation:
    invocation = open_invocation(config, overrides, **options)
    perform(invocation, verb)
    return invocation


class WithYears:
    """Windows of `task: change` as a segmenter takes them."""

    def __init__(self, windows: ChangeWindows):
        self.windows, self.shapes, self.set_epoch = windows, windows.shapes, windows.set_epoch

    def __len__(self) -> int:
        return len(self.windows)

    def gather(self, indices: list[int]) -> dict[str, torch.Tensor]:
        batch = self.windows.gather(indices)
        return {**batch, "years_T": batch["elapsed_T"].cumsum(1) / 365.25, "target": batch["target"].long()}


@pytest.mark.exhaustive
def test_the_same_windows_weights_and_seeds_give_the_numbers_of_change(write: Callable[..., Path], tmp_path: Path) -> None:
    of_change = carry_out("ingest", tmp_path / "tiny.yaml", "cube.on_other_grid=reproject", "model.fuse_with=none")
    of_classes = carry_out("ingest", write())
    scores, samples = open_scores(of_change, "train"), open_samples(of_classes, "train")
    recipe, sites = build_recipe(of_change.run, of_change.run.model, 7), scores.sites
    detector = recipe.build_learner(sites.bands, 7)
    segmenter = build_learner(of_classes.run, sites.bands, ("same", "changed"), 0)
    segmenter.members[0].network.load_state_dict(detector.members[0].state_dict())  # build seeds number networks otherwise
    windows = ChangeWindows(sites.all, sites.grouping.outside([0]), recipe.windows, 7)
    loss = build_class_recipe(of_classes.run).loss
    train(detector, windows, windows, recipe.loss, recipe.training(7), tmp_path / "one")
    train(segmenter, WithYears(windows), WithYears(windows), loss, recipe.training(7), tmp_path / "two")
    for name, tensor in detector.members[0].state_dict().items():
        assert torch.equal(tensor, segmenter.members[0].network.state_dict()[name]), name

    (region,) = sites.grouping.groups[0]
    logit_HW, truth = scores.logits(region.site, detector, 0, "key"), sites.truths[region.site]
    p = np.flatnonzero(samples.fold_P == 0)
    logit_PK = score_labels(samples, p, segmenter, 0, 512, None)
    rows, columns = samples.labels.row_P[p], samples.labels.column_P[p]
    np.testing.assert_array_equal(logit_PK[:, 1], logit_HW[rows, columns])
    np.testing.assert_array_equal(samples.labels.class_P[p], truth.label_HW[rows, columns])

    p_HW = torch.sigmoid(torch.from_numpy(np.array(logit_HW))).numpy()
    threshold = float(np.quantile(p_HW, 0.9))
    said_P = decide(segmenter.calibrated(0, logit_PK), np.array([1.0, (1 - threshold) / threshold]))
    table_RX = confusion(samples.labels.class_P[p], said_P, 2).reshape(1, -1)
    assert class_figure_of("f1", 1, table_RX)[0] == count_changes(p_HW >= threshold, truth.label_HW, truth.seen_HW).f1


def test_a_run_over_sites_maps_each_and_its_model_needs_no_labels_elsewhere(write: Callable[..., Path], tmp_path: Path) -> None:
    training = {**SEGMENT["training"], "loss": "cross_entropy", "windows": 128, "learning_rate": 0.03, "batch": 32}
    model = {"kind": "gru", "hidden": 8}
    carry_out("run", write(model=model, training=training, pairs=None, split={}), even_if_confounded=True)
    evaluation = json.loads(Path("runs/classes/evaluation.json").read_text())
    f1 = {row["class"]: row["f1"] for row in evaluation["details"]["methods"]["model"]["classes"]}
    assert f1["changed"] > 0.6
    assert {clue["name"] for clue in evaluation["details"]["audit"]["clues"]} >= {"site", "date"}
    for name in ("alpha-class.tif", "gamma-classes.gpkg", "beta.json", "collection.json"):
        assert (Path("runs/classes/products") / name).exists(), name
    with rasterio.open("runs/classes/products/beta-class.tif") as raster:
        assert set(np.unique(raster.read(1))) == {1, 2}
    assert json.loads(Path("runs/classes/summary.json").read_text())["sentence"].startswith("classes, ")

    write_site(tmp_path / "elsewhere" / "delta", seed=9, with_label=False)
    only = {"name": "there", "labels": None, "pairs": None, "split": {}, "model": {"use": "runs/classes"}}
    carry_out("run", write(**only, source={**TINY["source"], "path": "elsewhere"}))
    summary = json.loads(Path("runs/there/summary.json").read_text())
    assert "not evaluated here" in json.dumps(summary)
    assert summary["found"]["areas"][1]["low"] is None
    assert (Path("runs/there/products") / "delta-class.tif").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": None}, "labels: is required and missing"),
        ({"labels": {"kind": "raster", "path": "a.tif", "codes": {1: "a", 2: "b"}}}, "sites have a label raster each"),
        (
            {"variables": [{"name": "ndvi", "formula": "normalized_difference", "bands": ["nir", "red"]}]},
            "cannot be made comparable",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(write: Callable[..., Path], changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        open_invocation(write(**changes))


def test_a_network_of_two_classes_refuses_a_third(write: Callable[..., Path]) -> None:
    codes = {UNCHANGED: "same", CHANGED: "changed", 99: "water"}
    config = write(labels={**SEGMENT["labels"], "codes": codes})
    carry_out("ingest", config)
    with pytest.raises(RequestError, match="siamese_dcrn tells two classes apart, there are 3"):
        carry_out("train", config)
