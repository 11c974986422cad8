"""The bounded queue between two stages; imports the standard library only.

Invariant: after `close` the reader drains the queue and then gets the end of stream; after `abort` both ends raise at
once. Either wakes every waiting thread, so no stage can hang because another one has ended.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")
_WAKE_S = 0.5
"""Longest single wait: a missed notification costs half a second and not a hang."""


class WhenFull(StrEnum):
    """What `put` does when the channel is full."""

    BLOCK = "block"
    """Wait until the reader has taken an item: lossless."""
    DROP_OLDEST = "drop_oldest"
    """Drop the oldest queued item, so that the reader gets the newest."""


class Closed(Exception):
    """The channel is closed: raised by `put`, and by `get` once the queue is drained."""


class Channel(Generic[T]):
    """A thread-safe FIFO queue of at most `capacity` items for one writer and one reader.

    Args:
        capacity: at least 1.
        when_full: see `WhenFull`.
        clock: monotonic seconds; measures how long each end waits.
    """

    def __init__(
        self, capacity: int, when_full: WhenFull = WhenFull.BLOCK, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be ≥ 1, got {capacity}")
        self.capacity = capacity
        self.when_full = when_full
        self._clock = clock
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None
        self.put_wait_s = 0.0
        """Seconds that the writer has waited for the reader."""
        self.get_wait_s = 0.0
        """Seconds that the reader has waited for items."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> T | None:
        """Append `item` and return the item that was dropped for it, if any.

        Raises:
            Closed: the channel is closed.
            BaseException: the error that the channel was aborted with.
        """
        with self._changed:
            if self.when_full is WhenFull.BLOCK and len(self._items) >= self.capacity:
                self.put_wait_s += self._wait(lambda: len(self._items) < self.capacity, None)
            self._raise_if_aborted()
            if self._closed:
                raise Closed
            dropped: T | None = None
            if len(self._items) >= self.capacity:
                dropped = self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()
            return dropped

    def get(self, timeout_s: float | None = None) -> T:
        """Remove and return the oldest item, waiting up to `timeout_s` seconds for one (None: no limit).

        Raises:
            TimeoutError: no item arrived in time.
            Closed: the channel is closed and drained.
            BaseException: the error that the channel was aborted with.
        """
        with self._changed:
            if not self._items:
                self.get_wait_s += self._wait(lambda: bool(self._items), timeout_s)
            self._raise_if_aborted()
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._closed:
                raise Closed
            raise TimeoutError(f"nothing arrived within {timeout_s} s")

    def get_nowait(self) -> T | None:
        """Remove and return the oldest item, None if the queue is empty; raises like `get` after an abort."""
        with self._changed:
            self._raise_if_aborted()
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        """Remove and yield items until the channel is closed and drained; raises like `get` after an abort."""
        while True:
            try:
                yield self.get()
            except Closed:
                return

    @property
    def is_closed(self) -> bool:
        """True after `close`, even if items are still queued."""
        return self._closed

    def close(self) -> None:
        """End the stream: `put` raises from now on, and the reader drains the queue. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self, error: BaseException) -> None:
        """Discard the queue and make both ends raise `error` from now on. Only the first error counts."""
        with self._changed:
            if self._error is None:
                self._error = error
                self._items.clear()
            self._changed.notify_all()

    def _raise_if_aborted(self) -> None:
        if self._error is not None:
            raise self._error

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None) -> float:
        """Wait until ready, closed, aborted or timed out; return the seconds waited."""
        start = self._clock()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (ready() or self._closed or self._error is not None):
            left = _WAKE_S if deadline is None else min(_WAKE_S, deadline - time.monotonic())
            if left <= 0:
                break
            self._changed.wait(left)
        return self._clock() - start
