"""How the phases of a batch are scheduled on a device.

`SerialExecutor` runs everything synchronously, `CpuExecutor` on one thread per phase, `CudaExecutor` on CUDA streams;
the engine is the same for all three.
Invariant: a buffer, on the host or the device, is reused only after its last reader has finished, and the host reads a
result only after that batch's download event.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from stream.frames import DepthMap

T = TypeVar("T")


class Phase(StrEnum):
    """The phases of a batch: frames to network inputs, the network, network outputs to depth maps."""

    PREPARE = "prepare"
    COMPUTE = "compute"
    FINISH = "finish"


class Event(Protocol):
    """A point in the work queued so far."""

    def synchronize(self) -> None:
        """Block the host until the point is reached."""
        ...

    def query(self) -> bool:
        """Whether the point is reached."""
        ...


class _Reached:
    """Without queues every point is reached as soon as it is recorded."""

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def query(self) -> bool:
        """It is."""
        return True


class SerialExecutor:
    """Runs everything at once, in order, on the calling thread; for devices without streams (MPS).

    The other executors inherit from it and replace what they do asynchronously.

    Attributes:
        in_flight: most batches that may be in flight.
    """

    in_flight = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def submit(self, phase: Phase, work: Callable[[], T]) -> "Future[T]":  # noqa: ARG002 - all phases run here
        """Start a phase of a batch. Here it has ended when this returns, and an exception is raised right away."""
        future: Future[T] = Future()
        future.set_result(work())
        return future

    def close(self) -> None:
        """Wait for the work submitted and release the threads. Idempotent."""

    def host_buffer(self, numel: int) -> Tensor:
        """A flat uint8 buffer on the host to upload from."""
        return torch.empty(numel, dtype=torch.uint8)

    def device_buffer(self, host: Tensor) -> Tensor:
        """The buffer that `host` is uploaded to; on a CPU `host` itself, so that uploading costs nothing."""
        return host.to(self.device)

    @contextmanager
    def uploading(self, after: Event | None) -> Iterator[None]:  # noqa: ARG002 - already reached
        """Queue the copies made in this context for after `after`."""
        yield

    @contextmanager
    def computing(self, after: Event | None) -> Iterator[None]:  # noqa: ARG002 - already reached
        """Queue the work done in this context for after `after`."""
        yield

    @contextmanager
    def downloading(self, after: Event | None) -> Iterator[None]:  # noqa: ARG002 - already reached
        """Queue the copies made in this context for after `after`."""
        yield

    def to_host(self, values: Tensor) -> Tensor:
        """`values` on the host; valid once the next event is reached."""
        return values.cpu()

    def to_array(self, values: Tensor) -> DepthMap:
        """Downloaded float32 `values` as an array that nothing else uses."""
        array: DepthMap = values.numpy()
        return array

    def event(self) -> Event:
        """Record the point reached by the work queued in the current context."""
        return _Reached()


class _PhaseThreads:
    """One thread per phase, shared by all engines of the process.

    OpenMP keeps a thread pool for every thread that ever computed with it, and once all pools together have more
    threads than there are cores, its threads no longer spin while they wait for one another: with a second pool the
    Swin transformer took 505 instead of 281 ms a frame on two cores. So a single thread runs all networks.

    Attributes:
        users: executors that use the threads.
    """

    def __init__(self) -> None:
        self.users = 0
        self._pools = {phase: ThreadPoolExecutor(1, thread_name_prefix=f"depthstream-{phase.value}") for phase in Phase}

    def submit(self, phase: Phase, work: Callable[[], T], torch_threads: int) -> "Future[T]":
        def run() -> T:
            if torch.get_num_threads() != torch_threads:  # a setting of each thread
                torch.set_num_threads(torch_threads)
            return work()

        return self._pools[phase].submit(copy_context().run, run)  # so that a note reaches the run that it belongs to

    def shutdown(self, *, wait: bool) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=wait)


@contextmanager
def without_pool() -> Iterator[None]:
    """Make torch work on the calling thread alone, so that OpenMP makes no pool for it; see `_PhaseThreads`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_CLOSE_TIMEOUT_S = 0.5
"""A large network takes seconds per frame and exporting one takes minutes: Ctrl-C must not wait for either."""
_lock = threading.Lock()
_shared: "weakref.ref[_PhaseThreads] | None" = None
"""Alive while any executor uses the threads."""


