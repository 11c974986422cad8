"""What `stream.iter_depth` returns: an iterator that any thread may stop.

Invariant: one thread at a time is in the generator behind it.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from stream.frames import Depth, Frame
    from stream.jobs.supervise import StopSign


class DepthIterator(Iterator["tuple[Frame, Depth]"]):
    """The frames of a source with their depth, in order.

    `stop` and `close` end it; `with` closes it, and so does letting go of it.
    """

    def __init__(
        self, start: "Callable[[StopSign], Generator[tuple[Frame, Depth]]]", stop: "StopSign | None" = None
    ) -> None:
        self._stop = _Stop(stop)
        self._results = start(self._stop)
        self._lock = threading.RLock()

    def __next__(self) -> "tuple[Frame, Depth]":
        with self._lock:
            return next(self._results)

    def stop(self) -> None:
        """End the iteration before the next result, from any thread; never blocks.

        A `next` that is waiting for a live source wakes up within a twentieth of a second.
        """
        self._stop.event.set()

    def close(self) -> None:
        """End the iteration, from any thread, and wait until it has ended; idempotent."""
        self.stop()
        with self._lock, suppress(ValueError):  # a callback closes it within `next`, which then sees the stop
            self._results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class _Stop:
    """Set by the iterator or by the caller's own sign."""

    def __init__(self, other: "StopSign | None") -> None:
        self.event, self._other = threading.Event(), other

    def is_set(self) -> bool:
        return self.event.is_set() or (self._other is not None and self._other.is_set())
