"""FFmpeg's test patterns, as a substitute for a camera.

Invariant: with real-time pacing, frames do not drift; without pacing, no frame is dropped.
"""

import threading
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from fractions import Fraction

from stream.capture.base import CaptureLog, Source
from stream.capture.clock import NAME as CLOCK
from stream.capture.video.decode import FrameMaker
from stream.errors import SourceNotFoundError, reason_of
from stream.frames import Frame, SourceInfo, SourceKind
from stream.media import av, open_input

NAMES = ("testsrc2", "testsrc", "smptebars", "smptehdbars", "rgbtestsrc", "mandelbrot", "life", "color", "gradients")
"""Sources of libavfilter that need no input and have a size and a rate."""
RATE = Fraction(30)
"""Frames per second, unless asked otherwise."""


class Pacing(StrEnum):
    """When frames become available."""

    REAL_TIME = "real_time"
    """At the pattern's rate, like a camera: a live source."""
    NONE = "none"
    """As fast as they are read: not live, for tests and benchmarks."""


class PatternSource(Source):
    """Yields the frames of an FFmpeg test pattern.

    Args:
        name: one of `NAMES`.
        size_hw: (height, width) in pixels.
        rate: frames per second.
        pacing: see `Pacing`.
        max_frames: stop after this many.
        clock: monotonic seconds.
        wait: waits for the given seconds and returns True if interrupted; default: until `interrupt` is called.

    Raises:
        SourceNotFoundError: FFmpeg does not have such a pattern.
    """

    def __init__(
        self,
        name: str,
        *,
        size_hw: tuple[int, int] = (480, 640),
        rate: Fraction = RATE,
        pacing: Pacing = Pacing.REAL_TIME,
        max_frames: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        if name not in NAMES:
            raise SourceNotFoundError(
                f"no pattern {name!r}", where=f"pattern:{name}", allowed=", ".join((*NAMES, CLOCK))
            )
        self._log = CaptureLog()
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._clock, self._pacing, self._max_frames = clock, pacing, max_frames
        height, width = size_hw
        try:
            self._container = open_input(f"{name}=size={width}x{height}:rate={rate}", format="lavfi")
        except av.error.FFmpegError as error:
            raise SourceNotFoundError(f"cannot be generated: {reason_of(error)}", where=f"pattern:{name}") from error
        self._time_base = 1 / rate
        self.info = SourceInfo(
            name=f"pattern:{name}",
            size=size_hw,
            is_live=pacing is Pacing.REAL_TIME,
            time_base=self._time_base,
            rate=rate,
            frame_count=max_frames,
            kind=SourceKind.PATTERN,
        )

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        maker = FrameMaker(self.log, name=self.info.name, time_base=self._time_base, clock=self._clock)
        if self._stopped.is_set():
            return
        started = self._clock()
        for decoded in self._container.decode(video=0):
            if self._pacing is Pacing.REAL_TIME:
                due_s = started + float(maker.count * self._time_base) - self._clock()
                if due_s > 0 and self._wait(due_s):
                    return
            if self._stopped.is_set():
                return
            yield maker.make(decoded, maker.count)
            if self._max_frames is not None and maker.count >= self._max_frames:
                return

    def interrupt(self) -> None:
        """See `Source`."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._container.close()
