"""A video at another frame rate: at each time k/rate, the frame that is nearest in time.

Invariant: the clock stays that of the source, so sound keeps its speed and its place. Frames are repeated or left out
before they are counted as captured, so nothing is dropped or skipped.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from stream.capture.base import Source, WrappedSource
from stream.config import CaptureConfig
from stream.frames import Frame
from stream.notes import note

_SOUND_BEHIND_S = 2
"""How far behind its picture a container may hold the sound: so much more is read when enough frames were delivered."""


def of_reader(options: CaptureConfig) -> CaptureConfig:
    """The options of the reader of a video: with `fps`, `max_frames` counts the frames after resampling."""
    return options if options.fps is None else options.model_copy(update={"max_frames": None})


class ResampledSource(WrappedSource):
    """Delivers the frames of `source` at `rate`, from the first time k/rate that is not before its first frame.

    Args:
        source: of a video that is no live one.
        rate: frames per second.
        max_frames: stop after delivering this many.
    """

    def __init__(self, source: Source, *, rate: Fraction, max_frames: int | None = None) -> None:
        super().__init__(source)
        self._rate, self._max_frames = rate, max_frames
        info, count = source.info, None
        if info.frame_count is not None and info.rate:
            count = min(max(1, math.ceil(info.frame_count / info.rate * rate)), max_frames or info.frame_count * 10**6)
        self._step = 1 / info.rate if info.rate else 1 / rate
        self._end = None if info.end_s is None else Fraction(info.end_s)
        self.info = replace(info, time_base=1 / rate, rate=rate, frame_count=count)
        given = f" instead of {float(info.rate):.6g}" if info.rate else ""
        note(
            f"--fps: {float(rate):.6g} frames a second{given}, each the nearest in time; frames repeat or are left out"
        )

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        delivered = used = left_out = 0
        end = Fraction(0)
        for frame, ticks in self._ticks():
            if delivered == self._max_frames:  # the rest is read for its sound
                if _time_of(frame) > end + _SOUND_BEHIND_S:
                    break
                continue
            used, left_out = used + bool(ticks), left_out + (not ticks)
            for tick in ticks if self._max_frames is None else ticks[: self._max_frames - delivered]:
                yield replace(frame, index=delivered, pts=tick, time_base=1 / self._rate, duration=1)
                delivered, end = delivered + 1, (tick + 1) / self._rate
            if delivered == self._max_frames and self.info.audio is None:
                break
        repeated = delivered - used
        note(f"--fps: {repeated} {'frame was' if repeated == 1 else 'frames were'} repeated, {left_out} left out")

    def end_after(self, frames: int) -> int | None:  # noqa: ARG002 - each lasts one tick
        """See `Source`."""
        return None

    def _ticks(self) -> Iterator[tuple[Frame, range]]:
        """Each frame of the source, and the times at which it is the nearest one, in units of 1/rate."""
        rate, held, tick = self._rate, None, 0
        for frame in self._source:
            if held is None:
                first = tick = math.ceil(_time_of(frame) * rate)
            else:
                middle = math.floor((_time_of(held) + _time_of(frame)) / 2 * rate)  # of two that are as near, the first
                yield held, range(tick, max(tick, middle + 1))
                tick = max(tick, middle + 1)
            held = frame
        if held is None:
            return
        last_s = Fraction(self._step) if held.duration is None else held.duration * held.time_base
        end = _time_of(held) + last_s
        end = end if self._end is None else max(_time_of(held), min(end, self._end))
        stop = max(tick, math.ceil(end * rate))
        yield held, range(tick, max(stop, tick + (tick == first)))


def _time_of(frame: Frame) -> Fraction:
    return frame.pts * frame.time_base
