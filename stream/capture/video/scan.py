"""Finds where a video file can be cut, without decoding it: its key frames, on the clock of its frames.

The packets come through `PacketReader`, and the first picture is decoded as a run decodes it, so that the times are
exactly those that `Frame.pts` has in a run.
Invariant: a key frame is reported only if every picture before it in the file is also shown before it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import dropwhile, islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stream.capture.base import CaptureLog
from stream.capture.limits import Limits
from stream.capture.video import deinterlace as deinterlacing
from stream.capture.video import hwaccel
from stream.capture.video.decode import PacketReader, choose_video_stream
from stream.capture.video.file import NO_KEYFRAMES, WITHOUT_SEEK, open_file
from stream.capture.video.timeline import Clock
from stream.errors import SourceError
from stream.media import av
from stream.notes import note

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from stream.remote.reading import RemoteFile

Pts = NDArray[np.int64]


_WITH_INDEX = "mov"
"""First of FFmpeg's names for MP4 and MOV. Their index holds every picture, and its key frames begin what follows."""
_KEY, _HIDDEN = 1, 2
"""FFmpeg's flags of an index entry: a key frame; a picture that an edit list leaves out."""


_MOST_CHECKED = 8
"""Key frames that are decoded to see whether that works: they are alike, and each takes 10 to 50 ms."""
_DECODED = 4
"""Pictures that are decoded at each. Intra refresh has no whole one; the times of others depend on those before."""
_TOLD_BYTES = 64 << 20
"""More than this is not read from a bucket without a word."""
_EARLY_S = 10.0
"""A seek in a transport stream leads to a place near a time."""


class UncuttableError(Exception):
    """A video cannot be read in parts; the text says why, as a phrase for messages."""


class OddIndexError(Exception):
    """The index does not lead to what it names."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """The times of a video's frames, in units of `time_base`, counted from the first one.

    Attributes:
        pts: of all frames, int64, increasing.
        keys: of the key frames, int64, increasing.
    """

    time_base: Fraction
    pts: Pts
    keys: Pts

    def index_of(self, pts: int) -> int:
        """The number of frames before `pts`."""
        return int(np.searchsorted(self.pts, pts))

    def settled(self, keys: Sequence[int]) -> list[tuple[int, int]]:
        """The exact pts of some key frames, and the number of frames before each."""
        return [(key, self.index_of(key)) for key in keys]


@dataclass(frozen=True, kw_only=True, eq=False)
class FileScan(Scan):
    """What the packets of a file say.

    Attributes:
        place: of the file.
        origin: pts of the first frame.
    """

    place: "_Place"
    origin: int

    def settled(self, keys: Sequence[int]) -> list[tuple[int, int]]:
        """See `Scan`.

        Raises:
            UncuttableError: a run that begins at one of them would not begin with its picture.
        """
        for first, times in self._decoded(keys):
            expected = self.pts[self.index_of(first) :]
            if times != [int(time) for time in expected[: len(times)]]:
                raise UncuttableError("its timestamps depend on where reading begins")
        return super().settled(keys)

    def _decoded(self, keys: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Some of `keys`, with the pts of the first pictures that are decoded from there on, without earlier ones."""
        found = []
        with _opened(self.place) as (container, stream, _):
            for key in keys[:: math.ceil(len(keys) / _MOST_CHECKED)] if keys else ():
                frames = _decoded_at(container, stream, key + self.origin)
                times = [frame.pts - self.origin for frame in frames if frame.pts is not None]
                is_whole = bool(frames) and frames[0].pict_type in (
                    av.video.frame.PictureType.NONE,
                    av.video.frame.PictureType.I,
                )
                if not is_whole or not times or times[0] > key:
                    raise UncuttableError("its pictures cannot be decoded from a key frame on")
                found.append((key, [time for time in times if time >= key]))
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexScan(FileScan):
    """What the index of a file says. Its `pts` and `keys` are decode times, a few frames early or late.

    Attributes:
        first_dts: decode time of the first frame.
    """

    first_dts: int

    def settled(self, keys: Sequence[int]) -> list[tuple[int, int]]:
        """See `Scan`; reads a few packets at each.

        Raises:
            OddIndexError: there is no such key frame.
            UncuttableError: see `FileScan`.
        """
        found = []
        with _opened(self.place) as (container, stream, _):
            for key in keys:
                try:
                    container.seek(key + self.origin, stream=stream)
                    pts, leading = _leading(packet for packet in container.demux(stream) if packet.size)
                except (av.error.FFmpegError, OSError) as error:
                    raise OddIndexError from error
                if pts is None or pts[1] != key + self.first_dts:
                    raise OddIndexError
                found.append((pts[0] - self.origin, self.index_of(key) + leading))
        self._decoded([pts for pts, _ in found])
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """What is opened, several times."""

    path: Path
    file: "RemoteFile | None"
    limits: Limits

    @property
    def name(self) -> str:
        return str(self.path) if self.file is None else self.file.url

    def open(self, log: CaptureLog) -> "InputContainer":
        if self.file is None:
            return open_file(self.path, hwaccel.OFF, log, None, False, self.limits)
        self.file.seek(0)
        return hwaccel.open_container(self.file.url, hwaccel.OFF, log, limits=self.limits, file=self.file)


