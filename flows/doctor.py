"""`driftline doctor`: checks a machine for known problems."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows import Json
from flows.tracking import is_reachable, require_access, server_url
from pipelines.errors import RequestError

# distribution, first version that breaks, what happens (each was observed; pip accepts these versions)
TRAPS = (
    ("fastapi", (0, 151), "no Prefect flow can run (`Body() got an unexpected keyword argument 'min_items'`)"),
    ("sqlalchemy", (2, 1), "Prefect's cron schedules never fire, without an error"),
    ("zarr", (3, 2), "not tested with this release"),
    ("icechunk", (2,), "needs Python 3.12 and another cube format"),
)
NEEDED_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG")
LEAST_FREE_GB = 2.0


def examine() -> list[Json]:
    """Findings `{what, ok, found, remedy}`; a check that raises is a finding too, never an exception."""
    checks: list[Callable[[], Iterator[Json]]] = [
        check_python, check_traps, check_disk, check_rights, check_proj, check_drivers, check_devices, check_prefect,
    ]  # fmt: skip
    findings = []
    for check in checks:
        try:
            findings += list(check())
        except Exception as e:
            remedy = "reinstall from requirements.lock (make env)"
            findings.append(finding(check.__name__.removeprefix("check_"), False, f"{type(e).__name__}: {e}", remedy))
    return findings


def finding(what: str, ok: bool, found: str, remedy: str = "") -> Json:
    return {"what": what, "ok": ok, "found": found, "remedy": "" if ok else remedy}


def check_python() -> Iterator[Json]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield finding("python", sys.version_info >= (3, 11), found, "driftline needs Python 3.11, 3.12 or 3.13")


def check_traps() -> Iterator[Json]:
    for name, first_bad, consequence in TRAPS:
        try:
            found = version(name)
        except PackageNotFoundError:
            yield finding(name, False, "not installed", "pip install --no-deps -r requirements.lock")
            continue
        numbers = tuple(int(part) for part in found.split("+")[0].split(".")[:3] if part.isdigit())
        bound = ".".join(map(str, first_bad))
        yield finding(
            name, numbers < first_bad, found, f"{consequence}: pip install '{name}<{bound}', or install requirements.lock"
        )


def check_disk() -> Iterator[Json]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield finding("disk", free >= LEAST_FREE_GB, f"{free:.1f} GB free here", "free space, or set `runs` to another disk")


def check_rights() -> Iterator[Json]:
    for what, folder in (("working folder", Path.cwd()), ("temporary folder", Path(tempfile.gettempdir()))):
        try:
            with tempfile.TemporaryFile(dir=folder):
                yield finding(what, True, f"{folder} can be written")
        except OSError as e:
            yield finding(what, False, f"{folder}: {e.strerror}", "run driftline in a folder of your own, or set the permissions")


def check_proj() -> Iterator[Json]:
    from rasterio.crs import CRS
    from rasterio.warp import transform

    xs, _ = transform(CRS.from_epsg(4326), CRS.from_epsg(3035), [10.0], [52.0])
    is_right = abs(xs[0] - 4_321_000) < 1  # the false easting of ETRS89-LAEA at its centre
    remedy = "another PROJ installation interferes; unset PROJ_LIB and PROJ_DATA"
    yield finding("PROJ", is_right, "knows EPSG:3035" if is_right else f"misplaces EPSG:3035 ({xs[0]:.0f})", remedy)


def check_drivers() -> Iterator[Json]:
    import rasterio
    from rasterio.env import Env

    with Env() as env:
        present = env.drivers()
    missing = [name for name in NEEDED_DRIVERS if name not in present]
    yield finding(
        "GDAL", not missing, f"GDAL {rasterio.__gdal_version__}", f"lacks {', '.join(missing)}; install rasterio's own wheel"
    )


def check_devices() -> Iterator[Json]:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield finding("GPU", True, names)
    else:
        yield finding("GPU", True, f"none; torch {torch.__version__} on {os.cpu_count()} cores")


def check_prefect() -> Iterator[Json]:
    yield finding("prefect", True, version("prefect"))
    url = server_url()
    if url is None:
        yield finding("Prefect server", True, "none configured; runs work without one")
        return
    is_there = is_reachable(url)
    yield finding("Prefect server", is_there, url, "start it (driftline serve), or unset PREFECT_API_URL")
    if is_there:
        try:
            require_access()
        except RequestError as e:
            yield finding("Prefect password", False, str(e), "set PREFECT_API_AUTH_STRING to the server's token")
        else:
            yield finding("Prefect password", True, "accepted")
