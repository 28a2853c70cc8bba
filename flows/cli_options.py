"""Options that several verbs have."""

from typing import Annotated

import typer

from pipelines.errors import RequestError

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="replace a value of the config, e.g. training.epochs=5; may be repeated"),
]
AsJson = Annotated[bool, typer.Option("--json", help="the result as one JSON object on stdout; progress stays on stderr")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="show the plan (steps, disk, peak memory, time) and change nothing; exit code 3 where it lists refused inputs",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="PATH", help="use a model that was trained before, in place of `model` of the config: runs/NAME or s3://..."
    ),
]
ModelAsIs = Annotated[
    bool, typer.Option("--model-as-is", help="use it even if units, values or steps are not like those of its training")
]
Share = Annotated[
    str | None,
    typer.Option(
        "--slice", metavar="I/N", help="do the I-th of N shares beside other processes, and publish nothing (see --finish)"
    ),
]
Finish = Annotated[bool, typer.Option("--finish", help="publish what slices have done; say what is missing, if anything")]


def require_alone(finish: bool, dry_run: bool) -> None:
    """Raises RequestError for what does not go with --slice."""
    if finish or dry_run:
        raise RequestError("--slice does a share of the work; leave out --finish and --dry-run")


Force = Annotated[bool, typer.Option("--force", help="publish what covers a smaller extent or fewer dates than what it replaces")]


def with_model(overrides: list[str] | None, model: str | None, as_is: bool) -> list[str]:
    """The overrides, with `model` of the config replaced by the one at the path `model`."""
    import json

    chosen = [f"model={json.dumps({'use': model})}"] if model is not None else []
    return [*chosen, *(["model.as_is=true"] if as_is else []), *(overrides or [])]
