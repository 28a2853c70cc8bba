"""One stage of any task: what is done again, what is not, and what is checked first."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import code, folder
from flows.stage import NOTHING_TO_DO, carry_out
from flows.task import Invocation, TrainedTask
from flows.tasks import TASKS, task_of
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError

Open = Callable[..., Invocation]


def test_only_what_depends_on_a_change_is_done_again(fake: Any, open_fake: Open) -> None:
    first = carry_out(open_fake(), "run")
    assert (fake.done, first["skipped"], len(first["refused"])) == (["train", "evaluate", "predict"], False, 1)
    fake.done.clear()
    second = carry_out(open_fake(), "run")
    assert (fake.done, second["skipped"], second["message"]) == ([], True, NOTHING_TO_DO)
    for values, expected in (
        ({"dates": 3}, ["predict"]),
        ({"score": 2}, ["evaluate", "predict"]),  # back to two dates as well
        ({"setting": 2}, ["train", "evaluate", "predict"]),
    ):
        fake.done.clear()
        carry_out(open_fake(**values), "run")
        assert fake.done == expected, values


def test_a_change_of_the_code_of_a_stage_does_it_again(fake: Any, open_fake: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out(open_fake(), "run")
    fake.done.clear()
    digest = code.digest
    monkeypatch.setattr(code, "digest", lambda names: "other" if names == ("pipelines.errors",) else digest(names))
    fake.code = {**fake.code, "predict": ("pipelines.errors",)}
    carry_out(open_fake(), "run")
    assert fake.done == ["predict"]


def test_a_change_of_a_template_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "__file__", str(tmp_path / "flows" / "folder.py"))
    template, versions = tmp_path / "pipelines" / "report.html", set()
    template.parent.mkdir()
    for text in ("<p>", "<b>"):
        template.write_text(text)
        versions.add(folder.code_version.__wrapped__())
    assert len(versions) == 2


def test_another_model_is_refused_before_anything_is_called_up_to_date(fake: Any, open_fake: Open) -> None:
    context = open_fake()
    carry_out(context, "run")
    context.folder.model.write_text("model of someone else")
    for verb in ("evaluate", "predict", "report"):
        with pytest.raises(ArtefactDamaged, match=r"holds the model model of som, but model 1 was trained here"):
            carry_out(open_fake(), verb)
    fake.done.clear()
    carry_out(open_fake(), "run")
    assert fake.done == ["train"], "the model is made anew; what was made from an equal one stays"


def test_an_evaluation_that_was_altered_is_made_again(fake: Any, open_fake: Open) -> None:
    context = open_fake()
    carry_out(context, "run")
    content = json.loads(context.folder.evaluation.read_text())
    context.folder.evaluation.write_text(json.dumps(content | {"shipped": "another"}))
    fake.done.clear()
    assert carry_out(open_fake(), "evaluate")["metrics"] == {"model": {"mae": 1.0}}
    assert fake.done == ["evaluate"]


def test_a_record_that_is_not_whole_counts_as_not_done(fake: Any, open_fake: Open) -> None:
    context = open_fake()
    carry_out(context, "run")
    for text in ("{", "[]", '{"key": "k"}'):
        context.folder.done("train").write_text(text)
        with pytest.raises(MissingInput, match="no finished train step; run `driftline train CONFIG` first"):
            carry_out(open_fake(), "evaluate")


def test_a_model_of_other_settings_names_the_setting(fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    with pytest.raises(RequestError, match=r"trained with setting.number = 1, the config says 2; run `driftline train CONFIG`"):
        carry_out(open_fake(setting=2), "evaluate")


def test_a_verb_that_the_task_does_not_have_names_those_that_it_has(fake: Any, open_fake: Open) -> None:
    with pytest.raises(RequestError, match="whose verbs are train, evaluate, predict, run, report"):
        carry_out(open_fake(), "monitor")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_can_be_trained_if_it_has_the_stage(name: str) -> None:
    task = task_of(name)
    assert isinstance(task, TrainedTask) == ("train" in task.stages)
