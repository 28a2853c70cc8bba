"""A commented run config for a video, or a folder of pictures: what `driftline init` proposes for frames without a position."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.calendar import elapsed_text, format_span, is_elapsed, iso_utc, median_step_days
from pipelines.errors import RequestError
from pipelines.scene import Band
from pipelines.sources.containers import SUFFIXES
from pipelines.sources.dates import find_dates
from pipelines.sources.folder import list_files
from pipelines.sources.image_bands import ImageRequest
from pipelines.sources.image_folder import ImageFolderSource
from pipelines.sources.source import Listing
from pipelines.sources.video import VideoSource, clips_in
from pipelines.sources.volume_proposal import model_of, opening, samples_of

FEWEST_FRAMES = 5
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")  # TIFF may be georeferenced, and is what `kind: folder` is for
GREY = ImageRequest((Band("gray"),), ("gray",))
FRAME_TIME = 1.0  # seconds; a guess, and called one


def kind_of_frames(path: Path) -> str:
    """`video` for a clip or a folder with clips, `images` for a folder of pictures with numbers or dates in names; else ""."""
    if path.is_file():
        return "video" if path.suffix.lower() in SUFFIXES else ""
    if clips_in(path):
        return "video"
    return "images" if pattern_of(path) else ""


def pattern_of(folder: Path) -> str:
    """The pattern that most pictures below the folder fit, with {frame} or {date:...}; "" if fewer than five do."""
    found: Counter[str] = Counter()
    for path in list_files(folder):
        if path.lower().endswith(PICTURES):
            start = path.rfind("/") + 1
            name, folder_part = path[start:], path[:start]
            if dates := find_dates(name):
                form, place = dates[0]
                found[f"{folder_part}{name[: place.start]}{{date:{form}}}{name[place.stop :]}"] += 1
            elif numbers := list(re.finditer(r"\d+", name)):
                at = numbers[-1]
                found[f"{folder_part}{name[: at.start()]}{{frame}}{name[at.end() :]}"] += 1
    pattern, count = found.most_common(1)[0] if found else ("", 0)
    return pattern if count >= FEWEST_FRAMES else ""


def propose_frames(path: Path, name: str, task: str, kind: str, written_as: str) -> str:
    """The text of a valid config; every guess has a comment. Raises RequestError where nothing can be read, or too little."""
    if task != "forecast":
        raise RequestError(f"{path} holds frames without a date; `driftline init` proposes forecasts of them, not a {task} run")
    source, lines = _video(path) if kind == "video" else _pictures(path)
    listing = source.list_scenes()
    if len(listing.scenes) < FEWEST_FRAMES:
        raise RequestError(f"{path} holds {len(listing.scenes)} frames; a forecast needs at least {FEWEST_FRAMES}")
    return "\n".join(_lines(source, listing, name, kind, written_as, lines)) + "\n"


def _video(path: Path) -> tuple[VideoSource, list[str]]:
    clips = clips_in(path) if path.is_dir() else []
    others = f"  # one of {len(clips)}; each is a series, with a run of its own" if len(clips) > 1 else ""
    lines = [f"  clip: {json.dumps(clips[0].name)}{others}"] if clips else []
    return VideoSource(path, GREY, clips[0].name if clips else ""), lines


def _pictures(path: Path) -> tuple[ImageFolderSource, list[str]]:
    pattern = pattern_of(path)
    lines = [f"  pattern: {json.dumps(pattern)}"]
    if "{frame}" not in pattern:
        return ImageFolderSource(path, GREY, pattern), lines
    lines.append(f"  frame_time: {FRAME_TIME:g}  # seconds between two frames: a guess, since no file states it")
    return ImageFolderSource(path, GREY, pattern, FRAME_TIME), lines


def _lines(
    source: VideoSource | ImageFolderSource, listing: Listing, name: str, kind: str, written_as: str, of_kind: list[str]
) -> Iterator[str]:
    times, shape = [scene.observed_utc for scene in listing.scenes], source.native_grid().shape
    count, step = len(times), median_step_days(np.array(times))
    validation, test = int(0.6 * count), int(0.8 * count)
    yield f"# Proposed from a {'video' if kind == 'video' else 'folder of pictures'}: {count} frames, {format_span(step)} apart,"
    sizes = f"{shape[0]} x {shape[1]} pixels (rows x columns) of {source.dtype()}"
    yield f"# {sizes}, without a position. Every value may be changed."
    yield from (f"# note: {note}" for note in listing.notes)
    yield from (*opening(name, kind, written_as), *of_kind)
    yield "  bands: [gray]  # or [red, green, blue]"
    yield f"  # mask: [{{box: [0, 0, {max(1, shape[0] // 20)}, {shape[1]}]}}]  # texts, borders: rows and columns, from and to"
    yield "  # pixel_mm: [0.1, 0.1]  # size of a pixel (y, x), where it is known"
    yield from samples_of("gray", "frames", context=max(1, min(5, int(0.2 * count))), horizon=1)
    yield from ("", "split:                 # blocks of pixels and ranges of time")
    yield f"  block_px: {int(np.clip(min(shape) // 4, 8, 128))}"
    yield f"  buffer_px: {2 if min(shape) >= 128 else 1}"
    yield from (f"  validation_from: {_moment(times[validation])}", f"  test_from: {_moment(times[test])}")
    yield from model_of(epochs=10)
    yield "  baselines: [persistence, optical_flow, gradient_boosting]"


def _moment(time: np.datetime64) -> str:
    """A time as the config takes it, never later than it was."""
    if is_elapsed(time):
        return elapsed_text(time.astype("datetime64[us]"), digits=6)
    return iso_utc(time.astype("datetime64[ms]"))
