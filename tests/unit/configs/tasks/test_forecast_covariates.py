"""The section `covariates` of a forecast: what it cannot mean, and models of other covariates."""

import pytest

from configs.tasks.forecast import SamplesConfig
from configs.tasks.forecast_covariates import CovariatesConfig, build_scaling, check_model
from pipelines.errors import RequestError

RAIN = {"name": "rain", "path": "rain.csv", "known": "future"}
COVER = {"name": "cover", "path": "cover.tif", "kind": "class", "classes": [3, 4]}


@pytest.mark.parametrize(("section", "wrong"), [
    ({"static": [COVER], "drivers": [RAIN]}, []),
    ({"static": [COVER | {"name": "rain"}], "drivers": [RAIN]}, ["covariates.drivers.0.name"]),
    ({"static": [COVER | {"classes": []}]}, ["covariates.static.0.classes"]),
    ({"static": [COVER | {"kind": "number"}]}, ["covariates.static.0.classes"]),
    ({"drivers": [RAIN | {"path": "rain.nc"}]}, ["covariates.drivers.0.variable"]),
    ({"drivers": [RAIN | {"known": "past", "missing": "climatology"}]}, ["covariates.drivers.0.missing"]),
    ({"static": [COVER | {"classes": [3, 3]}]}, ["covariates.static.0.classes"]),
    ({"drivers": [RAIN | {"name": "ndvi"}]}, ["covariates.drivers.0.name"]),
])  # fmt: skip
def test_what_a_section_cannot_mean_is_found_at_its_key(section, wrong):
    samples = SamplesConfig.model_validate({"variables": [{"name": "ndvi", "bands": ["v"]}]})
    found = CovariatesConfig.model_validate(section).check({"samples": samples})
    assert [".".join(map(str, finding.key)) for finding in found] == wrong


@pytest.mark.parametrize(("section", "message"), [
    ({}, "trained with the covariates cover=3, cover=4, rain, the config's section `covariates` names none"),
    ({"static": [COVER], "drivers": [RAIN | {"known": "past"}]}, r"rain \(known ahead: rain\), the config's"),
    ({"static": [COVER], "drivers": [RAIN]}, None),
])  # fmt: skip
def test_a_model_takes_the_covariates_that_it_was_trained_with(section, message):
    kinds = {"cover=3": "class", "cover=4": "class", "rain": "future"}
    trained = build_scaling([{"name": name, "kind": kind, "mean": 0.0, "std": 1.0} for name, kind in kinds.items()])
    if message is None:
        check_model(trained, CovariatesConfig.model_validate(section))
        return
    with pytest.raises(RequestError, match=message):
        check_model(trained, CovariatesConfig.model_validate(section))
