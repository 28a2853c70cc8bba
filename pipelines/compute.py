"""Where pieces of work are done: threads or processes of this machine, or the workers of a Dask cluster (docs/design/027).

    work.open() -> function of a piece      once per process that works: opens the cube, keeps the model
    for result in carry_out(work, pieces, compute): ...

A piece writes its own part and nothing else, and may be done twice: a lost worker changes nothing.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from pipelines.errors import RequestError, StateError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster, Worker, WorkerPlugin

Result = TypeVar("Result", covariant=True)
BREAKS_IN_A_ROW = 3  # pools of processes that ended without a single piece done
SECONDS_TO_CONNECT = 30
SECONDS_WITHOUT_WORKERS = 60
SPAWNED = {"distributed.worker.multiprocessing-method": "spawn"}


class Work(Protocol[Result]):
    """Something to be done piece by piece; picklable where other processes do it."""

    @property
    def key(self) -> str:
        """Names what is opened: a worker opens it once."""

    @property
    def on_gpu(self) -> bool:
        """Whether a piece takes a GPU."""

    def open(self) -> Callable[[Any], Result]:
        """The function of a piece; called once per process."""

    def limit(self, threads: int) -> None:
        """Called in each thread that works beside others, before its first piece: so many threads may a piece use itself."""


@dataclass(frozen=True)
class Tls:
    """Files (PEM) by which client, scheduler and workers know each other: authority, certificate and its private key."""

    ca: str
    cert: str
    key: str


@dataclass(frozen=True)
class Compute:
    """Where pieces are done. `workers`: threads or processes at a time (None: one thread, or one process per core; one per GPU).

    `address`: of a Dask scheduler; "" starts workers on this machine. `gpus`: work that can use a GPU takes one; of Dask's
    workers, those with the resource GPU.
    """

    kind: Literal["threads", "processes", "dask"] = "threads"
    workers: int | None = None
    address: str = ""
    gpus: bool = False
    tls: Tls | None = None

    @property
    def is_local(self) -> bool:
        """Whether all of it is in this process."""
        return self.kind == "threads"

    @property
    def at_once(self) -> int:
        """Threads or processes of this machine."""
        return self.workers or (1 if self.is_local or self.gpus else os.cpu_count() or 1)


HERE = Compute()


def is_here(host: str) -> bool:
    """Whether a host is this machine; a scheduler elsewhere is asked for TLS."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def carry_out(work: Work[Result], pieces: Sequence[Any], compute: Compute, *, is_little: bool = False) -> Iterator[Result]:
    """The results, as pieces are done, in any order. Raises what a piece raised; StateError where workers keep being lost.

    Whoever stops iterating stops the work: what has not begun is not begun. is_little: starting processes would take longer than
    all pieces; as many threads of this process do them, with the bytes that processes would have written.
    """
    match compute.kind:
        case "processes" | "dask" if is_little and not compute.address:
            yield from _in_threads(work, pieces, compute.at_once, own=1)
        case "threads":
            yield from _in_threads(work, pieces, compute.at_once)
        case "processes":
            yield from _in_processes(work, pieces, min(compute.at_once, max(len(pieces), 1)))
        case "dask":
            yield from _with_dask(work, pieces, compute)


def _do(do: Callable[[Any], Result], piece: Any) -> Result:
    """The result; an error says at which piece it happened."""
    try:
        return do(piece)
    except Exception as e:
        e.add_note(f"at {piece}")
        raise


