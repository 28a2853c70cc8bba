"""What is published of predicted frames without a position: TIFF stacks that image viewers open, an index and measurements.

A stack has one page of float32 per target time and no georeferencing (ImageJ, Fiji, napari and Pillow open it); NaN is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, TiffImagePlugin

from pipelines.files import replacing
from pipelines.inference.staging import Field
from pipelines.products.volume_products import ROLES, Measured, write_index

if TYPE_CHECKING:
    from pipelines.products.predicted import ForecastFields
    from pipelines.products.stac import ModelCard

DESCRIPTION = 270  # TIFF tag


def write_frames(forecast: ForecastFields, card: ModelCard | None, folder: Path) -> list[Measured]:
    """A TIFF of every variable and role with a page per target time, `index.json` and `measurements.csv`; what was measured."""
    request, staged = forecast.request, forecast.staged
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for variable, role in dict.fromkeys((field.variable, field.role) for field in staged.fields):
        name = f"{role}_{variable}.tif"
        pages = [staged.read(Field(k, variable, role), slice(None)) for k in range(len(request.target_utc))]
        write_stack(pages, [f"driftline {role} of {variable}, {when}" for when in request.targets_iso], folder / name)
        files.append({"file": name, "variable": variable, "role": ROLES[role], "unit": request.units.get(variable, "")})
    return write_index(forecast, card, folder, files)


def write_stack(pages_YX: Sequence[np.ndarray], about: Sequence[str], path: Path) -> None:
    """Writes (rows, columns) float32 arrays as the pages of one TIFF, in one rename."""
    images = []
    for page_YX, text in zip(pages_YX, about, strict=True):
        image, tags = Image.fromarray(np.ascontiguousarray(page_YX, np.float32)), TiffImagePlugin.ImageFileDirectory_v2()
        tags[DESCRIPTION] = text
        image.encoderinfo = {"tiffinfo": tags}  # Pillow takes the tags of a page from here
        images.append(image)
    first = TiffImagePlugin.ImageFileDirectory_v2()
    first[DESCRIPTION] = about[0]
    with replacing(path) as draft:
        images[0].save(draft, "TIFF", save_all=True, append_images=images[1:], compression="tiff_adobe_deflate", tiffinfo=first)
