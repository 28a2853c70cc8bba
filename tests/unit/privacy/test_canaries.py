"""Thousands of values planted wherever a DICOM file can hold one: after a copy and an audit none is in anything that is left."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")

from pydicom import dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from typer.testing import CliRunner

from flows.cli import app
from pipelines.privacy import repeated, tables
from pipelines.privacy.csa import csa_numbers
from pipelines.privacy.file import deidentify_bytes
from pipelines.privacy.folder import read_manifest
from pipelines.privacy.keys import Key
from pipelines.privacy.settings import Mask, PrivacyRefusal, PrivacySettings
from tests.unit.privacy.planted import (
    Canaries,
    any_values,
    as_bytes,
    csa_header,
    image,
    plant_around,
    plant_everywhere,
    secondary_capture,
)
from tests.unit.privacy.searching import found_in

OVERLAY_IN_PIXELS = 0xF000


def planted_folder(folder: Path, canaries: Canaries) -> None:
    """Files with canaries in headers, names, preambles, pixels and ends; whole ones, damaged ones, and others than images."""
    full = image(patient=canaries.text())
    full.BurnedInAnnotation = "NO"
    with any_values():
        plant_around(full, canaries)
        plant_everywhere(full, canaries)
    below = folder / canaries.text() / canaries.text()
    below.mkdir(parents=True)
    preamble = canaries.text().encode().ljust(128, b" ")
    (below / f"{canaries.text()}.dcm").write_bytes(as_bytes(full, preamble))
    full.file_meta.TransferSyntaxUID, full.SOPInstanceUID = ImplicitVRLittleEndian, "1.2.3.80"
    (folder / f"{canaries.text()}.dcm").write_bytes(as_bytes(full))
    whole = as_bytes(image(patient=canaries.text(), instance="1.2.3.70"))
    for name, data in {
        "cut": whole[: len(whole) - 40], "cut in header": whole[:700], "rest": whole + canaries.text().encode() * 3,
        "no date": as_bytes(with_values(StudyDate=canaries.text(), Rows=8)),
        "no number": whole.replace(b"1.5 ", b"x" + canaries.text().encode()[:3]),
        "report": as_bytes(with_values(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", TextValue=canaries.text())),
        "private class": as_bytes(with_values(SOPClassUID=canaries.value("UI"))),
    }.items():  # fmt: skip
        (folder / f"{name} {canaries.text()}.dcm").write_bytes(data)
    (folder / f"{canaries.text()}.txt").write_text(canaries.text())
    (folder / f"{canaries.text()}.dcm").write_bytes(as_bytes(secondary_capture(canaries)))
    (folder / "mosaic.dcm").write_bytes(as_bytes(mosaic(canaries)))
    (folder / "overlay.dcm").write_bytes(as_bytes(overlay_in_pixels(canaries)))


def with_values(**values: object) -> Dataset:
    made = image(instance="1.2.3.71")
    with any_values():
        for name, value in values.items():
            setattr(made, name, value)
    return made


def mosaic(canaries: Canaries) -> Dataset:
    """A file with a CSA header: numbers that are kept, and text."""
    made = image(patient=canaries.text(), instance="1.2.3.72")
    made.Manufacturer, made.file_meta.TransferSyntaxUID = "SIEMENS", DeflatedExplicitVRLittleEndian
    numbers = {
        "NumberOfImagesInMosaic": ["4"],
        "SliceNormalVector": ["0", "0", "1"],
        "MosaicRefAcqTimes": ["0", "2.5", "5", "7.5"],
    }
    header = csa_header({**numbers, "ImageHistory": [canaries.text()], "ICE_Dims": [canaries.text()]})
    made.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header + bytes(len(header) % 2))
    made.private_block(0x0029, "SIEMENS CSA HEADER").add_new(0x20, "OB", canaries.text().encode() + b"\0")
    made.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "UN", b"\4\0")
    return made


def overlay_in_pixels(canaries: Canaries) -> Dataset:
    """An overlay in the four unused bits of the pixels."""
    made = image(patient=canaries.text(), instance="1.2.3.73")
    pixels = np.frombuffer(made.PixelData, np.uint16) | np.uint16(OVERLAY_IN_PIXELS)
    made["PixelData"].value = pixels.tobytes()
    made.add_new(0x60000102, "US", 12)
    made.add_new(0x60000022, "LO", canaries.text())
    return made


def test_no_planted_value_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "left"))
    canaries, left = Canaries(), tmp_path / "left"
    left.mkdir()
    planted_folder(tmp_path / "scans", canaries)
    caplog.clear()
    recwarn.clear()
    assert len(set(canaries.planted)) == len(canaries.planted) > 5000
    (tmp_path / "study.key").write_text(f"driftline-privacy-key-1 {'5' * 64}\n")
    (tmp_path / "study.key").chmod(0o600)
    key = ["--key", str(tmp_path / "study.key")]
    outputs, copy = [], str(left / "copy")
    for arguments in (["--audit"], [copy], [copy, "--json"]):
        result = CliRunner().invoke(app, ["deidentify", "scans", *arguments, *key])
        assert result.exit_code == 3, result.output
        outputs += [result.stdout, result.stderr]
    logged = [record.getMessage() + str(record.exc_info) for record in caplog.records] + [str(one.message) for one in recwarn]
    assert found_in(canaries, [*outputs, *logged], [left]) == {}
    answer = json.loads(outputs[-2])
    paths = [element[0] for one in read_manifest(left / "copy") for element in one.get("elements", ())]
    recorded = {tag for path in paths for tag in path.split("/") if tag}
    known = {f"{tag:08x}" for tag in (*DicomDictionary, *tables.profile())}
    strange = {tag for tag in recorded - known if not tag.startswith(("50", "60"))}
    assert strange == {"private"}  # bytes behind the end are read as tags, and must not be recorded
    assert answer["unchanged"] == 7
    assert sorted(one["reason"] for one in answer["refused"]) == ["no-image", "no-image", "truncated", "truncated", "unreadable"]
    assert found_in(canaries, [], [tmp_path / "scans"]).keys() > set(canaries.planted[100:-100])  # the search does find them


def test_what_repeats_becomes_what_it_would_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_folder(tmp_path, Canaries())
    files = [path.read_bytes() for path in sorted(tmp_path.rglob("*.dcm"))]
    settings = PrivacySettings(Key(bytes(32)), keep=("age",)), PrivacySettings(Key(bytes(32)), masks=(Mask((0, 2), (0, 2)),))

    def outcomes() -> list[object]:
        found: list[object] = []
        for number, data in enumerate(files):
            try:
                clean = deidentify_bytes(data, "f", settings[number % 2])
                found.append((clean.content, clean.name, clean.done, clean.claimed))
            except PrivacyRefusal as e:
                found.append((e.reason, e.detail))
        return found

    at_first, again = outcomes(), outcomes()
    monkeypatch.setattr(repeated, "MOST_BYTES", -1)  # nothing repeats
    assert outcomes() == at_first == again


def test_numbers_of_a_mosaic_and_stored_bits_are_kept() -> None:
    canaries, settings = Canaries(), PrivacySettings(Key(bytes(32)))
    copied = [
        dcmread(io.BytesIO(deidentify_bytes(as_bytes(make(canaries)), "f", settings).content))
        for make in (mosaic, overlay_in_pixels)
    ]
    assert csa_numbers(copied[0])["NumberOfImagesInMosaic"] == (4.0,)
    assert csa_numbers(copied[0])["SliceNormalVector"] == (0.0, 0.0, 1.0)
    assert copied[0].private_block(0x0019, "SIEMENS MR HEADER")[0x0A].value == 4
    assert (0x0029, 0x1010) not in copied[0] or copied[0][0x00290010].value == "DRIFTLINE CSA"
    assert np.array_equal(copied[1].pixel_array, image().pixel_array)
    assert copied[1].pixel_array.max() < 4096
