"""What Prefect's UI shows of a run: progress, what it did, the metrics, the quicklook, what was refused, where things lie.

The result comes from `report.md` and `steps.jsonl`, so that the UI, the report and the files cannot disagree.
"""

import base64
import contextvars
import json
import logging
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.folder import RunFolder
from flows.steps import read_records
from flows.task import Invocation
from flows.terminal import one_line, safe
from pipelines.products.report import markdown_text
from pipelines.progress import Progress
from pipelines.wording import counted

logger = logging.getLogger(__name__)

LARGEST_TEXT = 200_000
LARGEST_PICTURE = 700_000  # bytes that go into the server's database with a picture
UPDATE_EVERY_S = 2.0
MOST_ROWS = 200


class ProgressArtifact:
    """The display of a run in the UI: a progress artifact for every step that counts and lasts, and the flow run's log."""

    @contextmanager
    def step(self, stage: str, name: str) -> Iterator[Progress]:
        updates, is_done = _Updates(one_line(f"{stage}: {name}")), False
        try:
            yield updates
            is_done = True
        finally:
            updates.close(is_done=is_done)

    def log(self, text: str) -> None:
        from prefect.logging import get_run_logger

        get_run_logger().info(one_line(text))

    def fail(self, text: str) -> None:
        from prefect.logging import get_run_logger

        get_run_logger().error(safe(text))


class _Updates:
    """Sends progress at most every two seconds from a thread of its own: the work must not wait for the server.

    A step that ends within two seconds leaves no artifact: nobody could have looked at it.
    """

    def __init__(self, description: str):
        self.description = description
        self._latest: float | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, done: int, total: int) -> None:
        self._latest = 100.0 * done / max(total, 1)
        if self._thread is None:
            context = contextvars.copy_context()  # tells Prefect which run the artifact belongs to
            self._thread = threading.Thread(target=context.run, args=(self._send,), name="progress-artifact", daemon=True)
            self._thread.start()

    def close(self, *, is_done: bool) -> None:
        if is_done and self._latest is not None:
            self._latest = 100.0
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _send(self) -> None:
        if self._stop.wait(UPDATE_EVERY_S):
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        try:
            sent = self._latest
            artifact: Any = create_progress_artifact(sent or 0.0, description=self.description)
            is_last = False
            while not is_last:
                is_last = self._stop.wait(UPDATE_EVERY_S)
                if self._latest != sent and self._latest is not None:
                    sent = self._latest
                    update_progress_artifact(artifact, progress=sent)
        except Exception as e:  # a server that went away must not end the work; the terminal and steps.jsonl go on
            logger.warning("progress of %r is no longer shown in the UI: %s", self.description, e)


def publish_artifacts(invocation: Invocation, ending: str) -> None:
    """Artifacts of what is there so far; `ending` says how the run ended. A server that does not answer is only logged."""
    try:
        _publish(invocation, ending)
    except Exception as e:
        logger.warning("the run's artifacts did not reach the Prefect server (%s); its folder has everything", e)


def _publish(invocation: Invocation, ending: str) -> None:
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

    folder, key = invocation.folder, artifact_key(invocation.run.name)
    create_markdown_artifact(overview_markdown(invocation, ending), key=f"{key}-run", description="What this run did")
    if figures := report_markdown(folder):
        create_markdown_artifact(figures, key=f"{key}-metrics", description="What was found, how well, and the verdict")
    if folder.summary.exists():
        stages = json.loads(folder.summary.read_text(encoding="utf-8"))["stages"]
        create_table_artifact(stages, key=f"{key}-costs", description="Seconds and peak memory of each stage")
    if folder.refused.exists():
        create_markdown_artifact(refused_markdown(folder), key=f"{key}-refused", description="Scenes that were refused, and why")
    if folder.quicklook.exists():
        create_markdown_artifact(picture_markdown(folder.quicklook), key=f"{key}-quicklook", description="The result at a glance")
    for what, path in linked_files(folder).items():
        link, description = path.resolve().as_uri(), f"Where the {what.replace('-', ' ')} lies"
        create_link_artifact(link, link_text=str(path), key=f"{key}-{what}", description=description)


