"""Numbers of private elements that tell kinds of images apart, where a maker does not fill the standard's elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

B_VALUES = (  # the makers' conformance statements: creator, group, element
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("DRIFTLINE CSA", 0x0029, 0x06),
    ("GEMS_PARM_01", 0x0043, 0x39),
    ("Philips Imaging DD 001", 0x2001, 0x03),
)
GE_KIND = ("GEMS_PARM_01", 0x0043, 0x2F)  # magnitude, phase, real or imaginary
GE_EXCESS = 1e9


def b_value(of: Dataset) -> float | None:
    """The b-value (s/mm2) as the standard's element or the maker's states it; GE adds 1e9 to some."""
    stated = of.get("DiffusionBValue")
    if stated is None:
        stated = next((found for place in B_VALUES if (found := _first_number(of, *place)) is not None), None)
    return None if stated is None else float(stated) % GE_EXCESS


def kind_of_image(of: Dataset) -> float | None:
    """GE's code for magnitude, phase, real and imaginary part."""
    return _first_number(of, *GE_KIND)


def _first_number(of: Dataset, creator: str, group: int, element: int) -> float | None:
    """The first number of a private element, None where it is absent or no number."""
    try:
        value = of.private_block(group, creator)[element].value
        return float(value if isinstance(value, int | float | str) else value[0])
    except (KeyError, ValueError, TypeError, IndexError):
        return None
