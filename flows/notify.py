"""New alerts to the people who asked for them, through Prefect's own notification blocks (webhook, e-mail, chat).

A block is made once on the server, in its UI or by code, and named in `alerts.notify` as TYPE/NAME:

    CustomWebhookNotificationBlock(name="ops", url="https://...").save("ops")     # alerts.notify: [custom-webhook/ops]
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows import Json
from pipelines.monitoring.alerts import AlertLog, mark_sent
from pipelines.wording import without_secrets

logger = logging.getLogger(__name__)
MOST_LINES = 20


def send_alerts(
    alert_log: AlertLog, slugs: Sequence[str], name: str, listed_in: Path, keep: Callable[[AlertLog], None]
) -> tuple[AlertLog, list[str]]:
    """(the log with what was sent, notes for people). Each block gets one message about all alerts that it has not had.

    `keep` writes the log to disk, after each block. A block that fails keeps its alerts unsent, and is tried again by the next
    run; without a Prefect server none can be loaded.
    """
    from flows.tracking import is_reachable, server_url

    notes: list[str] = []
    waiting = [slug for slug in slugs if alert_log.unsent(slug)]
    if not waiting:
        return alert_log, notes
    url = server_url()
    if url is None or not is_reachable(url):
        why = (
            without_secrets(f"the Prefect server at {url} does not answer")
            if url
            else "no Prefect server is configured (PREFECT_API_URL)"
        )
        count = max(len(alert_log.unsent(slug)) for slug in waiting)
        notes.append(f"{count_of(count)} in {listed_in} not sent yet: {why}; the next run that finds one sends them")
        return alert_log, notes
    for slug in waiting:
        alerts = alert_log.unsent(slug)
        subject = f"driftline {name}: {len(alerts)} new change{'s' * (len(alerts) != 1)}"
        error = notify(slug, subject, body_of(alerts, listed_in))
        if error:
            notes.append(f"{count_of(len(alerts))} in {listed_in} not sent to {slug}: {error}; the next run tries again")
            continue
        alert_log = mark_sent(alert_log, slug, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        keep(alert_log)
        notes.append(f"{slug} was notified of {count_of(len(alerts))}")
    return alert_log, notes


def count_of(number: int) -> str:
    return f"{number} alert{'s' * (number != 1)}"


def notify(slug: str, subject: str, body: str) -> str:
    """Notifies one block; "" or why it failed. Whatever its service raises must not lose the result of the run."""
    from prefect.blocks.core import Block

    try:
        block: Any = Block.load(slug)
        block.notify(body, subject=subject)
    except Exception as e:  # Apprise, httpx, SMTP, the server: each has its own kinds
        logger.warning("%s could not be notified: %s", slug, e)
        return f"{type(e).__name__}: {e}".splitlines()[0]
    return ""


def body_of(alerts: Sequence[Json], listed_in: Path) -> str:
    """A line per alert, largest first: when, how large, which way, with which confidence, where."""
    ordered = sorted(alerts, key=lambda alert: -alert["area_m2"])
    lines = [line_of(alert) for alert in ordered[:MOST_LINES]]
    if len(ordered) > MOST_LINES:
        lines.append(f"... and {len(ordered) - MOST_LINES} more")
    return "\n".join([*lines, f"all alerts: {listed_in.resolve()}"])


def line_of(alert: Json) -> str:
    sure = "" if alert.get("confidence") is None else f", confidence {alert['confidence']:.2f}"
    when = (alert.get("first_date") or alert.get("detected") or "")[:10]
    seen = f" (detected {alert['detected'][:10]})" if alert.get("detected") else ""
    return (
        f"{when}{seen}: {alert['area_m2'] / 1e4:.2f} ha, {alert['direction']} of {alert['magnitude']:.3g}{sure}, "
        f"at {alert['lat']:.5f}, {alert['lon']:.5f} [{alert['id']}]"
    )
