"""A folder of what was refused: a link to each file of a scene, the reason as text beside it. The files stay where they are."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.errors import HARMLESS, RequestError, SceneRefused
from pipelines.files import replace_folder
from pipelines.scene import Scene
from pipelines.sources.layered import LayeredSource
from pipelines.sources.source import Source

ABOUT = "ABOUT.txt"
TEXT = "Links to files that driftline refused, with the reasons (docs/validation.md). Every ingest writes this folder again.\n"


def require_own_folder(folder: Path, source: Source) -> None:
    """Raises RequestError for a folder that holds something else, or that the source would search."""
    if isinstance(source, LayeredSource) and folder.resolve().is_relative_to(source.path.resolve()):
        raise RequestError(f"cube.quarantine {folder} lies below source.path: its links would be scenes; name another folder")
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / ABOUT).is_file())):
        raise RequestError(f"cube.quarantine {folder} holds other files, and every ingest replaces it: name a new folder")


def write_quarantine(folder: Path, refused: Sequence[SceneRefused], scenes: Sequence[Scene]) -> None:
    """Replaces `folder`: REASON/SCENE/ with links to the scene's files and `reason.txt`; scenes in clouds are left out.

    What was refused when the scenes were listed has no files that are known; the reason names them.
    """
    draft, by_id = folder.with_name(f".{folder.name}.new"), {scene.id: scene for scene in scenes}
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    (draft / ABOUT).write_text(TEXT, encoding="utf-8")
    for refusal in refused:
        if refusal.reason not in HARMLESS:
            _write_one(draft, refusal, by_id)
    replace_folder(draft, folder)


def _write_one(draft: Path, refusal: SceneRefused, by_id: Mapping[str, Scene]) -> None:
    name = re.sub(r"[^\w.\-]+", "_", refusal.scene_id).strip(".")[:150] or "scene"
    number, place = 1, draft / refusal.reason / name
    while place.exists():
        number, place = number + 1, draft / refusal.reason / f"{name}-{number + 1}"
    place.mkdir(parents=True)
    scene = by_id.get(refusal.scene_id)
    parts = () if scene is None else scene.parts or (scene,)
    files = sorted({Path(asset.path).absolute() for part in parts for asset in part.assets.values() if asset.path})
    for file in files:
        link = place / file.name
        if not link.is_symlink():
            link.symlink_to(file)
    where = "".join(f"{file}\n" for file in files)
    (place / "reason.txt").write_text(f"{refusal}\n{where}", encoding="utf-8")
