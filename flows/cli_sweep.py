"""`driftline sweep`: a search of hyperparameters on the validation part."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import verbs
from flows.cli_options import AsJson, Overrides


def sweep(
    config: Annotated[str, typer.Argument(metavar="RUN.yaml", help="the run's config, with a section `sweep`")],
    overrides: Overrides = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="how many settings are tried in all, in place of sweep.trials")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="remove the trials so far and begin a new study")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check the space; show how many trials there are and how long they take")
    ] = False,
    json_: AsJson = False,
) -> int | None:
    """Train the run with other values of its settings, and keep those with the best figure on the validation part.

    The section `sweep` of the config says what is tried. The test part is never read: `driftline run` of the config that comes
    out (runs/NAME/sweep/best.yaml) measures it. Needs driftline[sweep].

    A search that was stopped or killed goes on at its next call; trials that fall behind end early; one that fails is listed with
    its message and the others go on. Every trial stands in runs/NAME/sweep/trials.csv, the picture in sweep.png.

    \b
    Examples:
      driftline sweep my-run.yaml --dry-run
      driftline sweep my-run.yaml
      driftline sweep my-run.yaml --trials 60            # goes on where it was
      driftline sweep my-run.yaml --set sweep.sampler=random --restart
      driftline run runs/my-run/sweep/best.yaml
    """
    if trials is not None:
        overrides = [*(overrides or []), f"sweep.trials={trials}"]
    if dry_run:
        return verbs.plan_sweep(config, overrides or [], json_)
    return verbs.stage("sweep", config, overrides, dry_run, json_, restart=restart)
