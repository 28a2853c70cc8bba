"""What becomes of single elements: the table, keyed values, dates, terms, private numbers; and of whole files."""

from __future__ import annotations

import io
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")

from PIL import Image, ImageDraw, ImageFont
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, UltrasoundMultiFrameImageStorage

from pipelines.errors import MissingInput, RequestError
from pipelines.privacy import tables, values
from pipelines.privacy.compressed import blank_text
from pipelines.privacy.file import deidentify_bytes
from pipelines.privacy.keys import Key, default_key_file, load_key
from pipelines.privacy.settings import Mask, PrivacyRefusal, PrivacySettings
from tests.unit.privacy.planted import as_bytes, image

KEY = Key(bytes(range(32)))


def clean(made: Dataset, **settings: object) -> Dataset:
    content = deidentify_bytes(as_bytes(made), "file", PrivacySettings(KEY, **settings)).content  # type: ignore[arg-type]
    return dcmread(io.BytesIO(content))


def refusal(made: Dataset, **settings: object) -> str:
    with pytest.raises(PrivacyRefusal) as caught:
        clean(made, **settings)
    return caught.value.reason


def test_the_table_is_whole_and_says_its_edition() -> None:
    text = (Path(tables.__file__).parent / "profile.csv").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line and not line.startswith("#")][1:]
    assert tables.EDITION in text.split("\ntag,")[0]
    assert (len(rows), len(tables.profile())) == (656, 652)
    assert sum(row.shifts_dates for row in tables.profile().values()) == 169
    assert {row.basic for row in tables.profile().values()} == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
    assert all(row.name for row in tables.profile().values())


def test_a_user_without_a_home_is_asked_for_the_place_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_user(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_user)  # as in a container that runs as a number
    with pytest.raises(MissingInput, match=r"HOME is not set.*privacy\.key_file, --key"):
        default_key_file()
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_key_file() == Path("/data/driftline/privacy.key")


def test_keys_give_the_same_values_again_and_other_keys_others(tmp_path: Path) -> None:
    path = tmp_path / "below" / "privacy.key"
    key = load_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path) == key
    assert key.uid("1.2.3") == load_key(path).uid("1.2.3") != KEY.uid("1.2.3")
    assert key.pseudonym("ID-1") != KEY.pseudonym("ID-1")
    assert {KEY.shift_days(str(n), (-3, -1)) for n in range(50)} == {-3, -2, -1}
    assert path.read_text().split()[1] not in repr(key) + repr(PrivacySettings(key))
    path.chmod(0o640)
    with pytest.raises(RequestError, match="chmod 600"):
        load_key(path)
    with pytest.raises(MissingInput, match="no privacy key"):
        load_key(tmp_path / "none", create=False)
    (tmp_path / "no.key").write_text("hunter2")
    (tmp_path / "no.key").chmod(0o600)
    with pytest.raises(RequestError, match="is not a privacy key") as caught:
        load_key(tmp_path / "no.key")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("vr", "text", "moved"),
    [
        ("DA", "20200301", "20200229"),
        ("DA", "2020.03.01", "20200229"),
        ("DA", "202003", "202002"),
        ("DA", "", None),
        ("DA", "Smith", None),
        ("DA", "00010101", None),
        ("DT", "20200301235959.123456-0930", "20200229235959.123456-0930"),
        ("DT", "2020030112", "2020022912"),
        ("DT", "20200301Smith", None),
        ("TM", "235959.5", "235959.5"),
        ("TM", "Smith", None),
        ("LO", "20200301", None),
    ],
)
def test_dates_move_and_what_is_none_does_not_pass(vr: str, text: str, moved: str | None) -> None:
    assert values.shift(vr, text, -1) == moved


