"""All stages on a tiny run, without a server: what a run leaves, and what a second call does."""

import json
from pathlib import Path

import pytest

from flows.invocation import open_invocation
from flows.stages.ingest import ingest
from flows.stages.predict import predict
from flows.stages.run import run_all
from flows.stages.train import train
from flows.steps import read_records
from pipelines.errors import MissingInput, NotPublished

LEAVES = ("summary.json", "report.html", "quicklook.png", "animation.gif", "evaluation.json", "config.yaml", "steps.jsonl",
          "refused.json", "model/model.safetensors", "products/collection.json")  # fmt: skip


def test_a_run_leaves_everything_and_a_second_one_does_nothing(tiny_run: Path) -> None:
    first = run_all(open_invocation(tiny_run))
    assert not first["skipped"]
    folder = Path("runs/tiny")
    assert [name for name in LEAVES if not (folder / name).exists()] == []
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["verdict"]["published"] is True
    assert summary["cube_snapshot"] == first["snapshot"]
    assert [stage["name"] for stage in summary["stages"]] == ["ingest", "train", "evaluate", "predict"]
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    second = run_all(open_invocation(tiny_run))
    assert second["skipped"]
    assert "nothing to do" in second["message"]
    changed = {p.name for p, when in written.items() if p.stat().st_mtime_ns != when}
    assert changed <= {"steps.jsonl", "config.yaml", "ingest.json", "refused.json", "cube.lock", "cube.writer.json"}

    # a model that loses is not published, but the report says so
    (folder / "stages" / "predict.json").unlink()
    evaluate_record = folder / "stages" / "evaluate.json"
    evaluate_record.write_text(json.dumps({**json.loads(evaluate_record.read_text()), "is_publishable": False}))
    (folder / "report.html").unlink()
    with pytest.raises(NotPublished, match="--even-if-worse"):
        predict(open_invocation(tiny_run))
    assert json.loads((folder / "summary.json").read_text())["verdict"]["published"] is False
    assert (folder / "report.html").exists()
    assert not predict(open_invocation(tiny_run, even_if_worse=True)).get("skipped")


def test_stages_out_of_order_name_the_command_to_run(tiny_run: Path) -> None:
    with pytest.raises(MissingInput, match="run `driftline ingest CONFIG` first"):
        train(open_invocation(tiny_run))
    record = ingest(open_invocation(tiny_run))
    assert record["added"] == 60
    with pytest.raises(MissingInput, match="run `driftline train CONFIG` first"):
        predict(open_invocation(tiny_run))
    steps = read_records(Path("runs/tiny/steps.jsonl"))
    assert [(s["stage"], s["status"]) for s in steps] == [("ingest", "started"), ("ingest", "done")]
