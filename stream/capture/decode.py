"""Decoded packets become frames with trustworthy timestamps; shared by files, network streams and patterns.

Invariant: pts strictly increases; what had to be repaired is counted.
"""

import time
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from stream.capture.base import CaptureLog
from stream.errors import SourceError
from stream.frames import Frame
from stream.media import av, display_size, hdr_name, orientation_of, to_rgb

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


class FrameMaker:
    """Turns decoded frames of one stream into `Frame`s.

    Args:
        time_base: of the pts that come out; decoded pts are in it too.
        pixel_aspect: width of a pixel over its height, None for square.
        step: pts between frames, used where a pts is missing.
    """

    def __init__(
        self,
        log: CaptureLog,
        *,
        time_base: Fraction,
        pixel_aspect: Fraction | None = None,
        step: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._time_base, self._pixel_aspect = log, time_base, pixel_aspect
        self._step, self._clock = max(1, step), clock
        self._last_pts: int | None = None
        self._size: tuple[int, int] | None = None
        self._hdr: str | None = None
        self.count = 0
        """Frames made so far; the next one's index."""

    def repaired(self, pts: int | None) -> int:
        """`pts` if it is there and later than the one before, else the nearest that is."""
        last = self._last_pts
        if pts is None:
            pts = 0 if last is None else last + self._step
            self._log.repaired_pts += 1
        elif last is not None and pts <= last:
            pts = last + 1
            self._log.repaired_pts += 1
        self._last_pts = pts
        return pts

    def make(self, decoded: "VideoFrame", pts: int) -> Frame:
        """An upright RGB frame with square pixels."""
        size = (decoded.height, decoded.width)
        if self._size not in (None, size):
            self._log.notes.append(f"the picture changed size to {size[1]}×{size[0]} at frame {self.count}")
        self._size = size
        hdr = hdr_name(decoded)
        if hdr and hdr != self._hdr:
            self._log.notes.append(f"{hdr} (high dynamic range) video: tone-mapped to BT.709")
        self._hdr = hdr or self._hdr
        rgb = orientation_of(decoded).apply(to_rgb(decoded, display_size(decoded, self._pixel_aspect)))
        frame = Frame(
            index=self.count,
            pts=pts,
            time_base=self._time_base,
            captured_at=self._clock(),
            rgb=rgb,
            duration=decoded.duration or None,
        )
        self.count += 1
        return frame


def first_video_stream(container: "InputContainer", where: str) -> "VideoStream":
    """The stream to decode: the best one that is not cover art.

    Raises:
        SourceError: there is none, or no decoder for it.
    """
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not moving:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise SourceError(f"has no video stream, only {kinds}", where=where)
    stream = moving[0]
    if stream.codec_context is None:
        raise SourceError("uses a video codec that cannot be decoded here", where=where)
    return stream


def nominal_step(stream: "VideoStream", time_base: Fraction) -> int:
    """pts units between frames at the nominal rate."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return max(1, round(1 / (rate * time_base))) if rate else 1


def explain(error: BaseException) -> str:
    """FFmpeg's reason without its file name and number."""
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
