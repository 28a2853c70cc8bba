"""Rates of this machine, and what runs took on it, as plans use them."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from flows.machine import SHIPPED, PastRun, Rates, keep_rates, keep_run, machine_key, past_runs, plans_file, ratios, read_machine

MEASURED = Rates(train_flop_s=2 * SHIPPED.train_flop_s, start_s=SHIPPED.start_s / 2)
PLANNED = {"seconds": 10.0, "cpu_seconds": 20.0, "memory_mb": 1000.0, "disk_mb": 0.001, "read_mb": 100.0}


def test_rates_are_those_of_another_machine_until_this_one_is_calibrated() -> None:
    assert read_machine().rates == SHIPPED
    assert "the rates are of another machine; `driftline doctor --calibrate`" in read_machine().note
    keep_rates(MEASURED)
    machine = read_machine()
    assert (machine.rates, machine.note) == (MEASURED, "")
    assert (machine.training, machine.starting, machine.numerics) == (2, 2, 1)


def test_without_a_home_folder_plans_have_the_rates_of_another_machine(no_home: None) -> None:
    machine = read_machine()
    assert machine.rates == SHIPPED
    assert "no home folder" in machine.note
    assert "set DRIFTLINE_CACHE to a folder: the rates are of another machine" in machine.note
    assert past_runs("forecast/train") == []


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"a": 1}',
        json.dumps({machine_key(): {"rates": asdict(MEASURED) | {"start_s": 0}}}),
        json.dumps({machine_key(): {"rates": asdict(MEASURED) | {"start_s": "fast"}}}),
        json.dumps({machine_key(): {"rates": {"start_s": 1.0}, "runs": []}}),
        json.dumps({"another CPU": {"rates": asdict(MEASURED)}}),
    ],
)
def test_a_file_that_is_damaged_or_of_another_machine_is_not_used_and_replaced(content: str) -> None:
    plans_file().parent.mkdir(parents=True)
    plans_file().write_text(content)
    assert read_machine().rates == SHIPPED
    assert "the rates are of another machine" in read_machine().note
    assert past_runs("forecast/train") == []
    keep_run("forecast/train", PastRun(PLANNED, PLANNED))
    assert past_runs("forecast/train") == [PastRun(PLANNED, PLANNED)]
    keep_rates(MEASURED)
    assert read_machine().rates == MEASURED
    assert past_runs("forecast/train") == [], "they were planned with other rates"


def took(factor: float, planned: dict[str, float] = PLANNED, **more: Any) -> PastRun:
    return PastRun(planned, {name: value * factor for name, value in planned.items()}, **more)


def test_a_plan_is_corrected_by_the_median_of_the_last_runs_of_like_size() -> None:
    for factor in (100, 2, 3, 2, 50, 2):
        keep_run("forecast/train", took(factor))
    found, count = ratios(PLANNED, past_runs("forecast/train"))
    assert count == 5, "the first is gone"
    assert found == pytest.approx({"seconds": 2, "cpu_seconds": 2, "memory_mb": 2, "read_mb": 2}), "disk is too little to count"
    large = {name: 100 * value for name, value in PLANNED.items()}
    assert ratios(large, past_runs("forecast/train")) == ({}, 0)
    assert past_runs("forecast/predict") == []


def test_on_a_crowded_machine_cpu_seconds_correct_the_time() -> None:
    crowded = PastRun(PLANNED, PLANNED | {"seconds": 90.0, "cpu_seconds": 30.0}, is_crowded=True)
    assert ratios(PLANNED, [crowded] * 2)[0]["seconds"] == 1.5
    quiet = PastRun(PLANNED, PLANNED | {"seconds": 20.0, "cpu_seconds": 20.0})
    assert ratios(PLANNED, [crowded, quiet, quiet])[0]["seconds"] == 2
    assert ratios(PLANNED, [quiet])[0]["seconds"] == 1.5, "one run alone counts a half"
