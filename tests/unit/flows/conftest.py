"""A task that takes no time, with everything that the engine asks of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from configs.run import Run
from configs.sources import NetcdfSource
from flows.folder import RunFolder, require, require_model
from flows.steps import Steps
from flows.task import Building, Findings, Invocation, Record, require_unchanged
from pipelines.errors import NotPublished
from pipelines.learning.result import Evaluation, Verdict
from pipelines.products.section import Section


class FakeRun(Run):
    """`setting` decides the model, `score` the verdict, `dates` the products, `seam` whether the products may be published."""

    name: str = "fake"
    task: str = "fake"
    source: NetcdfSource = NetcdfSource(kind="netcdf", path="none.nc", bands=["red"])
    setting: int = 1
    score: int = 1
    dates: int = 2
    pictures: tuple[str, ...] = ("quicklook.png",)
    seam: bool = True


class Fake:
    """Its model is a text; each product is a text that names the model. `done` lists the stages that did something."""

    name = "fake"
    stages: tuple[str, ...] = ("ingest", "train", "evaluate", "predict")
    verbs: Mapping[str, tuple[str, ...]] = {
        "train": ("train",),
        "evaluate": ("evaluate",),
        "predict": ("predict",),
        "run": stages,
    }
    code: Mapping[str, tuple[str, ...]] = dict.fromkeys(("train", "evaluate", "predict"), ("pipelines.progress",))
    is_gated = True
    computed: tuple[str, ...] = ("predict",)
    describes: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def __init__(self) -> None:
        self.done: list[str] = []

    def plan(self, run: FakeRun, folder: RunFolder, verb: str, ingested: Record | None = None) -> Any:
        raise NotImplementedError

    def resolve(self, context: Invocation, stage: str) -> Invocation:
        return context

    def needs(self, run: FakeRun, stage: str) -> bool:
        return True

    def check(self, context: Invocation, stage: str) -> None:
        if stage != "train":
            trained = require_unchanged(context, self)
            require_model(context.folder, trained, Path.read_text)

    def inputs(self, context: Invocation, stage: str) -> dict[str, Any]:
        run = context.run
        if stage == "train":
            return {"snapshot": require(context.folder, "ingest")["snapshot"], "setting": {"number": run.setting}}
        model, ingested = require(context.folder, "train")["model_hash"], require(context.folder, "ingest")
        evaluated = {"score": run.score, "snapshot": ingested["snapshot"]}
        own = evaluated if stage == "evaluate" else {"dates": run.dates, "forced": context.even_if_worse}
        return {"model": model, "pictures": run.pictures, **own}

    def is_whole(self, context: Invocation, stage: str, record: Record) -> bool:
        return context.folder.model.exists() and context.folder.model.read_text() == record["model_hash"]

    def ingest(self, context: Invocation) -> Record:
        refused = [{"scene_id": "a", "reason": "all-cloud", "detail": "b"}]
        is_new = not context.folder.done("ingest").exists()
        return {"snapshot": "S1", "refused": refused, "message": "1 added", "lines": ["  refused: a"], "is_new": is_new}

    def checkpoint(self) -> Any:
        raise NotImplementedError

    def measure(self, context: Invocation, *, is_training: bool = False) -> Any:
        raise NotImplementedError

    def fit(self, context: Invocation, key: str) -> Record:
        self.done.append("train")
        context.folder.model.write_text(f"model {context.run.setting}")
        return {"snapshot": "S1", "model_hash": f"model {context.run.setting}", "message": "trained"}

    def figures(self, run: FakeRun) -> Any:
        raise NotImplementedError

    def tried(self, run: FakeRun) -> FakeRun:
        return run

    def validate(self, context: Invocation, record: Record) -> dict[str, float]:
        raise NotImplementedError

    def evaluate(self, context: Invocation) -> tuple[Evaluation, Record]:
        self.done.append("evaluate")
        is_good = context.run.score > 0
        verdict = Verdict({"zero": "beats" if is_good else "loses"}, ("zero",), is_good, "It is so.", "dates", 0.01, 0.95)
        model = require(context.folder, "train")["model_hash"]
        return Evaluation("model", {"model": {"mae": 1.0}}, verdict), {"snapshot": "S1", "model_hash": model}

    def predict(self, context: Invocation, evaluation: Evaluation | None, building: Building) -> Record:
        self.done.append("predict")
        run, model = context.run, context.folder.model.read_text()
        if not run.seam and not context.even_if_worse:
            raise NotPublished("the tiles do not agree")
        for name in [f"date-{i}.tif" for i in range(run.dates)]:
            (building.products / name).write_text(f"{model} of {run.dates}")
        for name in run.pictures:
            (building.pictures / name).write_text(f"{model} of {run.dates}")
        return {"snapshot": "S1", "model_hash": model, "message": f"{run.dates} dates"}

    def close(self, context: Invocation, record: Record, *, is_new: bool) -> Record:
        return record

    def find(self, context: Invocation, evaluation: Evaluation | None, predicted: Record) -> Findings:
        return Findings("Nothing is expected.", {"dates": context.run.dates} if predicted else {})

    def sections(self, context: Invocation, evaluation: Evaluation | None, predicted: Record, drafts: Path) -> list[Section]:
        return [Section("maps", "Maps", ["A map."])]


class Shown:
    """A display that keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, stage: str, name: str) -> Any:
        from flows.steps import Silent

        return Silent().step(stage, name)

    def log(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The task, known to the engine under its name."""
    task = Fake()
    monkeypatch.setattr("flows.stage.task_of", lambda name: task)
    return task


@pytest.fixture
def open_fake(tmp_path: Path) -> Callable[..., Invocation]:
    """`open_fake(setting=2)` opens the run of that config; the same folder each time."""

    def open_run(*, even_if_worse: bool = False, **values: Any) -> Invocation:
        run = FakeRun(runs=str(tmp_path), **values)
        folder = RunFolder.of(run)
        folder.path.mkdir(exist_ok=True)
        return Invocation(run, folder, Steps(folder.steps, Shown()), even_if_worse)

    return open_run
