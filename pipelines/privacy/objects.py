"""DICOM objects that are no series of images: what they are, and what to do with them."""

from __future__ import annotations

CLASSES = "1.2.840.10008.5.1.4.1.1."
NO_SERIES = {  # storage classes below CLASSES (PS3.4, B.5), or the first number of several -> (what it is, remedy)
    "66.4": ("a segmentation (SEG)", "`driftline track` reads it; name the series that it was drawn on"),
    "66.7": ("a label map (SEG)", "write it as a binary segmentation, which `driftline track` reads"),
    "481.3": ("contours (RTSTRUCT)", "convert them to SEG or NIfTI masks (3D Slicer, plastimatch); `driftline track` reads SEG"),
    "481.2": ("a dose (RTDOSE)", "name the series that it was calculated on"),
    "481.5": ("a plan (RTPLAN)", "name the series that it was made for"),
    "88": ("a report (SR)", "name the series that it describes"),
    "11": ("a presentation state (PR)", "name the series that it shows"),
    "88.59": ("a selection of key objects (KO)", "name the series that it selects from"),
}


def kind_of_object(sop_class: str) -> tuple[str, str] | None:
    """(what it is, remedy) of an object that is no series of images; None for images."""
    if not sop_class.startswith(CLASSES):
        return None
    number = sop_class.removeprefix(CLASSES)
    return NO_SERIES.get(number) or NO_SERIES.get(number.partition(".")[0])
