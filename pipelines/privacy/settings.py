"""How images are de-identified: plain values, made from the section `privacy` of a config."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import SceneRefused
from pipelines.privacy.keys import Key
from pipelines.privacy.tables import EDITION

VERSION = 3  # of the rules; a copy that an earlier one made is made again
Characteristic = Literal["age", "sex", "size", "weight"]


class PrivacyRefusal(SceneRefused):
    """A file that is not passed on. Its id is a keyed one; reason and detail hold nothing of the file.

    Codes: unreadable, truncated, too-large, no-image, directory, burned-in, mask-outside, overlay, no-ocr, duplicate-uid,
    no-preamble, several-patients, unexpected.
    """


@dataclass(frozen=True)
class Mask:
    """A rectangle of pixels that is set to black: rows and columns from the first to before the last, counted from 0."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    modality: str | None = None  # None: in every image


@dataclass(frozen=True)
class PrivacySettings:
    """What `deidentify_folder` needs to know.

    burned_in: what happens to images that may show text and that no mask covers. keep: what is kept of the patient beside the
    profile (the option Retain Patient Characteristics). shift_days: between which bounds a patient's dates move, without 0.
    """

    key: Key
    burned_in: Literal["quarantine", "checked"] = "quarantine"
    masks: tuple[Mask, ...] = ()
    ocr: bool = False
    keep: tuple[Characteristic, ...] = ()
    shift_days: tuple[int, int] = (-3650, -1)

    def digest(self) -> str:
        """Equal for settings that give equal copies."""
        parts = (VERSION, EDITION, self.key.fingerprint, self.burned_in, self.masks, self.ocr, self.keep, self.shift_days)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
