"""Workers that crash, hang, need too much or are killed: real processes, real signals, nothing patched."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from source_rasters import UTM, ramp, write_tiff

from pipelines.cube.ingest import IngestSettings, ingest
from pipelines.cube.store import open_cube
from pipelines.errors import MissingInput, SceneRefused
from pipelines.grid import Grid
from pipelines.scene import Band
from pipelines.sources.folder import FolderSource, list_files
from pipelines.sources.isolation import OVERHEAD_BYTES, START, Limits, end_workers, isolated
from pipelines.sources.layered import locate_bands
from pipelines.sources.layers import BandRequest
from pipelines.sources.worker import NUMBER

MB = 2**20
BIG = Grid(UTM.crs, UTM.transform, (3000, 3000))


def call(function, *args, limits=Limits()):  # noqa: B008  # frozen
    return isolated(function, *args, label="s1", paths=[Path("deep/a.tif"), "b.tif"], limits=limits)


@pytest.mark.parametrize(
    ("function", "args", "limits", "message"),
    [
        (signal.raise_signal, (signal.SIGSEGV,), Limits(), "was killed by signal 11 while reading a.tif, b.tif; the file may be"),
        (os.abort, (), Limits(), "was killed by signal 6 while reading a.tif, b.tif"),
        (
            signal.raise_signal,
            (signal.SIGKILL,),
            Limits(),
            "signal 9 while reading a.tif, b.tif; the system does",
        ),
        (os._exit, (3,), Limits(), "ended with exit code 3 while reading a.tif, b.tif"),
        (time.sleep, (600,), Limits(seconds=0.2), "reading a.tif, b.tif took longer than 0.2 s"),
        (np.ones, (300 * MB, "u1"), Limits(64 * MB), "reading a.tif, b.tif needed more than 192 MB; raise cube.memory_mb"),
        (np.ones, (300 * MB, "u1"), Limits(64 * MB, 2), "reading a.tif, b.tif needed more than 192 MB; raise cube.memory_mb"),
    ],
)
def test_a_worker_that_fails_refuses_the_scene_and_the_next_call_works(function, args, limits, message):
    with pytest.raises(SceneRefused, match=message) as caught:
        call(function, *args, limits=limits)
    assert (caught.value.scene_id, caught.value.reason) == ("s1", "unreadable")
    assert call(os.getpid) != os.getpid()


def test_a_file_that_takes_too_long_is_waited_for_once(tmp_path):
    path = write_tiff(tmp_path / "slow.tif")
    for seconds in (0.3, 30.0):
        started = time.monotonic()
        with pytest.raises(SceneRefused, match=r"reading slow.tif took longer than 0.3 s"):
            isolated(time.sleep, 600, label="s1", paths=[path], limits=Limits(seconds=seconds))
        assert time.monotonic() - started < 25
    write_tiff(path, ramp((8, 8)))
    assert isolated(os.getpid, label="s1", paths=[path]) != os.getpid()


COMPUTE = "import os, time\nos.sched_setaffinity(0, {cpus})\nwhile time.process_time() < {cpu_s}: pass"


@pytest.mark.skipif(sys.platform != "linux", reason="CPUs of a process are set on Linux")
def test_a_decoder_that_waits_for_a_cpu_is_not_called_slow():
    """Four others on its CPU: half a second of work takes two and a half; one that does not end is ended all the same."""
    cpus = {min(os.sched_getaffinity(0))}
    others = [subprocess.Popen([sys.executable, "-c", COMPUTE.format(cpus=cpus, cpu_s=60)]) for _ in range(4)]
    try:
        end_workers()  # the CPU time of a worker counts from its start
        call(exec, COMPUTE.format(cpus=cpus, cpu_s=0.5), limits=Limits(seconds=1.0))
        with pytest.raises(SceneRefused, match=r"took longer than 0.4 s"):
            call(exec, COMPUTE.format(cpus=cpus, cpu_s=600), limits=Limits(seconds=0.4))
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_what_exceeds_its_share_of_the_memory_is_read_alone_with_all_of_it():
    needed = OVERHEAD_BYTES + 16 * MB
    assert call(np.ones, needed, "u1", limits=Limits(64 * MB, 8)).sum() == needed


KEPT = []


def keep(size_bytes):
    """What a decoder's cache does."""
    KEPT.append(np.ones(size_bytes, "u1"))


def not_mapped():
    raise ImportError("_nd_image.so: failed to map segment from shared object")


def test_memory_that_a_worker_has_kept_is_not_taken_from_the_next_call():
    limits = Limits(64 * MB)
    call(keep, 100 * MB, limits=limits)
    assert call(np.ones, 150 * MB, "u1", limits=limits).sum() == 150 * MB


def test_a_library_that_does_not_fit_is_a_lack_of_memory():
    with pytest.raises(SceneRefused, match=r"needed more than 192 MB; raise cube\.memory_mb"):
        call(not_mapped, limits=Limits(64 * MB))


