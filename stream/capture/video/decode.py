"""Decodes packets to upright frames with valid timestamps; shared by files, network streams and patterns.

Invariant: pts strictly increase. Repaired timestamps and decoding errors are counted.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stream.capture.base import CaptureLog
from stream.capture.video.tonemap import PEAK_NITS, to_sdr
from stream.errors import SourceError
from stream.frames import Frame, RgbImage
from stream.media import Orientation, av, display_size, has_known_matrix, hdr_name, orientation_of, to_rgb, to_rgb16

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


class FrameMaker:
    """Converts the decoded frames of one stream to `Frame`s.

    Args:
        log: where repairs and notes are recorded.
        time_base: unit of the pts, decoded and delivered.
        pixel_aspect: width of a pixel over its height, None if square.
        step: pts between frames, used if a pts is missing.
        clock: monotonic seconds.
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
        self._orientation: Orientation | None = None
        self._rotation = 0
        self._noted: set[str] = set()
        self.count = 0
        """Frames made so far; the next one's index."""

    def repair_pts(self, pts: int | None) -> int:
        """Return `pts` if it is later than the previous one; else count a repair and return the next valid value."""
        last = self._last_pts
        if pts is None:
            pts = 0 if last is None else last + self._step
            self._log.repaired_pts += 1
        elif last is not None and pts <= last:
            pts = last + 1
            self._log.repaired_pts += 1
        self._last_pts = pts
        return pts

    def make(self, decoded: "VideoFrame", pts: int, *, duration: int | None = None) -> Frame:
        """Convert to an upright RGB frame with square pixels; `duration` is in pts units, None if unknown."""
        size = (decoded.height, decoded.width)
        if self._size not in (None, size):
            self._log.notes.append(f"the frame size changed to {size[1]}×{size[0]} at frame {self.count}")
        self._size = size
        rgb = self._orientation_of(decoded).apply(self._rgb(decoded, display_size(decoded, self._pixel_aspect)))
        frame = Frame(
            index=self.count,
            pts=pts,
            time_base=self._time_base,
            captured_at=self._clock(),
            rgb=rgb,
            duration=duration,
        )
        self.count += 1
        return frame

    def _orientation_of(self, decoded: "VideoFrame") -> Orientation:
        """Return the first frame's orientation until the rotation changes; a mid-stream flip alone is not noticed.

        Reading a frame's side data makes PyAV put the frame in a reference cycle. If that were done for each frame,
        hundreds of them would wait for the garbage collector: gigabytes at 4K.
        """
        if self._orientation is None or decoded.rotation != self._rotation:
            self._orientation, self._rotation = orientation_of(decoded), decoded.rotation
        return self._orientation

    def _rgb(self, decoded: "VideoFrame", size_hw: tuple[int, int]) -> RgbImage:
        if not has_known_matrix(decoded):
            self._note_once(f"colour matrix {decoded.colorspace} (H.273) is not supported; colours may be wrong")
        hdr = hdr_name(decoded)
        if hdr is None:
            return to_rgb(decoded, size_hw)
        self._note_once(f"{hdr} (high dynamic range) video: tone-mapped to sRGB (BT.2390, {PEAK_NITS:g} cd/m²)")
        return to_sdr(to_rgb16(decoded, size_hw), decoded.color_trc, decoded.color_primaries)

    def _note_once(self, note: str) -> None:
        if note not in self._noted:
            self._noted.add(note)
            self._log.notes.append(note)


@dataclass
class DecodeErrors:
    """Counts of what could not be decoded, or only in part."""

    packets: int = 0
    """Packets marked corrupt by the demuxer, or rejected by the decoder."""
    frames: int = 0
    """Frames delivered although the decoder had to conceal errors in them."""

    def __str__(self) -> str:
        packets = f"{self.packets} damaged packet{'s' * (self.packets != 1)} could not be decoded"
        frames = f"{self.frames} frame{'s' * (self.frames != 1)} {'are' if self.frames != 1 else 'is'} damaged"
        return ", ".join(text for text, count in ((packets, self.packets), (frames, self.frames)) if count)


def decode(
    container: "InputContainer", stream: "VideoStream", stopped: threading.Event, errors: DecodeErrors
) -> Iterator["VideoFrame"]:
    """Yield every frame from the current position, including delayed ones, until the end or until `stopped` is set.

    Args:
        errors: damaged packets are counted here instead of ending the iteration.

    Raises:
        av.error.FFmpegError, OSError: reading failed.
    """
    for packet in container.demux(stream):
        if stopped.is_set():
            return
        errors.packets += packet.is_corrupt
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            errors.packets += not packet.is_corrupt
            continue
        yield from frames


def choose_video_stream(container: "InputContainer", where: str) -> "VideoStream":
    """Choose the stream that FFmpeg ranks best and that is not cover art; make the demuxer discard all others.

    Raises:
        SourceError: there is no video stream, or no decoder for it.
    """
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not moving:
        kinds = ", ".join(sorted({"cover art" if s.type == "video" else s.type for s in container.streams}))
        raise SourceError(f"has no video stream, only {kinds or 'nothing'}", where=where)
    best = container.streams.best("video")
    stream = next((s for s in moving if best is not None and s.index == best.index), moving[0])
    for other in container.streams:
        if other is not stream:
            other.discard = av.stream.Discard.all  # only the chosen variant of an HLS stream is downloaded
    if stream.codec_context is None:
        raise SourceError("no decoder for its video codec", where=where)
    return stream


def nominal_step(stream: "VideoStream", time_base: Fraction) -> int:
    """Return the pts units between frames at the nominal rate, 1 if the rate is unknown."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return max(1, round(1 / (rate * time_base))) if rate else 1


def redacted(url: str) -> str:
    """Return a URL without its password, for messages."""
    password = urlsplit(url).password if "://" in url else None
    return url.replace(f":{password}@", ":***@", 1) if password else url
