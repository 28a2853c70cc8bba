"""The table of the family: what it covers, that its commands say what is run, what is kept, and what is printed."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from benchmarks import family_rows
from benchmarks.family import TASKS, main
from benchmarks.family_pages import stated
from benchmarks.family_rows import Line, command_of, lines_asked, members_of, read_pretraining
from benchmarks.family_tables import FAMILY, NOT_OF, SECTIONS
from benchmarks.run_rows import READY_MADE, Config, Row
from configs.load import load_run
from configs.networks import ClassModel, ConvGRUModel, ConvLSTMModel, HistoryModel, PredRNNModel, SimVPModel, TrajGRUModel
from configs.sequences import SequenceModelConfig
from configs.tasks.change import ChangeModel
from configs.tasks.describe import CaptionModelConfig
from configs.tasks.detect import CentrePointConfig
from configs.tasks.generate import PixelModelConfig

FORECASTERS = (ConvLSTMModel, ConvGRUModel, TrajGRUModel, PredRNNModel, SimVPModel, HistoryModel)
NETWORKS: dict[str, tuple[type[Any], ...]] = {
    "forecast": FORECASTERS,
    "change": (ChangeModel,),
    "segment": (ClassModel,),
    "classify": (SequenceModelConfig,),
    "detect": (CentrePointConfig,),
    "generate": (PixelModelConfig,),
    "describe": (CaptionModelConfig,),
    "pretrain": (ClassModel,),
}
NO_ROWS = {  # kinds without a row, as the page says
    "classify": {"volume_rnn", "volume_lstm", "volume_gru"},
    "pretrain": {"fc_siam_diff", "fc_siam_conc", "fc_ef"},
}


def kinds_of(task: str) -> Iterator[str]:
    """Kinds of network in the rows of a task."""
    for name, section in SECTIONS.items():
        if section.task == task and not section.command:
            configs = (Line(name, member).config(Path("/data"), Path("/folder")) for member in members_of(name))
            yield from (config["model"].get("kind", "convlstm") for config in configs)


def test_every_kind_of_network_has_a_row_or_is_named() -> None:
    for task, models in NETWORKS.items():
        kinds = {kind for model in models for kind in get_args(model.model_fields["kind"].annotation)}
        assert kinds - set(kinds_of(task)) == NO_ROWS.get(task, set()), task


def test_every_row_belongs_to_a_member_and_every_gap_has_a_reason() -> None:
    rows = {(section, member) for section in SECTIONS for member in members_of(section)}
    of_members = {(section, one) for member in FAMILY.values() for section, ones in member.rows.items() for one in ones}
    assert rows == of_members
    for task in TASKS:
        without = {name for name, one in FAMILY.items() if not any(SECTIONS[section].task == task for section in one.rows)}
        reasons = [set(members) for reasoned, members, _ in NOT_OF if reasoned == task]
        assert set().union(*reasons) <= without, task
        assert set() in reasons, task  # of all others


def test_the_command_of_a_row_is_the_run_that_is_measured() -> None:
    for line in lines_asked(list(SECTIONS), 2):
        if line.is_run and (line.seed == 0 or line.member == members_of(line.section)[-1]):
            words = shlex.split(command_of(line))
            assert words[:3] == ["driftline", "run", f"configs/{line.of.table.config}.yaml"]
            sets = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
            run = load_run(READY_MADE / f"{line.of.table.config}.yaml", sets, inputs_must_exist=False, notify=lambda text: None)
            measured = load_run(line.config(Path("/data"), Path("/folder")), inputs_must_exist=False)
            assert comparable(run.model_dump(mode="json")) == comparable(measured.model_dump(mode="json")), line


def comparable(content: dict[str, Any]) -> dict[str, Any]:
    """Without the places of data and runs."""
    kept = {name: value for name, value in content.items() if name != "runs"}
    for section in ("source", "labels"):
        kept[section] = {name: value for name, value in (kept.get(section) or {}).items() if name not in ("path", "cube")}
    return kept


def test_what_other_pages_state_is_read_from_them() -> None:
    row = stated("mnist")["lstm, two layers"]
    assert row["methods"]["model"]["accuracy"] == 0.9935
    assert row["methods"]["nearest_mean"]["accuracy_low"] == 0.791
    assert (row["parameters"], row["cpu_seconds"], row["went_on"], row["alone"]) == (123850, 767, True, "0.9924 (0.0002)")
    assert stated("crops")["gru"]["confounded"] == {"position": "0.850"}
    assert stated("crops")["l_tae"]["confounded"] == {}
    assert stated("porto-dos-gauchos")["convlstm"]["values"] == [0.1107, 0.1161, 0.1117]
    assert set(stated("moving-mnist")) == set(members_of("moving-mnist"))


def made_run(folder: Path, name: str, loss: float) -> None:
    """What a pretraining leaves."""
    (folder / "runs" / name / "stages").mkdir(parents=True)
    record = {
        "pretraining": {"loss": loss, "interpolation_mae": 0.532, "places": 76, "places_held_out": 20, "sites_held_out": []},
        "training": {"members": [{"epochs": 20}]},
        "made_from": {"training": {"seed": 0}},
    }
    (folder / "runs" / name / "stages" / "train.json").write_text(json.dumps(record))


def test_a_row_that_fails_is_named_the_rest_goes_on_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(family_rows, "weights_of", lambda run, task: 12)
    tried: list[str] = []

    def run_row(config: Config, folder: Path, read: Any, options: Any) -> Row:
        if (kept := family_rows.kept_row(config, folder)) is not None:
            return kept
        name = config["name"]
        tried.append(name)
        if name == "porto-pretrain-lstm" and tried.count(name) == 1:
            raise SystemExit(f"{name}: exit code 2: no space left in {folder}")
        made_run(folder, name, loss={"porto-pretrain-rnn": 0.5, "porto-pretrain-rnn-seed-1": 0.52}.get(name, 0.6))
        row = {**read_pretraining(folder / "runs" / name), "cpu_seconds": 40.0, "peak_gb": 0.7, "went_on": False}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        (folder / f"{name}.json").write_text(json.dumps(row))
        return row

    monkeypatch.setattr(family_rows, "run_row", run_row)
    asked = [str(tmp_path), str(tmp_path / "rows"), "--only", "pretrain", "--jobs", "1", "--seeds", "2"]
    main([*asked, "--member", "rnn", "--member", "lstm"])
    page = capsys.readouterr().out
    first = ["porto-pretrain-rnn", "porto-pretrain-lstm", "porto-pretrain-rnn-seed-1", "porto-pretrain-lstm-seed-1"]
    assert sorted(tried) == sorted(first)
    assert "| rnn | 0.500 | 0, 1 | 0.5100 (0.0141) | 12 | 40 | 0.70 | here, 20" in page
    assert "| *interpolation in time* | 0.532 |" in page
    assert "| gru | not measured |" in page
    assert "2 of 12 rows are measured, 1 failed." in page
    assert "--set name=porto-pretrain-gru --set 'model={kind: gru}'" in page
    assert "| lstm | 0.600 | 1 |" in page  # of its second seed
    assert "- failed, seed 0: porto-pretrain-lstm: exit code 2: no space left in FOLDER" in page
    assert str(tmp_path) not in page

    main([*asked, "--finished"])
    assert capsys.readouterr().out == page  # nothing was run
    assert sorted(tried) == sorted(first)

    main([*asked, "--member", "rnn", "--member", "lstm"])
    assert tried[4:] == ["porto-pretrain-lstm"]
    assert "- failed" not in (page := capsys.readouterr().out)
    assert "2 of 12 rows are measured." in page


def test_unknown_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such row; members: RNN"):
        main([str(tmp_path), str(tmp_path), "--member", "transformer", "--finished"])
