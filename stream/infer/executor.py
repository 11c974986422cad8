"""The order of work on a device: uploads, computation, downloads.

Invariant: a buffer, on the host or the device, is rewritten only after whoever read it last has finished, and the host
reads a result only after that batch's event. In `Lanes` everything is finished when the call returns; `CpuLanes` gives
each step of a batch a thread, `CudaLanes` each kind of work a stream. The engine does not know which it has.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from stream.frames import DepthMap

T = TypeVar("T")


class Lane(StrEnum):
    """The steps of a batch: to network inputs, through the network, to depth maps."""

    PREPARE = "prepare"
    COMPUTE = "compute"
    FINISH = "finish"


class Task(Generic[T]):
    """A step that was started; `result` waits for it and gives, or raises, what it came to."""

    def __init__(self, future: "Future[T]") -> None:
        self._future = future

    def result(self) -> T:
        """What the step came to."""
        return self._future.result()

    def is_done_well(self) -> bool:
        """It has ended, and gave something."""
        future = self._future
        return future.done() and not future.cancelled() and future.exception() is None


class Event(Protocol):
    """A point in the work queued so far."""

    def synchronize(self) -> None:
        """Make the host wait until it is reached."""
        ...


class _Reached:
    """On the CPU every point is reached when it is made."""

    def synchronize(self) -> None:
        """Nothing to wait for."""


class Lanes:
    """Everything runs in order, at once; also for devices without streams (mps)."""

    depth = 1
    """Batches in flight."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self, lane: Lane, work: Callable[[], T]) -> Task[T]:  # noqa: ARG002 - there is one
        """Start a step of a batch; here it is done when this returns, and raises what it raises."""
        future: Future[T] = Future()
        future.set_result(work())
        return Task(future)

    def close(self) -> None:
        """Wait for what was started and release threads. Idempotent."""

    def host_buffer(self, numel: int) -> Tensor:
        """A flat uint8 host buffer fit for uploads."""
        return torch.empty(numel, dtype=torch.uint8)

    def device_buffer(self, host: Tensor) -> Tensor:
        """What `host` is uploaded to: on the CPU `host` itself, so that uploading costs nothing."""
        return host.to(self.device)

    @contextmanager
    def uploading(self, after: Event | None) -> Iterator[None]:  # noqa: ARG002 - already reached
        """Copies queued inside start after `after`."""
        yield

    @contextmanager
    def computing(self, after: Event | None) -> Iterator[None]:  # noqa: ARG002 - already reached
        """Work queued inside starts after `after`."""
        yield

    @contextmanager
    def downloading(self, after: Event | None) -> Iterator[None]:  # noqa: ARG002 - already reached
        """Copies queued inside start after `after`."""
        yield

    def to_host(self, values: Tensor) -> Tensor:
        """`values` on the host, once the next event is reached."""
        return values.cpu()

    def owned(self, values: Tensor) -> DepthMap:
        """Downloaded float32 `values` as an array that nothing else uses."""
        array: DepthMap = values.numpy()
        return array

    def event(self) -> Event:
        """The point reached by the work queued in the current lane."""
        return _Reached()


class _Workers:
    """A thread for each step, shared by all engines of the process.

    OpenMP keeps a pool of threads for every thread that ever computed with it, and its threads no longer spin while
    they wait for one another when all pools together are larger than the processor: with a second pool the Swin
    transformer took 505 instead of 281 ms a frame on two cores. So one thread alone runs networks.
    """

    def __init__(self) -> None:
        self.users = 0
        self._executors = {lane: ThreadPoolExecutor(1, thread_name_prefix=f"depthstream-{lane.value}") for lane in Lane}

    def submit(self, lane: Lane, work: Callable[[], T], threads: int) -> "Future[T]":
        def done() -> T:
            if torch.get_num_threads() != threads:  # each thread's own
                torch.set_num_threads(threads)
            return work()

        return self._executors[lane].submit(done)

    def shutdown(self, *, wait: bool) -> None:
        for executor in self._executors.values():
            executor.shutdown(wait=wait)


