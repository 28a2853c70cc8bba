"""Options that several verbs have."""

from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="replace a value of the config, e.g. training.epochs=5; may be repeated"),
]
AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON object on stdout; progress stays on stderr")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="show the plan (steps, disk, peak memory, time) and change nothing")]
