"""The command that writes masks as DICOM SEG."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import AsJson
from flows.terminal import show
from pipelines.errors import MissingInput
from pipelines.wording import counted

Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class", metavar="VALUE=NAME", help="what a value means, optionally ;category;type as SCHEME:CODE:MEANING; repeat"
    ),
]
MadeBy = Annotated[str, typer.Option(metavar="AUTOMATIC|SEMIAUTOMATIC|MANUAL", help="how the masks were made")]


def export_seg(
    masks: Annotated[
        list[str],
        typer.Argument(
            metavar="MASKS...",
            help="one NIfTI or .npy file, PNG files of all frames, or DICOM SEG files; of a run in S3 s3://...",
        ),
    ],
    source: Annotated[
        str, typer.Option(metavar="DICOM", help="the series that the masks were drawn on: its de-identified copy, on a disk")
    ],
    out: Annotated[Path, typer.Option(help="folder of the SEG files")] = Path("runs/seg"),
    series: Annotated[str, typer.Option(help="of several series the number, the UID, or #2, as source.series in a config")] = "",
    frame_time: Annotated[float | None, typer.Option(help="seconds between two times, as source.frame_time in a config")] = None,
    classes: Classes = None,
    algorithm: Annotated[
        str | None, typer.Option(metavar="'NAME VERSION'", help="what made the masks; default: this driftline")
    ] = None,
    made_by: MadeBy = "AUTOMATIC",
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
      driftline export-seg s3://scans/runs/head/products/labels.nii.gz --source scans-deidentified/ --out seg/
      driftline export-seg ventricle/ --source echo-deidentified/clip.dcm --class "1=left ventricle" --made-by MANUAL
    """
    from flows.seg import segments_of, write_seg
    from flows.stored_inputs import path_at_hand, require_local
    from pipelines.scene import Band
    from pipelines.sources.dicom import DicomSource
    from pipelines.tracking.label_files import read_labels

    segments = segments_of(classes or (), made_by, algorithm)
    place = require_local(source, "--source", "the DICOM series")
    if not place.exists():
        raise MissingInput(f"no such folder or file: {place}; --source names the DICOM series")
    images = DicomSource(place, Band("image"), series, frame_time)
    record = write_seg(read_labels([path_at_hand(one) for one in masks]), images, out, segments, identified=identified)
    lines = [f"wrote {counted(len(record['files']), 'file')} to {out}: {', '.join(record['segments'])}"]
    return show(record, [*lines, *(f"note: {one}" for one in record["notes"])], json_)
