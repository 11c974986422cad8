"""A live stream that is opened again when it breaks.

Invariant: only frames that were received are delivered: while the stream is away nothing is, and its pts go on by the
time that has passed.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from stream.capture.base import CaptureLog, Source
from stream.errors import SourceError, SourceNotFoundError, StreamError
from stream.frames import Frame

MIN_OPEN_S = 0.5  # for the last attempt too
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 8.0
"""Waits between attempts double from the first to this, each shortened by up to half at random, so that a hundred
viewers of one camera do not come back in step."""


class ReconnectingSource:
    """Yields the frames of a live source, opening it again when reading fails.

    Args:
        opened: the source, just opened; it must be live and have no limit of frames of its own.
        reopen: opens it again within so many seconds; raises `SourceError` while that is not possible.
        give_up_after_s: how long one interruption may last.
        ends: whether the end of the stream is final, or an interruption as well (a camera that restarts hangs up
            politely). If nothing comes back after such an end, it was the end.
        max_frames: stop after this many.
        clock: monotonic seconds.
        wait: waits that long or until an event is set, and tells whether it is.
        chance: a random number in [0, 1).

    Raises:
        SourceError: from iteration: it did not come back in time.
    """

    def __init__(
        self,
        opened: Source,
        reopen: Callable[[float], Source],
        *,
        give_up_after_s: float,
        ends: bool,
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.info = replace(opened.info, frame_count=max_frames)
        self._source, self._reopen, self._ends, self._max_frames = opened, reopen, ends, max_frames
        self._give_up_after_s, self._clock, self._wait, self._chance = give_up_after_s, clock, wait, chance
        self._stopped = threading.Event()
        self._past, self._now = CaptureLog(), opened.log
        self._last: Frame | None = None
        self._is_away = False

    @property
    def log(self) -> CaptureLog:
        """Of all connections together."""
        return self._past.plus(self._now)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the end of the stream, `interrupt`, `max_frames`, or too long an interruption."""
        delivered = 0
        while True:
            failure: StreamError | None = None
            joined = self._last
            first: Frame | None = None
            try:
                for frame in self._source:
                    first, self._is_away = first or frame, False
                    self._last = _continued(frame, first, joined, self._last)
                    yield self._last
                    delivered += 1
                    if delivered == self._max_frames:
                        return
            except SourceError as error:
                failure = error
            if self._stopped.is_set() or (failure is None and self._ends):
                return
            if not self._come_back(failure):
                return

    @property
    def silence_limit_s(self) -> float | None:
        """Of the source; None while it is away, and until its first picture after that."""
        return None if self._is_away else getattr(self._source, "silence_limit_s", None)

    def interrupt(self) -> None:
        """See `Source`; also ends the wait between two attempts."""
        self._stopped.set()
        self._source.interrupt()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._source.close()

    def _come_back(self, failure: StreamError | None) -> bool:
        """Open the source again; False when interrupted, or when it had ended and stayed away."""
        self._is_away = True
        self._source.close()
        past = self._past = self._past.plus(self._now)
        self._now = CaptureLog()
        lost, limit_s = self._clock(), self._give_up_after_s
        note = f"{self.info.name}: interrupted ({_why(failure)}); trying again for up to {limit_s:g} s"
        past.notes += [] if note in past.notes else [note]
        attempt = 0
        while True:
            left_s = limit_s - (self._clock() - lost)
            if left_s <= 0:
                past.waiting = ""
                if failure is None:
                    return False
                hint = "--reconnect-for waits longer"
                what = f"{_why(failure)}, and it did not come back within {limit_s:g} s"
                raise SourceError(what, where=self.info.name, hint=hint) from failure
            delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2**attempt) * (1 - self._chance() / 2)
            attempt += 1
            past.waiting = f"reconnecting ({attempt})"
            if self._wait(self._stopped, min(delay_s, left_s)):
                return False
            try:
                source = self._reopen(max(MIN_OPEN_S, limit_s - (self._clock() - lost)))
            except (SourceError, SourceNotFoundError) as error:  # an unplugged camera is not found
                failure = failure and error
                continue
            self._source, self._now = source, source.log
            past.waiting = ""
            past.reconnects += 1
            return not self._stopped.is_set()  # `interrupt` may have met the old one


def _why(failure: StreamError | None) -> str:
    return "it ended" if failure is None else failure.what


def _continued(frame: Frame, first: Frame, before: Frame | None, latest: Frame | None) -> Frame:
    """`frame` of a connection whose first is `first`, numbered and timed as what follows `before`, the last of the
    connection before; `latest` is the frame just delivered."""
    if before is None or latest is None:
        return frame
    base = before.time_base
    gap_s = max(0.0, first.captured_at - before.captured_at)
    ticks = round(gap_s / base) + round((frame.pts - first.pts) * frame.time_base / base)
    return replace(
        frame,
        index=before.index + 1 + frame.index - first.index,
        pts=max(latest.pts + 1, before.pts + ticks),
        time_base=base,
        duration=None if frame.duration is None else round(frame.duration * frame.time_base / base),
    )
