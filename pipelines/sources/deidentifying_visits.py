"""De-identification of the visits of patients: images, masks and transforms under pseudonyms, dates moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.errors import RequestError
from pipelines.files import write_bytes
from pipelines.privacy.nifti import clean_nifti, read_sidecar
from pipelines.privacy.other_kinds import Copied, KindsOf, OtherKind
from pipelines.privacy.settings import PrivacyRefusal, PrivacySettings
from pipelines.privacy.video import Count
from pipelines.registration.transforms import Coordinates, format_transform, read_transform
from pipelines.sources.deidentifying import sidecar_of
from pipelines.sources.deidentifying_pictures import name_of
from pipelines.sources.visit_files import KIND, Visit, VisitFiles, name_in_copy

SHOWN = ("visit", "grid")  # roles of files that may show text; the others are masks and numbers
Role = tuple[str, str, Visit | None]  # role, patient, visit


@dataclass(frozen=True)
class VisitKind:
    """The files of visits, and what lies beside them. A file with several roles (grid and mask) is copied for each."""

    source: Path
    files: VisitFiles
    coordinates: Coordinates | None = None
    name: str = KIND

    def takes(self, path: Path) -> bool:
        return path in self._roles

    def parts(self, path: Path) -> tuple[Path, ...]:
        return (path, *(one for one in (sidecar_of(path),) if one))

    def depends_on(self, path: Path) -> str:
        return repr([(role, self._patient(patient), visit) for role, patient, visit in self._roles[path]]) + str(self.coordinates)

    def copy(self, path: Path, file_id: str, target: Path, settings: PrivacySettings) -> Copied:
        done, names = Count(), list[str]()
        self._require_one_patient(path)
        if (sidecar := sidecar_of(path)) is not None:
            read_sidecar(sidecar)  # raises for one that may say that it is of somebody else
        for role, patient, visit in self._roles[path]:
            person = self._patient(patient)
            moment = visit.moment if visit is not None and self.files.is_dated else None
            if moment is not None:
                moment += np.timedelta64(settings.key.shift_days(person, settings.shift_days), "D")
            name = name_in_copy(role, settings.key.pseudonym(person), visit, moment)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if role == "transform":
                self._copy_transform(path, file_id, target / name)
                done["transform/numbers", "numbers", "kept"] += 1
            else:
                masks = tuple(mask for mask in settings.masks if mask.modality is None) if role in SHOWN else ()
                checks = settings.burned_in == "quarantine" and role in SHOWN
                done += clean_nifti(path, target / name, masks, checks_text=checks, ocr=settings.ocr and role in SHOWN)
            done["name", "text", "new name" if moment is None else "date moved"] += 1
            names.append(name)
        return Copied(names[0], tuple(names[1:]), done)

    def _copy_transform(self, path: Path, file_id: str, target: Path) -> None:
        try:
            content = format_transform(read_transform(path, self.coordinates))
        except RequestError as e:
            raise PrivacyRefusal(file_id, "unreadable", str(e)) from None
        write_bytes(target, content, flush=False, mark="partial")

    def _patient(self, patient: str) -> str:
        """What identifies a patient: what the path says, else the name of the folder."""
        return patient or name_of(self.source)

    def _require_one_patient(self, path: Path) -> None:
        """Raises PrivacyRefusal where sidecars (.json) state that the visits of one patient are of several."""
        for role, patient, _ in self._roles[path]:
            if role == "visit" and len(self._stated.get(patient, ())) > 1:
                problem = f"the sidecars (.json) of its visits state {len(self._stated[patient])} patients; put each in a folder"
                raise PrivacyRefusal("NIfTI", "several-patients", problem)

    @cached_property
    def _roles(self) -> dict[Path, list[Role]]:
        found: dict[Path, list[Role]] = {}
        for path, role, patient, visit in self.files.roles():
            found.setdefault(path, []).append((role, patient, visit))
        return found

    @cached_property
    def _stated(self) -> Mapping[str, set[str]]:
        """Patient -> whom the sidecars of the visits name."""
        stated: dict[str, set[str]] = {}
        for path, roles in self._roles.items():
            sidecar = sidecar_of(path)
            of = {patient for role, patient, _ in roles if role == "visit"}
            with suppress(PrivacyRefusal):  # raised when the file is copied
                one = str(read_sidecar(sidecar).get("PatientID", "") or "").strip() if sidecar is not None else ""
                for patient in of if one else ():
                    stated.setdefault(patient, set()).add(one)
        return stated


def visit_kinds(
    patterns: Mapping[str, str], patients: tuple[str, ...] | None = None, coordinates: Coordinates | None = None
) -> KindsOf:
    """What makes the kind for a folder; arguments as of `VisitFiles` and `read_transform`. It raises what `VisitFiles` raises."""

    def kinds(source: Path, paths: Sequence[Path], settings: PrivacySettings) -> Sequence[OtherKind]:
        return [VisitKind(source, VisitFiles(source, patterns, patients, tuple(paths)), coordinates)]

    return kinds
