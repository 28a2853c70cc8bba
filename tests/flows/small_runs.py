"""Runs on small made data in the working folder, and what they leave there."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from flows import stage
from flows.task import Invocation, open_invocation, remembering_folder

LEAVES = ("summary.json", "report.html", "report.md", "quicklook.png", "evaluation.json", "model/model.safetensors",
          "products/index.json")  # fmt: skip


def carry_out(verb: str, content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    name = f"{content['name']}.yaml"
    Path(name).write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return perform(open_invocation(name), verb)


def perform(invocation: Invocation, verb: str) -> dict[str, Any]:
    with remembering_folder(invocation), one_thread():
        return stage.carry_out(invocation, verb)


@contextmanager
def one_thread() -> Iterator[None]:
    """So small networks train faster, and much faster beside other work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_json(name: str, run: str = "tiny") -> Any:
    return json.loads((Path("runs") / run / name).read_text())


def rows_of(run: str = "tiny", table: str = "labels") -> list[dict[str, str]]:
    return list(csv.DictReader((Path("runs") / run / "products" / f"{table}.csv").read_text().splitlines()))


def assert_the_curve_is_shown(score: str, title: str, run: str = "tiny") -> None:
    """Every epoch of every network has the score, and the report shows its mean over the epochs that were kept."""
    members = read_json("stages/train.json", run)["training"]["members"]
    assert all(isinstance(row[score], float) for one in members for row in one["curve"])
    kept = [one["curve"][one["best_epoch"]][score] for one in members]
    assert f"There {title} is {sum(kept) / len(kept):.3g} on average" in (Path("runs") / run / "report.html").read_text()
