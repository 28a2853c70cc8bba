"""The command that writes masks as DICOM SEG."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows import Json
from flows.cli_options import AsJson
from flows.terminal import show
from pipelines.errors import MissingInput, RequestError
from pipelines.wording import counted

if TYPE_CHECKING:
    from pipelines.products.dicom_seg import Maker, SegmentClass

FORM = "--class 1=lesion, or with codes --class '1=lesion;SCT:49755003:Morphologically abnormal structure;SCT:52988006:Lesion'"


def export_seg(
    masks: Annotated[
        list[Path], typer.Argument(metavar="MASKS...", help="one NIfTI or .npy file, PNG files of all frames, or DICOM SEG files")
    ],
    source: Annotated[
        Path, typer.Option(metavar="DICOM", help="the series that the masks were drawn on: its de-identified copy")
    ],
    out: Annotated[Path, typer.Option(help="folder of the SEG files")] = Path("runs/seg"),
    series: Annotated[str, typer.Option(help="of several series the number, the UID, or #2, as source.series in a config")] = "",
    frame_time: Annotated[float | None, typer.Option(help="seconds between two times, as source.frame_time in a config")] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="VALUE=NAME", help="what a value means, optionally ;category;type as SCHEME:CODE:MEANING; repeat"
        ),
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(metavar="'NAME VERSION'", help="what made the masks; default: this driftline")
    ] = None,
    made_by: Annotated[str, typer.Option(metavar="AUTOMATIC|SEMIAUTOMATIC|MANUAL", help="how the masks were made")] = "AUTOMATIC",
    identified: Annotated[
        bool, typer.Option("--identified", help="the series need not be de-identified: SEG repeats its patient ID and name")
    ] = False,
    json_: AsJson = False,
) -> int | None:
    """Write masks of a DICOM series as DICOM SEG: a file per time of volumes, one file of a cine.

    The masks lie on the voxels of the series (axes that were turned by a conversion are turned back) and have one value per
    class. The same masks give the same bytes.

    \b
    Examples:
      driftline export-seg lesions.nii.gz --source scans-deidentified/ --class 1=lesion --out seg/
      driftline export-seg ventricle/ --source echo-deidentified/clip.dcm --class "1=left ventricle" --made-by MANUAL
    """
    from pipelines.cube.store import release
    from pipelines.products.dicom_seg import Maker, MakerKind

    kind = next((one for one in get_args(MakerKind) if one == made_by.upper()), None)
    if kind is None:
        raise RequestError(f"--made-by {made_by}: expected one of {', '.join(get_args(MakerKind))}")
    maker = Maker(algorithm, "", kind) if algorithm else Maker("driftline", release(), kind)
    named = [parse_class(text) for text in classes or ()]
    record = write_seg(masks, source, out, named, maker, series=series, frame_time=frame_time, identified=identified)
    lines = [f"wrote {counted(len(record['files']), 'file')} to {out}: {', '.join(record['segments'])}"]
    return show(record, [*lines, *(f"note: {one}" for one in record["notes"])], json_)


def write_seg(
    masks: list[Path], source: Path, out: Path, named: "list[SegmentClass]", maker: "Maker", *, series: str,
    frame_time: float | None, identified: bool,
) -> Json:  # fmt: skip
    """Writes the files; which, their segments, and notes. Raises RequestError, MissingInput, StorageFull."""
    from pipelines.products.dicom_seg import write_segmentations
    from pipelines.scene import Band
    from pipelines.sources.dicom import DicomSource
    from pipelines.sources.dicom_references import referenced_series
    from pipelines.tracking.label_files import read_labels
    from pipelines.tracking.label_series import on_grid, values_in

    if not source.exists():
        raise MissingInput(f"no such folder or file: {source}; --source names the DICOM series")
    folder = source if source.is_dir() else source.parent
    if out.resolve().is_relative_to(folder.resolve()):
        raise RequestError(
            f"--out {out} lies in the folder of the series, where SEG files would be taken for images; name another"
        )
    images = DicomSource(source, Band("image"), series, frame_time)
    referred, refused = referenced_series(images), images.list_scenes().refused
    if not (referred.is_deidentified or identified):
        problem = "the series does not state that it is de-identified (0012,0062), and SEG repeats its patient ID and name"
        raise RequestError(f"{problem}: name its de-identified copy, or state --identified where there is no patient to protect")
    drawn = read_labels(masks)
    if refused and len(drawn.times) != len(referred.frames):
        problem = f"the masks have {len(drawn.times)} times, of the series {len(referred.frames)} can be read"
        raise RequestError(f"{problem} and {len(refused)} not ({refused[0]}): leave out the masks of those")
    labels, notes = on_grid(drawn, len(referred.frames), referred.grid)
    named = named or _unnamed(values_in(labels), drawn.names)
    written = write_segmentations(labels, named, referred, out, maker)
    return {"files": [str(path) for path in written], "segments": [one.name for one in named], "notes": notes}


def parse_class(text: str) -> "SegmentClass":
    """`1=lesion`, or `1=lesion;SCHEME:CODE:MEANING;SCHEME:CODE:MEANING` of category and type. Raises RequestError."""
    from pipelines.products.dicom_seg import Code, SegmentClass

    value, _, rest = text.partition("=")
    name, *codes = [part.strip() for part in rest.split(";")]
    parts = [code.split(":", 2) for code in codes]
    if not value.strip().isdigit() or not 0 < len(name) <= 64 or len(codes) not in (0, 2) or any(len(p) != 3 for p in parts):
        raise RequestError(f"--class {text}: expected {FORM}")
    return SegmentClass(int(value), name, *(Code(code, scheme, meaning) for scheme, code, meaning in parts))


def _unnamed(values: list[int], names: dict[int, str]) -> "list[SegmentClass]":
    from pipelines.products.dicom_seg import SegmentClass

    if not values:
        raise RequestError(f"the masks are empty; name their classes all the same: {FORM}")
    return [SegmentClass(one, names.get(one, f"class {one}" if len(values) > 1 else "object")) for one in values]