def test_a_patient_keeps_intervals_pseudonym_and_uids_over_files() -> None:
    first, second = image(), image(instance="1.2.3.10")
    second.StudyDate, second.AcquisitionDateTime = "20210301", "20210301101112.5+0100"
    one, other = clean(first), clean(second)
    days = KEY.shift_days("ID-1", (-3650, -1))
    assert values.shift_date("20200301", days) == one.StudyDate != "20200301"
    assert (one.StudyTime, one.AcquisitionDateTime[8:]) == ("101112", "101112.5+0100")
    assert (np.datetime64(f"{other.StudyDate[:4]}") - np.datetime64(f"{one.StudyDate[:4]}")).astype(int) == 1
    assert one.PatientID == other.PatientID == one.PatientName == KEY.pseudonym("ID-1")
    assert one.SeriesInstanceUID == other.SeriesInstanceUID != "1.2.3.2"
    assert one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID != other.SOPInstanceUID
    assert one.SOPClassUID == first.SOPClassUID


def test_what_was_done_is_stated() -> None:
    made = image()
    made.PatientWeight, made.PatientAge, made.PatientSex = 70, "093Y", "F"
    made.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.5)
    cleaned = clean(made, keep=("age", "weight"))
    assert (cleaned.PatientIdentityRemoved, cleaned.LongitudinalTemporalInformationModified) == ("YES", "MODIFIED")
    used = [item.CodeValue for item in cleaned.DeidentificationMethodCodeSequence]
    assert used == ["113100", "113107", "113108", "113111"]
    assert (cleaned.PatientAge, cleaned.PatientWeight, cleaned.PatientSex) == ("089Y", 70, "")
    assert cleaned.private_block(0x2005, "Philips MR Imaging DD 001")[0x0E].value == 0.5
    assert [item.CodeValue for item in clean(image()).DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert "PatientAge" not in clean(made)


def test_a_private_element_passes_by_creator_place_and_value() -> None:
    made = image()
    made.add_new(0x00431039, "IS", "1000")  # without a creator, as anonymised files have it
    block = made.private_block(0x2001, "Philips Imaging DD 001", create=True)
    block.add_new(0x03, "UN", np.float32(800).tobytes())
    block.add_new(0x0B, "CS", "TRANSVERSAL")
    block.add_new(0x0A, "IS", "7")
    block.add_new(0x17, "LO", "Jane")
    made.private_block(0x2005, "Somebody", create=True).add_new(0x0E, "FL", 0.5)
    cleaned = clean(made)
    kept = cleaned.private_block(0x2001, "Philips Imaging DD 001")
    assert (kept[0x03].value, kept[0x0B].value, kept[0x0A].value) == (800, "TRANSVERSAL", 7)
    private = [element.tag for element in cleaned if element.tag.is_private]
    assert private == [0x20010010, 0x20011003, 0x2001100A, 0x2001100B]


def test_terms_stay_and_words_do_not() -> None:
    made = image()
    made.ImageType, made.BodyPartExamined, made.ScanOptions = ["ORIGINAL", "PRIMARY", "JANE DOE"], "HEAD", "DOE"
    cleaned = clean(made)
    assert cleaned.ImageType[:2] == ["ORIGINAL", "PRIMARY"]
    assert cleaned.ImageType[2] == KEY.term("JANE DOE")
    assert cleaned.BodyPartExamined == "HEAD"
    assert "ScanOptions" not in cleaned


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned-in"),
        ({"Modality": "US"}, "burned-in"),
        ({"Modality": None}, "burned-in"),
        ({"ConversionType": "WSD"}, "burned-in"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "burned-in"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"}, "no-image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "no-image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, "no-image"),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, "no-image"),
        ({"NumberOfFrames": 2}, "truncated"),
        ({"Rows": 6}, "truncated"),
        ({"PatientID": None, "StudyInstanceUID": None}, "unreadable"),
        ({"Rows": None}, "unreadable"),
    ],
)
def test_files_that_are_refused(change: dict[str, object], reason: str) -> None:
    made = image()
    for name, value in change.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    assert refusal(made) == reason


def test_small_files_that_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = image(frames=2)
    made.compress(RLELossless, generate_instance_uid=False)
    made.NumberOfFrames, made.Rows, made.Columns = 1000, 65535, 65535
    assert refusal(made) == "too-large"
    monkeypatch.setattr("pipelines.privacy.file.MOST_INFLATED_BYTES", 100)
    made = image()
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert refusal(made) == "too-large"
    monkeypatch.undo()
    assert clean(made).Rows == 8


