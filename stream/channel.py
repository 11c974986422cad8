"""The bounded queue between two stages; stdlib only.

Invariant: `close` lets the reader drain what is queued and then ends the stream; `abort` makes both ends raise
at once. Either way every waiting thread wakes, so no stage can hang on another that is gone.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")
_WAKE_S = 0.5  # no wait is untimed: a missed notification costs half a second, not a hang


class Full(StrEnum):
    """What `put` does when the channel is full."""

    BLOCK = "block"
    """Wait for room: lossless."""
    REPLACE_OLDEST = "replace_oldest"
    """Drop the oldest waiting item: the newest wins."""


class Closed(Exception):
    """The stream has ended: `get` on a drained closed channel, or `put` on a closed one."""


class Channel(Generic[T]):
    """A thread-safe FIFO of at most `capacity` items for one writer and one reader.

    Args:
        capacity: at least 1.
        when_full: see `Full`.
        clock: monotonic seconds; counts the time each end waited.
    """

    def __init__(
        self, capacity: int, when_full: Full = Full.BLOCK, *, clock: Callable[[], float] = time.monotonic
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
        """Seconds the writer waited for room."""
        self.get_wait_s = 0.0
        """Seconds the reader waited for items."""
        self.replaced = 0
        """Items dropped by `REPLACE_OLDEST`."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> T | None:
        """Append `item`; returns the item it replaced, if any.

        Raises:
            Closed: the channel was closed.
            BaseException: what the channel was aborted with.
        """
        with self._changed:
            if self.when_full is Full.BLOCK and len(self._items) >= self.capacity:
                self.put_wait_s += self._wait(lambda: len(self._items) < self.capacity, None)
            self._raise_if_aborted()
            if self._closed:
                raise Closed
            dropped: T | None = None
            if len(self._items) >= self.capacity:
                dropped = self._items.popleft()
                self.replaced += 1
            self._items.append(item)
            self._changed.notify_all()
            return dropped

    def get(self, timeout_s: float | None = None) -> T:
        """Remove and return the oldest item, waiting up to `timeout_s` (None: until something happens).

        Raises:
            TimeoutError: nothing arrived in time.
            Closed: the channel is closed and drained.
            BaseException: what the channel was aborted with.
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
        """The oldest item, or None if nothing is queued now; raises like `get` after an abort."""
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
        """Nothing more will be put; what is queued may still be there."""
        return self._closed

    def close(self) -> None:
        """End of stream: nothing more is put; the reader drains what is queued. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self, error: BaseException) -> None:
        """Make both ends raise `error` now and drop what is queued. The first error wins."""
        with self._changed:
            if self._error is None:
                self._error = error
                self._items.clear()
            self._changed.notify_all()

    def _raise_if_aborted(self) -> None:
        if self._error is not None:
            raise self._error

    def _wait(self, ready: Callable[[], bool], timeout_s: float | None) -> float:
        """Wait until `ready`, closed, aborted or timed out; returns the seconds waited."""
        start = self._clock()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (ready() or self._closed or self._error is not None):
            left = _WAKE_S if deadline is None else min(_WAKE_S, deadline - time.monotonic())
            if left <= 0:
                break
            self._changed.wait(left)
        return self._clock() - start