class CpuExecutor(SerialExecutor):
    """Runs each phase on a thread of its own, so that a core that the network leaves idle prepares the next frame or
    finishes the last one: that saves 5 of 24 ms a frame with `starter`.

    Args:
        threads: torch's threads for the network; the other phases use one each.
    """

    in_flight = len(Phase)

    def __init__(self, device: torch.device, threads: int) -> None:
        super().__init__(device)
        self._torch_threads = {Phase.PREPARE: 1, Phase.COMPUTE: threads, Phase.FINISH: 1}
        self._threads: _PhaseThreads | None = None
        self._submitted: deque[Future[Any]] = deque(maxlen=len(Phase) * (self.in_flight + 1))

    def submit(self, phase: Phase, work: Callable[[], T]) -> "Future[T]":
        """See `SerialExecutor`; work of the same phase runs in the order of submission."""
        future = self._acquired().submit(phase, work, self._torch_threads[phase])
        self._submitted.append(future)
        return future

    def close(self) -> None:
        """See `SerialExecutor`; work that has not begun is cancelled, and work that takes longer than
        `_CLOSE_TIMEOUT_S` ends by itself."""
        for future in self._submitted:
            future.cancel()
        is_idle = not wait(self._submitted, _CLOSE_TIMEOUT_S).not_done
        self._submitted.clear()
        with _lock:
            threads, self._threads = self._threads, None
            if threads is None:
                return
            threads.users -= 1
            is_last = not threads.users
        if is_last:
            threads.shutdown(wait=is_idle)

    def _acquired(self) -> _PhaseThreads:
        global _shared
        if self._threads is None:
            with _lock:
                threads = None if _shared is None else _shared()
                if threads is None or not threads.users:
                    threads = _PhaseThreads()
                    _shared = weakref.ref(threads)
                threads.users += 1
                self._threads = threads
        return self._threads


class CudaExecutor(SerialExecutor):
    """Uses one stream each for uploads, computation and downloads; with two batches in flight one uploads while the
    other computes.

    Uploads and downloads need separate streams: in a shared one the next upload would queue behind a download that
    waits for the computation.
    """

    in_flight = 2

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._uploads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._downloads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._compute = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host_buffer(self, numel: int) -> Tensor:
        """See `SerialExecutor`; pinned, so that copies are asynchronous."""
        return torch.empty(numel, dtype=torch.uint8, pin_memory=True)

    def device_buffer(self, host: Tensor) -> Tensor:
        """See `SerialExecutor`."""
        return torch.empty_like(host, device=self.device)

    @contextmanager
    def _on(self, stream: torch.cuda.Stream, after: Event | None) -> Iterator[None]:
        with torch.cuda.stream(stream):
            if isinstance(after, torch.cuda.Event):
                stream.wait_event(after)
            yield

    @contextmanager
    def uploading(self, after: Event | None) -> Iterator[None]:
        """See `SerialExecutor`."""
        with self._on(self._uploads, after):
            yield

    @contextmanager
    def computing(self, after: Event | None) -> Iterator[None]:
        """See `SerialExecutor`; fp32 means fp32 here.

        By default cuDNN convolves fp32 tensors in TF32, which has ten bits of mantissa. On an H200, `dpt_hybrid_384`
        was off by 0.16 standard deviations and eight other models by 3e-3 to 9e-3; without TF32 by 1.3e-4 and at most
        2e-5.
        """
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            with self._on(self._compute, after):
                yield
        finally:
            torch.backends.cudnn.allow_tf32 = before

    @contextmanager
    def downloading(self, after: Event | None) -> Iterator[None]:
        """See `SerialExecutor`."""
        with self._on(self._downloads, after):
            yield

    def to_host(self, values: Tensor) -> Tensor:
        """See `SerialExecutor`; in pinned memory, which torch's host allocator reuses only after the copy has ended."""
        return torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)

    def to_array(self, values: Tensor) -> DepthMap:
        """See `SerialExecutor`; a copy, since a program that keeps many depth maps must not pin as much memory."""
        array: DepthMap = values.numpy().copy()
        return array

    def event(self) -> Event:
        """See `SerialExecutor`; recorded in the current stream. Waiting for it blocks without spinning."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def executor_for(device: torch.device, threads: int) -> SerialExecutor:
    """The executor of a device; `threads` of torch's are for the network on a CPU."""
    if device.type == "cuda":
        return CudaExecutor(device)
    return CpuExecutor(device, threads) if device.type == "cpu" else SerialExecutor(device)
