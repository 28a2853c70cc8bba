"""Series of the other kinds with canaries wherever they can hold one: DICOM volumes, NIfTI with sidecars, videos, pictures."""

from __future__ import annotations

import gzip
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.privacy.kinds import KINDS
from tests.unit.privacy.planted import Canaries, any_values, as_bytes, others_beside, plant_around, plant_everywhere
from tests.unit.sources.made_dicom import classic, enhanced, volumes

UNREADABLE = (
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "ModalityLUTSequence",
    "RescaleType",
)  # if they fit no series
TOGETHER = ("DA", "DT", "UI", "TM")  # by which the files of a series belong together
DATES = ("20190301", "20190315", "20190405", "20190430", "20190520", "20190606")


def named_folder(root: Path, canaries: Canaries) -> Path:
    folder = root / canaries.text() / canaries.text()
    folder.mkdir(parents=True)
    return folder


def classic_volumes(root: Path, canaries: Canaries) -> Path:
    """Three times of four slices, an element of each tag in one file, among others that are refused.

    Texts by which images of a series would differ in kind are in all files the same.
    """
    kinds: dict[str, object] = {}
    folder, patient, study = named_folder(root, canaries), canaries.text(), canaries.keep("19590101")
    for time, volume in enumerate(volumes(3)):
        for k, pixels in enumerate(volume):
            made = classic(pixels, 3.0 * k, 4 * time + k + 1, AcquisitionTime=f"1000{2.5 * time:09.6f}", AcquisitionDate=study)
            with any_values():
                plant_around(made, canaries)
                if k == time == 0:
                    plant_everywhere(made, canaries, without=TOGETHER)
                    kinds = {keyword: made.get(keyword) for keyword, _ in KINDS.values() if keyword in made}
                for keyword, value in kinds.items():
                    setattr(made, keyword, value)
            for keyword in UNREADABLE:
                if keyword in made:
                    delattr(made, keyword)
            made.PatientID, made.StudyDate, made.StudyInstanceUID = patient, study, "1.2.3.4"
            (folder / f"{canaries.text()}.dcm").write_bytes(as_bytes(made, canaries.text().encode().ljust(128, b" ")))
    others_beside(folder, canaries)
    return folder


def enhanced_volumes(root: Path, canaries: Canaries) -> Path:
    """A file of three times of four slices, with canaries within its functional groups too."""
    folder, made = named_folder(root, canaries), enhanced(volumes(3))
    for frame in made.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence[0].FrameComments = canaries.text()
        frame.FrameContentSequence[0].FrameLabel = canaries.text()
        frame.private_block(0x0019, canaries.text(), create=True).add_new(1, "LO", canaries.text())
    with any_values():
        plant_around(made, canaries)
        plant_everywhere(made, canaries, without=("UI",))
    if "ModalityLUTSequence" in made:
        del made.ModalityLUTSequence
    made.StudyInstanceUID = "1.2.3.4"
    (folder / f"{canaries.text()}.dcm").write_bytes(as_bytes(made))
    return folder


def nifti(path: Path, canaries: Canaries, times: int = 1, second: bool = False) -> None:
    """A packed file with text in its header, its extensions, behind its voxels, and in the header of gzip; and its sidecar."""
    import nibabel

    values = np.random.default_rng(0).normal(500, 50, (24, 16, 4, times)).astype("int16")
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    image = kind(values if times > 1 else values[..., 0], np.diag([2.0, 2.0, 4.0, 1.0]))
    for field in ("descrip", "aux_file", "intent_name", *(() if second else ("db_name",))):
        image.header[field] = canaries.text().encode()
    for _ in range(150):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", canaries.text().encode()))
    image.header.set_xyzt_units("mm", "sec")
    if times > 1:
        image.header["pixdim"][4] = 1.5
    data = bytearray(image.to_bytes())
    if not second:
        data[4:14], data[38:39] = canaries.text().encode()[:10].ljust(10, b"\0"), b"r"
    name, packed = canaries.text().encode(), gzip.compress(bytes(data) + canaries.text().encode(), 1)
    path.write_bytes(packed[:3] + b"\x08" + packed[4:10] + name + b"\0" + packed[10:])  # FNAME (RFC 1952)
    sidecar = {key: canaries.text() for key in ("PatientName", "PatientID", "InstitutionName", "DeviceSerialNumber")}
    nested = {
        canaries.text(): [canaries.text(), {canaries.text(): canaries.text()}],
        "RepetitionTime": 1.5,
        "EchoTime": canaries.text(),
    }
    dates = {"AcquisitionDateTime": "2019-03-01T10:11:12", "SliceTiming": [canaries.text()]}
    many = {canaries.text(): canaries.text() for _ in range(50)}
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar | nested | dates | many))


