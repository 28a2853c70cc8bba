"""`products/` belong to one model, one verdict and one summary, whatever happens while they are replaced."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.folder import require
from flows.stage import carry_out
from flows.task import Invocation
from pipelines.errors import MissingInput, NotPublished, ProductShrinks

Open = Callable[..., Invocation]
DISK = ((Path, "rename"), (Path, "replace"), (Path, "unlink"), (Path, "rmdir"), (shutil, "rmtree"))


def published(context: Invocation) -> dict[str, str]:
    """What lies in products/ and beside it: name -> text."""
    folder = context.folder
    pictures = list(folder.path.glob("*.png"))
    return {path.name: path.read_text() for path in [*folder.products.glob("*"), *pictures]}


def summary(context: Invocation) -> dict[str, Any]:
    return json.loads(context.folder.summary.read_text())


def assert_consistent(context: Invocation) -> None:
    """Every file is of one model and prediction; the summary names them all, and nothing else."""
    found, said = published(context), summary(context)["products"]
    assert len(set(found.values())) <= 1, found
    assert sorted(Path(name).name for name in said["files"]) == sorted(found)
    assert all(text.startswith(said["model_hash"]) for text in found.values())


def test_a_model_that_loses_takes_the_products_of_the_one_before_with_it(fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    assert sorted(published(open_fake())) == ["date-0.tif", "date-1.tif", "quicklook.png"]
    context = open_fake(setting=2, score=-1)
    with pytest.raises(NotPublished, match=r"It is so\. The report says why: .*report.html"):
        carry_out(context, "run")
    assert published(context) == {}
    assert (summary(context)["products"]["files"], summary(context)["verdict"]["is_publishable"]) == ([], False)
    assert any("withdrawn" in line for line in context.steps.display.lines)
    assert "This model was not published" in context.folder.report.read_text()

    forced = open_fake(setting=2, score=-1, even_if_worse=True)
    assert carry_out(forced, "predict")["products"] == ["products/date-0.tif", "products/date-1.tif", "quicklook.png"]
    assert_consistent(forced)
    assert summary(forced)["products"]["even_if_worse"] is True
    assert "This was published although" in forced.folder.report.read_text()


@pytest.mark.parametrize(
    ("values", "verbs", "why"),
    [
        ({"setting": 2}, ("train", "evaluate"), "another model has been trained since"),
        ({"score": -1}, ("evaluate",), "the verdict on the model that made it does not allow it"),
        ({"score": 2}, ("evaluate",), "the model has been evaluated otherwise since"),
    ],
)
def test_the_report_withdraws_what_does_not_belong(
    values: dict[str, int], verbs: tuple[str, ...], why: str, fake: Any, open_fake: Open
) -> None:
    carry_out(open_fake(), "run")
    context = open_fake(**values)
    for verb in (*verbs, "report"):
        carry_out(context, verb)
    assert_consistent(context)
    assert published(context) == {}
    assert context.steps.display.lines[-1] == f"predict: what was published here is withdrawn: {why}"
    assert "even-if-worse" not in context.folder.report.read_text()


@pytest.mark.parametrize("verb", ["predict", "report"])
def test_a_verdict_on_another_model_is_none(verb: str, fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    carry_out(open_fake(setting=2), "train")
    with pytest.raises(MissingInput, match="run `driftline evaluate CONFIG` first"):
        carry_out(open_fake(setting=2), verb)
    assert published(open_fake()) == {}
    assert not open_fake().folder.summary.exists(), "it spoke of the model before"


@pytest.mark.parametrize("verb", ["predict", "report"])
def test_an_evaluation_under_another_config_counts_for_nothing(verb: str, fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    folder = open_fake().folder
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path.name != "steps.jsonl"}
    with pytest.raises(MissingInput, match="no evaluation of this model and config; run `driftline evaluate CONFIG` first"):
        carry_out(open_fake(score=-1, dates=3), verb)
    folder.done("evaluate").write_text("[]")
    before[folder.done("evaluate")] = b"[]"
    with pytest.raises(MissingInput, match="run `driftline evaluate CONFIG` first"):
        carry_out(open_fake(), verb)
    assert {path: path.read_bytes() for path in before} == before, "a refusal changes nothing, not even config.yaml"


def test_an_evaluation_counts_after_the_cube_has_grown(fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    context = open_fake()
    context.finish("ingest", {**require(context.folder, "ingest"), "snapshot": "S2"})
    carry_out(open_fake(), "report")
    assert_consistent(open_fake())
    assert len(published(open_fake())) == 3


@pytest.mark.parametrize("name", ["products/date-0.tif", "quicklook.png", "summary.json", "report.html", "report.md"])
def test_what_was_altered_is_made_anew(name: str, fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    path = open_fake().folder.path / name
    path.write_bytes(path.read_bytes()[:5])
    carry_out(open_fake(), "run")
    assert path.stat().st_size > 5
    assert_consistent(open_fake())


def test_the_report_keeps_a_product_that_a_viewer_wrote_into_and_says_so(fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    folder = open_fake().folder
    (folder.products / "date-0.tif").write_text("touched")
    carry_out(open_fake(), "report")
    assert (folder.products / "date-0.tif").read_text() == "touched"
    assert "products/date-0.tif was changed after it was published." in folder.report.with_suffix(".md").read_text()


def test_another_task_takes_nothing_over(fake: Any, open_fake: Open) -> None:
    first = open_fake(pictures=("quicklook.png", "growth.png"))
    carry_out(first, "run")
    first.folder.done("predict").rename(first.folder.done("monitor"))
    fake.done.clear()
    second = open_fake(task="other")
    carry_out(second, "run")
    assert fake.done == ["train", "evaluate", "predict"]
    assert "growth.png" not in published(second)
    assert_consistent(second)


@pytest.mark.parametrize("verb", ["run", "report"])
@pytest.mark.parametrize("text", ["{", '{"key": "", "model_hash": 1, "products": 5}', '{"products": ["../victim.png", 5]}'])
def test_a_record_that_cannot_be_used_leads_to_nothing_outside(text: str, verb: str, fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    context = open_fake()
    (context.folder.path.parent / "victim.png").write_text("of somebody")
    context.folder.done("predict").write_text(text)
    carry_out(context, verb)
    assert (context.folder.path.parent / "victim.png").exists()
    assert_consistent(context)
    assert bool(published(context)) == (verb == "run")
    assert any("withdrawn: its record is missing, damaged" in line for line in context.steps.display.lines)


def test_what_the_task_finds_unfit_is_not_published_but_reported(fake: Any, open_fake: Open) -> None:
    context = open_fake(seam=False)
    with pytest.raises(NotPublished, match=r"the tiles do not agree\. To publish all the same: --even-if-worse"):
        carry_out(context, "run")
    assert published(context) == {}
    assert_consistent(context)
    assert not carry_out(open_fake(seam=False, even_if_worse=True), "predict")["skipped"]


def test_a_picture_that_is_no_longer_drawn_goes(fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(pictures=("quicklook.png", "extra.png")), "run")
    carry_out(open_fake(), "run")
    assert_consistent(open_fake())
    assert "extra.png" not in published(open_fake())


class Killed(BaseException):
    """The process ends here."""


def kill_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises Killed before the change on disk of that number, and before every later one."""
    count = 0

    def guarded(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > number:
                raise Killed
            return work(*arguments, **options)

        return call

    for owner, name in DISK:
        monkeypatch.setattr(owner, name, guarded(getattr(owner, name)))


@pytest.mark.parametrize("ending", ["again", "back", "report"])
def test_a_kill_at_any_change_on_disk_is_made_good(ending: str, fake: Any, open_fake: Open) -> None:
    """Killed while `dates=3` replaces `dates=2`; then the same again, or the old settings, or only the report."""
    for number in range(100):
        carry_out(open_fake(), "run")
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at(number, monkeypatch)
            try:
                carry_out(open_fake(dates=3), "predict")
                break
            except Killed:
                pass
        context = open_fake() if ending == "back" else open_fake(dates=3)
        carry_out(context, "report" if ending == "report" else "predict")
        assert_consistent(context)
        if ending != "report":
            assert len(published(context)) == context.run.dates + 1, number
            assert set(published(context).values()) == {f"model 1 of {context.run.dates}"}
    assert number > 8, "the products were put in place without a change on disk"


@pytest.mark.parametrize("number", range(6))
def test_a_kill_while_products_are_withdrawn_is_made_good(number: int, fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    context = open_fake(setting=2, score=-1)
    carry_out(context, "train")
    carry_out(context, "evaluate")
    with pytest.MonkeyPatch.context() as monkeypatch:
        kill_at(number, monkeypatch)
        with pytest.raises(Killed):
            carry_out(context, "predict")
    carry_out(context, "report")
    assert_consistent(context)
    assert published(context) == {}


def test_a_report_that_a_kill_prevented_is_written_by_the_next_run(
    fake: Any, open_fake: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out(open_fake(), "run")
    with monkeypatch.context() as patch:
        patch.setattr("flows.publish.write_summary_of", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            carry_out(open_fake(dates=3), "predict")
    context = open_fake(dates=3)
    assert carry_out(context, "predict")["skipped"]
    assert_consistent(context)
    assert summary(context)["found"] == {"dates": 3}


def test_fewer_dates_replace_nothing_unless_forced(fake: Any, open_fake: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of another model, and with another config: what is published stays, whole, and may be predicted again."""
    predict = type(fake).predict
    monkeypatch.setattr(
        type(fake), "predict", lambda self, context, *more: predict(self, context, *more) | {"dates": context.run.dates}
    )
    carry_out(open_fake(dates=3), "run")
    before = published(open_fake())
    with pytest.raises(ProductShrinks, match=r"fake: .* 2 dates instead of 3. What is published stays. .* with --force, or"):
        carry_out(open_fake(dates=2, setting=2), "run")
    assert published(open_fake()) == before
    assert_consistent(open_fake())
    carry_out(replace(open_fake(dates=2, setting=2), force=True), "predict")
    assert len(published(open_fake())) == 3
    assert_consistent(open_fake())
