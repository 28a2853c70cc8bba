"""All stages in order; each skips itself when what it depends on has not changed."""

from typing import Any

from flows.invocation import Invocation
from flows.stages.evaluate import evaluate
from flows.stages.ingest import ingest
from flows.stages.predict import predict
from flows.stages.train import train


def run_all(invocation: Invocation) -> dict[str, Any]:
    """Ingest -> train -> evaluate -> predict -> report; what the run left, and what was refused on the way."""
    ingested = ingest(invocation)
    done = [ingested, train(invocation), evaluate(invocation), predict(invocation)]
    last = done[-1]
    if all(record.get("skipped") for record in done):
        invocation.steps.say("nothing to do: everything is up to date")
        last = {**last, "message": "nothing to do: everything is up to date"}
    return {**last, "refused": ingested["refused"], "skipped": all(record.get("skipped") for record in done)}