def _in_threads(work: Work[Result], pieces: Sequence[Any], workers: int, own: int | None = None) -> Iterator[Result]:
    """`own`: threads that a piece may use itself; default: all, or a share of them where pieces are done beside each other."""
    do = partial(_do, work.open())
    if own is None and (workers <= 1 or len(pieces) <= 1):
        yield from map(do, pieces)
        return
    share = own or max(1, (os.cpu_count() or 1) // workers)
    with threadpool_limits(share), ThreadPoolExecutor(workers, "pieces", initializer=work.limit, initargs=(share,)) as pool:
        yield from results_of([pool.submit(do, piece) for piece in pieces])


def results_of(futures: list[Future[Result]]) -> Iterator[Result]:
    """In the order in which they end. Raises what one raised; whoever stops iterating keeps those back that have not begun."""
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


# ---------------------------------------------------------------- processes of this machine


def _in_processes(work: Work[Result], pieces: Sequence[Any], workers: int) -> Iterator[Result]:
    """A process that dies breaks its pool; what is left goes to a new one."""
    from multiprocessing import get_context

    left, breaks = dict(enumerate(pieces)), 0
    while left:
        count = len(left)
        with ProcessPoolExecutor(workers, get_context("spawn"), _open_here, (work,)) as pool:
            futures = {pool.submit(_do_here, piece): number for number, piece in left.items()}
            try:
                for future in as_completed(futures):
                    result = future.result()
                    del left[futures[future]]
                    yield result
            except BrokenProcessPool as e:
                futures = {}  # the pool fails them itself, and stumbles over those that are cancelled meanwhile
                breaks = breaks + 1 if len(left) == count else 0
                if breaks >= BREAKS_IN_A_ROW:
                    raise StateError(
                        f"worker processes ended {breaks} times in a row without finishing anything (out of memory, or killed); "
                        "lower compute.workers or prediction.tile_px; what is finished is kept"
                    ) from e
            finally:
                for future in futures:
                    future.cancel()


_opened: Callable[[Any], Any] | None = None


def _open_here(work: Work[Any]) -> None:
    """A process has one thread, as Dask's workers have: with more, products of matrices may differ in the last bit."""
    global _opened
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    work.limit(1)
    try:
        _opened = partial(_do, work.open())
    except Exception as e:  # raised here it would break the pool without a word
        _opened = partial(_raise, e)


def _raise(error: Exception, piece: Any) -> None:
    raise error


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    if (parent := parent_process()) is not None:
        wait([parent.sentinel])
        os._exit(1)


def _do_here(piece: Any) -> Any:
    assert _opened is not None
    return _opened(piece)


# ---------------------------------------------------------------- Dask


def _with_dask(work: Work[Result], pieces: Sequence[Any], compute: Compute) -> Iterator[Result]:
    from distributed import Future, KilledWorker

    on_gpu, futures = compute.gpus and work.on_gpu, list[Future[Result]]()
    with connected(compute, len(pieces), on_gpu=on_gpu) as client, client.as_current():
        name = f"driftline-{work.key[:16]}-{secrets.token_hex(4)}"  # another program may do the same work on these workers
        client.register_plugin(_opener(work, on_gpu), name=name)
        try:
            futures = client.map(_do_there, pieces, opened=name, pure=False, resources={"GPU": 1} if on_gpu else None)
            for future in _as_they_end(client, futures):
                yield future.result()
                future.release()
        except KilledWorker as e:
            raise StateError(f"Dask workers keep being lost ({e}): out of memory, or killed; what is finished is kept") from e
        finally:
            client.cancel(futures)
            client.unregister_worker_plugin(name)


def _as_they_end(client: Client, futures: Sequence[Any]) -> Iterator[Any]:
    """The futures in the order in which they end. Raises StateError where no worker is left, for which Dask would wait."""
    from distributed import wait

    left = set(futures)
    while left:
        try:
            ended, left = wait(left, timeout=SECONDS_WITHOUT_WORKERS, return_when="FIRST_COMPLETED")
        except TimeoutError:
            if not client.scheduler_info(n_workers=-1)["workers"]:
                raise StateError(
                    f"no Dask worker is left at {client.scheduler_info()['address']}; what is finished is kept"
                ) from None
            continue
        yield from ended


@contextmanager
def local_cluster(workers: int, resources: dict[str, int] | None = None) -> Iterator[LocalCluster]:
    """Workers of Dask on this machine, with a thread each, which nobody else reaches.

    Dask has workers return memory at once (MALLOC_TRIM_THRESHOLD_): then every large array is mapped anew, and its pages are
    cleared, which cost half of the time of monitoring. So the variables that it sets are replaced by those of the threads alone.
    Errors of the work reach the client; what workers log of a scheduler that ends before them is kept from the terminal.
    """
    import dask
    import distributed

    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (
        dask.config.set({**SPAWNED, "distributed.nanny.pre-spawn-environ": one_thread}),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            resources=resources,
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield cluster


@contextmanager
def connected(compute: Compute, most: int, *, on_gpu: bool = False) -> Iterator[Client]:
    """A client of the scheduler at `compute.address`, or of workers started on this machine, at most `most`.

    Raises RequestError where no scheduler answers or none of its workers has what is asked for.
    """
    import dask
    import distributed

    if not compute.address:
        workers, resources = min(compute.at_once, max(most, 1)), {"GPU": 1} if on_gpu else None
        with local_cluster(workers, resources) as cluster, distributed.Client(cluster, set_as_default=False) as client:
            yield client
        return
    with dask.config.set(SPAWNED):
        try:
            security = _security(compute.tls) if compute.tls else None
            client = distributed.Client(compute.address, security=security, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, TimeoutError) as e:
            raise RequestError(
                f"no Dask scheduler answers at {compute.address} ({e}); correct compute.address, or start one"
            ) from e
        with client:
            _require_workers(client, compute.address, on_gpu)
            yield client


def _security(tls: Tls) -> Any:
    from distributed import Security

    return Security(tls_ca_file=tls.ca, tls_client_cert=tls.cert, tls_client_key=tls.key, require_encryption=True)


def _require_workers(client: Client, address: str, on_gpu: bool) -> None:
    """A task that no worker may do would wait without a word."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        raise RequestError(f"the Dask scheduler at {address} has no workers; start some: dask worker {address}")
    if on_gpu and not any(worker["resources"].get("GPU") for worker in workers):
        start = f'CUDA_VISIBLE_DEVICES=0 dask worker {address} --nthreads 1 --resources "GPU=1"'
        raise RequestError(f"compute.gpus: none of the {len(workers)} workers at {address} has a GPU; start one: {start}")


def _opener(work: Work[Any], on_gpu: bool) -> WorkerPlugin:
    """A worker plugin that opens the work once, on workers that join later too."""
    from distributed import WorkerPlugin

    class Opener(WorkerPlugin):
        def setup(self, worker: Worker) -> None:
            self.limited = threading.local()
            if not on_gpu or worker.state.total_resources.get("GPU"):
                try:
                    self.do: Callable[[Any], Any] = partial(_do, work.open())
                except Exception as e:  # a task's error reaches the client as what it is
                    self.do = partial(_raise, e)

        def __call__(self, piece: Any) -> Any:
            if not hasattr(self.limited, "is_set"):
                work.limit(1)
                self.limited.is_set = True
            return self.do(piece)

    return Opener()


def _do_there(piece: Any, opened: str) -> Any:
    from distributed import get_worker

    plugin: Any = get_worker().plugins[opened]
    return plugin(piece)
