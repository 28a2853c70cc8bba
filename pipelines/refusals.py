"""Why a scene is refused: every reason with its meaning and what to do. docs/validation.md is made from this table."""

from dataclasses import dataclass

from pipelines.errors import DAMAGED, HARMLESS


@dataclass(frozen=True)
class Reason:
    """What a reason means, and what the person who reads it can do."""

    meaning: str
    remedy: str


REASONS = {
    "unreadable": Reason("the file cannot be opened, decoded or found any more", "fetch it again, or correct its permissions"),
    "truncated": Reason("the file ends before the data that it declares", "download it again"),
    "driver": Reason(
        "the file is of a format that is not read, is a link out of its folder, or points to other files",
        "convert it to GeoTIFF, or replace the link with the file",
    ),
    "too-large": Reason(
        "the file declares more pixels, or larger blocks, than one band may have", "cut it into parts, or rewrite it"
    ),
    "wrong-crs": Reason(
        "no CRS, one that PROJ does not know, one in which the pixels have no place, or another than the cube's",
        "set source.crs, or cube.on_other_grid: reproject",
    ),
    "wrong-grid": Reason(
        "no position, axes or coordinates that make no grid, or another grid than the cube's",
        "set source.transform, or cube.on_other_grid: reproject",
    ),
    "no-overlap": Reason("the scene lies outside the cube's grid", "take it out, or make another cube (cube.uri, grid.bounds)"),
    "wrong-dtype": Reason(
        "no numbers, or another dtype than most scenes", "convert the file; source.read_as reads wrongly declared bits"
    ),
    "wrong-scale": Reason(
        "scale and offset differ from the cube's, and stored values would not stay whole numbers; or what a file states of its "
        "values is no number",
        "convert the file, or state source.scale and source.offset",
    ),
    "wrong-unit": Reason("the file states another unit than the cube", "convert it, or state source.unit"),
    "missing-band": Reason(
        "a band or plane is not there, or it is not clear which one is meant",
        "name it by its number or description (bands: source)",
    ),
    "missing-slices": Reason(
        "slices of a volume are not there, so its positions are not those of a regular grid", "export the series again"
    ),
    "no-date": Reason(
        "name, dates file or time coordinate give no date, or contradict each other",
        "correct the name, source.pattern or the times",
    ),
    "duplicate-date": Reason(
        "another scene has this date or id and is used", "cube.same_date: mosaic for neighbours; remove one of two"
    ),
    "all-nodata": Reason("no pixel on the cube's grid has data in every band", "take the scene out of the source"),
    "all-cloud": Reason("the quality mask leaves no pixel", "nothing, unless every scene is: then correct quality"),
    "few-usable": Reason(
        "fewer pixels are usable than cube.min_valid_fraction asks for", "nothing, or lower cube.min_valid_fraction"
    ),
    "dropped": Reason("it was taken out by hand (`driftline drop`)", "`driftline drop CUBE SCENE --undo` accepts it again"),
    "policy": Reason(
        "a rule of the config's policy refuses what would be converted or left out", "convert the file, or relax policy"
    ),
    "duplicate-uid": Reason(
        "two or more DICOM files have one SOP Instance UID and other content",
        "keep the right one; `driftline deidentify FOLDER --audit --names` shows which files these are",
    ),
    "burned-in": Reason("the image may show text", "set privacy.masks, or privacy.burned_in: checked"),
    "overlay": Reason("an overlay in the pixels may show text", "set privacy.masks, or privacy.burned_in: checked"),
    "mask-outside": Reason("a rectangle of privacy.masks ends outside of the image", "correct it, or give it a modality"),
    "no-ocr": Reason("text was to be looked for, and cannot be", "install tesseract, or take privacy.ocr out"),
    "no-preamble": Reason("a DICOM data set that is no file", "write it anew, for example with `dcmconv IN OUT` of dcmtk"),
    "several-patients": Reason(
        "the files of a series are of several patients, or their names do not say of whom", "name a folder of one patient"
    ),
    "badly-registered": Reason(
        "a visit does not lie on the others of its patient: its figures are beyond the limits, or it has no transform",
        "look at the figures (docs/follow-up.md); correct the transform, or take the visit out",
    ),
    "left-out": Reason(
        "a patient of whom fewer than two visits can be used, or whose grid or mask cannot",
        "see why visits were refused; the other patients are ingested",
    ),
    "several-series": Reason(
        "a folder that is a sample holds several series, or its series lies in several folders", "give each series a folder"
    ),
    "unexpected": Reason("de-identification does not know what to do with the file", "write it anew, or report it"),
    "checksum": Reason("a file is not in the list of checksums, or not as the list says", "fetch it again; complete the list"),
}


def fate(reason: str) -> str:
    """What happens to the date of the scene in a cube that already has it."""
    if reason == "dropped":
        return "was taken out"
    return "stays as it was" if reason in DAMAGED else "is dropped"


def exit_code(reason: str) -> int:
    """Of an ingest in which nothing else was refused."""
    return 0 if reason in HARMLESS else 3
