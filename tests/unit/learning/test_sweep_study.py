"""Trials of a search: failures, what is over, which one is best; and the numbers by which trainings are compared."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="needs driftline[sweep]")

from pipelines.errors import ArtefactDamaged, ConfigError, Mistake, StateError, StorageFull
from pipelines.learning.sweep_study import Attempt, Domain, Search, best_of, importances, open_study, run_trials
from pipelines.learning.validation_figures import LOSS, EpochScores, Figure, at_kept_epochs
from pipelines.products.sweep_products import draw_trials, write_table

WIDTHS = Domain("model.widths", choices=([8], [8, 16], None))
BATCH = Domain("training.batch", low=4, high=15, step=4, is_whole=True)
GRID = Search((WIDTHS, BATCH), 100, is_larger_better=True, sampler="grid")


def show_nothing(done: int, total: int, rows: object) -> None:
    return None


def test_a_grid_tries_every_combination_once_and_a_failure_is_counted(tmp_path: Path) -> None:
    def attempt(attempt: Attempt) -> Mapping[str, float]:
        if attempt.values["model.widths"] is None:
            raise MemoryError("no memory for the\nnetwork")
        return {"accuracy": attempt.values["training.batch"] / 100 + len(attempt.values["model.widths"]), "loss": 1.0}

    study = open_study(tmp_path / "journal.log", GRID)
    rows = run_trials(study, GRID, attempt, show_nothing)
    tried = [(json.dumps(row.values["model.widths"]), row.values["training.batch"]) for row in rows]
    assert sorted(tried) == sorted((widths, batch) for widths in ("[8]", "[8, 16]", "null") for batch in (4, 8, 12))
    assert [row.message for row in rows if row.state == "failed"] == ["MemoryError: no memory for the network"] * 3
    best = best_of(rows, is_larger_better=True)
    assert best is not None
    assert (best.value, dict(best.values)) == (2.12, {"model.widths": [8, 16], "training.batch": 12})
    assert run_trials(open_study(tmp_path / "journal.log", GRID), GRID, attempt, show_nothing) == rows
    shares = importances(study, rows)
    assert shares["model.widths"] > 0.9
    write_table(rows, ["model.widths", "training.batch"], "accuracy", tmp_path / "trials.csv")
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert lines[0] == "trial,state,accuracy,model.widths,training.batch,loss,epochs,seconds,message"
    assert len(lines) == 10
    picture = tmp_path / "sweep.png"
    draw_trials(rows, "accuracy", picture, heading="x", domains=GRID.domains, shares=shares, is_larger_better=True)
    assert picture.stat().st_size > 10_000


def test_a_full_disk_ends_the_search_and_what_is_no_number_fails(tmp_path: Path) -> None:
    def attempt(attempt: Attempt) -> Mapping[str, float]:
        if attempt.number:
            raise StorageFull("no space left")
        return {"error": float("nan")}

    search = Search((BATCH,), 5, is_larger_better=False, sampler="random")
    with pytest.raises(StorageFull):
        run_trials(open_study(tmp_path / "journal.log", search), search, attempt, show_nothing)
    rows = run_trials(open_study(tmp_path / "journal.log", search), search, lambda _: {"error": 1.0}, show_nothing)
    assert [row.state for row in rows] == ["failed", "killed", "finished", "finished", "finished", "finished"]


def test_an_outage_ends_the_search_and_leaves_trials_to_go_on_with(tmp_path: Path) -> None:
    search = Search((BATCH,), 9, is_larger_better=False, sampler="random")

    def fail(attempt: Attempt) -> Mapping[str, float]:
        if attempt.number == 1:
            return {"error": 1.0}
        raise OSError(f"no cube below trials/{attempt.number:04d}" if attempt.number else "another error")

    with pytest.raises(StateError, match=r"3 trials in a row failed alike.*OSError: no cube below .* with the other 4\."):
        run_trials(open_study(tmp_path / "journal.log", search), search, fail, show_nothing)
    rows = run_trials(open_study(tmp_path / "journal.log", search), search, lambda _: {"error": 1.0}, show_nothing)
    assert [row.state for row in rows] == ["failed", "finished", *["failed"] * 3, *["finished"] * 4]

    def refuse(attempt: Attempt) -> Mapping[str, float]:
        raise ConfigError([Mistake("", "training.batch", "too large", "")])

    rows = run_trials(open_study(tmp_path / "refused.log", search), search, refuse, show_nothing)
    assert len(rows) == 9, "what the schema refuses is no outage"


def test_a_trial_that_falls_behind_ends_early(tmp_path: Path) -> None:
    def attempt(attempt: Attempt) -> Mapping[str, float]:
        for epoch in range(1, 11):
            attempt.report(epoch, 1.0 if attempt.number < 6 else 2.0)
        return {"error": 1.0}

    search = Search((BATCH,), 7, is_larger_better=False, sampler="random")
    rows = run_trials(open_study(tmp_path / "journal.log", search), search, attempt, show_nothing)
    assert [row.state for row in rows] == ["finished"] * 6 + ["pruned"]
    assert rows[-1].epochs < 10


def test_no_trial_begins_after_the_time_that_was_given(tmp_path: Path) -> None:
    search = Search((BATCH,), 5, is_larger_better=False, timeout_s=1e-9)
    assert run_trials(open_study(tmp_path / "journal.log", search), search, lambda _: {"error": 1.0}, show_nothing) == []


def test_a_damaged_journal_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "journal.log").write_bytes(b"nothing of ours\nnor this\n")
    with pytest.raises(ArtefactDamaged, match="--restart"):
        open_study(tmp_path / "journal.log", GRID)


def test_epochs_of_several_networks_are_counted_on_and_their_best_values_averaged() -> None:
    scores = EpochScores(Figure("accuracy", is_larger_better=True, per_epoch="accuracy"), epochs=10)
    rows = [(0, 0.1), (1, 0.5), (2, 0.4), (0, 0.1), (1, 0.7), (2, None)]
    found = [scores.add({"epoch": float(epoch), "accuracy": value}) for epoch, value in rows]
    assert found == [None, (1, 0.5), (2, 0.5), None, (11, pytest.approx(0.6)), None]
    falling = EpochScores(Figure("accuracy", is_larger_better=True, per_epoch=LOSS), epochs=10)
    falling.add({"epoch": 0.0, LOSS: 1.0})
    assert falling.add({"epoch": 1.0, LOSS: 0.25}) == (1, -0.25)


def test_a_figure_is_that_of_the_weights_that_were_kept() -> None:
    members = [{"best_epoch": n, "curve": [{"accuracy": 0.0}, {"accuracy": 0.5}, {"accuracy": 0.9}]} for n in (1, 2)]
    assert at_kept_epochs(members, ["accuracy", "other"]) == {"accuracy": pytest.approx(0.7)}
