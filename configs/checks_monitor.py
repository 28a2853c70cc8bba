"""What the schema of `task: monitor` cannot say: values that do not fit each other."""

import re
from collections.abc import Iterator

from configs.findings import Finding
from configs.run import Sections, check_variable
from configs.tasks.monitor import AlertsConfig, MonitorEvaluation, MonitoringConfig


def check_monitor(sections: Sections) -> list[Finding]:
    """Findings over everything but the files; `sections` maps the fields of MonitorRun to their values or None."""
    source, monitoring = sections.get("source"), sections.get("monitoring")
    findings: list[Finding] = []
    if sections.get("variable") is not None:
        bands = [band.name for band in source.bands] if source is not None else None
        findings += check_variable(("variable",), sections["variable"], bands)
    if monitoring is not None:
        findings += _check_monitoring(monitoring)
    if sections.get("alerts") is not None:
        findings += _check_alerts(sections["alerts"])
    if sections.get("evaluation") is not None:
        findings += _check_evaluation(sections["evaluation"])
    return findings


def _check_monitoring(monitoring: MonitoringConfig) -> Iterator[Finding]:
    test = monitoring.test
    if test.drift >= test.cap:
        problem = f"residuals count at most {test.cap}, and {test.drift} of that is taken off: no change could ever be found"
        yield Finding(("monitoring", "test", "drift"), problem, "a drift smaller than cap, e.g. 2 and 4")
    if test.false_alarms >= 1000:
        problem = f"{test.false_alarms:g} of 1000 stable pixels a year are all of them"
        yield Finding(("monitoring", "test", "false_alarms"), problem, "a rate far below 1000, e.g. 10")


def _check_alerts(alerts: AlertsConfig) -> Iterator[Finding]:
    for index, slug in enumerate(alerts.notify):
        if not re.fullmatch(r"[a-z0-9-]+/[A-Za-z0-9_-]+", slug):
            problem = f"{slug!r} does not name a Prefect block"
            yield Finding(("alerts", "notify", index), problem, "TYPE/NAME as in `prefect block ls`, e.g. slack-webhook/forest")


def _check_evaluation(evaluation: MonitorEvaluation) -> Iterator[Finding]:
    for index, drop in enumerate(evaluation.drops):
        if drop <= 0:
            yield Finding(("evaluation", "drops", index), f"{drop} is no size of a break", "a number greater than 0")
