"""`driftline models`: the trained models below a folder, or the card of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import AsJson


def models(
    path: Annotated[
        str, typer.Argument(metavar="[RUNS|PATH]", help="a folder of runs, or one model: runs/NAME, its folder `model`, s3://...")
    ] = "runs",
    json_: AsJson = False,
) -> int | None:
    """List the trained models below a folder: what each predicts, what it was trained on, how good it is on data held out.

    Of one model: its card, also written as card.md and card.json (STAC item with the MLM extension) beside its weights. With
    --json the list or the item is printed, and nothing is written.

    \b
    Examples:
      driftline models
      driftline models runs/my-run
      driftline models runs/my-run --json | jq .properties
    """
    from flows.model_cards import card_of, lines_of, list_models, write_card
    from flows.terminal import show
    from pipelines.products.model_card import item, markdown

    if is_list(path):
        found = list_models(Path(path))
        return show({"models": found}, lines_of(found, path), json_)
    card = card_of(path)
    written = [] if json_ or path.startswith("s3://") else write_card(card)
    return show(dict(item(card)), [markdown(card).rstrip(), "", *(f"wrote {one}" for one in written)], json_)


def is_list(path: str) -> bool:
    """True for a folder that holds runs rather than a model."""
    folder = Path(path)
    return (
        not path.startswith("s3://")
        and not (folder / "model").is_dir()
        and not (folder / "model.json").is_file()
        and (folder.is_dir() or path == "runs")
    )
