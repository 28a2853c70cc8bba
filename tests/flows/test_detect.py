"""Boxes in every frame from config to result, on small made clips; mistakes in config and table are refused."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from flows.planning import make_plan
from flows.task import open_invocation
from pipelines.errors import ConfigError, RequestError
from tests.flows.small_runs import LEAVES, assert_the_curve_is_shown, carry_out, read_json, rows_of

FRAMES, SIDE, SCALE = 4, 24, 2
TINY: dict[str, Any] = {
    "name": "tiny",
    "task": "detect",
    "source": {"kind": "files", "path": "clips", "unit": "folder"},
    "labels": {"kind": "table", "path": "boxes.csv"},
    "frames": {"size": [SIDE, SIDE]},
    "split": {"folds": 2, "validation_parts": 4},
    "model": {"kind": "centre_convgru", "widths": [6, 8, 12]},
    "training": {"epochs": 24, "batch": 8, "accelerator": "cpu", "learning_rate": 0.02, "augment": {"flip": "both"}},
    "evaluation": {"references": ["threshold", "single_frames"], "must_equal": [], "min_ap": 0.5},
}


def write_clips(folder: Path, count: int, unknown: int = 0) -> None:
    """A wide or a tall bright bar moves; files are twice as large as the stored frames. The last clips are not labelled."""
    rng = np.random.default_rng(1)
    lines = ["file,frame,top,left,bottom,right,label,group"]
    for n in range(count):
        shape = np.array([(6, 10), (10, 6)][n % 2]) * SCALE
        at, step = rng.integers(0, SIDE * SCALE - shape - 8), rng.integers(0, 3, 2)
        clip = folder / "clips" / f"c{n:02d}"
        clip.mkdir(parents=True)
        for t in range(FRAMES):
            image = rng.normal(60, 6, (SIDE * SCALE, SIDE * SCALE))
            top, left = at + t * step
            bottom, right = top + shape[0] - 1, left + shape[1] - 1
            image[top : bottom + 1, left : right + 1] += 120
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(clip / f"{t}.png")
            if n < count - unknown:
                lines.append(f"c{n:02d},{t},{top},{left},{bottom},{right},{'wide' if n % 2 == 0 else 'tall'},g{n % 9}")
    (folder / "boxes.csv").write_text("\n".join(lines))


def run(verb: str = "run", **changes: Any) -> dict[str, Any]:
    return carry_out(verb, TINY, **changes)


def test_boxes_are_found_in_clips_of_other_groups(here: Path) -> None:
    write_clips(here, 32, unknown=2)
    assert run()["skipped"] is False
    folder = here / "runs" / "tiny"
    assert not [name for name in (*LEAVES, "products/boxes.csv") if not (folder / name).is_file()]
    evaluation = read_json("evaluation.json")
    assert evaluation["methods"].keys() == {"model", "threshold", "single_frames"}
    assert evaluation["methods"]["model"]["ap50"] > 0.6
    assert evaluation["methods"]["threshold"]["ap50"] > 0.9  # bright bars on a flat ground are its best case
    assert_the_curve_is_shown("ap50", "mean AP50")
    rows = rows_of(table="boxes")
    assert {row["answered_by"] for row in rows if row["sample"] in ("c30", "c31")} <= {"all networks"}
    assert {row["answered_by"] for row in rows if row["sample"] == "c00"} == {"networks that have not seen its group"}
    known = {(row["file"], row["frame"]): row for row in csv.DictReader(Path("boxes.csv").read_text().splitlines())}
    off = [
        abs(int(row[edge]) - int(known[row["sample"], row["frame"]][edge]))
        for row in rows
        if (row["sample"], row["frame"]) in known
        for edge in ("top", "left", "bottom", "right")
    ]
    assert np.median(off) <= 4  # pixels of the file, in which the table is read and written
    index = read_json("products/index.json")
    assert (index["samples"], sum(index["boxes"].values())) == (32, len(rows))
    assert run()["skipped"] is True
    again = run("evaluate", prediction={"least_score": 0.6})
    assert (again["skipped"], read_json("evaluation.json")["details"]["least_score"]) == (False, 0.6)
    assert run(name="other", labels=None, model={"use": "runs/tiny"}, evaluation={})["skipped"] is False
    assert {row["answered_by"] for row in rows_of("other", "boxes")} == {"all networks"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"augment": {"rotate_degrees": 10}}}, "moves pixels away from their boxes"),
        ({"training": {"augment": {"mixup": 0.2}}}, "flip moves the boxes too"),
        ({"frames": {"size": [2, 8, 8]}}, "boxes are of images"),
        ({"model": {"kind": "centre_convgru", "widths": [8, 8]}}, "widths"),
        ({"labels": {"kind": "folders"}}, "labels.kind"),
        ({"source": {"kind": "moving_digits", "path": "clips"}, "labels": {"kind": "source"}}, "'digit' is no box"),
        ({"source": {"kind": "idx", "path": "clips"}, "labels": {"kind": "source"}}, "no boxes"),
        ({"evaluation": {"must_equal": ["single_frames"]}}, "not among"),
    ],
)
def test_mistakes_in_the_config_are_found_before_anything_runs(here: Path, changes: dict[str, Any], said: str) -> None:
    write_clips(here, 1)
    with pytest.raises(ConfigError, match=said):
        run(**changes)


def test_boxes_are_no_labels(here: Path) -> None:
    write_clips(here, 1)
    source = {"kind": "moving_digits", "path": "clips", "answer": "boxes"}
    Path("tiny.yaml").write_text(
        yaml.safe_dump({"name": "a", "task": "classify", "source": source, "labels": {"kind": "source"}})
    )
    with pytest.raises(ConfigError, match="boxes are no labels"):
        open_invocation("tiny.yaml")


def test_a_box_outside_the_frame_is_refused_by_name(here: Path) -> None:
    write_clips(here, 6)
    with Path("boxes.csv").open("a") as file:
        file.write("\nc03,1,40,0,48,5,wide,g3")
    run("ingest")
    with pytest.raises(RequestError, match=r"sample c03: a box in frame 1, rows 40 to 48, .* 4 frames of 48 rows and 48 columns"):
        run("train")
    steps = make_plan(open_invocation("tiny.yaml").run, "run")["steps"]
    assert [step["stage"] for step in steps] == ["ingest", "train", "evaluate", "predict"]
