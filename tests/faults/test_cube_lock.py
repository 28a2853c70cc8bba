import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import exclusive_writer, head_snapshot, open_cube
from pipelines.errors import CubeBusy, StorageFull
from pipelines.sources.fake import FakeSource

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pipelines.cube.store import exclusive_writer
with exclusive_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_names_its_owner_and_ends_with_it(tmp_path):
    uri = str(tmp_path / "cube")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, uri], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CubeBusy, match=rf"being written by process {holder.pid} on .* since 2\d\d\d-"), exclusive_writer(uri):
            pass
        with pytest.raises(CubeBusy, match=rf"process {holder.pid} "):
            ingest(FakeSource(dates=1), None, uri, None, IngestSettings())
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        deadline = time.monotonic() + 10
        while True:  # the kernel releases the lock when it has reaped the process
            try:
                with exclusive_writer(uri):
                    break
            except CubeBusy:
                assert time.monotonic() < deadline, "the lock outlived its owner"
                time.sleep(0.05)
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()


def test_the_same_process_cannot_write_twice_at_once(tmp_path):
    uri = str(tmp_path / "cube")
    with exclusive_writer(uri), pytest.raises(CubeBusy, match=f"process {os.getpid()} "), exclusive_writer(uri):
        pass
    with exclusive_writer(uri):
        pass


FULL = """
import resource, sys
from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.errors import StorageFull
from pipelines.sources.fake import FakeSource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    ingest(FakeSource(dates=4, shape_yx=(128, 128)), None, sys.argv[1], None, IngestSettings(chunk_px=128))
except StorageFull as e:
    print("full:", e)
"""


def test_a_full_disk_leaves_the_cube_unchanged(tmp_path):
    """A file size limit of 4 KB simulates a full disk: the same call fails, with EFBIG instead of ENOSPC."""
    uri = str(tmp_path / "cube")
    settings = IngestSettings(chunk_px=128)
    ingest(FakeSource(dates=2, shape_yx=(128, 128)), None, uri, None, settings)
    before, pixels = head_snapshot(uri), open_cube(uri).image.values
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, uri], capture_output=True, text=True, env=environment, check=False, timeout=600
    )
    assert "full: no space left for the cube" in done.stdout, done.stdout + done.stderr
    assert "run the same command again" in done.stdout
    assert head_snapshot(uri) == before
    assert (open_cube(uri).image.values == pixels).all()
    assert len(ingest(FakeSource(dates=4, shape_yx=(128, 128)), None, uri, None, settings).added) == 2


def test_enospc_raises_storage_full(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.cube.steps.PixelStore.write", full)
    with pytest.raises(StorageFull, match="what was committed before is intact"):
        ingest(FakeSource(dates=2), None, str(tmp_path / "cube"), None, IngestSettings())
