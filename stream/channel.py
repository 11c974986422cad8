"""The bounded queue between two stages, and a broadcast that never waits; imports the standard library only.

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


class HeldBack(Exception):
    """Nothing will come before something that was taken is released."""


class Channel(Generic[T]):
    """A thread-safe FIFO queue of at most `capacity` items for one writer and one reader.

    Args:
        capacity: at least 1.
        when_full: see `WhenFull`.
        most: limit on the weight of the items that were put and not released yet, taken or not; one item may weigh
            more. None for no limit: then nothing has to be released. Applies to `WhenFull.BLOCK`.
        clock: monotonic seconds; measures how long each end waits.
    """

    def __init__(
        self,
        capacity: int,
        when_full: WhenFull = WhenFull.BLOCK,
        *,
        most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be ≥ 1, got {capacity}")
        self.capacity = capacity
        self.when_full = when_full
        self._clock = clock
        self._most, self._held, self._is_held_back, self._next = most, 0, False, 0
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = self._is_cut_short = False
        self._error: BaseException | None = None
        self.put_wait_s = 0.0
        """Seconds that the writer has waited for the reader."""
        self.get_wait_s = 0.0
        """Seconds that the reader has waited for items."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, weight: int = 0) -> T | None:
        """Append `item` and return the item that was dropped for it, if any.

        Args:
            weight: what `release` will be called with.

        Raises:
            Closed: the channel is closed.
            BaseException: the error that the channel was aborted with.
        """
        with self._changed:
            if self.when_full is WhenFull.BLOCK and not self._has_room(weight):
                self._is_held_back, self._next = self._is_too_heavy(weight), weight
                self._changed.notify_all()
                self.put_wait_s += self._wait(lambda: self._has_room(weight), None)
                self._is_held_back = False
            self._raise_if_aborted()
            if self._closed:
                raise Closed
            dropped: T | None = None
            if len(self._items) >= self.capacity:
                dropped = self._items.popleft()
            self._items.append(item)
            self._held += weight
            self._changed.notify_all()
            return dropped

    def release(self, weight: int) -> None:
        """An item that was taken is needed no longer."""
        with self._changed:
            self._held -= weight
            self._changed.notify_all()

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

    def wait(self) -> None:
        """Wait until an item can be taken and leave it there, so that a newer one may still replace it.

        Raises:
            Closed: the channel is closed and drained.
            BaseException: the error that the channel was aborted with.
        """
        with self._changed:
            if not self._items:
                self.get_wait_s += self._wait(lambda: bool(self._items), None)
            self._raise_if_aborted()
            if not self._items:
                raise Closed

    def get_unless_held_back(self, own: int | None = None) -> T:
        """Like `get`, for a reader that holds items back until more have come.

        Args:
            own: weight of the items that the reader itself holds. With it, the reader goes on waiting while others hold
                items too, since they will release them.

        Raises:
            HeldBack: the writer waits until the reader releases some.
        """

        def is_stuck() -> bool:
            # The writer may not have noticed yet that others have released what it waits for.
            return self._is_held_back and (own is None or (self._held <= own and self._is_too_heavy(self._next)))

        with self._changed:
            if not self._items:
                self.get_wait_s += self._wait(lambda: bool(self._items) or is_stuck(), None)
            if not self._items and is_stuck() and self._error is None and not self._closed:
                raise HeldBack
        return self.get()

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

    @property
    def is_cut_short(self) -> bool:
        """True if it was closed before the writer had written all."""
        return self._is_cut_short

    def close(self, *, early: bool = False) -> None:
        """End the stream: `put` raises from now on, and the reader drains the queue. Idempotent.

        Args:
            early: the writer has not written all.
        """
        with self._changed:
            self._is_cut_short |= early and not self._closed
            self._closed = True
            self._changed.notify_all()

    def abort(self, error: BaseException) -> None:
        """Discard the queue and make both ends raise `error` from now on. Only the first error counts."""
        with self._changed:
            if self._error is None:
                self._error = error
                self._items.clear()
            self._changed.notify_all()

    def _is_too_heavy(self, weight: int) -> bool:
        return self._most is not None and self._held > 0 and self._held + weight > self._most

    def _has_room(self, weight: int) -> bool:
        return len(self._items) < self.capacity and not self._is_too_heavy(weight)

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


class Broadcast(Generic[T]):
    """Passes what one thread puts to any number of listeners, which may join later; never waits.

    Who joins gets what was put last too: pictures are decoded and processed while the sound of the same time has long
    been read.

    Args:
        capacity: most that is kept for later listeners, in the unit of the sizes given to `put`.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._recent: deque[tuple[T, int]] = deque()
        self._kept = 0
        self._listeners: list[Callable[[T, int], None]] = []
        self._lock = threading.Lock()
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        """True once nothing more will be put."""
        return self._has_ended

    @property
    def has_listeners(self) -> bool:
        """True if somebody takes what is put."""
        return bool(self._listeners)

    def put(self, item: T, size: int) -> None:
        """Pass `item` to every listener and keep it for later ones, as far as `capacity` allows."""
        with self._lock:
            self._recent.append((item, size))
            self._kept += size
            while self._kept > self.capacity:
                self._kept -= self._recent.popleft()[1]
            for listener in self._listeners:
                listener(item, size)

    def end(self) -> None:
        """Nothing more will be put. Idempotent."""
        self._has_ended = True

    def listen(self, listener: Callable[[T, int], None]) -> None:
        """Call `listener` with what was kept and with everything put from now on; it must be quick and not raise."""
        with self._lock:
            for item, size in self._recent:
                listener(item, size)
            self._listeners.append(listener)

    def leave(self, listener: Callable[[T, int], None]) -> None:
        """Stop calling `listener`. Idempotent."""
        with self._lock:
            self._listeners = [other for other in self._listeners if other != listener]


class Listener(Generic[T]):
    """Collects what a `Broadcast` passes on until it is taken, up to a limit.

    Args:
        broadcast: to listen to.
        capacity: most that may wait; then the oldest items are lost.
    """

    def __init__(self, broadcast: Broadcast[T], capacity: int) -> None:
        self._broadcast, self._capacity = broadcast, capacity
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self.lost = 0
        """Items that were lost because nobody took them in time."""
        broadcast.listen(self._add)

    @property
    def has_ended(self) -> bool:
        """True once nothing more will come; what was put before may still wait."""
        return self._broadcast.has_ended

    def take(self) -> list[T]:
        """Remove and return what has arrived; never waits."""
        with self._lock:
            items = [item for item, _ in self._items]
            self._items.clear()
            self._size = 0
        return items

    def close(self) -> None:
        """Stop listening and release what waits. Idempotent."""
        self._broadcast.leave(self._add)
        self.take()

    def _add(self, item: T, size: int) -> None:
        with self._lock:
            self._items.append((item, size))
            self._size += size
            while self._size > self._capacity and len(self._items) > 1:
                self._size -= self._items.popleft()[1]
                self.lost += 1
