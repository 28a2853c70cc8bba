"""Whether summary and report speak of what the stages have left; a kill before the report leaves that of the run before."""

from configs.load import config_hash
from flows.folder import STAGES, finished, stage_key, write_json
from flows.invocation import Invocation


def is_reported(invocation: Invocation) -> bool:
    folder = invocation.folder
    is_there = folder.summary.exists() and folder.report.exists()
    return is_there and finished(folder, "report", report_key(invocation)) is not None


def close_report(invocation: Invocation) -> None:
    """Notes that both are written."""
    write_json(invocation.folder.done("report"), {"key": report_key(invocation)})


def report_key(invocation: Invocation) -> str:
    folder = invocation.folder
    records = {stage: finished(folder, stage) for stage in STAGES if stage != "ingest"}
    refused = (finished(folder, "ingest") or {}).get("refused")
    return stage_key(config=config_hash(invocation.run), refused=refused, **records)