def test_a_worker_is_kept_and_arrays_come_back_writable():
    assert call(os.getpid) == call(os.getpid)
    image = call(ramp)
    np.testing.assert_array_equal(image, ramp())
    image += 1


def test_exceptions_keep_type_attributes_and_place(tmp_path):
    with pytest.raises(MissingInput, match="no such folder"):
        call(list_files, tmp_path / "nothing")
    with pytest.raises(SceneRefused) as caught:
        call(locate_bands, tmp_path, BandRequest((Band("red"),)), {"nir": "a.tif"}, "s2")
    assert (caught.value.scene_id, caught.value.reason) == ("s2", "missing-band")
    with pytest.raises(ZeroDivisionError) as found:
        call(divmod, 1, 0)
    assert "in a worker" in found.value.__notes__[0]


def test_relative_paths_are_those_of_the_program(tmp_path, monkeypatch):
    call(os.getpid)
    monkeypatch.chdir(tmp_path)
    assert call(os.getcwd) == str(tmp_path)


def test_calls_of_many_threads_get_their_own_answers():
    with ThreadPoolExecutor(8) as pool:
        numbers = [*range(200)]
        assert list(pool.map(lambda n: call(os.abort) if n < 0 else call(abs, -n), numbers)) == numbers


# ---------------------------------------------------------------- in an ingest


def folder(path: Path) -> FolderSource:
    return FolderSource(path=path, requested=BandRequest((Band("v"),)), pattern="{date:%Y%m%d}.tif")


def workers() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def kill_whoever_reads(path: Path, is_over: threading.Event) -> None:
    while not is_over.is_set():
        for process in workers():
            try:
                if any(file.path == str(path) for file in process.open_files()):
                    process.kill()
            except psutil.Error:
                continue
        time.sleep(0.002)


def test_a_decoder_that_dies_again_and_again_costs_its_scene_only(tmp_path):
    noise = np.random.default_rng(0).integers(1, 60_000, BIG.shape_yx, "uint16")
    for day in range(1, 5):
        write_tiff(tmp_path / f"2020010{day}.tif", noise, grid=BIG, compress="deflate")
    is_over = threading.Event()
    killer = threading.Thread(target=kill_whoever_reads, args=(tmp_path / "20200102.tif", is_over))
    killer.start()
    try:
        report = ingest(folder(tmp_path), None, str(tmp_path / "cube"), BIG, IngestSettings())
    finally:
        is_over.set()
        killer.join()
    assert report.added == ("20200101", "20200103", "20200104")
    (refused,) = report.refused
    assert "20200102: unreadable: the decoder was killed by signal 9 while reading 20200102.tif" in str(refused)
    again = ingest(folder(tmp_path), None, str(tmp_path / "cube"), BIG, IngestSettings(retry_refused=True))
    assert (again.added, again.refused) == (("20200102",), ())


def test_workers_that_are_killed_once_cost_nothing(tmp_path):
    for day in range(1, 9):
        write_tiff(tmp_path / f"2020010{day}.tif", ramp(start=day))

    others = set(workers())  # of other tests

    def kill_all(done: int, total: int) -> None:
        if done == 2:
            for process in set(workers()) - others:  # the server, too
                process.kill()

    report = ingest(folder(tmp_path), None, str(tmp_path / "cube"), None, IngestSettings(), kill_all)
    assert (len(report.added), report.refused) == (8, ())
    values = open_cube(str(tmp_path / "cube")).image.values[:, 0]
    np.testing.assert_array_equal(values, [ramp(start=day) for day in range(1, 9)])


def test_the_server_of_a_program_that_was_killed_ends_without_a_word():
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", START, str(theirs.fileno()), json.dumps(sys.path), "[]"]
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    ours.sendall(NUMBER.pack(0))
    ours.close()
    assert server.communicate(timeout=60)[1] == b""


def test_a_block_that_does_not_fit_into_memory_refuses_its_scene(tmp_path):
    write_tiff(tmp_path / "20200101.tif", ramp())
    zeros = np.ones((9000, 9000), "uint16")  # 162 MB in one strip
    write_tiff(tmp_path / "20200102.tif", zeros, compress="deflate", blockysize=9000)
    report = ingest(folder(tmp_path), None, str(tmp_path / "cube"), UTM, IngestSettings(memory_mb=16, on_other_grid="reproject"))
    assert report.added == ("20200101",)
    assert "reading 20200102.tif needed more than 144 MB; raise cube.memory_mb" in str(report.refused[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_the_program(number):
    script = "import time; from pipelines.sources.isolation import isolated; isolated(time.sleep, 600, label='', paths=[])"
    program = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    deadline, found = time.monotonic() + 30, []
    while len(found) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        found = psutil.Process(program.pid).children(recursive=True)
    assert len(found) == 2
    program.send_signal(number)
    program.wait(20)
    _, left = psutil.wait_procs(found, 10)
    assert left == []
