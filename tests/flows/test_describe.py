"""Captions from config to result, on small made clips; mistakes in config and table are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.sequence_model import SEQUENCE_MODEL
from pipelines.errors import ConfigError, RequestError
from tests.flows.small_runs import LEAVES, assert_the_curve_is_shown, carry_out, read_json, rows_of

SIDE, FRAMES = 12, 3
TINY: dict[str, Any] = {
    "name": "tiny",
    "task": "describe",
    "source": {"kind": "files", "path": "clips", "unit": "folder"},
    "labels": {"kind": "table", "path": "captions.csv"},
    "split": {"test": "test", "validation_parts": 4},
    "model": {"widths": [4, 8], "grid": 3, "hidden": 16, "embedding": 8, "word_hidden": 16, "dropout": 0.0, "longest": 8},
    "training": {"epochs": 40, "batch": 8, "accelerator": "cpu", "learning_rate": 0.02, "weight_decay": 0.0},
    "evaluation": {"references": ["commonest", "nearest"], "must_equal": ["commonest"], "slots": {"way": ["left", "right"]}},
    "prediction": {"beams": 3, "shown": 2},
}


def write_clips(folder: Path, count: int, strange: int = 0) -> None:
    """A bar is in the left or the right half and bright or dim. The last clips have no caption; `strange` ones of the part that
    tests have a word that no other caption has."""
    rng = np.random.default_rng(1)
    lines = ["file,caption,part"]
    for n in range(count):
        side, light, part = n % 2, n // 2 % 2, "test" if n % 8 >= 6 else "train"
        clip = folder / "clips" / f"c{n:02d}"
        clip.mkdir(parents=True)
        for t in range(FRAMES):
            image = rng.normal(40, 4, (SIDE, SIDE))
            image[2:10, 2 + 6 * side : 4 + 6 * side] += (70, 190)[light]
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(clip / f"{t}.png")
        text = f"A {('dim', 'bright')[light]} bar, {('left', 'right')[side]}"
        if n < count - 1:
            odd = " indeed" if part == "test" and n % 8 == 7 and n // 8 < strange else ""
            lines.append(f'c{n:02d},"{text}{odd}",{part}')
    (folder / "captions.csv").write_text("\n".join(lines))


def run(verb: str = "run", **changes: Any) -> dict[str, Any]:
    return carry_out(verb, TINY, **changes)


@pytest.mark.torch
def test_captions_are_learnt_word_by_word(here: Path) -> None:
    write_clips(here, 41, strange=1)
    assert run()["skipped"] is False
    folder = here / "runs" / "tiny"
    assert not [name for name in (*LEAVES, "products/captions.csv", "products/captions.json") if not (folder / name).is_file()]
    rows = rows_of(table="captions")
    own = [row for row in rows if row["known"] and "indeed" not in row["known"]]
    assert {row["caption"] == row["known"] for row in own} == {True}  # an exact match of 1, of what was learnt and what was not
    assert {row["answered_by"] for row in own} == {"networks that have not seen its group", "all networks"}
    model, _ = SEQUENCE_MODEL.load(folder / "model")
    assert "bright" in model.outputs
    assert "indeed" not in model.outputs  # it stands in a caption of the part that tests
    evaluation = read_json("evaluation.json")
    tested = [row for row in rows if row["answered_by"].startswith("networks") and row["known"]]
    exact = np.mean([row["caption"] == row["known"] for row in tested])
    assert evaluation["methods"]["model"]["exact"] == pytest.approx(exact)
    assert evaluation["methods"]["model"]["slot_way"] == 1.0
    assert evaluation["methods"]["commonest"]["exact"] < 0.5
    assert any("1 tested sentence cannot match" in note for note in evaluation["notes"])
    said = json.loads((folder / "products/captions.json").read_text())["captions"]
    assert [one["caption"] for one in said] == [row["caption"] for row in rows]
    assert all(one["probability"] >= (one["second_probability"] or 0) for one in said)
    assert_the_curve_is_shown("exact_match", "exact match")
    assert run()["skipped"] is True
    run("ingest", name="again")
    run("train", name="again")
    weights = [(here / "runs" / name / "model/model.safetensors").read_bytes() for name in ("tiny", "again")]
    assert weights[0] == weights[1]  # the same seed
    assert run(name="other", labels=None, model={"use": "runs/tiny"}, evaluation={}, split={})["skipped"] is False
    assert {row["answered_by"] for row in rows_of("other", "captions")} == {"all networks"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"augment": {"mixup": 0.2}}}, "two captions have no mean"),
        ({"frames": {"size": [2, 8, 8]}}, "captions are of images"),
        ({"labels": {"kind": "table", "path": "captions.csv", "classes": ["a"]}}, "captions are sentences"),
        ({"source": {"kind": "moving_digits", "path": "clips"}, "labels": {"kind": "source"}}, "'digit' is no sentence"),
        ({"source": {"kind": "idx", "path": "clips"}, "labels": {"kind": "source"}}, "no captions"),
        ({"evaluation": {"references": ["forest_template"], "must_equal": []}}, "forest_template needs slots"),
        (
            {
                "task": "classify",
                "source": {"kind": "moving_digits", "path": "clips", "answer": "caption"},
                "labels": {"kind": "source"},
                **{key: {} for key in ("model", "training", "evaluation", "prediction")},
            },
            "captions are no labels",
        ),
    ],
)
def test_mistakes_in_the_config_are_found_before_anything_runs(here: Path, changes: dict[str, Any], said: str) -> None:
    write_clips(here, 1)
    (here / "captions.csv").touch()
    with pytest.raises(ConfigError, match=said):
        run(**changes)


def test_one_caption_for_all_is_refused(here: Path) -> None:
    write_clips(here, 9)
    lines = ["file,caption,part", *(f"c0{n},the same,{'test' if n else 'train'}" for n in range(9))]
    Path("captions.csv").write_text("\n".join(lines))
    run("ingest")
    with pytest.raises(RequestError, match="at least two different captions are needed, the samples have 1"):
        run("train")
