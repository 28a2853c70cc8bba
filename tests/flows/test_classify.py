"""Labels of whole sequences from config to result: one that only the order of frames holds, one that a size gives away."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from flows import stage
from flows.planning import make_plan
from flows.task import open_invocation, remembering_folder
from pipelines.errors import ConfigError, NotPublished, RequestError

LEAVES = ("summary.json", "report.html", "report.md", "quicklook.png", "evaluation.json", "model/model.safetensors",
          "products/labels.csv", "products/index.json", "products/looked-at.png")  # fmt: skip
FRAMES, SIDE = 4, 12
TINY: dict[str, Any] = {
    "name": "tiny",
    "task": "classify",
    "source": {"kind": "files", "path": "clips", "unit": "folder"},
    "labels": {"kind": "table", "path": "labels.csv"},
    "frames": {"size": [SIDE, SIDE]},
    "split": {"folds": 3, "validation_parts": 4},
    "model": {"kind": "convgru", "widths": [8], "dropout": 0.0, "flattened": True},
    "training": {"epochs": 14, "batch": 8, "accelerator": "cpu", "learning_rate": 0.02},
    "evaluation": {"references": ["commonest", "frame_cnn"], "must_equal": ["commonest", "frame_cnn"]},
}


def write_clips(folder: Path, count: int, *, wide_right: bool = False) -> None:
    """A bright column that moves right or left, with a random start; every frame alone looks the same for both."""
    rng = np.random.default_rng(1)
    lines = ["file,label,group"]
    for n in range(count):
        moves_right = bool(rng.integers(2))
        at = rng.permutation(FRAMES)[0]
        width = SIDE + (4 if wide_right and moves_right else 0)
        clip = folder / "clips" / f"c{n:02d}"
        clip.mkdir(parents=True)
        for t in range(FRAMES):
            image = rng.normal(60, 6, (SIDE, width))
            place = (at + (t if moves_right else -t)) % FRAMES
            if not wide_right:
                image[:, 3 * place : 3 * place + 3] += 120
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(clip / f"{t}.png")
        lines.append(f"c{n:02d},{'right' if moves_right else 'left'},g{n % 12}")
    (folder / "labels.csv").write_text("\n".join(lines))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    return tmp_path


def run(verb: str = "run", **changes: Any) -> dict[str, Any]:
    Path("tiny.yaml").write_text(yaml.safe_dump({**TINY, **changes}))
    context = open_invocation("tiny.yaml")
    with remembering_folder(context):
        return stage.carry_out(context, verb)


def read_rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "products" / "labels.csv").read_text().splitlines()))


def test_the_order_of_frames_is_learnt_and_a_single_frame_is_not_enough(here: Path) -> None:
    write_clips(here, 60)
    result = run()
    folder = here / "runs" / "tiny"
    assert not [name for name in LEAVES if not (folder / name).is_file()]
    methods = json.loads((folder / "evaluation.json").read_text())["methods"]
    assert methods["model"]["accuracy"] > 0.9
    assert methods["frame_cnn"]["accuracy"] < 0.75
    assert result["skipped"] is False
    rows = read_rows(folder)
    assert len(rows) == 60
    right = sum(row["label"] == row["known"] for row in rows)
    assert right / 60 == pytest.approx(methods["model"]["accuracy"])  # answered by networks that have not seen the group
    assert {row["answered_by"] for row in rows} == {"networks that have not seen its group"}
    again = run()
    assert again["skipped"] is True
    with Path("labels.csv").open("a") as file:
        file.write("\nc60,right,g3")
    assert run("ingest")["skipped"] is True  # a line of the table that names no sample
    used = run(name="other", labels=None, model={"use": "runs/tiny"}, evaluation={})
    assert used["skipped"] is False
    other = read_rows(here / "runs" / "other")
    assert {row["answered_by"] for row in other} == {"all networks"}


def test_a_size_that_gives_the_label_away_is_found(here: Path) -> None:
    write_clips(here, 36, wide_right=True)
    training = {**TINY["training"], "epochs": 2}
    with pytest.raises(NotPublished, match="nobody can say"):
        run(training=training, frames={"size": [SIDE, SIDE], "fit": "stretch"}, evaluation={"references": ["commonest"]})
    evaluation = json.loads((here / "runs" / "tiny" / "evaluation.json").read_text())
    assert "frame size" in evaluation["verdict"]["confounded_by"]
    assert not (here / "runs" / "tiny" / "products").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"kind": "row_lstm"}, "frames": {"count": 4}}, "reads one image"),
        ({"model": {"kind": "cnn_lstm"}, "frames": {"size": [2, 4, 4]}}, "not for volumes"),
        ({"labels": {"kind": "table"}}, "labels.path"),
        ({"labels": {"kind": "source"}}, "does not fit the source"),
        ({"frames": {"crop": [0.5, 0, 0.5, 1]}}, "no area"),
        ({"evaluation": {"references": ["commonest"], "must_equal": ["frame_cnn"]}}, "not among"),
    ],
)
def test_mistakes_in_the_config_are_found_before_anything_runs(here: Path, changes: dict[str, Any], said: str) -> None:
    write_clips(here, 2)
    with pytest.raises(ConfigError, match=said):
        run(**changes)


def test_networks_of_other_frames_are_refused_with_a_remedy(here: Path) -> None:
    write_clips(here, 24)
    with pytest.raises(RequestError, match="reads one image, the samples have 4 frames"):
        run(model={"kind": "row_lstm"})
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY))
    plan = make_plan(open_invocation("tiny.yaml").run, "run")
    assert plan["extent"]["sites"] == 24
    assert [step["stage"] for step in plan["steps"]] == ["ingest", "train", "evaluate", "predict"]
