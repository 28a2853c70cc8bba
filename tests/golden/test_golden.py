"""The golden runs against their committed values: whoever moves code sees here whether a result moved with it.

The rule: `values.json` (reduced runs) and `full.json` (demos as shipped) change only in a commit whose message names every value
that changes, the old one and the new one, and why; the lines that a failure prints are what to paste. A rename changes the table
in record.py and no value. How to write the files anew, once that is decided:

    python -m tests.golden record tests/golden/values.json --short
    python -m tests.golden record tests/golden/full.json --short --full
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.demo import DATA, fetch_data
from flows.steps import Silent
from pipelines.errors import StateError
from tests.golden import compare, runs
from tests.golden.record import Entry, numbers_of, unordered, walk

VALUES = Path(__file__).with_name("values.json")


@pytest.mark.slow
@pytest.mark.parametrize("run", runs.RUNS)
def test_a_reduced_run_computes_the_golden_values(run: str, tmp_path: Path) -> None:
    if "demo" in runs.RUNS[run]:
        fetch_or_skip(tmp_path)
    runs.carry_out(run, tmp_path)
    found = compare.number_differences(compare.read(VALUES, (run,)), runs.collect_all((run,), tmp_path))
    assert not found, f"{len(found)} golden values differ:\n" + "\n".join(found)


def fetch_or_skip(folder: Path) -> None:
    try:
        fetch_data(Silent(), folder / DATA)
    except StateError as e:
        pytest.skip(str(e))


def test_one_changed_pixel_is_seen_and_named() -> None:
    image = np.zeros((10, 10), np.float32)
    old = {"forecast/staged/0": Entry.of(image, "000-ndvi.f32")}
    image[3, 3] = 0.5
    new = {"forecast/staged/0": Entry.of(image, "000-ndvi.f32")}
    assert compare.byte_differences(old, old) == compare.number_differences(old, old) == []
    assert compare.byte_differences(old, new) == ["forecast/staged/0 (000-ndvi.f32): other bytes; mean was 0.0, is 0.005"]
    assert "forecast/staged/0 (000-ndvi.f32): max was 0, is 0.5" in compare.number_differences(old, new)


def test_numbers_may_differ_by_the_tolerance_and_classes_may_flip_twice() -> None:
    index, classes = np.linspace(0, 1, 1000), np.arange(1000) % 3
    old = {"a/index": Entry.of(index), "a/classes": Entry.of(classes), "a/cube/0": Entry.of(classes)}
    assert compare.number_differences(old, {**old, "a/index": Entry.of(index + 5e-7)}) == []
    assert compare.number_differences(old, {**old, "a/index": Entry.of(index + 5e-6)}) != []
    flipped = classes.copy()
    flipped[[1, 4]] = 2
    assert compare.number_differences(old, {**old, "a/classes": Entry.of(flipped)}) == []
    assert compare.number_differences(old, {**old, "a/cube/0": Entry.of(flipped)}) != []
    flipped[:100] = 2
    assert compare.number_differences(old, {**old, "a/classes": Entry.of(flipped)}) != []


def test_a_gone_a_new_and_a_retyped_array_are_seen() -> None:
    entry = Entry.of(np.zeros(3), text="EPSG:3035, nodata nan")
    other = replace(entry, dtype="<f4", text="EPSG:3035, nodata 0.0")
    assert compare.number_differences({"a": entry, "b": entry}, {"b": other, "c": entry}) == [
        "a: is gone",
        "c: is new, ",
        "b (): dtype was <f8, is <f4",
        "b (): text was EPSG:3035, nodata nan, is EPSG:3035, nodata 0.0",
    ]


def test_the_name_of_a_tensor_does_not_matter(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    weights = {"gates.weight": np.ones((2, 2)), "gates.bias": np.arange(2.0), "head.bias": np.arange(1.0, 3.0)}
    save_file(weights, tmp_path / "old.safetensors")
    save_file({f"renamed.{9 - i}": array for i, array in enumerate(weights.values())}, tmp_path / "new.safetensors")
    old, new = (unordered("model", [tmp_path / f"{name}.safetensors"]) for name in ("old", "new"))
    assert compare.byte_differences(old, new) == []


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = {"a/b": Entry.of(np.array([[1 / 3, np.nan], [np.inf, -2]]), "name", "EPSG:3035"), "a/c": Entry.of(np.empty(0))}
    compare.write(tmp_path / "long.json", record)
    compare.write(tmp_path / "short.json", record, is_short=True)
    assert compare.byte_differences(record, compare.read(tmp_path / "long.json")) == []
    assert compare.number_differences(record, compare.read(tmp_path / "short.json"), 1e-8) == []
    with pytest.raises(ValueError, match="only with --tolerance"):
        compare.byte_differences(record, compare.read(tmp_path / "short.json"))


def test_a_path_finds_every_match_and_a_missing_key_is_an_error() -> None:
    document = {"methods": {"a": {"f1": 0.5}, "b, Otsu": {"f1": None}, "c": None}}
    rows = [numbers_of(found, ["f1"]) for found in walk(document, ["methods", "*"])]
    np.testing.assert_equal(rows, [[0.5], [np.nan]])
    with pytest.raises(KeyError, match="f2"):
        numbers_of(document["methods"]["a"], ["f2"])
