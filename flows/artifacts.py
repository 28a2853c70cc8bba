"""What Prefect's UI shows of a run: progress, the table of metrics, the quicklook, where the products lie.

The numbers come from `summary.json`, so that the UI, the report and the file cannot disagree.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.folder import RunFolder
from flows.invocation import Invocation

LARGEST_PICTURE = 700_000  # bytes that go into the server's database with a picture
UPDATE_EVERY_S = 2.0


class ProgressArtifact:
    """The display of a run without a terminal: a progress artifact for every step that counts, and the flow run's log."""

    @contextmanager
    def step(self, stage: str, name: str) -> Iterator[Callable[[int, int], None]]:
        updates = _Updates(f"{stage}: {name}")
        try:
            yield updates
        finally:
            updates.close()

    def say(self, text: str) -> None:
        from prefect.logging import get_run_logger

        get_run_logger().info(text)


class _Updates:
    """Sends progress at most every two seconds from a thread of its own: the work must not wait for the server."""

    def __init__(self, description: str):
        self.description = description
        self._latest: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._context: Any = None

    def __call__(self, done: int, total: int) -> None:
        self._latest = 100.0 * done / max(total, 1)
        if self._thread is None:
            import contextvars

            context = contextvars.copy_context()  # tells Prefect which run the artifact belongs to
            self._thread = threading.Thread(target=context.run, args=(self._send,), name="progress-artifact", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _send(self) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        artifact: Any = create_progress_artifact(self._latest or 0.0, description=self.description)
        sent = self._latest
        is_last = False
        while not is_last:
            is_last = self._stop.wait(UPDATE_EVERY_S)
            if self._latest != sent and self._latest is not None:
                sent = self._latest
                update_progress_artifact(artifact, progress=sent)


def publish_artifacts(invocation: Invocation) -> None:
    """Artifacts of what is there so far; a run that has no summary yet gets its record of steps alone."""
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

    folder, key = invocation.folder, artifact_key(invocation.run.name)
    if folder.summary.exists():
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
        create_markdown_artifact(
            metrics_markdown(summary), key=f"{key}-metrics", description="Errors on the test part, and the verdict"
        )
        create_table_artifact(summary["stages"], key=f"{key}-costs", description="Seconds and peak memory of each stage")
    if folder.refused.exists():
        create_markdown_artifact(refused_markdown(folder), key=f"{key}-refused", description="Scenes that were refused, and why")
    if folder.quicklook.exists():
        create_markdown_artifact(
            picture_markdown(folder.quicklook), key=f"{key}-quicklook", description="The forecast at a glance"
        )
    for path, what in ((folder.report, "report"), (folder.products / "collection.json", "products")):
        if path.exists():
            create_link_artifact(path.resolve().as_uri(), link_text=str(path), key=f"{key}-{what}")


def artifact_key(name: str) -> str:
    """Prefect's keys hold lower-case letters, digits and dashes only."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name.lower()).strip("-") or "run"


def metrics_markdown(summary: dict[str, Any]) -> str:
    """The verdict and one row of overall errors for the model and each baseline."""
    verdict = summary["verdict"]
    lines = [f"**{verdict['sentence']}**", "", f"Published: {'yes' if verdict.get('published') else 'no'}.", ""]
    lines += ["| | MAE | RMSE | SSIM |", "|---|---|---|---|"]
    for name, metrics in summary["metrics"].items():
        overall = metrics["overall"]
        cells = ["" if overall.get(m) is None else f"{overall[m]:.4g}" for m in ("mae", "rmse", "ssim")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Cube snapshot `{summary['cube_snapshot']}`, model `{summary['model_hash'][:12]}`, "
        f"config `{summary['config_hash'][:12]}`.",
    ]
    return "\n".join(lines)


def refused_markdown(folder: RunFolder) -> str:
    content = json.loads(folder.refused.read_text(encoding="utf-8"))
    entries = content if isinstance(content, list) else content.get("refused", [])
    if not entries:
        return "No scene was refused."
    rows = [f"| {e.get('scene_id', '')} | {e.get('reason', '')} | {e.get('detail', '')} |" for e in entries[:200]]
    more = ["", f"... and {len(entries) - 200} more in {folder.refused}"] if len(entries) > 200 else []
    return "\n".join([f"{len(entries)} scenes were refused.", "", "| scene | reason | detail |", "|---|---|---|", *rows, *more])


def picture_markdown(path: Path) -> str:
    """The picture itself where it is small enough for the server's database, else its place."""
    content = path.read_bytes()
    if len(content) > LARGEST_PICTURE:
        return f"The picture is too large to show here: {path.resolve().as_uri()}"
    return f"![forecast](data:image/png;base64,{base64.b64encode(content).decode()})"
