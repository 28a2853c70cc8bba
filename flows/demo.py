"""The demo's data: the Sentinel-2 cube that ships inside the wheel nrt==0.2.1 (EUPL-1.2); only its data are used."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from flows.steps import Display
from pipelines.errors import ArtefactDamaged, MissingInput, StateError
from pipelines.files import cache_folder, replacing

REQUIREMENT = "nrt==0.2.1"
WHEEL = "nrt-0.2.1-py3-none-any.whl"
WHEEL_SHA256 = "cd0291f99ce91268a0d993f05be1c69678d62504b01d36e7124d0ff3a51b3ee9"
DATA = Path("data/nrt-0.2.1")
FORECAST, CHANGE = "demo.yaml", "demo-change.yaml"
LARGEST_MEMBER = 100 * 2**20


def demo_config(name: str = FORECAST) -> Path:
    """The ready-made run `name`; in a checkout the path that a person would type."""
    here = Path("configs") / name
    return here if here.exists() else Path(__file__).resolve().parents[1] / "configs" / name


def fetch_data(display: Display, folder: Path = DATA) -> Path:
    """The folder with the netCDF files; fetched with pip once, checked against its hash, unpacked without its code.

    Raises StateError if pip cannot fetch the wheel, ArtefactDamaged if it is not the wheel that it should be.
    """
    if (folder / "complete").exists():
        return folder
    wheel = cache_folder() / WHEEL
    if not wheel.exists() or hash_file(wheel) != WHEEL_SHA256:
        with display.step("demo", f"fetch {REQUIREMENT} (11 MB)"):
            download(wheel)
    unpack(wheel, folder)
    return folder


def download(wheel: Path) -> None:
    """The wheel at its place in the cache, by rename and only if its hash is right."""
    try:
        wheel.parent.mkdir(parents=True, exist_ok=True)
        draft = tempfile.mkdtemp(dir=wheel.parent, prefix=".fetch-")
    except OSError as e:
        raise StateError(f"cannot write to the cache {wheel.parent}: {e.strerror}; set DRIFTLINE_CACHE to another folder") from e
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        done = subprocess.run(
            [*command, "--only-binary", ":all:", "--dest", draft, REQUIREMENT], capture_output=True, text=True, check=False
        )
        fetched = Path(draft) / WHEEL
        if done.returncode or not fetched.exists():
            reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise StateError(
                f"pip could not fetch {REQUIREMENT}: {reason}. Check the network, or put {WHEEL} into {wheel.parent} by hand"
            )
        found = hash_file(fetched)
        if found != WHEEL_SHA256:
            raise ArtefactDamaged(f"{WHEEL}: expected sha256 {WHEEL_SHA256}, found {found}; it was not used. Fetch it again")
        fetched.replace(wheel)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def unpack(wheel: Path, folder: Path) -> None:
    """The wheel's .nc files, by their bare names, into `folder`; nothing else of it, and nothing outside `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".nc") and not m.is_dir()]
        if not members:
            raise MissingInput(f"{wheel} holds no .nc file")
        for member in members:
            name = PurePosixPath(member.filename.replace("\\", "/")).name
            if member.file_size > LARGEST_MEMBER:
                raise ArtefactDamaged(f"{wheel}: {member.filename} would unpack to {member.file_size} bytes; it was not used")
            with replacing(folder / name, flush=False) as draft, archive.open(member) as packed, draft.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    (folder / "complete").write_text(f"from {WHEEL}, sha256 {WHEEL_SHA256}\n")


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
