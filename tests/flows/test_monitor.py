"""`driftline monitor` as people call it: nothing new, a new scene, late and reprocessed ones, refusals, alerts, notifications."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from configs.load import load_run
from flows import notify as notifying
from flows.code import WHOLE, closure
from flows.notify import send_alerts
from flows.planning import make_plan
from flows.stage import carry_out
from flows.task import open_invocation, remembering_folder
from flows.tasks.monitor import Monitor
from pipelines.errors import RequestError, StateError
from pipelines.monitoring.alerts import read_alert_log

DATES, HISTORY, SIZE = 70, 50, 40
NONE = {"tiles": 0, "steps": 0, "replays": 0, "fits": 0, "noted": 0, "unseen": 0, "dates_read": 0}
RUN = {
    "name": "forest",
    "task": "monitor",
    "source": {
        "kind": "netcdf",
        "path": "forest.nc",
        "bands": [{"name": "ndvi", "nodata": 0}],
        "scale": 0.0001,
        "crs": "EPSG:32635",
        "transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0],
    },
    "cube": {"chunk_px": 32, "workers": 1},
    "variable": {"name": "ndvi", "bands": ["ndvi"]},
    "monitoring": {"start": "2018-02-20", "tile_px": 16, "keep_every": 4, "test": {"direction": "down", "threshold": 6.0}},
}
TILES = 9


def write_scenes(folder: Path, numbers: range | list[int], brighter: dict[int, int] | None = None) -> Path:
    """`forest.nc` with these dates of a series: a season, noise, and a felling of 6 x 8 pixels after date 60; the config."""
    images, times = [], []
    for number in numbers:
        rng = np.random.default_rng(number)
        image = 7000 + 1000 * np.sin(2 * np.pi * number * 23 / 365.25) + rng.normal(0, 150, (SIZE, SIZE))
        if number >= 60:
            image[4:10, 4:12] -= 3500
        images.append(image + (brighter or {}).get(number, 0))
        times.append(np.datetime64("2015-01-03", "ns") + np.timedelta64(23 * number, "D"))
    dataset = xr.Dataset(
        {"ndvi": (("time", "y", "x"), np.stack(images).astype("uint16"))},
        {"time": times, "y": 5000000.0 - 10 * (np.arange(SIZE) + 0.5), "x": 500000.0 + 10 * (np.arange(SIZE) + 0.5)},
    )
    (folder / "forest.nc").unlink(missing_ok=True)
    dataset.to_netcdf(folder / "forest.nc", engine="h5netcdf")
    config = folder / "forest.yaml"
    config.write_text(yaml.safe_dump(RUN, sort_keys=False))
    return config


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; no Prefect server is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "")
    return tmp_path


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures and report: they have tests of their own, and take longer than all the rest."""
    monkeypatch.setattr("pipelines.products.found_changes.draw_changes", lambda *arguments: None)
    monkeypatch.setattr("flows.publish.report", lambda task, context: {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a first `driftline monitor` of all dates leaves, without pictures and report."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PREFECT_API_URL", "")
        patch.setattr("pipelines.products.found_changes.draw_changes", lambda *arguments: None)
        patch.setattr("flows.publish.report", lambda task, context: {})
        assert len(monitor(write_scenes(folder, range(DATES)))["alerts"]) == 1
    return folder


@pytest.fixture
def monitored(here: Path, plain: None, finished: Path) -> Path:
    """The config of a copy of that, in the working folder."""
    shutil.copytree(finished, here, dirs_exist_ok=True)
    return here / "forest.yaml"


def monitor(config: Path, *overrides: str, verb: str = "monitor", **options: Any) -> dict[str, Any]:
    invocation = open_invocation(config, overrides, **options)
    with remembering_folder(invocation):
        return carry_out(invocation, verb)


def state_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "monitoring.json"
    }


