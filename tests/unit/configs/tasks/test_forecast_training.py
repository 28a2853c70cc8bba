"""`training` of a forecast: what came later is not written out where it changes nothing, and is refused where it does not fit."""

from typing import Any

import pytest

from configs.load import load_run
from configs.tasks.forecast import ForecastRun, build_training_settings
from pipelines.errors import RequestError
from pipelines.learning.schedules import ScheduledSampling

RUN: dict[str, Any] = {
    "name": "a",
    "source": {"kind": "folder", "path": ".", "pattern": "{date:%Y}.tif", "bands": ["v"]},
    "samples": {"variables": [{"name": "v", "bands": ["v"]}]},
    "split": {"validation_from": "2019-01-01", "test_from": "2020-01-01"},
}
SAMPLING = {"kind": "reverse", "curve": "sigmoid", "until": 0.8}


def test_the_section_of_a_run_without_them_reads_as_before() -> None:
    training = ForecastRun.model_validate(RUN).training.model_dump(mode="json")
    assert not {"schedule", "ema", "micro_batch", "sampling"} & training.keys()
    assert build_training_settings(ForecastRun.model_validate(RUN)).sampling is None


def test_the_settings_are_those_of_the_section() -> None:
    training = {"schedule": "cosine", "ema": 0.99, "micro_batch": 4, "sampling": SAMPLING}
    settings = build_training_settings(ForecastRun.model_validate({**RUN, "model": {"kind": "predrnn"}, "training": training}))
    assert (settings.schedule, settings.ema, settings.micro_batch) == ("cosine", 0.99, 4)
    assert settings.sampling == ScheduledSampling("reverse", "sigmoid", 0.8)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{kind: simvp}", r"(?s)simvp does not read its own forecasts frame by frame.*model\.kind: predrnn"),
        ("{kind: history}", r"history does not read"),
        ("auto", r"auto does not read"),
        ("{kind: convgru}", r"(?s)convgru does not read its own forecasts frame by frame.*model\.feedback: true"),
        ("{hidden: [4]}", r"(?s)convlstm does not read.*model\.feedback: true"),
        ("{kind: predrnn, baseline: moving_field}", r"is not for model\.baseline: moving_field"),
        ("{kind: predrnn}", ""),
        ("{kind: trajgru, feedback: true}", ""),
    ],
)
def test_sampling_is_refused_where_no_forecasts_are_read(model: str, said: str, tmp_path) -> None:
    path = tmp_path / "run.yaml"
    (tmp_path / "2018.tif").touch()
    path.write_text(
        "name: a\ntask: forecast\nsource: {kind: folder, path: ., pattern: '{date:%Y}.tif', bands: [v]}\n"
        "samples: {variables: [{name: v, bands: [v]}]}\nsplit: {validation_from: 2019-01-01, test_from: 2020-01-01}\n"
        f"model: {model}\ntraining: {{sampling: {{kind: scheduled}}}}\n"
    )
    if not said:
        load_run(path)
        return
    with pytest.raises(RequestError, match=said):
        load_run(path)
