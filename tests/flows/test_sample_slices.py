"""Slices of a prediction of samples through the command line: the table that an undivided one writes, whoever is killed."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from tests.flows.small_runs import one_thread
from tests.flows.test_classify import TINY, write_clips

runner = CliRunner()
FOLDER = Path("runs/tiny")
pytestmark = pytest.mark.torch
PREDICT = ("predict", "tiny.yaml", "--even-if-worse", "--even-if-confounded")


def call(*arguments: str) -> tuple[int, str]:
    found = runner.invoke(app, [*arguments])
    return found.exit_code, found.output


def forget() -> None:
    """What prediction left, so that it is done again."""
    for name in ("staging", "products"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    (FOLDER / "stages/predict.json").unlink(missing_ok=True)


def published() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((FOLDER / "products").rglob("*.csv"))}


def rows_of_file(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def trained(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 clips, two networks, files of 16 samples; predicted as a whole."""
    monkeypatch.setattr("pipelines.inference.sample_labels.STORED_SAMPLES", 16)
    write_clips(here, 40)
    short = {"training": {**TINY["training"], "epochs": 1}, "evaluation": {"references": ["commonest"], "must_equal": []}}
    Path("tiny.yaml").write_text(yaml.safe_dump({**TINY, **short}, sort_keys=False))
    for verb in ("ingest", "train", "evaluate"):
        code, text = call(verb, "tiny.yaml")
        assert code == 0, text


def test_samples_in_slices_are_answered_as_by_one_process(trained: None) -> None:
    with one_thread():
        code, text = call(*PREDICT)
        assert code == 0, text
        expected = published()
        assert list(expected) == ["labels.csv"]
        forget()
        code, text = call(*PREDICT, "--slice", "2/3", "--json")
        assert code == 0, text
        found = json.loads(text.splitlines()[-1])
        assert (found["made"], found["batches"]) == (3, 3)  # of ten: 2 x 3 of all samples, 2 x 2 of those that were held out
        code, text = call(*PREDICT, "--finish")
        assert code == 1
        assert "of 10 batches are missing or damaged: samples 0 to 15, network 1; " in " ".join(text.split())
        assert not (FOLDER / "products").exists()
        for share in ("1/2", "2/2"):  # N may change
            assert call(*PREDICT, "--slice", share)[0] == 0
        damaged = sorted((FOLDER / "staging").rglob("*.npy"))[0]
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
        code, text = call(*PREDICT, "--finish")
        assert code == 1
        assert "1 of 10 batches are missing or damaged: " in " ".join(text.split())
        assert [call(*PREDICT, "--slice", share, "--json")[1].count('"made": 1') for share in ("1/2", "2/2")] in ([0, 1], [1, 0])
        assert damaged.read_bytes() == whole
        code, text = call(*PREDICT, "--finish")
        assert code == 0, text
        assert published() == expected


@pytest.mark.exhaustive
def test_slices_of_a_run_in_a_bucket_are_those_of_one_machine(
    trained: None, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(name: str) -> None:
        monkeypatch.setenv("DRIFTLINE_CACHE", str(Path(name).absolute()))

    stored = ("--set", f"runs={bucket}/samples")
    with one_thread():
        machine("one")
        for verb in ("ingest", "train", "evaluate"):
            assert call(verb, "tiny.yaml", *stored)[0] == 0
        for name, share in (("two", "1/2"), ("three", "2/2")):
            machine(name)
            code, text = call(*PREDICT, *stored, "--slice", share)
            assert code == 0, text
        machine("four")
        code, text = call(*PREDICT, *stored, "--finish")
        assert code == 0, text
        (table,) = Path("four").rglob("products/labels.csv")
        assert call(*PREDICT)[0] == 0
        assert rows_of_file(table) == rows_of_file(FOLDER / "products/labels.csv")


def test_machines_exchange_answers_through_a_bucket(tmp_path: Path) -> None:
    from flows.sample_slices import SharedAnswers
    from pipelines.inference.sample_batches import Batch, is_whole, save
    from pipelines.stored_files import FolderFiles

    bucket = FolderFiles(tmp_path / "bucket")
    one, two = (SharedAnswers(bucket, tmp_path / name) for name in ("one", "two"))

    def batches(machine: SharedAnswers) -> list[Batch]:
        return [Batch((0,), np.arange(4), machine.here / "labels" / "key" / f"{number}.npy") for number in range(3)]

    for machine, number in ((one, 0), (two, 1)):
        save(batches(machine)[number].path, np.full((4, 2), number, np.float32))
    one.exchange(batches(one))
    two.exchange(batches(two))
    bucket.write("labels/key/1.npy", b"cut off")
    one.exchange(batches(one))
    two.exchange(batches(two))
    one.exchange(batches(one))
    for machine in (one, two):
        assert [is_whole(batch.path) for batch in batches(machine)] == [True, True, False]
        assert [np.load(batch.path)[0, 0] for batch in batches(machine)[:2]] == [0, 1]


def test_an_answer_that_is_cut_off_or_altered_is_not_whole(tmp_path: Path) -> None:
    from pipelines.inference.sample_batches import is_whole, save

    path = tmp_path / "a" / "0.npy"
    assert not is_whole(path)
    answer = np.random.default_rng(0).random((7, 3), np.float32)
    save(path, answer)
    content = path.read_bytes()
    np.testing.assert_array_equal(np.load(path), answer)
    assert is_whole(path)
    for other in (content[:-1], content[: len(content) // 2], b"", content + b"0", content.replace(b"(7, 3)", b"(3, 7)")):
        path.write_bytes(other)
        assert not is_whole(path), len(other)
    assert [one.name for one in path.parent.iterdir()] == ["0.npy"]