def test_text_in_the_picture_is_masked_or_stated_to_be_none() -> None:
    made = image(frames=2)
    made.SOPClassUID, made.Modality, original = UltrasoundMultiFrameImageStorage, "US", made.pixel_array.copy()
    assert clean(made, burned_in="checked").BurnedInAnnotation == "NO"
    assert refusal(made, masks=(Mask((0, 2), (0, 8), "OT"),)) == "burned-in"
    assert refusal(made, masks=(Mask((0, 9), (0, 8)),)) == "mask-outside"
    masked = clean(made, masks=(Mask((0, 2), (1, 8), "US"),))
    original[:, 0:2, 1:8] = 0
    assert np.array_equal(masked.pixel_array, original)
    assert "113101" in [item.CodeValue for item in masked.DeidentificationMethodCodeSequence]


def test_ocr_keeps_back_what_it_is_sure_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tesseract"
    program.write_text('#!/bin/sh\ncat > /dev/null\nprintf "head\\n$READS"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for read, is_text in ((".", False), ("JANE", True), ("J A N E", False)):
        rows = [f"5\\t1\\t1\\t1\\t1\\t1\\t0\\t0\\t9\\t9\\t{90 if is_text else 40}\\t{word}" for word in read.split()]
        monkeypatch.setenv("READS", "\\n".join(rows) + "\\n")
        assert (refusal(image(), ocr=True) == "burned-in") if is_text else clean(image(), ocr=True).Rows == 8
    monkeypatch.setenv("PATH", "")
    assert refusal(image(), ocr=True) == "no-ocr"


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed (Debian: tesseract-ocr)")
def test_tesseract_reads_small_letters_in_a_real_clip_and_none_under_masks() -> None:
    masks = (Mask((0, 36), (0, 40)), Mask((0, 240), (284, 320)), Mask((226, 240), (0, 320)))  # of configs/demo-medical.yaml
    echo = dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
    assert refusal(echo, burned_in="checked", ocr=True) == "burned-in"
    masked = clean(echo, masks=masks, ocr=True)
    picture = Image.fromarray(masked.pixel_array[0])
    ImageDraw.Draw(picture).text((3, 100), "DOE JANE 1970-03-14", fill="white", font=ImageFont.load_default(size=8))
    masked.PixelData = np.stack([np.asarray(picture)] * int(masked.NumberOfFrames)).tobytes()
    assert refusal(masked, burned_in="checked", ocr=True) == "burned-in"


def test_compressed_frames_lose_text_and_keep_pixels() -> None:
    made = image(frames=2)
    plain = made.pixel_array
    made.compress(RLELossless, generate_instance_uid=False)
    assert np.array_equal(clean(made).pixel_array, plain)
    stream = b"\xff\x4f\xff\x51\x00\x04ab\xff\x64\x00\x0a\x00\x01secret\xff\x90\x00\x0a\x00\x00" + bytes(8) + b"\xff\xd9Doe"
    blanked, count = blank_text(stream)
    assert (len(blanked), count) == (len(stream), 9)
    assert b"secret" not in blanked
    assert b"Doe" not in blanked
    jpeg = (
        b"\xff\xd8\xff\xe1\x00\x06Exif\xff\xee\x00\x0eAdobe\0d\0\0\0\0\1\xff\xda\x00\x02\x12\xff\x00\xff\xfe\x00\x05Doe\xff\xd9"
    )
    assert blank_text(jpeg)[0] == jpeg.replace(b"Exif", bytes(4)).replace(b"Doe", bytes(3))
    made = image(frames=2)
    made.file_meta.TransferSyntaxUID = JPEG2000Lossless
    made.PixelData = encapsulate([stream, stream])
    made["PixelData"].VR = "OB"
    assert [frame[: len(stream)] for frame in generate_frames(clean(made).PixelData, number_of_frames=2)] == [blanked] * 2
    made.PixelData = encapsulate([stream[:-9], stream])
    assert refusal(made) == "unreadable"