@pytest.mark.slow
def test_nothing_new_and_one_new_scene(here: Path) -> None:
    first = monitor(write_scenes(here, range(DATES - 1)))
    assert (first["counts"]["tiles"], first["counts"]["fits"], first["counts"]["replays"]) == (TILES, TILES, 0)
    assert first["counts"]["steps"] == TILES * (DATES - 1 - HISTORY)
    assert first["change"]["objects"] == first["change"]["objects_new"] == len(first["alerts"]) == 1
    assert 40 <= first["change"]["pixels"] <= 50
    alert = first["alerts"][0]
    assert (alert["direction"], alert["is_standing"]) == ("decrease", True)
    assert alert["median_date"][:10] == "2018-10-14"
    for name in ("alerts.json", "report.html", "summary.json", "quicklook.png", "products/collection.json"):
        assert (here / "runs" / "forest" / name).exists(), name

    again = monitor(here / "forest.yaml")
    assert again["skipped"]
    assert (again["counts"], again["alerts"]) == (NONE, [])
    assert (again["change"]["pixels_new"], again["change"]["objects_new"]) == (0, 0)

    new = monitor(write_scenes(here, range(DATES)))
    assert new["counts"] == {**NONE, "tiles": TILES, "steps": TILES, "dates_read": 1}  # for all four parts of the block
    assert (new["change"]["objects"], new["change"]["objects_new"], new["alerts"]) == (1, 0, [])
    summary = json.loads((here / "runs" / "forest" / "summary.json").read_text())
    assert summary["computed"]["steps"] == TILES

    assert monitor(here / "forest.yaml", "name=fresh")["counts"]["fits"] == TILES
    runs = here / "runs"
    assert state_files(runs / "forest" / "state") == state_files(runs / "fresh" / "state")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_late_scene_and_a_reprocessed_one_through_the_cube(here: Path, plain: None) -> None:
    monitor(write_scenes(here, [n for n in range(DATES) if n != 62], {66: 40}))
    late = monitor(write_scenes(here, range(DATES), {66: 40}))
    assert (late["counts"]["tiles"], late["counts"]["replays"], late["counts"]["fits"]) == (TILES, TILES, 0)
    assert late["counts"]["steps"] == TILES * (DATES - HISTORY - 12)  # from the state kept after the twelfth
    reprocessed = monitor(write_scenes(here, range(DATES)))
    assert (reprocessed["counts"]["replays"], reprocessed["counts"]["steps"]) == (TILES, TILES * (DATES - HISTORY - 16))
    assert reprocessed["alerts"] == []
    monitor(here / "forest.yaml", "name=fresh")
    tiles = [here / "runs" / name / "state" / "harmonic" for name in ("forest", "fresh")]
    assert state_files(tiles[0]) == state_files(tiles[1])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_restart_starts_over_even_where_nothing_is_new(here: Path, monitored: Path) -> None:
    config = monitored
    before = state_files(here / "runs" / "forest" / "state")
    anew = monitor(config, restart=True)
    assert (anew["counts"]["fits"], anew["alerts"]) == (TILES, []), "all steps again, and nobody is notified twice"
    assert state_files(here / "runs" / "forest" / "state") == before
    shutil.rmtree(here / "runs" / "forest" / "state" / "harmonic")
    assert monitor(config)["counts"]["steps"] == TILES * (DATES - HISTORY), "a state that is gone is made again"


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_state_of_another_cube_is_refused_before_anything_is_called_up_to_date(here: Path, monitored: Path) -> None:
    config, runs = monitored, here / "runs"
    write_scenes(here, range(DATES), dict.fromkeys(range(DATES), 7))
    monitor(config, "name=brighter")
    write_scenes(here, range(DATES))
    shutil.rmtree(runs / "forest" / "state" / "harmonic")
    shutil.copytree(runs / "brighter" / "state" / "harmonic", runs / "forest" / "state" / "harmonic")
    with pytest.raises(StateError, match=r"another cube: of the 70 dates .*--restart"):
        monitor(config)  # nothing is new in cube and config
    assert monitor(config, restart=True)["counts"]["fits"] == TILES


