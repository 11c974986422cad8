"""Decodes packets to upright frames with valid timestamps; shared by files, network streams and patterns.

Invariant: pts strictly increase. Repaired timestamps and decoding errors are counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from stream.capture.base import CaptureLog
from stream.capture.limits import Limits, TooLargeError
from stream.capture.video import deinterlace as deinterlacing
from stream.capture.video.deinterlace import Deinterlacer
from stream.capture.video.live import LivePackets, StreamClock
from stream.capture.video.sound import SoundReader
from stream.capture.video.timeline import RTP, Clock, Timeline, clock_of
from stream.capture.video.tonemap import PEAK_NITS, to_sdr
from stream.errors import SourceError, reason_of
from stream.frames import Frame, RgbImage
from stream.media import (
    Orientation,
    av,
    display_size,
    has_known_matrix,
    hdr_name,
    is_plausible_aspect,
    orientation_of,
    packets_of,
    to_rgb,
    to_rgb16,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MOST_TICKS = 1 << 62
_INTERLEAVED_S = 10.0
"""Sound is looked for this far behind the picture of the same time."""
_SOUND_BEFORE = 512
"""Packets of sound kept while pictures are skipped: it may lie in front of the pictures of the same time."""
_FEW_REPAIRS = 10
"""More timestamps than this are not repaired without a note."""
_LONGEST_GROUP, _LARGEST_GROUP = 1000, 256 << 20
"""If there is no key frame for so many packets or bytes, decoding starts there."""
_LONGEST_LEAD = 10_000
"""Pictures before the first one that are remembered to be counted."""
_REFUSES_SIZE = "exceeds specified max pixel count"
"""What `av_image_check_size2` logs of a size that only `max_pixels` forbids, unlike one that is never allowed."""
_MARKED_AT_JOIN = 3
"""Where MPEG-TS parts are joined, its counters start again, and the demuxer marks one of the last packets, at most so
many before, as damaged although it is whole."""


class FrameMaker:
    """Converts the decoded frames of one stream to `Frame`s.

    Args:
        log: where repairs and notes are recorded.
        name: of the source, for errors.
        time_base: unit of the pts, decoded and delivered.
        pixel_aspect: width of a pixel over its height, None if square.
        step: pts between frames, used if a pts is missing.
        limits: larger frames are refused.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        log: CaptureLog,
        *,
        name: str = "",
        time_base: Fraction,
        pixel_aspect: Fraction | None = None,
        step: int = 1,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits or Limits()
        self._most = self._limits.frame_pixels
        self._log, self._name, self._time_base, self._pixel_aspect = log, name, time_base, pixel_aspect
        self._step, self._clock = max(1, step), clock
        self._last_pts: int | None = None
        self._size: tuple[int, int] | None = None
        self._has_changed = False
        self._orientation: Orientation | None = None
        self._rotation = 0
        self._noted: set[str] = set()
        self.count = 0
        """Frames made so far; the next one's index."""
        if pixel_aspect is not None and pixel_aspect > 0 and not is_plausible_aspect(pixel_aspect):
            self._note_once(f"a pixel aspect ratio of {pixel_aspect} is stated; it is ignored and pixels are square")

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

    def make(
        self, decoded: "VideoFrame", pts: int, *, duration: int | None = None, captured_at: float | None = None
    ) -> Frame:
        """Convert to an upright RGB frame with square pixels.

        Args:
            duration: in pts units, None if unknown.
            captured_at: see `Frame`; None for now.

        Raises:
            SourceError: it is too large, or FFmpeg cannot convert it.
        """
        size = (decoded.height, decoded.width)
        if self._size not in (None, size):
            if not self._has_changed:  # a sender that adapts to the network changes it for ever
                self._log.notes.append(f"the frame size changed to {size[1]}×{size[0]} at frame {self.count}")
            self._has_changed = True
            self._log.size_changes += 1
        shown = display_size(decoded, self._pixel_aspect)
        if self._size != size:
            pixels = max(size[0] * size[1], shown[0] * shown[1])
            if pixels > self._most:
                raise self._limits.too_large(max(size, shown), self._most, self._name, self.count)
            if self._size is None:
                self._most = self._limits.later_pixels(pixels)
        self._size = size
        try:
            rgb = self._orientation_of(decoded).apply(self._rgb(decoded, shown))
        except (av.error.FFmpegError, ValueError, MemoryError) as error:
            what = f"frame {self.count} ({size[1]}×{size[0]}) cannot be converted: {reason_of(error)}"
            raise SourceError(what, where=self._name) from error
        frame = Frame(
            index=self.count,
            pts=pts,
            time_base=self._time_base,
            captured_at=self._clock() if captured_at is None else captured_at,
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
    _counted: tuple[int, int] = (0, 0)

    def count_in(self, log: CaptureLog) -> None:
        """Add those that are new since the last call to the counts of a source."""
        packets, frames = self._counted
        log.damaged_packets += self.packets - packets
        log.damaged_frames += self.frames - frames
        self._counted = self.packets, self.frames

    def __str__(self) -> str:
        packets = f"{self.packets} damaged packet{'s' * (self.packets != 1)} could not be decoded"
        frames = f"{self.frames} frame{'s' * (self.frames != 1)} {'are' if self.frames != 1 else 'is'} damaged"
        return ", ".join(text for text, count in ((packets, self.packets), (frames, self.frames)) if count)


class PacketReader:
    """Reads a container once, for pictures and sound, on one timeline.

    Args:
        container: open for reading.
        stream: the chosen video stream.
        log: where jumps of the clock are counted.
        stopped: ends the iteration when set.
        live: reads the packets of a live source; None for a file.
        limits: of what the decoder may allocate.
        name: of the source, for errors.
        deinterlace: see `Deinterlacer`; frames of a hardware decoder are left alone.
    """

    def __init__(
        self,
        container: "InputContainer",
        stream: "VideoStream",
        log: CaptureLog,
        stopped: threading.Event,
        *,
        live: LivePackets | None = None,
        deinterlace: str = deinterlacing.AUTO,
        limits: Limits | None = None,
        name: str = "",
    ) -> None:
        self._limits, self._name = limits or Limits(), name
        stream.codec_context.options = {"max_pixels": str(decoder_pixels(self._limits))}
        self._container, self._stream, self._log, self._stopped = container, stream, log, stopped
        self._live, self._age = live, StreamClock()
        self.clock = clock_of(container.format.name, container.format.flags, is_live=live is not None)
        self.time_base = (None if self.clock is Clock.ARRIVAL else stream.time_base) or Fraction(1, 90_000)
        """Unit of the frames' pts; the one of a demuxer that invents the times is as coarse as one frame."""
        self.sound = SoundReader(container, stream, self.clock)
        self.errors = DecodeErrors()
        self.refused: TooLargeError | None = None
        """Why nothing more could be decoded, if nothing could: the decoder has refused a size that it does not tell."""
        self.timeline = self._new_timeline()
        self._deinterlace = deinterlace
        self._deinterlacer = self._new_deinterlacer()
        self._expect_lead()

    @property
    def deinterlaces(self) -> bool:
        """Frames are computed from their neighbours, so that the first one differs from what it is in a whole run."""
        return self._deinterlacer.is_working

    def restart(self) -> None:
        """Call after a seek: packets will be read again, and their times may be any."""
        self.errors = DecodeErrors()
        self.timeline = self._new_timeline()
        self.sound.forget()
        self._deinterlacer = self._new_deinterlacer()
        self._expect_lead()

    def _expect_lead(self) -> None:
        self.lost_lead = 0
        """Pictures before the first one that can be decoded."""
        self._lead: list[int] = []
        self._first_pts: int | None = None

    def _new_timeline(self) -> Timeline:
        return Timeline(self.clock, is_rtp=self._live is not None and self._container.format.name in RTP)

    def _new_deinterlacer(self) -> Deinterlacer:
        mode = deinterlacing.OFF if self._stream.codec_context.is_hwaccel else self._deinterlace
        return Deinterlacer(mode, self._note_once)

    def _note_once(self, note: str) -> None:
        if note not in self._log.notes:
            self._log.notes.append(note)

    def frames(self, *, after: int | None = None) -> Iterator["VideoFrame"]:
        """Yield every frame from the current position, including delayed ones, until the end or until stopped.

        Damaged packets are counted in `errors` instead of ending the iteration. Sound is passed on.

        Args:
            after: pts on the timeline; what lies well before it is read but not decoded. Where timestamps may start
                again, no seek finds a time.

        Raises:
            av.error.FFmpegError, OSError: reading failed.
            SourceError: a frame is larger than the limits allow.
        """
        errors, started_s = self.errors, None
        stretch, since_mark = 0, _MARKED_AT_JOIN
        for packet, now in self.packets() if after is None else self._packets_before(after):
            if packet.stream.index != self._stream.index:
                self.sound.put(packet, is_joined=self.timeline.jumps > 0)
                continue
            if stretch != now:
                stretch, errors.packets = now, errors.packets - (since_mark < _MARKED_AT_JOIN)
            since_mark = 0 if packet.is_corrupt else since_mark + 1
            errors.packets += packet.is_corrupt
            try:
                frames = packet.decode()
            except av.error.EOFError:
                break
            except av.error.FFmpegError as error:
                self._raise_if_too_large(error)
                errors.packets += not packet.is_corrupt
                since_mark = _MARKED_AT_JOIN
                continue
            if self.clock is Clock.ARRIVAL and self._live is not None:
                arrived_s = self._live.arrived_s
                started_s = arrived_s if started_s is None else started_s
                for frame in frames:
                    frame.pts = round((arrived_s - started_s) / self.time_base)
            if frames:
                self.refused = None
            self._count_lead(packet, frames)
            for frame in frames:
                yield from self._deinterlacer.put(frame)
        yield from self._deinterlacer.flush()

    def _raise_if_too_large(self, error: BaseException) -> None:
        """Raise a `SourceError` if the decoder has refused a packet because its picture is larger than the limit.

        Decoders tell so in different ways: H.264 and H.265 know the size, libdav1d says that it is out of range, and
        most others have called `ff_set_dimensions`, which logs it and leaves no size and an invalid argument. If it is
        not logged, or no limit would allow the size (0×0), the packet counts as damaged: a later one may be whole.
        """
        context, most = self._stream.codec_context, self._limits.frame_pixels
        size = context.height, context.width
        if size[0] * size[1] > most:
            raise self._limits.undecodable(most, self._name, size) from error
        logged = getattr(error, "log", None)
        is_unsized = isinstance(error, av.error.ArgumentError) and 0 in size
        is_refused = is_unsized and logged is not None and _REFUSES_SIZE in logged[2]
        if is_refused or isinstance(error, OverflowError):
            raise self._limits.undecodable(most, self._name) from error
        if is_unsized:
            self.refused = self._limits.undecodable(most, self._name)

    def sound_until(self, end: float, origin: int) -> None:
        """Read on without decoding until the sound reaches `end`: it may lie behind the pictures of the same time.

        Args:
            end: in units of the video stream, after the first picture.
            origin: pts of the first picture.
        """
        end_s = float(end * self.time_base)
        for packet, _ in self.packets() if self.sound.is_wanted and not self.sound.reaches(end_s) else ():
            if packet.stream.index != self._stream.index:
                self.sound.put(packet, is_joined=self.timeline.jumps > 0)
                if self.sound.reaches(end_s):
                    return
            elif packet.dts is not None and float((packet.dts - origin - end) * self.time_base) > _INTERLEAVED_S:
                return

    def packets(self) -> "Iterator[tuple[Packet[Any], int]]":
        """Yield packets of pictures and sound, moved to the timeline, each with the number of its stretch."""
        timeline = self.timeline
        live = self._live
        ticks_s = {s.index: float(s.time_base or 0) for s in (self._stream, *self.sound.streams)}
        for packet in packets_of(live or self._container, self._stream, *self.sound.streams):
            if self._stopped.is_set():
                return
            index = packet.stream.index
            arrived_s = None if live is None else live.arrived_s
            if not timeline.trusts(index, packet.dts, packet.pts, ticks_s[index]):
                packet.pts = None  # a decoder that gets none makes none, and `FrameMaker.repair_pts` replaces it
            shift = timeline.offset(index, packet.dts, packet.pts, packet.duration or 0, ticks_s[index], arrived_s)
            if shift:
                packet.pts, packet.dts = _later(packet.pts, shift), _later(packet.dts, shift)
            if arrived_s is not None and packet.pts is not None and index == self._stream.index:
                self._age.arrived(float(packet.pts * packet.time_base), arrived_s)
            yield packet, timeline.stretch(index)

    def _packets_before(self, pts: int) -> "Iterator[tuple[Packet[Any], int]]":
        """Yield like `_packets`, from two key frames before `pts`: leading pictures refer to the group before."""
        packets = self.packets()
        groups: deque[list[tuple[Packet[Any], int]]] = deque([[]], maxlen=2)
        sound: deque[tuple[Packet[Any], int]] = deque(maxlen=_SOUND_BEFORE)
        taken = 0
        for packet, stretch in packets:
            if packet.stream.index != self._stream.index:
                sound.append((packet, stretch))
                continue
            if packet.is_keyframe:
                groups.append([])
            groups[-1].append((packet, stretch))
            taken = packet.size if packet.is_keyframe else taken + packet.size
            is_long = len(groups[-1]) > _LONGEST_GROUP or taken > _LARGEST_GROUP
            if (packet.pts is not None and packet.pts >= pts) or is_long:
                break
        for group in (sound, *groups):
            yield from group
        yield from packets

    def captured_at(self, pts: int | None) -> float | None:
        """Return when the picture at `pts` was taken, in monotonic seconds; None if the source is not live."""
        if self._live is None:
            return None
        if pts is None or self.clock is Clock.ARRIVAL:
            return self._live.arrived_s
        return self._age.captured_at(float(pts * self.time_base), self._live.clock())

    def _count_lead(self, packet: "Packet[Any]", frames: "list[VideoFrame]") -> None:
        """Count the pictures in front of the first one: without a key frame before them, they cannot be decoded."""
        if packet.pts is not None and packet.size and not packet.is_discard:
            if self._first_pts is None:
                if len(self._lead) < _LONGEST_LEAD:
                    self._lead.append(packet.pts)
            else:
                self.lost_lead += packet.pts < self._first_pts
        if self._first_pts is None and frames and (first := frames[0].pts) is not None:
            self._first_pts = first
            if not self.errors.packets:
                self.lost_lead = sum(pts < first for pts in self._lead)
            self._lead.clear()

    def finish(self) -> None:
        """Record what happened to the clock, and end the sound. Idempotent."""
        self.sound.end()
        if self.timeline.jumps:
            self._log.clock_jumps += self.timeline.jumps
            self._log.notes.append(f"{self.timeline}")
            self.timeline = self._new_timeline()
        if self._log.repaired_pts > _FEW_REPAIRS:
            self._note_once(f"{self._log.repaired_pts} frames had no timestamp, or not a later one; it was replaced")
        if self.sound.lost:
            self._note_once(f"{self.sound.lost} packets of sound were dropped: too far before the first picture")


def _later(ticks: int | None, shift: int) -> int | None:
    """Return a moved time, None if there is none or it is nonsense that does not fit FFmpeg's 64 bits."""
    return None if ticks is None or abs(ticks + shift) > _MOST_TICKS else ticks + shift


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


def decoder_pixels(limits: Limits) -> int:
    """The largest picture that a decoder may allocate: with the blocks that codecs add to a picture at its edges."""
    return limits.frame_pixels + limits.frame_pixels // 16 + (1 << 16)


def nominal_step(stream: "VideoStream", time_base: Fraction) -> int:
    """Return the pts units between frames at the nominal rate, 1 if the rate is unknown."""
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return max(1, round(1 / (rate * time_base))) if rate else 1
