"""`driftline change BEFORE AFTER`: two images and nothing else. The config of the run is written from the command line."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Annotated

import typer

from flows import verbs
from flows.cli_options import AsJson, DryRun, Force, Overrides
from pipelines.errors import RequestError
from pipelines.stored_files import is_remote

OF_MODEL = "a run of labelled change (runs/NAME, s3://...) or its model; default: change vector analysis"
OfModel = Annotated[str | None, typer.Option(metavar="PATH", help=OF_MODEL)]
IMAGE = "a GeoTIFF or JPEG2000 file, or a folder with one per band"


def change(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help=f"the earlier image: {IMAGE}")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="the later image, likewise")],
    model: OfModel = None,
    name: Annotated[str | None, typer.Option(help="of the run; default: from the images' names, with a number if taken")] = None,
    dates: Annotated[
        str | None, typer.Option(metavar="BEFORE,AFTER", help="e.g. 2018-06-05,2020-06-09; default: those in the names")
    ] = None,
    bands: Annotated[
        str | None, typer.Option(metavar="B02,B03,...", help="compare only these; default: the finest that are in both images")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="least score of a changed pixel; default: 1.5 standard deviations of the site, or the model's own"),
    ] = None,
    nodata: Annotated[float | None, typer.Option(help="value of missing pixels, beside those in the files")] = None,
    out: Annotated[
        str, typer.Option(metavar="FOLDER", help="where the run's folder NAME is made; or s3://bucket/prefix")
    ] = "runs",
    overrides: Overrides = None,
    force: Force = False,
    dry_run: DryRun = False,
    json_: AsJson = False,
) -> int | None:
    """Map what changed between two images of one place: score, map, polygons, picture, report. No labels, no config.

    Bands are matched by name. Clouds, seasons and the angle of the sun look like change. Doing it again does nothing;
    `driftline run OUT/NAME/config.yaml` is the same run.

    \b
    Examples:
      driftline change before.tif after.tif
      driftline change paris/imgs_1 paris/imgs_2 --dates 2016-11-30,2017-11-07
      driftline change before.tif after.tif --model runs/oscd
    """
    if is_remote(out) and name is None:
        raise RequestError(f"--out {out}: name the run too, with --name: whether a run of other images is there is not looked up")
    if name is None:
        name = free_name(Path(out), default_name(before, after), (before, after))
    elif (other := images_of(Path(out) / name)) not in (None, placed(before, after)):
        typer.echo(f"{Path(out) / name} held {' and '.join(map(str, other or ('another run',)))}: replaced", err=True)
        force = True  # the name of other images was given on purpose
    config = {
        "name": name,
        "task": "pair",
        "images": {
            "before": str(before),
            "after": str(after),
            "dates": None if dates is None else two_of(dates, "--dates"),
            "bands": None if bands is None else listed(bands),
            "nodata": nodata,
        },
        "detection": {"model": model, "threshold": threshold},
        "runs": out,
    }
    return verbs.stage("run", config, overrides, dry_run, json_, force=force)


def listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def two_of(text: str, option: str) -> list[str]:
    """Two values. Raises RequestError."""
    values = listed(text)
    if len(values) != 2:
        raise RequestError(f"{option} {text}: expected BEFORE,AFTER, for example 2018-06-05,2020-06-09")
    return values


def placed(*images: Path) -> tuple[Path, ...]:
    return tuple(image.resolve() for image in images)


def images_of(folder: Path) -> tuple[Path, ...] | None:
    """BEFORE and AFTER of the run in a folder; () for a run of another task, None where there is none."""
    import yaml

    try:
        images = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["images"]
        return placed(*(folder / images[word] for word in ("before", "after")))
    except OSError:
        return None
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        return ()


def free_name(runs: Path, name: str, images: tuple[Path, Path]) -> str:
    """The name, or the first of NAME-2, NAME-3 ... whose folder holds no run of other images."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(one for one in names if images_of(runs / one) in (None, placed(*images)))


def default_name(before: Path, after: Path) -> str:
    """From the images' names and folders, so that imgs_1 and imgs_2 of two cities are two runs.

    >>> default_name(Path("oscd/paris/imgs_1"), Path("oscd/paris/imgs_2")), default_name(Path("a/B04.tif"), Path("b/B04.tif"))
    ('paris-imgs_1-imgs_2', 'a-b-B04')
    """
    (folder, stem), (other, last) = (
        (path.parent.name, re.sub(r"\.(tiff?|jp2|j2k)$", "", path.name, flags=re.IGNORECASE))
        for path in (before.absolute(), after.absolute())
    )
    parts = [folder, stem, last] if folder == other else [folder, other, stem] if stem == last else [stem, last]
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in "-".join(parts)).strip("-_.")
    return kept[:100] or "change"
