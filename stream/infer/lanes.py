"""The order of work on a device: uploads, computation, downloads.

Invariant: a buffer, on the host or the device, is rewritten only after whoever read it last has finished, and the host
reads a result only after that batch's event. `Lanes` is the CPU's version, where everything is finished when the call
returns; `CudaLanes` overlaps copies with computation. The engine does not know which it has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from stream.frames import DepthMap


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


def lanes_for(device: torch.device) -> Lanes:
    """The lanes of a device."""
    return CudaLanes(device) if device.type == "cuda" else Lanes(device)
