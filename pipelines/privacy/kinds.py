"""Texts that tell the images of two series apart, which a de-identified copy does not hold: keyed terms stand for them.

Two reconstructions under one series UID would else be read as times. Some are rows of table E.1-1 (PS3.15) that must be removed,
others are text that no list can name. A term says whether two images of one series have the same text, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from pipelines.privacy.keys import Key

GROUP, CREATOR = 0x0029, "DRIFTLINE KIND"
KINDS = {  # the last byte of the private element -> keyword, words; a number keeps its meaning for ever
    0x01: ("ConvolutionKernel", "convolution kernel"),
    0x02: ("FilterType", "filter"),
    0x03: ("ReconstructionMethod", "reconstruction method"),
    0x04: ("AttenuationCorrectionMethod", "attenuation correction"),
    0x05: ("ScatterCorrectionMethod", "scatter correction"),
    0x06: ("SequenceName", "name of the sequence"),
    0x07: ("PulseSequenceName", "pulse sequence"),
    0x08: ("ReceiveCoilName", "receive coil"),
    0x09: ("SeriesDescription", "series description"),
    0x0A: ("ProtocolName", "protocol"),
    0x0B: ("AcquisitionDeviceProcessingDescription", "processing"),
    0x0C: ("DecompositionDescription", "decomposition"),
    0x0D: ("MultienergyAcquisitionDescription", "energies"),
}
NESTED = "CTReconstructionSequence"  # the functional group of enhanced CT that has a kernel for each frame


def state_kinds(source: Dataset, cleaned: Dataset, key: Key) -> None:
    """Adds a keyed term to `cleaned` for each of the texts that `source` has; those of enhanced CT to its functional groups."""
    series = str(source.get("SeriesInstanceUID", ""))
    for original, copy in _pairs(source, cleaned):
        for place, text in _stated(original):
            if text:
                copy.private_block(GROUP, CREATOR, create=True).add_new(place, "SH", key.term(f"{series} {place} {text}"))


def kinds_of(content: Dataset) -> Iterator[tuple[str, str]]:
    """(words, text or the term that stands for it) of each element, "" where it is absent."""
    return ((KINDS[place][1], text) for place, text in _stated(content))


def _stated(content: Dataset) -> Iterator[tuple[int, str]]:
    try:
        block = content.private_block(GROUP, CREATOR)
    except KeyError:
        block = None
    for place, (keyword, _) in KINDS.items():
        yield place, str(block[place].value) if block is not None and place in block else _text(content, keyword)


def _pairs(source: Dataset, cleaned: Dataset) -> Iterator[tuple[Dataset, Dataset]]:
    """The data set and its copy, and of enhanced CT each group of reconstruction and its copy."""
    yield source, cleaned
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for original, copy in zip(source.get(name) or (), cleaned.get(name) or (), strict=False):
            if original.get(NESTED) and copy.get(NESTED):
                yield original[NESTED].value[0], copy[NESTED].value[0]


def _text(content: Dataset, keyword: str) -> str:
    try:
        found = content.get(keyword)
    except Exception:  # pydicom converts on access and raises many kinds
        return ""
    several = found if isinstance(found, list | tuple) or type(found).__name__ == "MultiValue" else [found]
    return "\\".join(str(one).strip() for one in several if one is not None)
