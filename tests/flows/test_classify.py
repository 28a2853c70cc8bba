"""Labels of whole sequences and of their steps from config to result: only the order of frames holds them; one that a size gives
away."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.planning import make_plan
from flows.task import open_invocation
from pipelines.errors import ConfigError, NotPublished, RequestError
from tests.flows.small_runs import LEAVES, assert_the_curve_is_shown, carry_out, perform, read_json, rows_of

FRAMES, SIDE = 6, 8
TINY: dict[str, Any] = {
    "name": "tiny",
    "task": "classify",
    "source": {"kind": "files", "path": "clips", "unit": "folder"},
    "labels": {"kind": "table", "path": "labels.csv"},
    "frames": {"size": [SIDE, SIDE]},
    "split": {"folds": 2, "validation_parts": 4},
    "model": {"kind": "convgru", "widths": [8], "dropout": 0.0, "flattened": True},
    "training": {"epochs": 12, "batch": 8, "accelerator": "cpu", "learning_rate": 0.03},
    "evaluation": {"references": ["commonest", "frame_cnn"], "must_equal": ["commonest", "frame_cnn"]},
}
STEPS: dict[str, Any] = {
    **TINY,
    "name": "steps",
    "labels": {"kind": "table", "path": "spans.csv", "spans": "frames"},
    "model": {**TINY["model"], "per_step": True},
    "evaluation": {"references": ["commonest", "nearest_mean"], "must_equal": ["nearest_mean"]},
}


def write_clips(folder: Path, count: int, *, wide_right: bool = False, turns: bool = False) -> None:
    """A bright column that moves right or left from a random start, so that every frame alone looks the same for both.

    `turns`: half way through it turns back. The first frame and the last one of every other clip have no label in `spans.csv`.
    """
    rng = np.random.default_rng(1)
    lines, spans = ["file,label,group"], ["file,from,to,label,group"]
    names = {1: "right", -1: "left"}
    for n in range(count):
        step = 1 if rng.integers(2) else -1
        turn = int(rng.integers(2, FRAMES - 1)) if turns else FRAMES
        at = int(rng.integers(4)) - step
        width = SIDE + (4 if wide_right and step == 1 else 0)
        clip = folder / "clips" / f"c{n:02d}"
        clip.mkdir(parents=True)
        for t in range(FRAMES):
            at = (at + (step if t < turn else -step)) % 4
            image = rng.normal(60, 6, (SIDE, width))
            if not wide_right:
                image[:, 2 * at : 2 * at + 2] += 120
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(clip / f"{t}.png")
        lines.append(f"c{n:02d},{names[step]},g{n % 12}")
        spans.append(f"c{n:02d},1,{turn},{names[step]},g{n % 12}")
        spans.append(f"c{n:02d},{turn},{FRAMES - n % 2},{names[-step]},g{n % 12}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "spans.csv").write_text("\n".join(spans))


def run(verb: str = "run", **changes: Any) -> dict[str, Any]:
    return carry_out(verb, TINY, **changes)


def test_the_order_of_frames_is_learnt_and_a_single_frame_is_not_enough(here: Path) -> None:
    write_clips(here, 40)
    result = run()
    folder = here / "runs" / "tiny"
    assert not [name for name in (*LEAVES, "products/labels.csv", "products/looked-at.png") if not (folder / name).is_file()]
    methods = read_json("evaluation.json")["methods"]
    assert methods["model"]["accuracy"] > 0.9
    assert methods["frame_cnn"]["accuracy"] < 0.75
    assert result["skipped"] is False
    assert_the_curve_is_shown("accuracy", "accuracy")
    rows = rows_of()
    assert len(rows) == 40
    right = sum(row["label"] == row["known"] for row in rows)
    assert right / 40 == pytest.approx(methods["model"]["accuracy"])  # answered by networks that have not seen the group
    assert {row["answered_by"] for row in rows} == {"networks that have not seen its group"}
    again = run()
    assert again["skipped"] is True
    with Path("labels.csv").open("a") as file:
        file.write("\nc60,right,g3")
    assert run("ingest")["skipped"] is True  # a line of the table that names no sample
    used = run(name="other", labels=None, model={"use": "runs/tiny"}, evaluation={})
    assert used["skipped"] is False
    assert {row["answered_by"] for row in rows_of("other")} == {"all networks"}
    with pytest.raises(RequestError, match=r"answers once for a sample, .* trained with model.per_step: true"):
        run(name="other", labels=None, model={"use": "runs/tiny"}, evaluation={}, prediction={"per_step": True})


def test_answers_are_of_the_frames_that_were_ingested_last_and_of_this_code(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"training": {**TINY["training"], "epochs": 1}, "evaluation": {"references": ["commonest"], "must_equal": []}}
    folder = here / "runs" / "tiny"
    kept = folder / "staging" / "labels"

    def evaluate() -> Any:
        (folder / "stages" / "evaluate.json").unlink(missing_ok=True)
        run("evaluate", **quick)
        return read_json("evaluation.json")["methods"]["model"]

    def predict() -> dict[str, Any]:
        return perform(open_invocation("tiny.yaml", even_if_worse=True, even_if_confounded=True), "predict")

    write_clips(here, 24)
    for verb in ("ingest", "train"):
        run(verb, **quick)
    before = evaluate()
    for path in (here / "clips").rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    ingested = run("ingest", **quick)["snapshot"]
    assert predict()["snapshot"] == ingested  # the evaluation counts: frames may come
    assert run("evaluate", **quick)["skipped"] is False
    corrected = read_json("evaluation.json")["methods"]["model"]
    assert corrected != before
    assert read_json("evaluation.json")["snapshot"] == ingested
    assert run("evaluate", **quick)["skipped"] is True
    (own,) = kept.iterdir()  # batches of other frames are removed
    shutil.rmtree(kept)
    assert evaluate() == corrected
    monkeypatch.setattr("flows.code.digest", lambda code: "another release")
    evaluate()
    assert [path for path in kept.iterdir() if path != own]
    for n in range(24):
        with Path("labels.csv").open("a") as file:  # as many groups again: folds are others
            file.write(f"\nd{n:02d},{('left', 'right')[n % 2]},h{n % 12}")
        shutil.copytree(here / "clips" / f"c{n:02d}", here / "clips" / f"d{n:02d}")
    run("ingest", **quick)
    with pytest.raises(RequestError, match="its folds with it: networks would be tested on"):
        run("evaluate", **quick)


def test_the_label_of_every_step_is_learnt_from_spans_and_published_as_spans(here: Path) -> None:
    write_clips(here, 40, turns=True)
    carry_out("run", STEPS)
    folder, evaluation = here / "runs" / "steps", read_json("evaluation.json", "steps")
    assert not [name for name in (*LEAVES, "products/labels.csv") if not (folder / name).is_file()]
    methods, labelled = evaluation["methods"], 40 * (FRAMES - 1) - 20
    assert methods["model"]["accuracy"] > 0.9
    assert methods["nearest_mean"]["accuracy"] < 0.65
    assert evaluation["details"]["labels"]["samples"] == labelled
    assert evaluation["details"]["methods"]["model"]["accuracy"]["basis"] == "12 groups"
    assert f"{labelled} labelled steps of 40 samples in 12 groups" in evaluation["protocol"]
    assert "number of the step" in {clue["name"] for clue in evaluation["details"]["audit"]["clues"]}
    rows = rows_of("steps")
    known = [row for row in rows if row["known"]]
    assert sum(int(row["steps"]) for row in rows) == 40 * FRAMES
    assert sum(int(row["steps"]) for row in known) == labelled
    right = sum(int(row["steps"]) for row in known if row["label"] == row["known"])
    assert right / labelled == pytest.approx(methods["model"]["accuracy"])
    own = [(int(row["from"]), int(row["to"])) for row in rows if row["file"] == "c01"]
    assert [start for start, _ in own] == [0, *(stop for _, stop in own[:-1])]
    assert own[-1][1] == FRAMES
    columns = {"columns": {"answer": "label"}, "path": "runs/steps/products/labels.csv"}
    carry_out("ingest", {**STEPS, "name": "again", "labels": {**STEPS["labels"], **columns}})  # answers are a table of labels
    used = {"name": "other", "labels": None, "model": {"use": "runs/steps"}, "evaluation": {}, "prediction": {"per_step": True}}
    carry_out("run", STEPS, **used)
    assert {row["answered_by"] for row in rows_of("other")} == {"all networks"}
    assert sum(int(row["steps"]) for row in rows_of("other")) == 40 * FRAMES


@pytest.mark.exhaustive
def test_a_size_that_gives_the_label_away_is_found(here: Path) -> None:
    write_clips(here, 30, wide_right=True)
    training = {**TINY["training"], "epochs": 1}
    with pytest.raises(NotPublished, match="nobody can say"):
        run(training=training, frames={"size": [SIDE, SIDE], "fit": "stretch"}, evaluation={"references": ["commonest"]})
    assert "frame size" in read_json("evaluation.json")["verdict"]["confounded_by"]
    assert not (here / "runs" / "tiny" / "products").exists()


SPANS = {"kind": "table", "path": "spans.csv", "spans": "frames"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"kind": "row_lstm"}, "frames": {"count": 4}}, "reads one image"),
        ({"model": {"kind": "cnn_lstm"}, "frames": {"size": [2, 4, 4]}}, "not for volumes"),
        ({"labels": {"kind": "table"}}, "labels.path"),
        ({"labels": {"kind": "source"}}, "does not fit the source"),
        ({"frames": {"crop": [0.5, 0, 0.5, 1]}}, "no area"),
        ({"evaluation": {"references": ["commonest"], "must_equal": ["frame_cnn"]}}, "not among"),
        ({"labels": SPANS}, r"model.per_step: answers once for a sample, labels.spans asks for each frame"),
        ({"labels": SPANS, "model": {"kind": "row_gru"}}, "row_gru reads one image, labels.spans are of frames"),
        ({"labels": {"kind": "folders", "spans": "frames"}}, "labels.spans: are read from a table"),
        ({**STEPS, "training": {"augment": {"mixup": 0.2}}}, "mixes labelled steps with others"),
        ({"prediction": {"per_step": True}}, "model.per_step: answers once"),
    ],
)
def test_mistakes_in_the_config_are_found_before_anything_runs(here: Path, changes: dict[str, Any], said: str) -> None:
    write_clips(here, 1)
    with pytest.raises(ConfigError, match=said):
        run(**changes)


def test_networks_of_other_frames_are_refused_with_a_remedy(here: Path) -> None:
    write_clips(here, 24)
    with pytest.raises(RequestError, match=f"reads one image, the samples have {FRAMES} frames"):
        run(model={"kind": "row_lstm"})
    carry_out("ingest", TINY)
    plan = make_plan(open_invocation("tiny.yaml").run, "run")
    assert plan["extent"]["sites"] == 24
    assert [step["stage"] for step in plan["steps"]] == ["ingest", "train", "evaluate", "predict"]


def test_a_span_of_a_file_that_is_not_there_is_refused_by_line(here: Path) -> None:
    write_clips(here, 4, turns=True)
    with Path("spans.csv").open("a") as file:
        file.write("\nc44,0,2,left,g3")
    with pytest.raises(RequestError, match=r"spans.csv, line 10: c44 names no file below source.path: correct the name"):
        carry_out("ingest", STEPS)


@pytest.mark.exhaustive
def test_a_search_compares_the_accuracy_of_groups_that_validate(here: Path) -> None:
    pytest.importorskip("optuna", reason="needs driftline[sweep]")
    write_clips(here, 48)
    space = {"training.learning_rate": [0.03, 1e-6]}
    result = carry_out("sweep", {**TINY, "sweep": {"space": space, "sampler": "grid", "pruner": "none"}})
    assert result["best"]["values"] == {"training.learning_rate": 0.03}
    assert result["best"]["value"] > 0.9
    assert result["trials"]["finished"] == 2
    assert any("another fold" in line for line in result["lines"])