def nifti_series(root: Path, canaries: Canaries) -> Path:
    folder = named_folder(root, canaries) / f"{canaries.text()}.nii.gz"
    nifti(folder, canaries, times=12, second=True)
    for _ in range(300):
        canaries.text()  # so many values were planted, or more
    return folder


def nifti_visits(root: Path, canaries: Canaries) -> Path:
    """A folder of volumes of one patient, whose dates are in their names; one is cut off, one is of colours."""
    folder, subject = named_folder(root, canaries), canaries.text()
    for date in DATES:
        nifti(folder / f"{subject}_{canaries.keep(date)}.nii.gz", canaries)
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text()) | {"PatientID": subject}
        path.write_text(json.dumps(content))
    cut = folder / f"{subject}_{canaries.keep('20190701')}.nii.gz"
    cut.write_bytes((folder / f"{subject}_{DATES[0]}.nii.gz").read_bytes()[:-200])
    return folder


def video(root: Path, canaries: Canaries, texts: int = 600) -> Path:
    """An H.264 clip with metadata, chapters, an attachment, a second stream, and a message within the stream of pictures."""
    import av

    folder = named_folder(root, canaries)
    path = folder / f"{canaries.text()}.mkv"
    with av.open(str(path), "w") as made:
        keys = ("title", "artist", "comment", "location", "creation_time", "copyright", "date", "encoder")
        made.metadata.update({key: canaries.text() for key in keys} | {canaries.text(): canaries.text() for _ in range(texts)})
        stream = made.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.metadata["title"], stream.metadata["handler_name"] = canaries.text(), canaries.text()
        sound = made.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound.metadata["title"] = canaries.text()
        made.add_attachment(canaries.text(), "text/plain", canaries.text().encode())
        made.set_chapters([
            {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": canaries.text()}}
        ])  # fmt: skip
        for level in range(12):
            pixels = np.full((24, 32, 3), 20 * level, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels)):
                made.mux(with_message(packet, canaries))
        samples = np.frombuffer(canaries.text().encode().ljust(640, b"\0"), np.int16).reshape(1, -1)
        heard = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        heard.sample_rate = 8000
        made.mux(sound.encode(heard))
        for packet in stream.encode():
            made.mux(with_message(packet, canaries))
    return path


def with_message(packet: Any, canaries: Canaries) -> Any:
    """The packet behind an SEI message of free text (H.264, D.1.7: user_data_unregistered)."""
    from av import Packet

    text, data = canaries.text().encode(), bytes(packet)
    unit = b"\x06\x05" + bytes([16 + len(text)]) + bytes(range(1, 17)) + text + b"\x80"
    is_annex_b = data[:3] == b"\0\0\1" or data[:4] == b"\0\0\0\1"
    new = Packet((b"\0\0\0\1" if is_annex_b else struct.pack(">I", len(unit))) + unit + data)
    new.pts, new.dts, new.time_base, new.stream = packet.pts, packet.dts, packet.time_base, packet.stream
    new.is_keyframe, new.duration = packet.is_keyframe, packet.duration
    return new


def pictures(root: Path, canaries: Canaries) -> Path:
    """Pictures of one patient with dates in their names, in four formats; one is cut off, and a text lies beside them."""
    folder = named_folder(root, canaries)
    for number, date in enumerate(DATES):
        suffix = (".png", ".jpg", ".tif", ".bmp")[number % 4]
        picture(folder / f"{canaries.text()}_{canaries.keep(date)}{suffix}", canaries, number, texts=300)
    cut = folder / f"{canaries.text()}_{canaries.keep('20190701')}.png"
    cut.write_bytes(next(folder.glob("*.png")).read_bytes()[:-200])
    (folder / f"{canaries.text()}.txt").write_text(canaries.text())
    return folder


