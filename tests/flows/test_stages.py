"""The forecast on a tiny run, without a server: what a run leaves, and what a second call does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rasterio
from typer.testing import CliRunner

from configs.load import load_run
from flows.cli import app
from flows.code import WHOLE, closure
from flows.machine import FIGURES
from flows.planning import make_plan, plan_lines
from flows.stage import carry_out as carry_out_verb
from flows.steps import read_records
from flows.task import open_invocation, remembering_folder
from flows.tasks.forecast import Forecast
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError, RunBusy

LEAVES = ("summary.json", "report.html", "report.md", "quicklook.png", "animation.gif", "evaluation.json", "config.yaml",
          "steps.jsonl", "refused.json", "model/model.safetensors", "products/collection.json")  # fmt: skip
# another network, whose gain is too small
UNEVEN = ("evaluation.publish=best", "evaluation.margin=0.5", "evaluation.combine=false", "training.seed=1")


def carry_out(verb: str, config: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    invocation = open_invocation(config, overrides, **options)
    with remembering_folder(invocation):
        return carry_out_verb(invocation, verb)


def read(name: str) -> dict[str, Any]:
    return json.loads((Path("runs/tiny") / name).read_text())


def test_a_run_leaves_everything_and_a_second_one_does_nothing(tiny_run: Path) -> None:
    first = carry_out("run", tiny_run)
    assert not first["skipped"]
    folder = Path("runs/tiny")
    assert [name for name in LEAVES if not (folder / name).exists()] == []
    summary = read("summary.json")
    assert summary["sentence"].startswith(
        "Mean red (tiny) is expected to rise from 0.408 to 0.441 between 2020-02-11 and 2020-03-08; "
    )
    assert [name for name in summary["products"]["files"] if not (folder / name).exists()] == []
    assert summary["products"]["cube_snapshot"] == summary["cube_snapshot"] == first["snapshot"]
    assert [stage["name"] for stage in summary["stages"]] == ["ingest", "train", "evaluate", "predict"]
    check_costs_stand_beside_the_plan(first, summary)
    assert set(read("evaluation.json")["details"]) >= {"metrics", "skill", "by_date", "intervals", "calibration"}
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    second = carry_out("run", tiny_run)
    assert second["skipped"]
    assert second["costs"] == [], "what is skipped is not compared"
    assert "nothing to do" in second["message"]
    changed = {p.name for p, when in written.items() if p.stat().st_mtime_ns != when}
    assert changed <= {"steps.jsonl", "config.yaml", "ingest.json", "refused.json", "cube.lock", ".run.lock"}

    check_probabilities_are_scored_and_published(tiny_run, folder)
    check_damage_is_mended(tiny_run, folder)
    check_another_model_is_refused(tiny_run, folder)
    check_another_config_is_not_evaluated(tiny_run)
    check_where_the_network_adds_nothing_the_baseline_is_published(tiny_run, folder)


def check_costs_stand_beside_the_plan(result: dict[str, Any], summary: dict[str, Any]) -> None:
    stages = ["ingest", "train", "evaluate", "predict"]
    assert [row["stage"] for row in result["costs"]] == [row["stage"] for row in summary["costs"]] == stages
    for row in summary["costs"]:
        assert row["planned"].keys() == row["actual"].keys() == set(FIGURES)
        assert row["actual"]["memory_mb"] > 50
        assert row["actual"]["seconds"] > 0
        assert (row["planned"]["memory_mb"] > 50, row["past_runs"]) == (True, 0)
    assert summary["costs"][0]["actual"]["disk_mb"] > 0.1, "the cube"
    assert "Planned and actual" in Path("runs/tiny/report.html").read_text()
    again = make_plan(load_run("tiny.yaml"), "run")
    assert [step["past_runs"] for step in again["steps"][1:]] == [1, 1, 1]
    assert "corrected by what the last runs of like size took here" in "\n".join(plan_lines(again))


def check_probabilities_are_scored_and_published(config: Path, folder: Path) -> None:
    """With three keys, of the model that is there; without them everything is as it was before."""
    before = {name: (folder / name).read_bytes() for name in ("evaluation.json", "quicklook.png")}
    asked = ("evaluation.thresholds=[0.4]", "evaluation.probabilities=true", "prediction.members=2")
    carry_out("run", config, *asked)
    details = read("evaluation.json")["details"]
    assert 0 < details["probabilities"]["distributions"]["model"]["overall"]["crps"] < 0.1
    for name, bands in (("probability", ["red_ge_0.4"]), ("members", ["member_1", "member_2"])):
        with rasterio.open(next((folder / "products").glob(f"{name}_*.tif"))) as file:
            assert list(file.descriptions) == bands
    item = json.loads(next((folder / "products").glob("forecast_*.json")).read_text())
    assert list(item["assets"]) == ["forecast", "probability", "members"]
    report = (folder / "report.html").read_text()
    assert "Probabilities of reaching a threshold" in report
    assert (folder / "probability.png").exists()
    carry_out("run", config)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not [*folder.glob("probability*"), *(folder / "products").glob("probability*")]


def check_damage_is_mended(config: Path, folder: Path) -> None:
    """Whatever is damaged below the run's folder is made anew by the same command, and comes out the same."""
    before = {name: (folder / name).read_bytes() for name in ("evaluation.json", "model/model.safetensors")}
    (folder / "evaluation.json").write_text('{"metrics": {')
    (folder / "split.json").write_text("[]")
    (folder / "stages" / "report.json").write_text("{}")
    predicted = folder / "stages" / "predict.json"
    predicted.write_text(predicted.read_text().replace('"target_utc"', '"edited by hand"'))
    (folder / "steps.jsonl").write_text('3\n{"status": "done"}\n{"st')
    (folder / "model" / "model.safetensors").write_bytes(b"damaged")
    (folder / "stages" / ".train.json.123").write_text("left by a killed process")
    carry_out("run", config)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert read("split.json")["ok"]
    assert not (folder / "stages" / ".train.json.123").exists()


