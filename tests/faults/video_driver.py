"""Reads every video of a folder and prints what became of each, a JSON line a file: a process of its own, which may die."""

import json
import sys
from pathlib import Path

from pipelines.errors import DriftlineError
from pipelines.scene import Band
from pipelines.sources.image_bands import ImageRequest
from pipelines.sources.video import VideoSource

for path in sorted(Path(sys.argv[1]).iterdir()):
    source = VideoSource(path, ImageRequest((Band("gray"),), ("gray",)))
    try:
        scenes = source.list_scenes().scenes
        for scene in scenes[::5]:
            source.read(scene, source.native_grid(), ("gray",), "nearest")
        print(json.dumps([path.name, f"{len(scenes)} frames"]), flush=True)
    except DriftlineError as e:
        print(json.dumps([path.name, f"refused: {e}"]), flush=True)
