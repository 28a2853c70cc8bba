"""Archived forecasts, scored as their truth arrives: a series that grows, and a network that gives way to its baseline."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from typer.testing import CliRunner

from flows.cli import app
from flows.stage import carry_out as carry_out_verb
from flows.steps import read_records
from flows.task import open_invocation, remembering_folder
from flows.verify import leave
from pipelines.errors import ArtefactDamaged, MissingInput
from pipelines.learning.verification import Scored, Target

RUN = Path("runs/tiny")
BEST = (
    "evaluation.publish=best",
    "evaluation.verify_dates=6",
    "evaluation.baselines=[persistence]",
    "model.baseline=climatology",
)


def carry_out(verb: str, config: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    invocation = open_invocation(config, overrides, **options)
    with remembering_folder(invocation):
        return carry_out_verb(invocation, verb)


def show_dates(dates: int) -> None:
    """The series as far as it is known at that time: `all.nc` has all of it."""
    if not Path("all.nc").exists():
        shutil.copy("tiny.nc", "all.nc")
    with xr.open_dataset("all.nc", engine="h5netcdf", decode_timedelta=False) as series:
        series.isel(time=slice(0, dates)).load().to_netcdf("tiny.nc", engine="h5netcdf")


def read(name: str) -> dict[str, Any]:
    return json.loads((RUN / name).read_text())


@pytest.mark.exhaustive
def test_archived_forecasts_are_scored_as_their_truth_arrives(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_dates(54)
    kept = check_a_kill_before_the_products_loses_nothing(tiny_run, monkeypatch)
    first = carry_out("predict", tiny_run)
    assert kept.name.startswith("20191125T000000Z-")
    about = json.loads((kept / "archived.json").read_text())
    assert (about["method"], about["rival"], about["snapshot"]) == ("model", about["rival"], first["snapshot"])
    assert about["target_utc"] == ["2019-12-08T00:00:00Z", "2019-12-21T00:00:00Z"]
    waiting = carry_out("verify", tiny_run)
    assert waiting["by_issue"][0]["awaited"] == 2
    assert waiting["message"].startswith("0 target dates from split.test_from (2019-09-01) on can be scored so far")

    show_dates(55)
    carry_out("ingest", tiny_run)
    scored = carry_out("verify", tiny_run)
    row = scored["by_issue"][0]
    assert (row["scored"], row["awaited"], scored["scored_now"]) == (1, 1, 1)
    group = zarr.open_group(kept / "fields.zarr", mode="r")
    with xr.open_dataset("all.nc", engine="h5netcdf") as series:
        truth = series["red"].values[54] * np.float32(0.001)
    fields = {role: group[f"published/red_{role}"][0] for role in ("forecast", "lower", "upper")}
    rival = group["rival/red_forecast"][0]
    assert row["mae"] == pytest.approx(np.abs(fields["forecast"] - truth).mean(), rel=1e-5)
    assert row["rival_mae"] == pytest.approx(np.abs(rival - truth).mean(), rel=1e-5)
    assert row["bias"] == pytest.approx((fields["forecast"] - truth).mean(), abs=1e-6)
    assert row["coverage"] == pytest.approx(((fields["lower"] <= truth) & (truth <= fields["upper"])).mean(), abs=1e-3)
    assert "Verification" in (RUN / "report.html").read_text()
    assert carry_out("verify", tiny_run)["skipped"]

    check_a_reprocessed_scene_is_scored_again(tiny_run, row["mae"])
    check_damage_is_named(tiny_run, kept)
    shutil.rmtree(RUN / "archive")
    (RUN / "verification.json").unlink()
    with pytest.raises(MissingInput, match="has no archived forecast; `driftline predict CONFIG` keeps"):
        carry_out("verify", tiny_run)


def check_a_reprocessed_scene_is_scored_again(config: Path, before: float) -> None:
    with xr.open_dataset("all.nc", engine="h5netcdf", decode_timedelta=False) as series:
        changed = series.isel(time=slice(0, 55)).load()
    changed["red"][54] += 50
    changed.to_netcdf("tiny.nc", engine="h5netcdf")
    carry_out("ingest", config)
    again = carry_out("verify", config)
    assert again["scored_now"] == 1
    assert again["by_issue"][0]["mae"] != before


def check_a_kill_before_the_products_loses_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive is whole before products are written, and a forecast that is in it is not made again; its folder."""

    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.products.predicted.publish_forecast", end)
        with pytest.raises(KeyboardInterrupt):
            carry_out("run", config)
    (kept,) = (RUN / "archive").iterdir()
    assert not (RUN / "products").exists()
    (kept.with_name(".20200101T000000Z-draft.1") / "fields.zarr").mkdir(parents=True)
    written = (kept / "archived.json").stat().st_mtime_ns
    carry_out("run", config)
    assert list((RUN / "archive").iterdir()) == [kept], "the draft of a killed process goes"
    assert (kept / "archived.json").stat().st_mtime_ns == written
    done = [step["step"] for step in read_records(RUN / "steps.jsonl") if step["status"] == "done"]
    assert sum("for the archive" in step for step in done) == 1
    return kept


