"""What the copy of a folder asks of files that are no DICOM: `pipelines.sources.deidentifying` answers for NIfTI and video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipelines.privacy.settings import PrivacySettings

DATED, NUMBERED = "*/*-{date:%Y%m%dT%H%M%S}.*", "*/*-{frame}.*"  # patterns of the names of copies of pictures
TIMES, LABELS = "times.txt", "labels.csv"  # files of a copy: the times of its pictures, and what is known of its samples


@dataclass(frozen=True)
class Copied:
    """A de-identified file: its name below the copy, names of what lies beside it, and what was done, as of `CleanFile`."""

    name: str
    beside: tuple[str, ...] = ()
    done: Counter[tuple[str, str, str]] = field(default_factory=Counter)


class OtherKind(Protocol):
    """Files of one kind in one folder."""

    @property
    def name(self) -> str: ...

    def takes(self, path: Path) -> bool:
        """Whether it is one of its files."""

    def parts(self, path: Path) -> tuple[Path, ...]:
        """The files that the copy of `path` is made from; a change of any makes it anew."""

    def depends_on(self, path: Path) -> str:
        """What else the copy depends on, such as other files of the folder; a change makes it anew. Raises PrivacyRefusal."""

    def copy(self, path: Path, file_id: str, target: Path, settings: PrivacySettings) -> Copied:
        """Writes the copy below `target`, as a whole or not at all. Raises PrivacyRefusal."""


KindsOf = Callable[[Path, Sequence[Path], PrivacySettings], Sequence[OtherKind]]  # of a folder or file, and its files


def none_other(source: Path, paths: Sequence[Path], settings: PrivacySettings) -> Sequence[OtherKind]:
    """DICOM files alone."""
    return ()