def linked_files(folder: RunFolder) -> dict[str, Path]:
    """What there is of the files that a person opens: report, lists of products, viewer pages, volumes, DICOM SEG and SR.

    Names of files hold variables, roles and numbers, nothing of a patient. Of many SEG or SR files the folder is linked.
    """
    tracks = folder.path / "track"
    known = {"report": folder.report, "products": folder.products / "collection.json", "index": folder.products / "index.json"}
    known |= {"viewer": folder.products / "viewer.html", "tracks": tracks / "index.json", "track-viewer": tracks / "viewer.html"}
    volumes = sorted([*folder.products.glob("*.nii.gz"), *tracks.glob("*.nii.gz")])
    known |= {artifact_key(path.name): path for path in volumes}
    for below in ("seg", "sr"):
        objects = sorted((tracks / below).glob("*.dcm"))
        if objects:
            known[f"dicom-{below}"] = objects[0] if len(objects) == 1 else tracks / below
    return {what: path for what, path in known.items() if path.exists()}


def artifact_key(name: str) -> str:
    """Prefect's keys hold lower-case letters, digits and dashes only."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name.lower()).strip("-") or "run"


# ---------------------------------------------------------------- markdown


def overview_markdown(invocation: Invocation, ending: str) -> str:
    """One page: how it ended, what every step did and cost, the verdict, what was refused, where everything lies."""
    folder = invocation.folder
    lines = [f"# {markdown_text(invocation.run.name)}", "", f"**{markdown_text(ending)}**"]
    if figures := report_markdown(folder):
        lines += ["", "## Result", "", figures.replace("\n## ", "\n### ")]
    if folder.quicklook.exists():
        lines += ["", "## Quicklook", "", picture_markdown(folder.quicklook)]
    lines += ["", "## Steps of this run", "", *step_rows(folder.steps, invocation.steps.invocation)]
    if folder.refused.exists():
        lines += ["", "## Refused scenes", "", refused_markdown(folder)]
    files = (folder.report, folder.products, folder.alerts, folder.summary, folder.steps, folder.config)
    there = [f"- `{path.resolve()}`" for path in files if path.exists()]
    return "\n".join([*lines, "", f"## Files on {platform.node()}", "", *there])


def step_rows(record: Path, invocation: str) -> list[str]:
    """A table of the steps of one invocation; a step that began and did not end is said to have been stopped."""
    ended = {(line["stage"], line["step"]): line for line in read_records(record) if line["run"] == invocation}
    rows = ["| stage | step | | seconds | peak MB |", "|---|---|---|---|---|"]
    for line in ended.values():
        status = "stopped" if line["status"] == "started" else line["status"]
        what = markdown_text(f"{status}: {line['detail']}" if line["detail"] else status)
        costs = "| |" if line["status"] in ("skipped", "started") else f"{line['seconds']:.1f} | {line['peak_mb']:.0f} |"
        rows.append(f"| {markdown_text(line['stage'])} | {markdown_text(line['step'])} | {what} | {costs}")
    return rows


def report_markdown(folder: RunFolder) -> str:
    """What the report says in text, "" where there is none; cut where it is too large for the server's database."""
    path = folder.report.with_suffix(".md")
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8")
    return text if len(text) <= LARGEST_TEXT else text[:LARGEST_TEXT] + f"\n\n... all of it is in {path}\n"


def refused_markdown(folder: RunFolder) -> str:
    content = json.loads(folder.refused.read_text(encoding="utf-8"))
    entries = content if isinstance(content, list) else content.get("refused", [])
    if not entries:
        return "No scene was refused."
    rows = [
        "| " + " | ".join(markdown_text(str(entry.get(name, ""))) for name in ("scene_id", "reason", "detail")) + " |"
        for entry in entries[:MOST_ROWS]
    ]
    more = ["", f"... and {len(entries) - MOST_ROWS} more in {folder.refused}"] if len(entries) > MOST_ROWS else []
    refused = f"{counted(len(entries), 'scene was', 'scenes were')} refused."
    return "\n".join([refused, "", "| scene | reason | detail |", "|---|---|---|", *rows, *more])


def picture_markdown(path: Path) -> str:
    """The picture itself where it is small enough for the server's database, else its place."""
    content = path.read_bytes()
    if len(content) > LARGEST_PICTURE:
        return f"The picture is too large to show here: {path.resolve().as_uri()}"
    return f"![quicklook](data:image/png;base64,{base64.b64encode(content).decode()})"