def check_another_model_is_refused(config: Path, folder: Path) -> None:
    """A whole model, but of another training: not under this one's name and verdict, even where all is up to date."""
    description = folder / "model" / "model.json"
    before = description.read_text()
    description.write_text(before + " ")
    for verb in ("evaluate", "predict"):
        with pytest.raises(ArtefactDamaged, match=r"holds the model \w+, but \w+ was trained here: run `driftline train CONFIG`"):
            carry_out(verb, config)
    description.write_text(before)


def check_another_config_is_not_evaluated(config: Path) -> None:
    for verb in ("evaluate", "predict", "report"):
        with pytest.raises(RequestError, match=r"trained with split.seed = 0, the config says 5; run `driftline train"):
            carry_out(verb, config, "split.seed=5")
    with remembering_folder(open_invocation(config)), pytest.raises(RunBusy, match=r"carried out by process \d+ on"):
        carry_out("report", config)


def check_where_the_network_adds_nothing_the_baseline_is_published(config: Path, folder: Path) -> None:
    """On the command line: another network, its evaluation, and the forecast of a baseline, which everything names."""
    chosen = [part for override in UNEVEN for part in ("--set", override)]
    ended = {verb: CliRunner().invoke(app, [verb, str(config), *chosen]) for verb in ("train", "evaluate")}
    assert [result.exit_code for result in ended.values()] == [0, 0]
    assert (folder / "products").exists(), "until somebody asks for the new forecast or for the report"
    result = CliRunner().invoke(app, ["predict", str(config), *chosen])
    assert result.exit_code == 0, result.output
    summary = read("summary.json")
    published = summary["shipped"]
    assert published == summary["verdict"]["published"] in ("persistence", "climatology")
    assert summary["verdict"]["sentence"].startswith(f"Published is the baseline {published}: on the validation part the")
    assert f"Published is the baseline {published}, not the network." in (folder / "report.html").read_text()
    (cog, *_) = sorted((folder / "products").glob("*.tif"))
    with rasterio.open(cog) as file:
        assert file.tags()["DRIFTLINE_METHOD"] == published
    assert not (folder / "products" / "model.json").exists()
    item = json.loads(next((folder / "products").glob("forecast_*.json")).read_text())
    assert item["properties"]["driftline:method"] == published
    assert json.loads((folder / "products" / "collection.json").read_text())["driftline:method"] == published
    assert "nothing to do" in str(carry_out("run", config, *UNEVEN))
    assert not carry_out("predict", config, *UNEVEN, even_if_worse=True)["skipped"]
    assert read("summary.json")["products"]["even_if_worse"] is True
    with rasterio.open(cog) as file:
        assert "DRIFTLINE_METHOD" not in file.tags()


@pytest.mark.exhaustive
def test_a_run_with_another_network_is_published(tiny_run: Path) -> None:
    model = ("model.kind=history", "model.baseline=decaying_anomaly")
    record = carry_out("run", tiny_run, *model, even_if_worse=True)
    assert record["products"]
    assert read("model/model.json")["forecaster"]["members"][0]["kind"] == "history"
    trained = read("stages/train.json")
    assert trained["refit"]
    assert trained["chosen"]["targets_from"] < trained["made_from"]["split"]["validation_from"]
    assert read("model/earlier/model.json")["forecaster"].keys() == read("model/model.json")["forecaster"].keys()
    assert not Path("runs/tiny/model/choosing").exists(), "the steps to the model, which an interrupted training goes on from"


def test_stages_out_of_order_name_the_command_to_run(tiny_run: Path) -> None:
    with pytest.raises(MissingInput, match="run `driftline ingest CONFIG` first"):
        carry_out("train", tiny_run)
    record = carry_out("ingest", tiny_run)
    assert record["added"] == 60
    for verb in ("predict", "report"):
        with pytest.raises(MissingInput, match="run `driftline train CONFIG` first"):
            carry_out(verb, tiny_run)
    steps = read_records(Path("runs/tiny/steps.jsonl"))
    assert [(s["stage"], s["status"]) for s in steps] == [("ingest", "started"), ("ingest", "done")]


@pytest.mark.exhaustive
def test_whatever_a_stage_loads_is_in_its_key(tiny_run: Path) -> None:
    """Each stage in a process of its own, as a command carries it out; what the command line itself loads is not counted."""
    script = """
import json, sys
from flows.task import open_invocation
from flows.publish import new_building, current_evaluation
from flows.stage import key_of
from flows.tasks.forecast import Forecast
from flows.tasks.forecast_choice import find_network
task, stage = Forecast(), sys.argv[1]
context = open_invocation("tiny.yaml", ["model={kind: auto, tries: 1, origins: 1, steps: 5}"] if stage == "choose" else [])
before = set(sys.modules)
if stage == "predict":
    task.predict(context, current_evaluation(task, context), new_building(context.folder))
elif stage == "choose":
    find_network(context, "key")
else:
    task.fit(context, "key") if stage == "train" else task.evaluate(context)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    carry_out("run", tiny_run)
    for stage, used in Forecast.code.items():
        done = subprocess.run([sys.executable, "-c", script, stage], check=True, capture_output=True, text=True)
        loaded = {name for name in json.loads(done.stdout.splitlines()[-1]) if name.split(".")[0] in WHOLE}
        assert "pipelines.samples.windows" in loaded
        assert loaded <= closure(used), stage