def picture(path: Path, canaries: Canaries, level: int, texts: int = 20) -> Path:
    """Pixels of one level, and canaries in chunks, EXIF, comment, profile, tags, and behind the end."""
    from PIL import Image, PngImagePlugin

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((24, 32), 100 + 10 * level, np.uint8))
    exif = Image.Exif()
    for tag in (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298):
        exif[tag] = canaries.text()
    exif.get_ifd(0x8769)[0x9286] = exif.get_ifd(0x8825)[0x001D] = canaries.text()
    how: dict[str, Any] = {"exif": exif, "icc_profile": canaries.text().encode() * 20}
    if path.suffix == ".png":
        how["pnginfo"] = PngImagePlugin.PngInfo()
        for number in range(texts):
            how["pnginfo"].add_itxt(canaries.text(), canaries.text(), zip=number % 2 == 1)
            how["pnginfo"].add_text(canaries.text(), canaries.text(), zip=number % 2 == 1)
    if path.suffix == ".jpg":
        how["comment"] = canaries.text().encode()
    image.save(path, **({} if path.suffix == ".bmp" else how))
    data = path.read_bytes()
    if path.suffix == ".jpg":  # segments of application data, as many as are asked for
        more = (canaries.text().encode() for _ in range(texts))
        data = data[:2] + b"".join(struct.pack(">BBH", 0xFF, 0xE3, len(text) + 2) + text for text in more) + data[2:]
    path.write_bytes(data + canaries.text().encode()[:8] * (path.suffix != ".png"))
    return path


# ---------------------------------------------------------------- samples: folder, and a table of labels beside it


def clips(folder: Path, canaries: Canaries) -> list[str]:
    names = []
    for _ in range(8):
        made = video(folder / "making", canaries, texts=100)
        names.append(f"{canaries.text()}/{canaries.text()}.mkv")
        (folder / names[-1]).parent.mkdir()
        made.rename(folder / names[-1])
    return names


def volumes_as_files(folder: Path, canaries: Canaries) -> list[str]:
    folder.mkdir(parents=True)
    names = [f"{canaries.text()}_{canaries.keep(date)}.nii.gz" for date in (*DATES, "20190711", "20190812")]
    for name in names:
        nifti(folder / name, canaries, times=2)
    return names


def folders_of_pictures(folder: Path, canaries: Canaries) -> list[str]:
    names = [canaries.text() for _ in range(8)]
    for name in names:
        for number, suffix in enumerate((".png", ".jpg", ".tif", ".png")):
            picture(folder / name / f"{canaries.text()} {number}{suffix}", canaries, number)
    return names


def folders_of_dicom(folder: Path, canaries: Canaries) -> list[str]:
    """Series of four slices, one of them with a file that is cut off."""
    names = [canaries.text() for _ in range(9)]
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        series, patient, study = f"1.2.3.{number}.5", canaries.text(), canaries.keep("19590101")
        for k, pixels in enumerate(volumes(1)[0]):
            made = classic(pixels, 3.0 * k, k + 1, SeriesInstanceUID=series, SOPInstanceUID=f"{series}.{k}", StudyDate=study)
            with any_values():
                plant_around(made, canaries)
                made.PatientName, made.PatientID = f"{canaries.text()}^{canaries.text()}", patient
                made.InstitutionName, made.StudyDescription, made.OperatorsName = (canaries.text() for _ in range(3))
                for place in range(40):
                    made.private_block(0x0019, "ACME", create=True).add_new(place, "LO", canaries.text())
            (folder / name / f"{canaries.text()}.dcm").write_bytes(as_bytes(made))
    others_beside(folder / names[-1], canaries)
    return names


def table_of(names: list[str], path: Path, canaries: Canaries) -> Path:
    """A table of labels, whose other columns, groups and lines of other files are canaries."""
    rows = [f"{name},{'ab'[n % 2]},{canaries.text()},{canaries.text()}" for n, name in enumerate(names)]
    rows += [f"{canaries.text()}.avi,a,{canaries.text()},{canaries.text()}" for _ in range(20)]
    path.write_text("\n".join([f"file,label,group,{canaries.text()}", *rows]) + "\n")
    return path