def scan(
    path: Path, *, file: "RemoteFile | None" = None, limits: Limits | None = None, every_time: bool = True
) -> Scan:
    """Read all packets of a file, or its index.

    Args:
        file: read instead of `path`.
        every_time: False if times between key frames are not needed.

    Raises:
        UncuttableError: it cannot be read in parts with the same result as in one piece.
        SourceError: it cannot be opened, or holds no video.
    """
    place = _Place(path=path, file=file, limits=limits or Limits())
    with _opened(place) as (container, stream, reader):
        dts, flags = (None, None) if every_time else _index(container, stream)
        origin = _first_pts(reader)
    if dts is not None and flags is not None:
        with suppress(OddIndexError):
            return _of_index(place, origin, dts, flags)
    if file is not None and file.size > _TOLD_BYTES:
        how = "; --segment-seconds 0 reads it once, and cannot be resumed"
        note(f"{place.name}: all of its {file.size / 1e6:.0f} MB are read to find where it can be cut{how}")
    with _opened(place) as (_, _, reader):
        times, key_places = _packets(reader)
        if reader.timeline.jumps:
            raise UncuttableError("its timestamps start again or jump")
        shown, keys = _checked(times - origin, key_places)
        return FileScan(time_base=reader.time_base, pts=shown, keys=keys, place=place, origin=origin)


@contextmanager
def _opened(place: _Place) -> "Iterator[tuple[InputContainer, VideoStream, PacketReader]]":
    log = CaptureLog()
    try:
        with place.open(log) as container:
            stream = choose_video_stream(container, place.name)
            stream.codec_context.thread_count = 1  # several would decode more than the first picture
            reader = PacketReader(container, stream, log, Event(), deinterlace=deinterlacing.OFF, limits=place.limits)
            if reader.clock is Clock.NOMINAL:
                raise UncuttableError("it has no timestamps")
            if stream.codec_context.name in NO_KEYFRAMES:
                raise UncuttableError("each of its frames builds on the one before")
            yield container, stream, reader
    finally:
        if place.file is not None:
            place.file.check()  # a lost connection looks like the end of the file


def _first_pts(reader: PacketReader) -> int:
    """The time of the first picture that can be decoded, which a run counts from."""
    try:
        first = next(reader.frames(), None)
    except (av.error.FFmpegError, OSError, SourceError):
        first = None
    if first is None or first.pts is None:
        raise UncuttableError("its first picture has no timestamp, or cannot be decoded")
    return first.pts


def _index(container: "InputContainer", stream: "VideoStream") -> tuple[Pts | None, Pts | None]:
    """Decode times and flags of every picture by the index.

    None if it is not complete, as in fragments, or if an edit list hides pictures: FFmpeg's seeks then lead elsewhere.
    """
    entries = stream.index_entries
    if not container.format.name.startswith(_WITH_INDEX) or not stream.frames or len(entries) != stream.frames:
        return None, None
    found = np.array([(entry.timestamp, entry.flags) for entry in entries], np.int64).T
    dts, flags = found
    return (dts, flags) if (np.diff(dts) > 0).all() and not (flags & _HIDDEN).any() else (None, None)


def _of_index(place: _Place, origin: int, dts: Pts, flags: Pts) -> IndexScan:
    """A scan by the index. Raises `OddIndexError`: the first picture in the file is not the first one that is shown."""
    with _opened(place) as (container, stream, reader):
        first = next(container.demux(stream))
        if first.pts != origin or first.dts != dts[0] or not flags[0] & _KEY:
            raise OddIndexError
        pts = dts - dts[0]
        return IndexScan(
            time_base=reader.time_base,
            pts=pts,
            keys=pts[flags & _KEY != 0],
            place=place,
            origin=origin,
            first_dts=int(dts[0]),
        )


def _leading(packets: "Iterable[Packet[Any]]") -> tuple[tuple[int, int] | None, int]:
    """The pts and dts of the key frame that comes first, and how many pictures behind it are shown before it."""
    first, leading = None, 0
    for packet in packets:
        if packet.pts is None or packet.dts is None or (first is None and not packet.is_keyframe):
            return None, 0
        if first is None:
            first = packet.pts, packet.dts
        elif packet.dts >= first[0]:
            break
        leading += packet.pts < first[0]
    return first, leading


def _packets(reader: PacketReader) -> tuple[Pts, Pts]:
    """The pts of all packets that give a picture, in the order of the file, and the places of key frames among them."""
    times: list[int] = []
    keys: list[int] = []
    with suppress(av.error.FFmpegError, OSError):  # a file that is cut off ends there in a run, too
        for packet, _ in reader.packets():
            if packet.stream.type != "video" or not packet.size or packet.is_discard:
                continue
            if packet.pts is None:
                raise UncuttableError("some of its pictures have no timestamps")
            if packet.is_keyframe:
                keys.append(len(times))
            times.append(packet.pts)
    return np.array(times, np.int64), np.array(keys, np.int64)


def _checked(times: Pts, key_places: Pts) -> tuple[Pts, Pts]:
    """The times of frames and key frames, of packets whose times are counted from the first picture."""
    latest = np.maximum.accumulate(times) if times.size else times
    clean = [place for place in key_places if times[place] >= 0 and (place == 0 or latest[place - 1] < times[place])]
    shown = np.sort(times[times >= 0])
    if (np.diff(shown) <= 0).any():
        raise UncuttableError("some of its timestamps do not increase")
    return shown, np.sort(times[clean])


def _decoded_at(container: "InputContainer", stream: "VideoStream", key: int) -> "list[VideoFrame]":
    """The first pictures that are decoded where a part begins; none if it cannot be read."""
    is_approximate = container.format.name in WITHOUT_SEEK  # such a part is read from the start
    early = round(_EARLY_S / float(stream.time_base or 1)) if is_approximate else 0
    try:
        container.seek(key - early, stream=stream)
        packets = iter(container.demux(stream))
        if is_approximate:
            packets = dropwhile(lambda packet: packet.pts != key, packets)
        return list(islice((frame for packet in packets for frame in packet.decode()), _DECODED))
    except (av.error.FFmpegError, OSError):
        return []