@pytest.mark.slow
@pytest.mark.exhaustive
def test_other_settings_and_another_cube_are_refused_until_restart(here: Path, monitored: Path) -> None:
    config = monitored
    remedy = r"begin anew with `driftline monitor CONFIG --restart`"
    with pytest.raises(StateError, match=rf"another detector .*expected monitoring\.test\.drift: 1\.5, found 2\.0.*{remedy}"):
        monitor(config, "monitoring.test.drift=1.5")
    with pytest.raises(StateError, match=rf"another monitoring\.start.*{remedy}"):
        monitor(config, "monitoring.start=2018-04-01", verb="run")
    assert not (here / "runs" / "forest" / "evaluation.json").exists(), "refused before the evaluation"
    with pytest.raises(StateError, match=rf"other tiles .*{remedy}"):
        monitor(config, "monitoring.tile_px=32")
    write_scenes(here, range(DATES), dict.fromkeys(range(DATES), 7))
    with pytest.raises(StateError, match=rf"another cube: of the 70 dates .*{remedy}"):
        monitor(config, "cube.uri=elsewhere")
    anew = monitor(config, "cube.uri=elsewhere", restart=True)
    assert anew["counts"]["fits"] == TILES
    assert anew["alerts"] == []  # known already: nobody is notified twice


def test_a_list_of_alerts_that_is_damaged_or_of_another_grid_is_put_aside(here: Path, monitored: Path) -> None:
    config, folder = monitored, here / "runs" / "forest"
    (folder / "alerts.json").write_text("{")
    assert len(monitor(config)["alerts"]) == 1, "also where nothing else is new"
    assert (folder / "alerts.damaged.json").exists()
    alert_log = json.loads((folder / "alerts.json").read_text())
    (folder / "alerts.json").write_text(json.dumps({**alert_log, "grid": "another"}))
    assert len(monitor(write_scenes(here, range(DATES + 2)))["alerts"]) == 1
    assert json.loads((folder / "alerts.before.json").read_text())["grid"] == "another"


def test_a_start_before_the_first_date_is_refused(here: Path, plain: None) -> None:
    with pytest.raises(RequestError, match="there is no history to learn from; set a later start"):
        monitor(write_scenes(here, range(10)), "monitoring.start=2014-01-01")


def test_a_plan_of_what_cannot_run_is_refused(here: Path) -> None:
    config, late = write_scenes(here, range(10)), "monitoring.start=2030-01-01"
    with pytest.raises(RequestError, match="leaves 0 dates of history, 10 to monitor; `driftline monitor` needs"):
        make_plan(load_run(config, ["monitoring.start=2014-01-01"]), "monitor")
    with pytest.raises(RequestError, match="leaves 10 dates of history, 0 to monitor"):
        make_plan(load_run(config, [late]), "run")
    assert make_plan(load_run(config, [late]), "monitor")["steps"]


@pytest.mark.exhaustive
def test_a_forecaster_that_is_not_there_falls_back_and_says_so(here: Path, plain: None) -> None:
    config = write_scenes(here, range(DATES))
    record = monitor(config, "monitoring.model={kind: forecaster, run: runs/none}")
    assert record["model"] == "harmonic"
    assert "harmonic baseline instead of what the config asks for" in record["degraded"][0]
    assert record["change"]["objects"] == 1
    assert any("harmonic baseline" in line for line in record["lines"])


def test_a_scene_that_is_refused_now_is_noted_and_taken_back(here: Path, monitored: Path) -> None:
    config = monitored
    with xr.open_dataset(here / "forest.nc", engine="h5netcdf", mask_and_scale=False) as opened:
        dataset = opened.load()
    dataset["ndvi"][68] = 0
    (here / "forest.nc").unlink()
    dataset.to_netcdf(here / "forest.nc", engine="h5netcdf")
    record = monitor(config)
    assert record["counts"]["replays"] == TILES
    monitor(config, "name=fresh")
    layers = sorted(Path("runs/forest/state").rglob("layers/*/*"))
    assert layers
    assert all(layer.read_bytes() == Path("runs/fresh", layer.relative_to("runs/forest")).read_bytes() for layer in layers)
    assert [refusal["reason"] for refusal in record["refused"]] == ["all-nodata"]
    assert "1 scene was refused and is missing here" in record["degraded"][0]


