"""Packets become upright frames with trustworthy timestamps; shared by files, network streams and patterns.

Invariant: pts strictly increases; what had to be repaired, and what the decoder lost, is counted.
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
        self._orientation: Orientation | None = None
        self._rotation = 0
        self._told: set[str] = set()
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

    def make(self, decoded: "VideoFrame", pts: int, *, duration: int | None = None) -> Frame:
        """An upright RGB frame with square pixels; `duration` in pts units, where it is known."""
        size = (decoded.height, decoded.width)
        if self._size not in (None, size):
            self._log.notes.append(f"the picture changed size to {size[1]}×{size[0]} at frame {self.count}")
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
        """That of the first frame until the rotation changes; a flip alone, in mid-stream, goes unnoticed.

        PyAV ties a frame whose side data is looked at into a reference cycle: hundreds of decoded frames would wait for
        the garbage collector, gigabytes at 4K.
        """
        if self._orientation is None or decoded.rotation != self._rotation:
            self._orientation, self._rotation = orientation_of(decoded), decoded.rotation
        return self._orientation

    def _rgb(self, decoded: "VideoFrame", size_hw: tuple[int, int]) -> RgbImage:
        if not has_known_matrix(decoded):
            self._tell(f"colour matrix {decoded.colorspace} (H.273) is unknown here: colours may be off")
        hdr = hdr_name(decoded)
        if hdr is None:
            return to_rgb(decoded, size_hw)
        self._tell(f"{hdr} (high dynamic range) video: tone-mapped to sRGB (BT.2390, {PEAK_NITS:g} cd/m²)")
        return to_sdr(to_rgb16(decoded, size_hw), decoded.color_trc, decoded.color_primaries)

    def _tell(self, note: str) -> None:
        if note not in self._told:
            self._told.add(note)
            self._log.notes.append(note)


@dataclass
class Damage:
    """What the decoder could not make sense of."""

    packets: int = 0
    """Packets marked corrupt or refused by the decoder."""
    frames: int = 0
    """Frames delivered though part of them is guessed."""

    def __str__(self) -> str:
        packets = f"{self.packets} damaged packet{'s' * (self.packets != 1)} could not be decoded"
        frames = f"{self.frames} frame{'s' * (self.frames != 1)} came out damaged"
        return ", ".join(text for text, count in ((packets, self.packets), (frames, self.frames)) if count)


def decode(
    container: "InputContainer", stream: "VideoStream", stopped: threading.Event, damage: Damage
) -> Iterator["VideoFrame"]:
    """Every frame the decoder gives from here on, its delayed ones included, until the end or `stopped`.

    Raises:
        av.error.FFmpegError, OSError: reading failed; damaged packets are counted instead.
    """
    for packet in container.demux(stream):
        if stopped.is_set():
            return
        damage.packets += packet.is_corrupt
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            damage.packets += not packet.is_corrupt
            continue
        yield from frames


def choose_video_stream(container: "InputContainer", where: str) -> "VideoStream":
    """The stream to decode: the best one (FFmpeg's order) that is not cover art. All others are discarded.

    Raises:
        SourceError: there is none, or no decoder for it.
    """
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not moving:
        kinds = ", ".join(sorted({"cover art" if s.type == "video" else s.type for s in container.streams}))
        raise SourceError(f"has no video stream, only {kinds or 'nothing'}", where=where)
    best = container.streams.best("video")
    stream = next((s for s in moving if best is not None and s.index == best.index), moving[0])
    for other in container.streams:
        if other is not stream:
            other.discard = av.stream.Discard.all  # not read at all: of HLS's variants only one is downloaded
    if stream.codec_context is None:
        raise SourceError("uses a video codec that cannot be decoded here", where=where)
    return stream


def nominal_step(stream: "VideoStream", time_base: Fraction) -> int:
    """pts units between frames at the nominal rate."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return max(1, round(1 / (rate * time_base))) if rate else 1


def shown(url: str) -> str:
    """A URL for people: without its password."""
    password = urlsplit(url).password if "://" in url else None
    return url.replace(f":{password}@", ":***@", 1) if password else url


def explain(error: BaseException) -> str:
    """FFmpeg's reason without its file name and number."""
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
