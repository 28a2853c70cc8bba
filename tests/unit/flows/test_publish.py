"""`products/` belong to one model, one verdict and one summary, whatever happens while they are replaced."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.stage import carry_out
from flows.task import Invocation
from pipelines.errors import MissingInput, NotPublished

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
    with pytest.raises(NotPublished, match=r"It is so\. The report says so: .*To publish all the same: --even-if-worse"):
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


def test_the_report_withdraws_products_of_another_model(fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    context = open_fake(setting=2)
    for verb in ("train", "evaluate", "report"):
        carry_out(context, verb)
    assert_consistent(context)
    assert published(context) == {}


def test_a_verdict_on_another_model_is_none(fake: Any, open_fake: Open) -> None:
    carry_out(open_fake(), "run")
    carry_out(open_fake(setting=2), "train")
    with pytest.raises(MissingInput, match="run `driftline evaluate CONFIG` first"):
        carry_out(open_fake(setting=2), "predict")


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
