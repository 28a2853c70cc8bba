"""New images from config to result, on made images whose entropy is known."""

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.planning import make_plan
from flows.task import open_invocation
from pipelines.errors import ConfigError, RequestError
from tests.flows.small_runs import LEAVES, carry_out, read_json

SIDE, FLIPPED = 6, 0.1
ENTROPY = SIDE * np.log(2) - SIDE * (SIDE - 1) * (FLIPPED * np.log(FLIPPED) + (1 - FLIPPED) * np.log(1 - FLIPPED))
TINY: dict[str, Any] = {
    "name": "tiny",
    "task": "generate",
    "source": {"kind": "idx", "path": "images"},
    "binarise": {"how": "threshold"},
    "split": {"test": "test", "validation_parts": 5},
    "model": {"kind": "pixel_rnn", "hidden": 16, "above": 1, "embedding": 8},
    "training": {"epochs": 5, "accelerator": "cpu", "learning_rate": 0.03},
    "evaluation": {"references": ["independent", "mixture"], "components": 4, "max_nats": 15},
    "prediction": {"images": 9, "completed": 3, "completions": 2},
}


def write_images(folder: Path, count: dict[str, int], side: int = SIDE) -> None:
    """Each row is the row above with a tenth of the pixels flipped; the first row is noise. Entropy: `ENTROPY` nats."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for part, images in count.items():
        x = rng.random((images, side, side)) < np.where(np.arange(side) == 0, 0.5, FLIPPED)[:, None]
        x = (np.logical_xor.accumulate(x, axis=1) * 255).astype(np.uint8)
        for kind, head, values in (
            ("images-idx3-ubyte.gz", (0x803, *x.shape), x),
            ("labels-idx1-ubyte.gz", (0x801, images), x[:, 0, 0] // 255),
        ):
            (folder / f"{part}-{kind}").write_bytes(gzip.compress(np.array(head, ">i4").tobytes() + values.tobytes()))


@pytest.fixture
def images(here: Path) -> Path:
    write_images(here / "images", {"train": 1500, "test": 500})
    return here


@pytest.mark.torch
def test_the_entropy_of_the_source_is_approached_and_its_images_are_drawn(images: Path) -> None:
    plan = make_plan(open_invocation_of(TINY).run, "run")
    assert [step["stage"] for step in plan["steps"]] == ["ingest", "train", "evaluate", "predict"]
    result, folder = carry_out("run", TINY), images / "runs" / "tiny"
    assert result["skipped"] is False
    assert not [name for name in (*LEAVES, "products/images.npz", "products/completions.png") if not (folder / name).is_file()]
    methods = read_json("evaluation.json")["methods"]
    assert methods["independent"]["nats"] == pytest.approx(SIDE * SIDE * np.log(2), abs=0.2)
    error = methods["model"]["standard_error"]
    assert ENTROPY - 3 * error < methods["model"]["nats"] < ENTROPY + 3 * error + 0.3
    assert methods["model"]["bits_per_dimension"] == pytest.approx(methods["model"]["nats"] / (36 * np.log(2)))
    curve = read_json("stages/train.json")["training"]["members"][0]["curve"]
    assert [row["epoch"] for row in curve] == list(range(6))
    assert all(a["cpu_seconds"] < b["cpu_seconds"] for a, b in pairwise(curve))
    with np.load(folder / "products" / "images.npz") as arrays:
        drawn = {name: arrays[name] for name in arrays.files}
    assert drawn["new"].shape == (9, SIDE, SIDE)
    assert np.array_equal(drawn["completions"][:, :, :3], drawn["completed_from"][:, None, :3].repeat(2, axis=1))
    assert np.array_equal((drawn["new"] != drawn["nearest"]).sum(axis=(1, 2)), drawn["nearest_px"])
    assert "Nats against CPU time" in (folder / "report.html").read_text()
    assert carry_out("run", TINY)["skipped"] is True
    written = (folder / "products" / "images.npz").read_bytes()
    (folder / "products" / "images.npz").unlink()
    carry_out("predict", TINY)
    assert (folder / "products" / "images.npz").read_bytes() == written


@pytest.mark.torch
def test_the_row_lstm_is_trained_by_the_same_verbs_and_its_model_is_used_elsewhere(images: Path) -> None:
    model = {"kind": "masked_row_lstm", "hidden": 6, "layers": 1, "head": 8}
    asked = {"references": ["independent"], "must_equal": ["independent"]}
    carry_out("run", TINY, model=model, evaluation=asked, training={**TINY["training"], "epochs": 3})
    first = read_json("evaluation.json")["methods"]["model"]["nats"]
    assert first < SIDE * SIDE * np.log(2) - 2
    carry_out("run", TINY, name="other", model={"use": "runs/tiny"}, evaluation=asked)
    assert read_json("evaluation.json", "other")["methods"]["model"]["nats"] == pytest.approx(first, rel=1e-6)
    evaluation = read_json("evaluation.json", "other")
    assert evaluation["details"]["seen"] == "no", "the same test images as there"
    assert "it has not seen" in evaluation["verdict"]["sentence"]
    carry_out("evaluate", TINY, name="learnt", model={"use": "runs/tiny"}, evaluation=asked, split={"test": "train"})
    evaluation = read_json("evaluation.json", "learnt")
    assert evaluation["details"]["seen"] == "yes"
    assert "it has not seen" not in evaluation["verdict"]["sentence"]
    assert "its nats are too few" in " ".join(evaluation["notes"])
    write_images(images / "small", {"train": 20, "test": 20}, side=4)
    with pytest.raises(RequestError, match=r"the images have 4 x 4 pixels, the model was trained on 6 x 6 pixels"):
        carry_out("run", {**TINY, "source": {"kind": "idx", "path": "small"}}, name="third", model={"use": "runs/tiny"})


@pytest.mark.torch
@pytest.mark.exhaustive
def test_settings_are_searched_for_by_nats_of_the_validation_part(images: Path) -> None:
    pytest.importorskip("optuna", reason="needs driftline[sweep]")
    section = {"space": {"training.learning_rate": [0.03, 1e-6]}, "sampler": "grid", "pruner": "none"}
    content = {**TINY, "training": {**TINY["training"], "epochs": 1, "per_epoch": 600}}
    result = carry_out("sweep", content, sweep=section)
    assert (result["metric"], result["best"]["values"]) == ("validation_loss", {"training.learning_rate": 0.03})
    assert not any("fold" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": {"references": ["independent"], "must_equal": ["mixture"]}}, "not among evaluation.references"),
        ({"source": {"kind": "files", "path": "images"}}, "source.kind"),
        ({"labels": {"kind": "source"}}, "labels"),
    ],
)
def test_mistakes_in_the_config_are_found_before_anything_runs(images: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        carry_out("run", TINY, **changes)


def test_a_reference_that_needs_too_much_memory_is_refused_by_the_plan(images: Path) -> None:
    write_images(images / "large", {"train": 4, "test": 2}, side=101)
    content = {**TINY, "source": {"kind": "idx", "path": "large"}}
    make_plan(open_invocation_of(content).run, "run")
    with pytest.raises(RequestError, match=r"logistic has a weight for each two of 10201 pixels, about 1\.7 GB.*frames\.size"):
        make_plan(open_invocation_of({**content, "evaluation": {}}).run, "run")


def open_invocation_of(content: dict[str, Any]) -> Any:
    import yaml

    Path("plan.yaml").write_text(yaml.safe_dump(content))
    return open_invocation("plan.yaml")
