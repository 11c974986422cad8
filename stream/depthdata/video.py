"""Reads depth videos: the numbers that a model gave, with their meaning and their exact times.

Invariant: whoever reads a frame gets the values that its codes stand for, or a `SourceError`; a file that is damaged,
cut off or without a description gives no numbers that look like depth, and no frame is left out in silence.
"""

import math
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stream.config import defaults
from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.storage import (
    STREAMS,
    TAG,
    FrameTime,
    join_halves,
    picture_size,
    read_description,
    sidecar_path,
)
from stream.errors import SourceError, SourceNotFoundError, UsageError, reason_of
from stream.files import open_regular, path_of_url
from stream.frames import Depth
from stream.media import av, file_url, open_input, packets_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MATROSKA = b"\x1aE\xdf\xa3"
"""How Matroska begins (EBML)."""
_THREADS = max(1, min(4, os.cpu_count() or 1))
"""FFV1 is written in four slices. Decoding one of 640×480 takes 14 ms of one core, more than all that follows."""
_BLOCK = 64
"""Decoders extend a picture by less than this on each side, which is much for one that is 2 pixels wide."""
_LONGEST_S = 1e9
_MISSING_S = Fraction(1, 500)  # Matroska rounds to milliseconds
_TOLERANCE = Fraction(1, 1000)
"""In units of pts: the float 0.04 is not exactly 1/25."""
_BACK_S = 2.0
"""First step back after a seek has landed too late; doubled until a seek lands early enough."""
_AGAIN = "it is damaged, or a program has removed frames: make it again"