def check_damage_is_named(config: Path, kept: Path) -> None:
    edited = read("verification.json")
    edited["forecasts"][kept.name]["targets"][0]["sums"].popitem()
    (RUN / "verification.json").write_text(json.dumps(edited))
    with pytest.raises(ArtefactDamaged, match=r"verification\.json .* remove it and run `driftline verify CONFIG`"):
        carry_out("verify", config)
    (RUN / "verification.json").unlink()
    chunk = next(path for path in (kept / "fields.zarr/rival/red_forecast/c").rglob("*") if path.is_file())
    chunk.unlink()
    assert "parts of rival/red_forecast are missing; it is not scored" in "\n".join(carry_out("verify", config)["not_scored"])


def add_to_network(bias: float) -> None:
    """To every archived forecast of the network; all are scored anew."""
    for path in (RUN / "archive").iterdir():
        about = json.loads((path / "archived.json").read_text())
        group = zarr.open_group(path / "fields.zarr", mode="r+")
        is_ours = about["method"] == "model" or about["method"].startswith("combination")
        array = group["published/red_forecast" if is_ours else "rival/red_forecast"]
        array[:] = array[:] + np.float32(bias)
    (RUN / "verification.json").unlink(missing_ok=True)


COMBINED = (
    "evaluation.publish=best",
    "evaluation.verify_dates=6",
    "evaluation.baselines=[climatology, harmonic]",
    "model.baseline=climatology",
)


def test_a_combination_is_published_archived_and_gives_way_to_its_baseline(tiny_run: Path) -> None:
    """All methods are as good on this series, so that their mean is better than each of them."""
    show_dates(50)
    ran = carry_out("run", tiny_run, *COMBINED)
    evaluation, summary = read("evaluation.json"), read("summary.json")
    choice = evaluation["details"]["choice"]
    baseline = choice["baseline"]
    assert (ran["method"], summary["shipped"]) == ("combination", "combination")
    assert choice["members"] == ["model", "climatology", "harmonic"]
    of = "network, climatology and harmonic"
    assert summary["verdict"]["sentence"].startswith(f"Published is the combination, the mean of {of}: on the validation part")
    assert summary["computed"]["combination"] == of
    assert {"combination", "model", "harmonic"} <= set(evaluation["details"]["intervals"]["methods"])
    report = (RUN / "report.html").read_text()
    assert "Published is the combination of several forecasts." in report
    assert f"Skill of the combination, the mean of {of}" in report
    with rasterio.open(sorted((RUN / "products").glob("*.tif"))[0]) as file:
        assert file.tags()["DRIFTLINE_METHOD"] == f"combination of {of}"
    assert (RUN / "products" / "model.json").exists(), "of the network, which is a part of it"
    (kept,) = (RUN / "archive").iterdir()
    about = json.loads((kept / "archived.json").read_text())
    assert (about["method"], about["rival"]) == (f"combination of {of}", baseline)

    for dates in (52, 54, 56):
        show_dates(dates)
        carry_out("ingest", tiny_run, *COMBINED)
        if dates < 56:
            carry_out("predict", tiny_run, *COMBINED)
    add_to_network(0.5)
    said = carry_out("verify", tiny_run, *COMBINED)
    assert "target dates the combination's error was" in said["message"]
    assert said["message"].endswith(f"the next forecast is that of {baseline}.")
    assert carry_out("predict", tiny_run, *COMBINED)["method"] == baseline
    sentence = read("summary.json")["verdict"]["sentence"]
    assert f"published is {baseline}. The evaluation had chosen the combination, the mean of" in sentence
    rivals = {(one["method"], one["rival"]) for one in carry_out("verify", tiny_run, *COMBINED)["by_issue"]}
    assert rivals == {(f"combination of {of}", baseline), (baseline, f"combination of {of}")}
    insisted = carry_out("predict", tiny_run, *COMBINED, even_if_worse=True)
    assert "Published is the network, as --even-if-worse asks, not the combination." in insisted["lines"]
    summary = read("summary.json")
    assert (summary["shipped"], summary["verdict"]["published"]) == ("model", "model")
    assert summary["verdict"]["outcomes"].keys() == evaluation["details"]["skill"].keys()
    assert summary["criteria"][0]["name"].startswith("error of network over that of the best baseline")
    alone = carry_out("run", tiny_run, *COMBINED, "evaluation.combine=false")
    assert alone["method"] != "combination"
    assert "combination" not in read("evaluation.json")["methods"]


