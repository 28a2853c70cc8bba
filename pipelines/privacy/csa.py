"""Siemens CSA headers: a few numbers of the image header are kept, in a private block of driftline's own; the header never is.

The header is free text in large parts (names of protocols and coils, the whole protocol in the series header). What a mosaic and
diffusion need are numbers, and they are written as FD elements of the private block `DRIFTLINE CSA` in group 0029.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipelines.privacy.private import creator_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMAGE_HEADER = ("SIEMENS CSA HEADER", 0x0029, 0x10)
PLACES = {  # element in our block -> (name in the header, most values)
    0x01: ("NumberOfImagesInMosaic", 1),
    0x02: ("SliceNormalVector", 3),
    0x03: ("MosaicRefAcqTimes", 1024),
    0x04: ("BandwidthPerPixelPhaseEncode", 1),
    0x05: ("PhaseEncodingDirectionPositive", 1),
    0x06: ("B_value", 1),
    0x07: ("DiffusionGradientDirection", 3),
    0x08: ("B_matrix", 6),
    0x09: ("ProtocolSliceNumber", 1),
}


def is_image_header(creator: str, tag: int) -> bool:
    return (creator.upper(), tag >> 16, tag & 0xFF) == IMAGE_HEADER


def csa_elements(source: Dataset, tag: int) -> dict[int, list[float]]:
    """Element in our block -> numbers, of the CSA image header at `tag`; {} if it is none, or cannot be read."""
    if not is_image_header(creator_of(source, tag), tag):
        return {}
    from nibabel.nicom import csareader

    try:
        tags = csareader.read(source.get_item(tag).value)["tags"]
        found = {place: [float(one) for one in tags[name]["items"]] for place, (name, _) in PLACES.items() if name in tags}
    except Exception:  # damaged, or of another form; the message of the library could quote it
        return {}
    return {p: v for p, v in found.items() if 0 < len(v) <= PLACES[p][1] and all(map(math.isfinite, v))}


def csa_numbers(dataset: Dataset) -> dict[str, tuple[float, ...]]:
    """Name in the CSA header -> numbers, of a data set that was de-identified; {} if it has none."""
    if "DRIFTLINE CSA" not in dataset.private_creators(0x0029):
        return {}
    block = dataset.private_block(0x0029, "DRIFTLINE CSA")
    found = {name: block[place].value for place, (name, _) in PLACES.items() if place in block}
    return {name: (v,) if isinstance(v, float) else tuple(v) for name, v in found.items()}
