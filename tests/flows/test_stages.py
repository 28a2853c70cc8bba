"""All stages on a tiny run, without a server: what a run leaves, and what a second call does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.invocation import Invocation, open_invocation, remembering_folder
from flows.stages.evaluate import evaluate
from flows.stages.ingest import ingest
from flows.stages.predict import predict
from flows.stages.report import report
from flows.stages.run import run_forecast
from flows.stages.train import train
from flows.steps import read_records
from pipelines.errors import ArtefactDamaged, MissingInput, NotPublished, RequestError, RunBusy

LEAVES = ("summary.json", "report.html", "quicklook.png", "animation.gif", "evaluation.json", "config.yaml", "steps.jsonl",
          "refused.json", "model/model.safetensors", "products/collection.json")  # fmt: skip


def carry_out(body: Callable[[Invocation], dict[str, Any]], config: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    invocation = open_invocation(config, overrides, **options)
    with remembering_folder(invocation):
        return body(invocation)


def test_a_run_leaves_everything_and_a_second_one_does_nothing(tiny_run: Path) -> None:
    first = carry_out(run_forecast, tiny_run)
    assert not first["skipped"]
    folder = Path("runs/tiny")
    assert [name for name in LEAVES if not (folder / name).exists()] == []
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["verdict"]["published"] is True
    assert summary["cube_snapshot"] == first["snapshot"]
    assert [stage["name"] for stage in summary["stages"]] == ["ingest", "train", "evaluate", "predict"]
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    second = carry_out(run_forecast, tiny_run)
    assert second["skipped"]
    assert "nothing to do" in second["message"]
    changed = {p.name for p, when in written.items() if p.stat().st_mtime_ns != when}
    assert changed <= {"steps.jsonl", "config.yaml", "ingest.json", "refused.json", "cube.lock", ".run.lock"}

    # a model that loses is not published, but the report says so
    (folder / "stages" / "predict.json").unlink()
    evaluate_record = folder / "stages" / "evaluate.json"
    evaluate_record.write_text(json.dumps({**json.loads(evaluate_record.read_text()), "is_publishable": False}))
    (folder / "report.html").unlink()
    with pytest.raises(NotPublished, match="--even-if-worse"):
        carry_out(predict, tiny_run)
    assert json.loads((folder / "summary.json").read_text())["verdict"]["published"] is False
    assert (folder / "report.html").exists()
    assert not carry_out(predict, tiny_run, even_if_worse=True).get("skipped")

    check_damage_is_mended(tiny_run, folder)
    check_another_model_is_not_published(tiny_run, folder)
    check_another_config_is_not_judged(tiny_run)


def check_damage_is_mended(config: Path, folder: Path) -> None:
    """Whatever is damaged below the run's folder is made anew by the same command, and comes out the same."""
    before = {name: (folder / name).read_bytes() for name in ("evaluation.json", "model/model.safetensors")}
    (folder / "evaluation.json").write_text('{"metrics": {')
    (folder / "split.json").write_text("[]")
    (folder / "stages" / "report.json").write_text("{}")
    (folder / "steps.jsonl").write_text('3\n{"status": "done"}\n{"st')
    (folder / "model" / "model.safetensors").write_bytes(b"damaged")
    (folder / "stages" / ".train.json.123").write_text("left by a killed process")
    carry_out(run_forecast, config, even_if_worse=True)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert json.loads((folder / "split.json").read_text())["ok"]
    assert not (folder / "stages" / ".train.json.123").exists()

    # killed between the forecast and its report: the page of the run before must not stay
    (folder / "stages" / "report.json").unlink()
    (folder / "report.html").write_text("stale")
    assert carry_out(run_forecast, config, even_if_worse=True)["skipped"]
    assert "stale" not in (folder / "report.html").read_text()[:100]


def check_another_model_is_not_published(config: Path, folder: Path) -> None:
    """A whole model, but of another training: not under this one's name and verdict."""
    description = folder / "model" / "model.json"
    before = description.read_text()
    description.write_text(before + " ")
    with pytest.raises(ArtefactDamaged, match=r"holds the model \w+, but \w+ was trained here: run `driftline train CONFIG`"):
        carry_out(predict, config, "prediction.issue=2020-01-01", even_if_worse=True)
    description.write_text(before)


def check_another_config_is_not_judged(config: Path) -> None:
    for body in (evaluate, predict, report):
        with pytest.raises(RequestError, match=r"trained with split.seed = 0, the config says 5; run `driftline train"):
            carry_out(body, config, "split.seed=5")
    with remembering_folder(open_invocation(config)), pytest.raises(RunBusy, match=r"carried out by process \d+ on"):
        carry_out(report, config)


def test_a_run_with_the_second_network_is_published(tiny_run: Path) -> None:
    model = ("model.kind=convgru", "model.baseline=decaying_anomaly")
    record = carry_out(run_forecast, tiny_run, *model, even_if_worse=True)
    assert record["products"]
    saved = json.loads(Path("runs/tiny/model/model.json").read_text())
    assert saved["forecaster"]["members"][0]["kind"] == "convgru"


def test_stages_out_of_order_name_the_command_to_run(tiny_run: Path) -> None:
    with pytest.raises(MissingInput, match="run `driftline ingest CONFIG` first"):
        carry_out(train, tiny_run)
    record = carry_out(ingest, tiny_run)
    assert record["added"] == 60
    with pytest.raises(MissingInput, match="run `driftline train CONFIG` first"):
        carry_out(predict, tiny_run)
    steps = read_records(Path("runs/tiny/steps.jsonl"))
    assert [(s["stage"], s["status"]) for s in steps] == [("ingest", "started"), ("ingest", "done")]