@pytest.mark.exhaustive
def test_a_network_that_became_worse_gives_way_to_its_baseline_and_comes_back(tiny_run: Path) -> None:
    show_dates(50)
    assert carry_out("run", tiny_run, *BEST)["method"] == "model"
    for dates in (52, 54, 56):
        show_dates(dates)
        carry_out("ingest", tiny_run, *BEST)
        if dates < 56:
            carry_out("predict", tiny_run, *BEST)
    add_to_network(0.5)
    said = carry_out("verify", tiny_run, *BEST)
    assert said["standing"]["outcome"] == "loses"
    assert "larger than that of persistence (95 % interval" in said["message"]
    assert said["message"].endswith("the next forecast is that of persistence.")

    result = CliRunner().invoke(app, ["predict", str(tiny_run), *[part for one in BEST for part in ("--set", one)]])
    assert "published is persistence." in result.output
    assert carry_out("predict", tiny_run, *BEST)["skipped"]
    summary = read("summary.json")
    assert (summary["shipped"], summary["verdict"]["published"]) == ("persistence", "persistence")
    assert "published is persistence. The evaluation had chosen the network: on" in summary["verdict"]["sentence"]
    assert "Published is the baseline persistence, not the network." in (RUN / "report.html").read_text()
    insisting = carry_out("verify", tiny_run, *BEST, "evaluation.publish=network")
    assert insisting["message"].endswith("the network is published all the same, as evaluation.publish asks.")

    add_to_network(-0.5)
    assert carry_out("verify", tiny_run, *BEST)["message"].endswith("the next forecast is that of the network again.")
    back = carry_out("predict", tiny_run, *BEST)
    assert (back["method"], back["skipped"]) == ("model", False)
    assert back["again"].endswith("the network is published again.")
    assert read("summary.json")["shipped"] == "model"

    thinned = carry_out("verify", tiny_run, *BEST, "prediction.archive_keep=2")
    assert "maps of 3 scored forecasts removed (prediction.archive_keep)" in thinned["lines"]
    assert [path.name[:8] for path in (RUN / "archive").iterdir()] == ["20191221"] * 2
    assert carry_out("verify", tiny_run, *BEST)["standing"] == thinned["standing"], "scores stay"


@pytest.mark.torch
def test_what_even_if_worse_published_is_what_is_compared(tiny_run: Path) -> None:
    """By made scores: over eight dates the network loses to climatology, the combination of both beats it."""
    carry_out("ingest", tiny_run)
    context = open_invocation(tiny_run)
    combination, made = "combination of network and climatology", {"key": "k", "snapshot": "s", "model_hash": "m"}
    for stage, record in (
        ("train", {}),
        ("evaluate", {"challenger": combination, "is_publishable": True, "message": "", "files": {}}),
    ):
        context.finish(stage, {**made, **record})
    scored = {
        f"{method}-{n}": made_score(n, method, error) for method, error in (("model", 3.0), (combination, 1.0)) for n in range(8)
    }
    leave(context, "", scored)
    chosen = carry_out("verify", tiny_run)
    assert "the combination's error was" in chosen["message"]
    context.finish("predict", {**made, "products": [], "files": {}, "insisted": "Published is the network, ..."})
    insisted = carry_out("verify", tiny_run)
    assert insisted["standing"]["outcome"] == "loses"
    assert "the network's error was" in insisted["message"]
    assert insisted["message"].endswith("the network is published, as --even-if-worse asked.")


def made_score(n: int, method: str, error: float) -> Scored:
    """Of one target that was seen at 100 pixels; the baseline's error is 2 with a little that differs by date."""
    day, other = f"2019-{n // 2 + 9:02d}-{1 + 14 * (n % 2):02d}T00:00:00Z", 2 + 0.01 * n
    sums = {name: {"red": [100, 100 * value, 0, 90, 100, 200]} for name, value in ((method, error), ("climatology", other))}
    target = Target(1, day, day, "c", sums)
    return Scored("2019-08-01T00:00:00Z", f"2019-08-01T00:00:{n:02d}Z", method, "climatology", "m", 0.9, ("red",), (target,))
