"""Fixtures for every test: the shared real data, and an environment without side effects."""

import gc
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

from tests.thoroughness import EVERYTHING, LEFT_OUT

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `flows` does, before torch is loaded
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run beside each other: a thread that waits for its turn stops the others

# No deadline: times are not tested. In CI the same examples every time, so that a failure comes from a change.
settings.register_profile("driftline", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("driftline")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own for each test: what one run takes corrects the plans of later ones."""
    monkeypatch.setenv("DRIFTLINE_CACHE", str(tmp_path_factory.getbasetemp() / f"cache-{uuid4().hex}"))


@pytest.fixture(autouse=True)
def kept_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that decode files outlive an ingest, so that the next test need not wait until they have started."""
    monkeypatch.setattr("pipelines.sources.isolation.end_workers", lambda: None)


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, as in a container that is given a random number of one."""
    for name in ("HOME", "XDG_CACHE_HOME", "DRIFTLINE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    pwd = pytest.importorskip("pwd")

    def unknown(user: int) -> None:
        raise KeyError(f"uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("satellite/oscd")` is that folder of the real data; without it the test is skipped with the reason."""
    folder = Path(os.environ.get("DRIFTLINE_DATA", ROOT.parent / "shared" / "data"))

    def find(relative: str) -> Path:
        path = folder / relative
        if not path.exists():
            pytest.skip(f"real data not here: {path} (set DRIFTLINE_DATA to the folder that holds satellite/, medical/, digits/)")
        return path

    return find


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a separate moto server instead of S3, on a free port of 127.0.0.1. No traffic leaves this machine."""
    if find_spec("moto") is None:
        pytest.skip("moto is not installed: pip install 'driftline[dev]'")
    log = tmp_path_factory.mktemp("moto") / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=output, stderr=output
        )
        try:
            yield _wait_for_address(server, log)
        finally:
            server.terminate()
            server.wait(20)


def _wait_for_address(server: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        lines = [line for line in log.read_text().splitlines() if "Running on http://127.0.0.1:" in line]
        if lines:
            return lines[0].split("Running on ")[1].strip()
        time.sleep(0.1)
    pytest.fail(f"the moto server did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://cubes`, with the variables that lead to it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    # us-east-1 answers 200 for an existing bucket of the same owner
    make = urllib.request.Request(f"{s3_endpoint}/cubes", method="PUT", headers={"Host": "s3.amazonaws.com"})
    urllib.request.urlopen(make, timeout=20).close()
    return "s3://cubes"


def pytest_configure(config: pytest.Config) -> None:
    """Without torch (`make test-without-torch`) what needs it is skipped; with torch a failing import of it is a failure."""
    if find_spec("torch") is None:
        config.pluginmanager.register(TorchIsAbsent(), "torch-is-absent")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without those marked `exhaustive`, and the longest, unless all are asked for.

    Files with whole runs or slow tests first: the short ones fill what is left of a process's time at the end.
    """
    if not EVERYTHING:
        is_left_out = [bool(item.get_closest_marker("exhaustive")) or item.nodeid in LEFT_OUT for item in items]
        config.hook.pytest_deselected(items=[item for item, is_out in zip(items, is_left_out, strict=True) if is_out])
        items[:] = [item for item, is_out in zip(items, is_left_out, strict=True) if not is_out]
    marks = ("slow", "server")
    slow = {item.path for item in items if "flows" in item.path.parts or any(map(item.get_closest_marker, marks))}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What has been imported is kept out of every garbage collection: some seconds of each, in a process this large."""
    gc.collect()
    gc.freeze()


def needs_torch(error: BaseException | None) -> bool:
    """Whether `error`, or the error that it was raised from, is the failed import of torch."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            return True
        error = error.__cause__
    return False


class TorchIsAbsent:
    """Turns failed imports of torch into skips with a reason: of modules, of fixtures, and of tests that import it as they run.

    A plugin rather than hooks of this file: the hooks of a conftest do not see a folder whose own conftest cannot be imported.
    """

    REASON = "needs torch, which is not installed"

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if report.failed and needs_torch(report.call.excinfo.value):  # type: ignore[attr-defined]  # pytest sets it for the caller
            report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"Skipped: {self.REASON}")
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        if item.get_closest_marker("torch"):
            pytest.skip(self.REASON)
        yield from self.skipping()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, None, None]:
        yield from self.skipping()

    def skipping(self) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:
            if needs_torch(error):
                pytest.skip(self.REASON)
            raise
