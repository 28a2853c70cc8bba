"""The space of a search is checked against the schema of the run before anything starts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.load import config_hash, load_run
from configs.sweep_space import as_yaml, figure_of, pruned_by, read_space, sweep_of, trial_run
from configs.tasks import TASKS
from flows.tasks import task_of
from pipelines.errors import ConfigError, RequestError
from pipelines.learning.sweep_study import Domain
from pipelines.learning.validation_figures import LOSS, Figure

RUN: dict[str, Any] = {
    "name": "rows",
    "task": "classify",
    "source": {"kind": "files", "path": "clips", "unit": "folder"},
    "labels": {"kind": "table", "path": "labels.csv"},
    "model": {"kind": "convgru", "widths": [8]},
}
FIGURES = (Figure("accuracy", is_larger_better=True, per_epoch="accuracy"), Figure(LOSS))


def write(folder: Path, space: dict[str, Any], **settings: Any) -> Path:
    path = folder / "rows.yaml"
    path.write_text(yaml.safe_dump({**RUN, "sweep": {"space": space, **settings}}, sort_keys=False))
    return path


def space_of(path: Path) -> tuple[Domain, ...]:
    return read_space(path, (), load_run(path, inputs_must_exist=False))[1]


def test_a_task_has_the_verb_if_its_config_may_have_the_section() -> None:
    for name, run in TASKS.items():
        assert ("sweep" in task_of(name).verbs) == ("sweep" in run.model_fields), name


def test_ranges_take_the_type_of_their_key_and_choices_are_as_they_are_written(tmp_path: Path) -> None:
    space = {
        "training.learning_rate": {"low": 1e-5, "high": 1, "log": True},
        "training.batch": {"low": 8, "high": 32, "step": 8},
        "model.widths": [[8], [8, 16]],
    }
    path = write(tmp_path, space)
    rate, batch, widths = space_of(path)
    assert (rate.is_whole, batch.is_whole, batch.stored_values()) == (False, True, [8, 16, 24, 32])
    assert widths.choices == ([8], [8, 16])
    content, _ = read_space(path, (), load_run(path, inputs_must_exist=False))
    tried: Any = trial_run(content, {"training.learning_rate": 1e-5, "model.widths": [8, 16], "training.batch": 24})
    assert (tried.training.learning_rate, tried.training.batch, tried.model.widths) == (1e-5, 24, [8, 16])
    assert tried.source.path == str(tmp_path / "clips")
    assert tried.sweep is None


def test_what_is_tried_changes_no_hash_of_the_run(tmp_path: Path) -> None:
    path = write(tmp_path, {"training.batch": [8, 16]})
    run = load_run(path, inputs_must_exist=False)
    assert config_hash(run) == config_hash(run.model_copy(update={"sweep": None}))


@pytest.mark.parametrize(
    ("space", "where", "problem"),
    [
        ({"training.lerning_rate": {"low": 0.1, "high": 1}}, "training.lerning_rate.low", "unknown key"),
        ({"training.batch": {"low": 0, "high": 8}}, "training.batch.low", "a number of at least 1, found 0"),
        ({"training.batch": {"low": 1, "high": 8.5}}, "training.batch.low", "whole numbers"),
        ({"model.kind": ["convgru", "convgrue"]}, "model.kind.1", "found 'convgrue'"),
        ({"training.loss": {"low": 1, "high": 2}}, "training.loss.low", "found 1"),
    ],
)
def test_what_the_schema_refuses_is_named_with_its_place(tmp_path: Path, space: dict[str, Any], where: str, problem: str) -> None:
    path = write(tmp_path, space)
    with pytest.raises(ConfigError) as caught:
        space_of(path)
    first = caught.value.mistakes[0]
    assert first.key == f"sweep.space.{where}"
    assert problem in first.problem
    place, line = first.position.rsplit(":", 1)
    assert Path(place) == path
    key = next(iter(space))
    lines = path.read_text().splitlines()
    assert any(f"{key}:" in text for text in lines[max(int(line) - 4, 0) : int(line)])


@pytest.mark.parametrize(
    ("space", "settings", "problem"),
    [
        ({"split.folds": [2, 5]}, {}, "expected a key of model or training"),
        ({"training.devices": [1, 2]}, {}, "cannot be tried"),
        ({"model.least_count": [1, 9]}, {}, "it changes which words count"),
        ({"training.batch": {"low": 8, "high": 4}}, {}, "not below high"),
        ({"training.learning_rate": {"low": 0, "high": 4, "log": True}}, {}, "log with low 0"),
        ({"training.learning_rate": {"low": 0.1, "high": 4}}, {"sampler": "grid"}, "a grid needs values"),
        ({"training.batch": []}, {}, "has no choices"),
        ({"training.batch": [4]}, {"trails": 3}, "unknown key"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused_when_the_config_is_read(
    tmp_path: Path, space: dict[str, Any], settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_run(write(tmp_path, space, **settings), inputs_must_exist=False)


def test_losses_of_other_scales_are_not_compared(tmp_path: Path) -> None:
    path = write(tmp_path, {"training.loss": ["cross_entropy", "focal"]}, metric=LOSS)
    settings = sweep_of(load_run(path, inputs_must_exist=False))
    with pytest.raises(RequestError, match=r"losses of different training\.loss cannot be compared; choose by accuracy"):
        figure_of(settings, FIGURES)
    mapped = Figure("accuracy", is_larger_better=True)  # followed by the loss alone
    assert pruned_by(settings, mapped) == ""
    assert pruned_by(settings, FIGURES[0]) == "accuracy"
    with pytest.raises(RequestError, match="expected accuracy or validation_loss"):
        figure_of(settings.model_copy(update={"metric": "f1"}), FIGURES)


def test_a_run_that_does_not_say_what_to_try_is_given_an_example(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump(RUN))
    with pytest.raises(RequestError, match=r"sweep: \{space:"):
        sweep_of(load_run(path, inputs_must_exist=False))


@pytest.mark.parametrize("value", [1e-7, 3, "auto", [1, 2], None, True, {"rotate_degrees": 8}])
def test_values_are_written_as_yaml_reads_them(value: Any) -> None:
    assert yaml.safe_load(as_yaml(value)) == value