def open_depth_video(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> "DepthVideo":
    """Open a depth video that `--save video16`, an OUT called `NAME.depth.mkv` or `NAME.depth.mp4` has written.

    The description in the file itself is what counts. `NAME.depth.json` may be missing; if it is there, it must say the
    same.

    Args:
        path: of a local file.
        max_pixels: larger frames are refused; default: that of `--max-pixels`.

    Raises:
        SourceNotFoundError: there is no such file.
        SourceError: it is no depth video, is damaged, or its sidecar belongs to another one.
        UsageError: it is a URL.
    """
    return DepthVideo(local_path(path), max_pixels=max_pixels)


def local_path(text: str | os.PathLike[str]) -> Path:
    """The path of a depth video. Raises `UsageError` for a URL of another machine."""
    text = os.fspath(text)
    if "://" not in text or os.path.exists(text):
        return Path(text)
    if text.lower().startswith("file://"):
        return Path(path_of_url(text))
    what, hint = "is a URL; depth videos are read from a disk", "copy it to this machine"
    raise UsageError(what, where=text, hint=hint)


class DepthVideo:
    """An open depth video; an iterator of `Depth`, for one thread. Close it, or use it in a `with` statement.

    The values are within `error_at`, and the rounding of float32, of those written. What had no answer has none again;
    only `hevc12` has no code for that, so there it comes back as the lowest value. `Depth.index` is the number of the
    frame in the file, and `Depth.intrinsics` the camera that the model or the photo gave; `hevc12` has no place for it.

    Attributes:
        description: what the numbers are.
    """

    def __init__(self, path: Path, *, max_pixels: int | None = None) -> None:
        self._path, self._where = path, str(path)
        self._most = defaults().capture.max_pixels if max_pixels is None else max_pixels
        self._container: InputContainer | None = _opened(path)
        self._stream: VideoStream | None = None
        self._waiting: deque[tuple[FrameTime, VideoFrame]] = deque()
        self._frames: Iterator[tuple[FrameTime, VideoFrame]] = iter(())
        try:
            self.description = self._described(self._container)
            video = self._checked_stream(self._container)
            self._stream = video
            self._unit = video.time_base or Fraction(1, 1000)
            self._starts = [entry.timestamp for entry in video.index_entries]
            self.description = replace(self.description, frame_count=self._counted())
            self._to(0.0)
            self._frames = self._decoded(0)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the depth maps, in pixels."""
        size = self.description.size
        assert size is not None
        return size

    @property
    def time_base(self) -> Fraction:
        """Seconds per unit of pts."""
        time_base = self.description.time_base
        assert time_base is not None
        return time_base

    @property
    def rate(self) -> Fraction | None:
        """Nominal frames per second, None if unknown."""
        return self.description.rate

    @property
    def frame_count(self) -> int:
        """How many the file holds."""
        return self.description.frame_count or 0

    def error_at(self, value: float) -> float:
        """Half a code at `value`, in its unit: how far what is read may be from what was written; 0 for `float32`."""
        return self.description.error_at(value)

    def __iter__(self) -> Iterator[Depth]:
        for _, _, depth in self.timed():
            yield depth

    def timed(self) -> Iterator[tuple[int, int | None, Depth]]:
        """Yield (pts, duration, depth) from the current position on; times are in units of `time_base`.

        Raises:
            SourceError: a frame is damaged or missing, the file ends before its stated end, or it is closed.
        """
        while (item := self._take()) is not None:
            time, picture = item
            yield time.pts, time.duration or None, self._depth(time, picture)

    def seek(self, time_s: float) -> None:
        """Continue with the last frame at or before `time_s`, in seconds of pts; with the first one if all are later.

        Raises:
            UsageError: `time_s` is no finite number.
            SourceError: the file cannot be read.
        """
        if not math.isfinite(time_s):
            raise UsageError(f"{time_s} is no time", where=self._where, allowed="seconds")
        wanted = Fraction(time_s) / self.time_base + _TOLERANCE
        first, back_s = self._restarted(time_s), _BACK_S
        while first is not None and first[0].pts > wanted and back_s / 2 < time_s:
            first, back_s = self._restarted(time_s - back_s), 2 * back_s
        if first is None:
            raise SourceError("is damaged: no frame is found there", where=self._where, hint=_AGAIN)
        if first[0].pts > wanted:
            self._check_number(first[0].number, 0)
        while first is not None:
            following = next(self._frames, None)
            if following is None or following[0].pts > wanted:
                self._waiting.extend(filter(None, (first, following)))
                return
            first = following

    def close(self) -> None:
        """End the decoder's threads and close the file. Idempotent."""
        container, self._container = self._container, None
        if container is not None:
            container.close()
            self._stream, self._frames = None, iter(())  # the decoder lives as long as one of them
            self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> "tuple[FrameTime, VideoFrame] | None":
        if self._container is None:
            raise SourceError("is closed", where=self._where)
        return self._waiting.popleft() if self._waiting else next(self._frames, None)

    def _restarted(self, time_s: float) -> "tuple[FrameTime, VideoFrame] | None":
        """Decode from a key frame at or before `time_s`, or from the start; returns the first frame there."""
        self._waiting.clear()
        self._to(time_s)
        self._frames = self._decoded(0 if time_s <= 0 else None)
        return next(self._frames, None)

    def _to(self, time_s: float) -> None:
        """Move the reading position."""
        if self._container is None:
            raise SourceError("is closed", where=self._where)
        ticks = math.floor(max(0.0, min(time_s, _LONGEST_S)) / float(self._unit)) - 1  # Matroska has rounded up
        for target in (ticks, 0):
            with suppress(av.error.FFmpegError, OSError):
                self._container.seek(max(0, target), stream=self._stream)
                return
        self._reopen()  # it was not finished and has no index

    def _reopen(self) -> None:
        assert self._container is not None
        self._container.close()
        self._container = _opened(self._path)
        self._stream = self._checked_stream(self._container)

    def _packets(self) -> "Iterator[tuple[FrameTime, Packet[Any]]]":
        """The packets from the reading position on."""
        if self._container is None or self._stream is None:
            return
        for packet in packets_of(self._container, self._stream):
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise SourceError("is damaged or cut off", where=self._where)
            yield self._time_of(packet), packet

    def _time_of(self, packet: "Packet[Any]") -> FrameTime:
        if self.description.codec != DepthCodec.HEVC12:
            try:
                time = FrameTime.of(packet)
            except ValueError as error:
                raise SourceError(str(error), where=self._where) from error
            if time is None:
                hint = "make it again: a program that has copied it has left them out"
                raise SourceError("a frame lacks its exact time", where=self._where, hint=hint)
            return time
        ticks = (packet.pts or 0) * self._unit / self.time_base
        number = bisect_left(self._starts, packet.dts or 0)
        return FrameTime(number, round(ticks), round((packet.duration or 0) * self._unit / self.time_base))

    def _decoded(self, number: int | None) -> "Generator[tuple[FrameTime, VideoFrame], None, None]":
        """Decode from the reading position on; each frame builds on no other.

        After a hole, FFmpeg's demuxer goes on with whatever it finds next, so the frames are counted here.

        Args:
            number: the first frame's, None if any may be the first.

        Raises:
            SourceError: a frame is damaged, or not the next one.
        """
        try:
            for time, packet in self._packets():
                self._check_number(time.number, time.number if number is None else number)
                number = time.number + 1
                try:
                    pictures = packet.decode()
                except (av.error.FFmpegError, OSError) as error:
                    raise SourceError(
                        f"frame {time.number} is damaged: {reason_of(error)}", where=self._where
                    ) from error
                if len(pictures) != 1 or pictures[0].is_corrupt:
                    raise SourceError(f"frame {time.number} is damaged", where=self._where)
                yield time, pictures[0]
            if self._container is not None and number not in (None, self.frame_count):
                what = f"ends after {number} of its {self.frame_count} frames"
                raise SourceError(what, where=self._where, hint=_AGAIN)
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"cannot be read any further: {reason_of(error)}", where=self._where) from error

    def _check_number(self, found: int, expected: int) -> None:
        """Raise `SourceError` unless the frame that was found is the next one."""
        if found != expected:
            what = f"frames are missing: frame {found} stands where frame {expected} belongs"
            raise SourceError(what, where=self._where, hint=_AGAIN)

    def _depth(self, time: FrameTime, picture: "VideoFrame") -> Depth:
        description, number, (height, width) = self.description, time.number, self.size
        codec = DepthCodec(description.codec)
        found = picture.format.name, (picture.height, picture.width)
        if found != (STREAMS[codec][1], picture_size(codec, self.size)):
            what = f"frame {number} has {picture.width}×{picture.height} pixels of {picture.format.name}"
            raise SourceError(what, where=self._where)
        codes = np.asarray(picture.to_ndarray(), np.uint16)
        try:
            if description.mapping is None:
                values = join_halves(codes)
                missing = np.isnan(values)
                valid = ~missing if missing.any() else None
            else:
                values, valid = description.mapping.decode(codes[:height, :width])
            return Depth(
                values=values,
                kind=description.kind,
                index=number,
                model=description.model,
                valid=valid,
                refined=description.refined,
                steadied=description.steadied,
                carried=description.carried,
                intrinsics=time.camera,
            )
        except ValueError as error:
            raise SourceError(f"frame {number} holds values that are no depth: {error}", where=self._where) from error

    def _described(self, container: "InputContainer") -> Description:
        """The description in the container; the sidecar, if there is one, must agree.

        Raises:
            SourceError: there is none, it is wrong, or the two differ.
        """
        text = container.metadata.get(TAG)
        if text is None:
            what = "is no depth video: its metadata do not say what its numbers mean"
            hint = "depth videos are made with --save video16 or -o NAME.depth.mkv"
            raise SourceError(what, where=self._where, hint=hint)
        try:
            found = Description.from_json(text)
            _check_description(found)
        except ValueError as error:
            raise SourceError(f"its description is wrong: {error}", where=self._where) from error
        beside = sidecar_path(self._path)
        if beside is None or not os.path.lexists(beside):
            return found
        stated = read_description(beside)
        if difference := found.difference(stated):
            hint = f"remove {beside.name}, or put back the one that was written with the video"
            raise SourceError(f"belongs to another video or was edited: in the video, {difference} here",
                              where=str(beside), hint=hint)  # fmt: skip
        return replace(found, frame_count=stated.frame_count)

    def _checked_stream(self, container: "InputContainer") -> "VideoStream":
        """The stream, if it holds what the description says; its decoder refuses whatever is larger.

        Raises:
            SourceError: it does not.
        """
        codec = DepthCodec(self.description.codec)
        name, pixel_format = STREAMS[codec]
        if len(container.streams.video) != 1:
            raise SourceError("a depth video has one video track", where=self._where)
        stream = container.streams.video[0]
        context = stream.codec_context
        if context.name == name and context.pix_fmt is None:  # known once a frame was found
            raise SourceError("is damaged or cut off: its first frames cannot be read", where=self._where)
        if (context.name, context.pix_fmt) != (name, pixel_format):
            hint = "a program that converted it has changed the numbers: make it again"
            what = f"holds {context.name} {context.pix_fmt} instead of {name} {pixel_format}"
            raise SourceError(what, where=self._where, hint=hint)
        height, width = picture_size(codec, self.size)
        if (context.height, context.width) != (height, width):
            what = f"has pictures of {context.width}×{context.height} instead of {width}×{height}"
            raise SourceError(what, where=self._where)
        if self.size[0] * self.size[1] > self._most:
            megapixels = f"up to {self._most / 1e6:.3g} megapixels"
            what = f"frames of {self.size[1]}×{self.size[0]} are too large"
            raise SourceError(what, where=self._where, allowed=megapixels, hint="raise --max-pixels (max_pixels=)")
        most = (height + _BLOCK) * (width + _BLOCK) + (1 << 16)
        context.options = {"max_pixels": str(most), "err_detect": "+crccheck+explode"}
        context.thread_count, context.thread_type = _THREADS, "SLICE"  # frame threads would hold frames back
        return stream

    def _counted(self) -> int:
        """How many frames the file holds, from its last one; raises `SourceError` if they are fewer than it states."""
        assert self._container is not None
        stated = self.description.frame_count
        last: FrameTime | None = None
        try:
            self._to(_LONGEST_S)
            for time, _ in self._packets():
                last = time
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"cannot be read to its end: {reason_of(error)}", where=self._where) from error
        if last is None:
            raise SourceError("holds no frame", where=self._where)
        count = last.number + 1
        if stated is not None and stated != count:
            what = f"holds {count} frames, not the {stated} that {self._path.with_suffix('.json').name} states"
            raise SourceError(what, where=self._where, hint="it is cut off, or the sidecar is that of another video")
        duration_s = Fraction(self._container.duration or 0, av.time_base)
        if duration_s - (last.pts + last.duration) * self.time_base > _MISSING_S:
            raise SourceError(f"is cut off after {count} frames", where=self._where)
        return count


