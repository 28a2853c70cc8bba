"""The medical demo's data, the echocardiogram that ships inside pydicom 3.0.2 (MIT), and the region that is tracked."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from flows.demo import hash_file
from flows.seg import segments_of
from flows.steps import Display
from flows.track import track
from pipelines.errors import ArtefactDamaged, MissingInput, RequestError
from pipelines.files import write_bytes

MEDICAL = "demo-medical.yaml"
CLIP = "examples_ybr_color.dcm"
CLIP_SHA256 = "6fa3a087d3c631b43216a8abec8aac8d2d73751c5bf5885708d1150b09283f72"
DATA = Path("data/pydicom-3.0.2")


def fetch_clip(folder: Path = DATA) -> Path:
    """The clip in `folder`, copied from the installed package once, checked against its hash.

    Raises RequestError, which names the extra, without pydicom; MissingInput and ArtefactDamaged for a package without this file.
    """
    clip = folder / CLIP
    if clip.is_file() and hash_file(clip) == CLIP_SHA256:
        return clip
    package = importlib.util.find_spec("pydicom")
    if package is None or package.origin is None:
        raise RequestError("the demo needs pydicom: pip install 'driftline[medical]'")
    original = Path(package.origin).parent / "data" / "test_files" / CLIP
    remedy = "install the package anew: pip install --force-reinstall pydicom==3.0.2"
    if not original.is_file():
        raise MissingInput(f"the installed pydicom has no file {CLIP}; {remedy}")
    if (found := hash_file(original)) != CLIP_SHA256:
        raise ArtefactDamaged(f"{CLIP} of pydicom: expected sha256 {CLIP_SHA256}, found {found}; it was not used. {remedy}")
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(clip, original.read_bytes())
    return clip


def track_region(config: str, overrides: Sequence[str], display: Display) -> None:
    """Masks of the dark chamber in the middle of each frame, in runs/NAME/masks, and its track, in runs/NAME/track.

    The outline is that of a threshold, not of a person. The run's cube must be there.
    """
    from configs.load import load_run
    from flows.folder import RunFolder
    from pipelines.tracking.dark_region import ABOVE, DarkRegion, write_dark_region

    folder = RunFolder.of(load_run(config, overrides))
    # seen in the frames: the chamber lies there in all of them; the box ends above the valve, which opens
    chamber = DarkRegion(seed_yx=(105, 175), box=(60, 140, 126, 205), below=18, blur_px=2)
    masks = folder.path / "masks"
    with display.step("track", "outline the dark chamber in every frame") as progress:
        write_dark_region(folder.cube_uri, masks, chamber, progress)
    segments = segments_of([f"{ABOVE}=dark chamber"], "AUTOMATIC")
    with display.step("track", "follow the chamber") as progress:
        record = track([masks], run=folder.path, min_size=100, segments=segments, progress=progress)
    for line in record["lines"]:
        display.log(f"  {line}")
