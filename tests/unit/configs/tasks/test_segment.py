"""The schema of `task: segment`: what it cannot map is refused before anything is trained."""

import pytest

from configs.sources import DicomSource, MemorySource, SourceDefaults, VideoSource
from configs.tasks.segment import ClassPrediction


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        (DicomSource(kind="dicom", path="scans"), []),
        (VideoSource(kind="video", path="clip.avi"), ["source.kind"]),
        (MemorySource(kind="memory", bands=["red"]), []),
    ],
)
def test_class_maps_are_of_places_and_of_volumes(source: SourceDefaults, wrong: list[str]) -> None:
    assert [".".join(map(str, finding.key)) for finding in ClassPrediction().check({"source": source})] == wrong
