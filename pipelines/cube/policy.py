"""Rules of a config that are stricter than those of driftline: what it would convert, list or trust is refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pipelines.errors import HARMLESS, MissingInput, RequestError, SceneRefused, StateError
from pipelines.scene import Scene
from pipelines.sources.facts import step_to
from pipelines.sources.layered import LayeredSource
from pipelines.sources.source import Listing, Source
from pipelines.wording import share_text

ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}  # by the number of hexadecimal digits
LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{32,128}) [ *](?P<name>.+)|\w+ \((?P<named>.+)\) = (?P<digest_of>[0-9a-fA-F]{32,128})")
MAX_LIST_BYTES = 1 << 28
THREADS = 4


@dataclass(frozen=True)
class Policy:
    """The defaults add no rule. `checksums`: a file below the source's folder, as sha256sum, md5sum and the like write it.

    `max_refused`: the largest share of the scenes that may be refused; clouds and scenes taken out by hand do not count.
    """

    conversions: Literal["convert", "refuse"] = "convert"
    unused: Literal["list", "refuse"] = "list"
    checksums: str | None = None
    max_refused: float = 1.0

    @property
    def of_scenes(self) -> str:
        """What decides about single scenes, for their fingerprints; "" for no rule."""
        rules = (self.conversions, self.unused, self.checksums)
        return "" if rules == ("convert", "list", None) else repr(rules)

    def require_used(self, listing: Listing) -> None:
        """Raises RequestError for files, folders or variables that no scene uses."""
        unused = [name for name in listing.unused if name != self.checksums]
        if self.unused == "refuse" and unused:
            shown = f"{', '.join(unused[:3])}{f' and {len(unused) - 3} more' if len(unused) > 3 else ''}"
            raise RequestError(
                f"no scene uses {shown}, and policy.unused is refuse: move them out of the source, or correct source.pattern"
            )

    def refusals(self, source: Source, scenes: Sequence[Scene], *, reads_files: bool = True) -> list[SceneRefused]:
        """The scenes that break a rule, one refusal each; reads_files: also those whose files have another checksum.

        Raises MissingInput, RequestError (no list of checksums).
        """
        if not self.of_scenes or not isinstance(source, LayeredSource):
            return []
        found = {refusal.scene_id: refusal for refusal in self._of_facts(source, scenes)}
        if self.checksums is not None and reads_files:
            folder = source.path if source.path.is_dir() else source.path.parent
            listed = read_list(folder / self.checksums)
            with ThreadPoolExecutor(THREADS) as pool:
                digest = cache(_digest)
                checked = pool.map(lambda scene: _compare(scene, listed, digest), scenes)
                found |= {refusal.scene_id: refusal for refusal in checked if refusal is not None}
        return list(found.values())

    def _of_facts(self, source: LayeredSource, scenes: Sequence[Scene]) -> Iterator[SceneRefused]:
        seen = {one.scene.id: one.facts for one in source.look_at(scenes)}
        named = len(source.requested.names)
        for scene in scenes:
            for facts in (seen.get(part.id, {}) for part in (scene.parts or (scene,))):
                for band in source.bands if facts else ():
                    there = facts[band.name].with_request(source.requested.band(band.name))
                    if self.conversions == "refuse" and step_to(there, band) != (1, 0):
                        cube = f"the cube {band.scale:g} and {band.offset:g}"
                        detail = f"band {band.name} has scale {there.scale:g} and offset {there.offset:g}, {cube}"
                        yield SceneRefused(scene.id, "policy", f"{detail}; policy.conversions is refuse")
                    if self.unused == "refuse" and source.planes_are_bands and there.planes > named:
                        detail = f"the file of band {band.name} holds {there.planes} bands or planes, the config names {named}"
                        yield SceneRefused(scene.id, "policy", f"{detail}; policy.unused is refuse")

    def require_few(self, refused: Sequence[SceneRefused], scenes: int, after: str) -> None:
        """Raises StateError if more than `max_refused` of so many scenes are refused; its message ends with `after`."""
        count = sum(refusal.reason not in HARMLESS for refusal in refused)
        if scenes and count / scenes > self.max_refused:
            allowed = f"policy.max_refused allows {share_text(self.max_refused)}"
            first = next(refusal for refusal in refused if refusal.reason not in HARMLESS)
            raise StateError(
                f"{count} of {scenes} scenes ({share_text(count / scenes)}) are refused, {allowed}; the first: {first}; {after}"
            )


NO_POLICY = Policy()


def read_list(path: Path) -> dict[Path, str]:
    """File -> digest (hex), of a list as sha256sum writes it, or with --tag; names are relative to the list's folder.

    Raises MissingInput, RequestError.
    """
    if not path.is_file():
        raise MissingInput(f"no list of checksums at {path}; correct policy.checksums (it is relative to source.path)")
    listed = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file.read(MAX_LIST_BYTES).splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = LINE.fullmatch(line)
            digest = match and (match["digest"] or match["digest_of"])
            if not match or not digest or len(digest) not in ALGORITHMS:
                raise RequestError(f"{path.name}:{number}: {line[:60]!r} is no line of sha256sum, sha512sum, sha1sum or md5sum")
            listed[(path.parent / (match["name"] or match["named"])).resolve()] = digest.lower()
    return listed


def _compare(scene: Scene, listed: dict[Path, str], digest: Callable[[Path, str], str]) -> SceneRefused | None:
    """The refusal of a scene with a file that is not as the list says; None for any other."""
    paths = {Path(asset.path) for part in (scene.parts or (scene,)) for asset in part.assets.values()}
    masks = {Path(f"{path}.msk") for path in paths}
    for path in sorted(paths | {mask for mask in masks if mask.is_file()}):
        expected = listed.get(path.resolve())
        if expected is None:
            return SceneRefused(scene.id, "checksum", f"{path.name} is not in the list of checksums")
        try:
            found = digest(path, ALGORITHMS[len(expected)])
        except OSError as error:
            return SceneRefused(scene.id, "unreadable", f"{path.name}: {error.strerror}")
        if found != expected:
            kind = ALGORITHMS[len(expected)]
            there, here = f"{expected[:12]}...", f"{found[:12]}..."
            detail = f"{path.name} has the {kind} {here}, the list of checksums says {there}; download it again"
            return SceneRefused(scene.id, "checksum", detail)
    return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
