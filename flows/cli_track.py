"""The command that tracks the objects of masks."""

from pathlib import Path
from typing import Annotated

import typer

from flows import verbs
from flows.cli_options import AsJson
from flows.cli_seg import Classes, MadeBy
from flows.terminal import Bars, show
from pipelines.errors import RequestError

Pattern = Annotated[
    str | None, typer.Option(help="where the date is in the names, e.g. {date:%Y%m%d}*.tif or {frame}.png; default: detected")
]
Masks = Annotated[
    list[str],
    typer.Argument(metavar="MASKS...", help="mask files, a folder of them, or runs/NAME of a monitoring run; or s3://..."),
]
Out = Annotated[Path | None, typer.Option(help="folder of the tables and pictures; default: track/ of the run, else runs/track")]
OfRun = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="runs/NAME or s3://... over the frames or volumes that the masks were drawn on: times, pixel size, DICOM SEG, SR",
    ),
]
Grow = Annotated[float, typer.Option(help="an object counts as grown or shrunk if its size changes by more than this share")]
NEXT_IN = "how long after the last visit sizes are forecast: days (hours, seconds, steps); default: as the last interval"
NextIn = Annotated[float | None, typer.Option(help=NEXT_IN)]
EdgeError = Annotated[
    float | None, typer.Option(help="standard deviation of the place of an outline, in pixels, for intervals; default: 0.29")
]


def track(
    masks: Masks,
    pattern: Pattern = None,
    out: Out = None,
    code: Annotated[int | None, typer.Option(help="the mask value of the objects; default: everything but 0 and nodata")] = None,
    min_size: Annotated[
        float | None,
        typer.Option(
            help="smaller objects are left out, in m2 (mm2 with --spacing-mm, px2); default: 0, or of the run min_area_px"
        ),
    ] = None,
    grow: Grow = 0.1,
    farthest: Annotated[float | None, typer.Option(help="how far an object may move between dates without overlap, in m")] = None,
    spacing_mm: Annotated[
        str | None,
        typer.Option(metavar="Y,X", help="pixel size of images without a position on Earth, in mm; sizes are then mm2"),
    ] = None,
    outlines: Annotated[bool, typer.Option(help="also write the outlines as GeoParquet and GeoJSON")] = True,
    next_in: NextIn = None,
    edge_error: EdgeError = None,
    run: OfRun = None,
    classes: Classes = None,
    made_by: MadeBy = "AUTOMATIC",
    json_: AsJson = False,
) -> int | None:
    """Track every object from date to date: size, shape, position; new, grown, shrunk, gone, merged, split.

    Of visits also growth rates and the size at the next one; of frames motion, and the cycle of each region. Nodata pixels count
    as not observed: an object under cloud is reported as not seen, never as gone. With
    --run, of a DICOM series, the masks also become DICOM SEG, and the measurements DICOM SR, in RUN/track. Of a run in S3, and of
    files in one (s3://bucket/prefix/NAME/products/...), the published version is read; without --out the result is published too.

    \b
    Examples:
      driftline track runs/demo-change
      driftline track s3://fields/runs/demo-change
      driftline track masks/ --pattern "lake_{date:%Y-%m-%d}.tif" --min-size 500
      driftline track frames/ --spacing-mm 0.5,0.5
      driftline track labels/ --pattern "label_{frame}.png"
      driftline track lesions.nii.gz --next-in 90
      driftline track ventricle/ --run runs/echo --class "255=left ventricle" --made-by MANUAL
    """
    from flows.seg import segments_of
    from flows.stored_inputs import at_hand
    from flows.track import track as track_masks

    if run is None and (classes or made_by != "AUTOMATIC"):
        raise RequestError(
            "--class and --made-by are of the DICOM SEG that --run RUN writes; without a run: `driftline export-seg`"
        )
    segments = segments_of(classes or (), made_by) if run is not None else None
    spacing = None if spacing_mm is None else verbs.parse_spacing(spacing_mm)
    with at_hand(masks, run, is_writing=out is None) as here, Bars().step("track", "follow the objects") as progress:
        record = track_masks(
            here.paths, out, pattern=pattern, code=code, spacing_mm=spacing, outlines=outlines, min_size=min_size, grow=grow,
            farthest=farthest, run=here.run, segments=segments, next_in=next_in, edge_error=edge_error, progress=progress,
        )  # fmt: skip
    record = here.with_place(record, "track/track.json")
    return show(record, record["lines"], json_)