@contextmanager
def without_pool() -> Iterator[None]:
    """torch works in the calling thread alone inside, so that it gets no pool of OpenMP's, see `_Workers`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_PATIENCE_S = 0.5
"""A large network takes seconds for a frame, and converting one minutes: Ctrl-C does not wait for them."""
_lock = threading.Lock()
_shared: "weakref.ref[_Workers] | None" = None
"""While any lanes use them."""


class CpuLanes(Lanes):
    """A thread for each step, so that a core that the network leaves idle resizes the next frame's picture and the last
    one's depth: 5 of 24 ms a frame for `starter`.

    Args:
        threads: torch's, for the network; the other steps have one.
    """

    depth = len(Lane)

    def __init__(self, device: torch.device, threads: int) -> None:
        super().__init__(device)
        self._threads = {Lane.PREPARE: 1, Lane.COMPUTE: threads, Lane.FINISH: 1}
        self._workers: _Workers | None = None
        self._started: deque[Future[Any]] = deque(maxlen=len(Lane) * (self.depth + 1))

    def start(self, lane: Lane, work: Callable[[], T]) -> Task[T]:
        """See `Lanes`; steps of the same lane are done in the order in which they were started."""
        future = self._acquired().submit(lane, work, self._threads[lane])
        self._started.append(future)
        return Task(future)

    def close(self) -> None:
        """See `Lanes`; what has not begun is not done, and what takes longer than `_PATIENCE_S` ends by itself."""
        for future in self._started:
            future.cancel()
        is_idle = not wait(self._started, _PATIENCE_S).not_done
        self._started.clear()
        with _lock:
            workers, self._workers = self._workers, None
            if workers is None:
                return
            workers.users -= 1
            is_last = not workers.users
        if is_last:
            workers.shutdown(wait=is_idle)

    def _acquired(self) -> _Workers:
        global _shared
        if self._workers is None:
            with _lock:
                workers = None if _shared is None else _shared()
                if workers is None or not workers.users:
                    workers = _Workers()
                    _shared = weakref.ref(workers)
                workers.users += 1
                self._workers = workers
        return self._workers


class CudaLanes(Lanes):
    """A stream each for uploads, computation and downloads; depth 2, so that a batch uploads while another computes.

    With one stream for both copies the next upload would queue behind a download that waits for the computation.
    """

    depth = 2

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._uploads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._downloads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._compute = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host_buffer(self, numel: int) -> Tensor:
        """Pinned, so that copies are asynchronous."""
        return torch.empty(numel, dtype=torch.uint8, pin_memory=True)

    def device_buffer(self, host: Tensor) -> Tensor:
        """See `Lanes`."""
        return torch.empty_like(host, device=self.device)

    @contextmanager
    def _on(self, stream: torch.cuda.Stream, after: Event | None) -> Iterator[None]:
        with torch.cuda.stream(stream):
            if isinstance(after, torch.cuda.Event):
                stream.wait_event(after)
            yield

    @contextmanager
    def uploading(self, after: Event | None) -> Iterator[None]:
        """See `Lanes`."""
        with self._on(self._uploads, after):
            yield

    @contextmanager
    def computing(self, after: Event | None) -> Iterator[None]:
        """See `Lanes`."""
        with self._on(self._compute, after):
            yield

    @contextmanager
    def downloading(self, after: Event | None) -> Iterator[None]:
        """See `Lanes`."""
        with self._on(self._downloads, after):
            yield

    def to_host(self, values: Tensor) -> Tensor:
        """Into pinned memory, which torch's host allocator reuses only after the copy has finished."""
        return torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)

    def owned(self, values: Tensor) -> DepthMap:
        """A copy: a program that keeps many depth maps must not pin as much memory."""
        array: DepthMap = values.numpy().copy()
        return array

    def event(self) -> Event:
        """Recorded in the current stream; waiting for it blocks without spinning."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def lanes_for(device: torch.device, threads: int) -> Lanes:
    """The lanes of a device; `threads` of torch, on a CPU."""
    if device.type == "cuda":
        return CudaLanes(device)
    return CpuLanes(device, threads) if device.type == "cpu" else Lanes(device)