@pytest.mark.exhaustive
def test_monitoring_that_cannot_find_anything_says_so(here: Path) -> None:
    config = write_scenes(here, range(DATES))
    early = monitor(config, "name=early", "monitoring.start=2030-01-01")
    assert json.loads((here / "runs/early/summary.json").read_text())["sentence"].startswith("early: nothing can be said")
    assert early["degraded"] == [
        "no date has been monitored yet: monitoring.start is 2030-01-01 and the cube ends on 2019-05-09; "
        "later dates are monitored"
    ]
    insensitive = monitor(config, "name=insensitive", "monitoring.min_history=51")
    assert insensitive["degraded"] == [
        "no pixel is monitored: they have fewer than 51 usable dates before 2018-02-20 (monitoring.min_history, monitoring.start)"
    ]
    assert monitor(config, "name=insensitive", "monitoring.min_history=51")["notes"] == insensitive["degraded"]
    with pytest.raises(RequestError, match=r"expected 51 usable dates .*found at most 50; set a smaller monitoring\.min_history"):
        monitor(config, "name=uncalibrated", "monitoring.min_history=51", "monitoring.test.threshold=null")


def test_a_scene_from_the_future_is_pointed_at(here: Path, plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    long_ago = int(np.datetime64("2019-05-01", "ns").astype(np.int64))
    monkeypatch.setattr("pipelines.monitoring.messages.time.time_ns", lambda: long_ago)
    (note,) = monitor(write_scenes(here, range(DATES)))["degraded"]
    assert note.startswith("the cube ends in the future, on 2019-05-09 (")
    assert "until the cube's folder is removed" in note


@pytest.mark.exhaustive
def test_damage_is_repaired_and_noted_once(here: Path, plain: None) -> None:
    config, state = write_scenes(here, range(DATES - 1)), here / "runs" / "forest" / "state" / "harmonic"
    monitor(config)
    next(state.glob("blocks/*/header.json")).write_text("{")
    repaired = monitor(write_scenes(here, range(DATES)))
    assert "1 damaged state file was computed again" in repaired["notes"][0]
    again = monitor(config)
    assert (again["skipped"], again["notes"]) == (True, [])
    assert again["degraded"] == repaired["degraded"]  # the report is still of the run before


@pytest.mark.exhaustive
def test_a_damaged_record_of_the_state_is_made_anew(here: Path, plain: None) -> None:
    monitor(write_scenes(here, range(DATES - 1)))
    shutil.copytree("runs", "kept")
    config = write_scenes(here, range(DATES))
    for content in ("{", "[]", '{"made_for": 1, "asked": 2, "calibration": 3}'):
        shutil.rmtree("runs")
        shutil.copytree("kept", "runs")
        (here / "runs" / "forest" / "state" / "harmonic" / "monitoring.json").write_text(content)
        assert monitor(config)["counts"]["steps"] == TILES


@pytest.mark.slow
def test_the_evaluation_is_done_once_and_the_report_shows_it(here: Path) -> None:
    config = write_scenes(here, range(DATES))
    first = monitor(config, "evaluation.pixels=200", verb="run")
    folder = here / "runs" / "forest"
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["shipped"] == "harmonic cusum"
    assert evaluation["verdict"]["is_publishable"]
    assert {"harmonic cusum", "difference", "three_low"} <= evaluation["methods"].keys()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["sentence"].startswith(
        "forest: ndvi raised alarms in 1 patch (0.5 ha) since 2018-02-20, the latest change on 2018-"
    )
    assert [criterion["kind"] for criterion in summary["criteria"]][:2] == ["at most", "at least"]
    assert summary["model_hash"] == first["model_hash"]
    html = (folder / "report.html").read_text()
    assert all(text in html for text in ("Simulated breaks", "not the probability that the change is real", "on average on"))
    assert monitor(config, "evaluation.pixels=200", verb="run")["skipped"]


@pytest.mark.exhaustive
def test_what_a_stage_imports_decides_its_key(here: Path) -> None:
    """A change of the report does not evaluate again; whatever a stage loads is among the modules that its key digests."""
    used = {stage: closure(Monitor.code[stage]) for stage in ("evaluate", "monitor")}
    assert "pipelines.monitoring.detector" in used["evaluate"] & used["monitor"]
    assert not {name for name in used["evaluate"] if name.startswith(("pipelines.products", "flows"))}
    write_scenes(here, range(DATES))
    script = """
import sys, json
from flows.task import open_invocation
from flows.publish import new_building
from flows.stage import ingest
from flows.tasks.monitor import Monitor
context, task = open_invocation("forest.yaml"), Monitor()
ingest(task, context)
before = set(sys.modules)
task.evaluate(context) if sys.argv[1] == "evaluate" else task.predict(context, None, new_building(context.folder))
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    for stage, known in used.items():
        done = subprocess.run([sys.executable, "-c", script, stage], check=True, capture_output=True, text=True)
        loaded = {name for name in json.loads(done.stdout.splitlines()[-1]) if name.split(".")[0] in WHOLE}
        assert loaded <= known, stage
        assert "pipelines.monitoring.detector" in loaded


# ---------------------------------------------------------------- notifications


class Received(BaseHTTPRequestHandler):
    """Keeps what is posted; answers with `status`."""

    received: list[Any]
    status: int

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Not on the terminal."""


@pytest.fixture
def webhook() -> Iterator[tuple[str, type[Received]]]:
    """(address, what it received) of a server on this machine."""
    handler = type("Handler", (Received,), {"received": [], "status": 200})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/alerts", handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def block(webhook: tuple[str, type[Received]], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A server with the block custom-webhook/ops is there from the moment that this is called."""

    def make() -> None:
        from prefect.blocks.core import Block
        from prefect.blocks.notifications import CustomWebhookNotificationBlock

        ops = CustomWebhookNotificationBlock(
            name="ops", url=webhook[0], method="POST", json_data={"subject": "{{subject}}", "body": "{{body}}"}
        )
        monkeypatch.setattr(Block, "load", lambda slug: ops if slug == "custom-webhook/ops" else missing(slug))
        monkeypatch.setattr("flows.tracking.server_url", lambda: "http://127.0.0.1:1/api")
        monkeypatch.setattr("flows.tracking.is_reachable", lambda url: True)

    def missing(slug: str) -> Any:
        raise ValueError(f"Unable to find block document named {slug}")

    return make


def test_an_alert_is_kept_without_a_server_sent_when_there_is_one_and_sent_once(
    here: Path, plain: None, webhook: tuple[str, type[Received]], block: Callable[[], None]
) -> None:
    config, blocks = write_scenes(here, range(DATES)), "alerts.notify=[custom-webhook/ops, slack-webhook/gone]"
    first = monitor(config, blocks)
    assert "1 alert in runs/forest/alerts.json not sent yet: no Prefect server is configured" in first["notified"][0]
    block()
    second = monitor(config, blocks)
    assert second["skipped"]
    assert second["notified"][0] == "custom-webhook/ops was notified of 1 alert"
    assert "not sent to slack-webhook/gone: ValueError: Unable to find block" in second["notified"][1]
    (message,) = webhook[1].received
    assert message["subject"] == "driftline forest: 1 new change"
    area_ha = json.loads(Path("runs/forest/alerts.json").read_text())["alerts"][0]["area_m2"] / 1e4
    assert f"{area_ha:.2f} ha, decrease of" in message["body"]
    assert 0.4 <= area_ha <= 0.5
    monitor(config, blocks)
    assert len(webhook[1].received) == 1
    alert_log = json.loads(Path("runs/forest/alerts.json").read_text())
    assert alert_log["alerts"][0]["notify"]["custom-webhook/ops"].endswith("Z")
    assert alert_log["alerts"][0]["notify"]["slack-webhook/gone"] == ""


@pytest.mark.exhaustive
def test_a_summary_shows_what_was_sent_by_a_run_without_anything_new(
    here: Path, block: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.products.found_changes.draw_changes", lambda *arguments: None)
    config, blocks = write_scenes(here, range(DATES)), "alerts.notify=[custom-webhook/ops]"
    monitor(config, blocks)
    block()
    assert monitor(config, blocks)["skipped"]
    summary = json.loads(Path("runs/forest/summary.json").read_text())
    assert summary["alerts"][0]["notify"]["custom-webhook/ops"].endswith("Z")


@pytest.mark.exhaustive
def test_alerts_of_a_run_that_was_killed_before_it_published_are_told(
    here: Path, plain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_scenes(here, range(DATES))
    for step in ("flows.publish.put_in_place", "flows.tasks.monitor.notify"):
        with monkeypatch.context() as killed:
            killed.setattr(step, lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                monitor(config)
    told = monitor(config)
    assert (len(told["alerts"]), told["change"]["objects_new"]) == (1, 1)
    assert told["change"]["pixels_new"] == told["change"]["pixels"]
    assert monitor(config)["alerts"] == []


def test_a_run_killed_while_it_notifies_has_its_record_and_sends_next_time(
    here: Path, plain: None, webhook: tuple[str, type[Received]], block: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, blocks = write_scenes(here, range(DATES)), "alerts.notify=[custom-webhook/ops]"
    block()
    with monkeypatch.context() as killed:
        killed.setattr("flows.notify.notify", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            monitor(config, blocks)
    assert json.loads((here / "runs/forest/stages/monitor.json").read_text())["change"]["objects"] == 1
    again = monitor(config, blocks)
    assert (again["skipped"], again["notified"]) == (True, ["custom-webhook/ops was notified of 1 alert"])
    assert len(webhook[1].received) == 1


def test_a_block_that_fails_loses_nothing_and_is_tried_again(
    here: Path, plain: None, webhook: tuple[str, type[Received]], block: Callable[[], None]
) -> None:
    config, blocks = write_scenes(here, range(DATES)), "alerts.notify=[custom-webhook/ops]"
    block()
    webhook[1].status = 500
    record = monitor(config, blocks)
    assert record["change"]["objects"] == 1
    assert "not sent to custom-webhook/ops: HTTPStatusError" in record["notified"][0]
    webhook[1].status = 200
    assert monitor(config, blocks)["notified"] == ["custom-webhook/ops was notified of 1 alert"]
    assert len(webhook[1].received) == 2
    folder = Path("runs/forest")
    alert_log = read_alert_log(folder / "alerts.json", folder / "state" / "alerts")
    assert send_alerts(alert_log, ["custom-webhook/ops"], "forest", folder / "alerts.json", lambda alert_log: None)[1] == []


def test_a_long_list_is_cut_and_the_largest_come_first() -> None:
    alert = {"id": "x", "area_m2": 1e4, "direction": "decrease", "magnitude": -0.3, "confidence": None, "lat": 45.0, "lon": 22.0,
             "first_date": "2019-05-01T00:00:00Z", "detected": "2019-06-01T00:00:00Z"}  # fmt: skip
    lines = notifying.body_of([alert] * 30 + [{**alert, "area_m2": 5e4}], Path("alerts.json")).splitlines()
    assert lines[0] == "2019-05-01 (detected 2019-06-01): 5.00 ha, decrease of -0.3, at 45.00000, 22.00000 [x]"
    assert lines[-2] == "... and 11 more"
