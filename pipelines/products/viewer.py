"""`viewer.html`: NIfTI files in one page that shows their frames in three planes, with overlays and windows.

The page holds the files and niivue (`vendor/`), so it opens by a double click and needs neither network nor server. Its content
security policy forbids every address.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pipelines.files import replacing
from pipelines.products.report import template

VIEWER = "viewer.html"
MOST_PACKED = 64_000_000  # bytes of all files in a page, where each takes a third more
MOST_UNPACKED = 500_000_000  # bytes of one file, all of which a browser holds in memory
PARTS = "<!--niivue-->", "<!--volumes-->"  # of the template; no value has such text: `<` is escaped
NIIVUE = "vendor/niivue.umd.js"
CHUNK = 3 << 18  # bytes; a multiple of three: base64 of the parts is that of the whole


@dataclass(frozen=True)
class Layer:
    """A NIfTI file and what the page calls it. `frames`: the time of each. Layers of one `group` have the same window."""

    path: Path
    title: str
    frames: Sequence[str]
    group: str = ""
    unit: str = ""
    kind: Literal["image", "labels"] = "image"


def write_viewer(path: Path, title: str, subtitle: str, layers: Sequence[Layer]) -> list[str]:
    """Writes the page with the files of `layers`, the first one shown; names of the files that are too large to be inside.

    Files are taken in order while all of them are at most `MOST_PACKED` bytes, and none that is more than `MOST_UNPACKED` bytes
    without compression. The page names the others and opens them from the disk. Raises StorageFull.
    """
    inside, left_out = choose(layers)
    listed = [
        {"file": one.path.name, "title": one.title, "frames": list(one.frames), "group": one.group, "unit": one.unit,
         "kind": one.kind}
        for one in inside
    ]  # fmt: skip
    limit = f"{MOST_PACKED / 1e6:g} MB in all, {MOST_UNPACKED / 1e6:g} MB of one without compression"
    names = [one.path.name for one in left_out]
    page = template("viewer.html").render(title=title, subtitle=subtitle, layers=listed, left_out=names, limit=limit)
    before, rest = page.split(PARTS[0])
    between, after = rest.split(PARTS[1])
    with replacing(path) as draft, draft.open("wb") as out:
        out.write(before.encode())
        out.write((files("pipelines.products") / NIIVUE).read_bytes())
        out.write(between.encode())
        for n, layer in enumerate(inside):
            out.write(f'<script type="application/octet-stream" id="volume-{n}">'.encode())
            with layer.path.open("rb") as packed:
                while chunk := packed.read(CHUNK):
                    out.write(base64.b64encode(chunk))
            out.write(b"</script>\n")
        out.write(after.encode())
    return names


def choose(layers: Sequence[Layer]) -> tuple[list[Layer], list[Layer]]:
    """(those that the page holds, those that are too large)."""
    inside: list[Layer] = []
    for layer in layers:
        packed = sum(one.path.stat().st_size for one in (*inside, layer))
        if packed <= MOST_PACKED and unpacked_bytes(layer.path) <= MOST_UNPACKED:
            inside.append(layer)
    return inside, [layer for layer in layers if layer not in inside]


def unpacked_bytes(path: Path) -> int:
    """Bytes of the voxels of a NIfTI file."""
    from nibabel.nifti1 import Nifti1Image

    header = Nifti1Image.from_filename(path).header
    return int(math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize)