def _check_description(found: Description) -> None:
    """Raise `ValueError` if it cannot be that of a depth video."""
    if found.codec not in list(DepthCodec):
        raise ValueError(f"codec must be one of {', '.join(DepthCodec)}, got {found.codec}")
    if found.size is None or found.time_base is None:
        raise ValueError("width, height and time_base must be stated")
    codec, mapping = DepthCodec(found.codec), found.mapping
    if (mapping is None) != (codec is DepthCodec.FLOAT32):
        raise ValueError(f"{codec} needs {'no' if mapping else 'a'} mapping")
    if mapping is not None and mapping.last != codec.last_code:
        raise ValueError(f"the last code of {codec} is {codec.last_code}, not {mapping.last}")


def _opened(path: Path) -> "InputContainer":
    """Open a local Matroska or MP4 file, with the one demuxer that its first bytes ask for."""
    where = str(path)
    if not path.exists():
        raise SourceNotFoundError("no such file", where=where, hint="check the name")
    if path.is_dir():
        raise SourceError("is a folder, not a depth video", where=where)
    try:
        with open_regular(path) as file:
            start = file.read(len(_MATROSKA))
        return open_input(file_url(path), format="matroska" if start == _MATROSKA else "mov")
    except av.error.InvalidDataError as error:
        raise SourceError("is no depth video, or is cut off: it is neither Matroska nor MP4", where=where) from error
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(f"cannot be opened: {reason_of(error)}", where=where) from error
