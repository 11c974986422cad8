"""Video files through PyAV: every frame, upright, with the container's own timestamps, counted from the first frame.

Invariant: every decodable frame is delivered; one line in `log.warnings` says what is missing.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import CaptureLog, EmptyPartError, Source, UndecodablePartError
from stream.capture.limits import Limits, TooLargeError
from stream.capture.video import deinterlace as deinterlacing
from stream.capture.video import hwaccel
from stream.capture.video.decode import FrameMaker, PacketReader, choose_video_stream, nominal_step
from stream.capture.video.playlist import HLS, Folder
from stream.capture.video.timeline import Clock
from stream.errors import SourceError, SourceNotFoundError, UsageError, reason_of, redacted
from stream.frames import Frame, SourceInfo, SourceKind
from stream.machine import usable_cores
from stream.media import av, file_url, refused_format

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

_MISSING_TAIL_S = 0.25
"""If the container states no frame count, a file that ends this much too early is cut off; less is rounding."""
_STEP_BACK_S = 2.0
"""First step back after a seek has landed too late; doubled until a seek lands early enough."""
_BEFORE_ALL_S = 60.0
"""Seeking this far before the first frame reaches it in MPEG-TS too, where seeks compare the earlier dts."""
NO_KEYFRAMES = frozenset(("gif", "apng"))
"""Each frame builds on the one before, although demuxers mark every packet as a keyframe: never seek in these."""
_HOURS_MINUTES_SECONDS = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9}(?:\.[0-9]+)?)")
WITHOUT_SEEK = frozenset(("mpegts", "mpeg"))
"""FFmpeg finds a time in these by bisection, which fails where timestamps start again, so they are read from the start:
1.3 s for 19 minutes (150 MB) on one core."""
_TOLERANCE = 1e-3
"""Tolerance in pts units: `--start 0.04` includes the frame at 1/25 s although the float 0.04 is not exactly 1/25."""


class VideoSource(Source):
    """Yields the frames of a video file or a finite URL.

    Args:
        path: file name or URL.
        start_s, end_s: part to read, in seconds after the file's first frame; `end_s` is exclusive.
        max_frames: stop after this many.
        threads: decoder threads; default: half the cores, at most 4, to leave the rest to the model.
        decoder: hardware decoder to use, see `hwaccel.open_container`.
        demuxer: FFmpeg's name of the container format; None to recognise it.
        reads_folder: read a playlist as well, and what it names in its own folder.
        container, log: the container if `open_network` has opened `path` already, and its log; closed with the source.
        kind: value of `info.kind`.
        deinterlace: see `Deinterlacer`.
        limits: larger frames are refused.
        is_pipe: `container` can be read only once, so it is not sought.
        clock: monotonic seconds.

    Raises:
        SourceNotFoundError: the file does not exist.
        SourceError: it contains no video, or no frame can be decoded.
        UsageError: no frame lies between `start_s` and `end_s`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        max_frames: int | None = None,
        threads: int | None = None,
        decoder: str = hwaccel.OFF,
        demuxer: str | None = None,
        reads_folder: bool = False,
        container: "InputContainer | None" = None,
        log: CaptureLog | None = None,
        kind: SourceKind = SourceKind.VIDEO,
        is_pipe: bool = False,
        limits: Limits | None = None,
        deinterlace: str = deinterlacing.AUTO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = limits or Limits()
        self._name = redacted(str(path))
        self._log = CaptureLog() if log is None else log
        self._stopped = threading.Event()
        self._max_frames, self._clock, self._is_pipe = max_frames, clock, is_pipe
        self._container = container or open_file(Path(path), decoder, self.log, demuxer, reads_folder, limits)
        try:
            self._stream = stream = choose_video_stream(self._container, self._name)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads or max(1, min(4, usable_cores() // 2))
            self._reader = PacketReader(
                self._container,
                stream,
                self.log,
                self._stopped,
                deinterlace=deinterlace,
                limits=limits,
                name=self._name,
            )
            self._time_base = self._reader.time_base
            self._start = 0.0 if start_s is None else start_s / self._time_base - _TOLERANCE
            self._end = None if end_s is None else end_s / self._time_base - _TOLERANCE
            self._origin: int | None = None
            self._problems: list[str] = []
            self._last_end: int | None = None
            maker = FrameMaker(
                self.log,
                name=self._name,
                time_base=self._time_base,
                pixel_aspect=stream.sample_aspect_ratio,
                step=nominal_step(stream, self._time_base),
                limits=limits,
                clock=clock,
            )
            self._frames = self._deliver(maker)
            self._first = next(self._frames, None)
            if self._first is None:
                raise self._nothing_found(start_s, end_s)
            hwaccel.check_first_frame(stream.codec_context, self.log)
            rate = stream.average_rate or stream.guessed_rate
            if self._reader.clock is Clock.NOMINAL:
                assumed = f"{float(rate):g} frames per second are assumed" if rate else "its frame rate is unknown"
                self.log.notes.append(f"{self._name} has no timestamps: {assumed}")
            self.info = SourceInfo(
                name=self._name,
                size=self._first.size,
                is_live=False,
                time_base=self._time_base,
                rate=rate,
                frame_count=self._estimated_count(rate),
                kind=kind,
                files=(Path(path),) if kind is SourceKind.VIDEO and not is_pipe else (),
                audio=self._reader.sound.audio,
                not_kept=self._reader.sound.not_kept,
                start_s=start_s,
                end_s=end_s,
                notes=tuple(self.log.notes),
            )
        except BaseException:
            self._container.close()
            raise
        self.log.notes.clear()

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        if self._first is not None and not self._stopped.is_set():
            first, self._first = self._first, None
            yield replace(first, captured_at=self._clock())  # it was decoded at opening, before the model was loaded
        for frame in self._frames:
            if self._stopped.is_set():
                return
            yield frame

    def read_sound(self, until_s: float | None) -> None:
        """See `Source`; pictures are read, but not decoded."""
        self._first = None
        if until_s is not None:
            self._read_sound(until_s / self._time_base)
            return
        self._read_sound(math.inf if self._end is None else self._end)
        self._reader.finish()

    def end_after(self, frames: int) -> int | None:
        """See `Source`."""
        stream = self._stream
        if self._start > 0 or frames != stream.frames or stream.duration is None or stream.start_time is None:
            return None
        return stream.start_time + stream.duration - (self._origin or 0)

    def interrupt(self) -> None:
        """See `Source`."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._first = None
        self._frames.close()
        self._container.close()

    def _deliver(self, maker: FrameMaker) -> Generator[Frame, None, None]:
        """Yield the requested frames, then add a line to `log.warnings` that says what is missing."""
        reader = self._reader
        try:
            for decoded in self._readable():
                if self._stopped.is_set():
                    return
                pts = maker.repair_pts(decoded.pts)
                if self._last_end is None:
                    self._origin = pts if self._origin is None else self._origin
                    reader.sound.begin(self._origin * self._time_base)
                since = pts - (self._origin or 0)
                self._last_end = pts + (decoded.duration or 0)
                if since < self._start:
                    continue
                if self._end is not None and since >= self._end:
                    self._read_sound(int(self._end))
                    break
                reader.errors.frames += decoded.is_corrupt
                reader.errors.count_in(self.log)
                duration = self._duration_of(decoded, pts, maker.count + 1)
                yield maker.make(decoded, since, duration=duration)
                if self._max_frames is not None and maker.count >= self._max_frames:
                    self._read_sound(since + (duration or nominal_step(self._stream, self._time_base)))
                    break
            else:
                if maker.count and reader.refused is not None:
                    raise reader.refused
                self._problems += self._cut_off(maker.count)
        except TooLargeError as error:
            if not maker.count:
                raise
            self._problems.append(f"ends at frame {maker.count}: {error.reason}; {error.hint}")
        finally:
            reader.finish()
        if reader.lost_lead and self._start <= 0:
            pictures = "1 picture" if reader.lost_lead == 1 else f"{reader.lost_lead} pictures"
            self.log.notes.append(f"{self._name}: {pictures} before the first key frame cannot be decoded")
        if reader.errors.packets or reader.errors.frames:
            self._problems.append(str(reader.errors))
            reader.errors.count_in(self.log)
        if self._problems and maker.count and not self._stopped.is_set():
            self.log.warnings.append(f"{self._name}: {', '.join(self._problems)}")

    def _read_sound(self, end: float) -> None:
        """Read the sound up to `end`, in pts units after the first frame; damage behind the last frame is no matter."""
        with suppress(av.error.FFmpegError, OSError):
            self._reader.sound_until(end, self._origin or 0)

    def _duration_of(self, decoded: "VideoFrame", pts: int, number: int) -> int | None:
        """Return the display time of frame `number`, counted from 1; None if unknown.

        The decoder reports the time to the next *decoded* frame, which is wrong for the last one with B-frames.
        """
        stream, reported = self._stream, decoded.duration or None
        if stream.duration is None or stream.start_time is None:
            return reported
        left = stream.start_time + stream.duration - pts
        if left <= 0:
            return reported
        is_last = self._start <= 0 and number == stream.frames
        return left if is_last else reported and min(reported, left)

    def _readable(self) -> Iterator["VideoFrame"]:
        """Yield all frames from the start position or earlier, as far as the file can be read."""
        try:
            yield from self._positioned()
        except (av.error.FFmpegError, OSError) as error:
            if self._stopped.is_set():
                return
            if "://" in self._name:
                reason = "no data before the timeout" if isinstance(error, av.error.ExitError) else reason_of(error)
                raise SourceError(f"reading failed: {reason}", where=self._name) from error
            self._problems.append(f"cannot be read any further: {reason_of(error)}")

    def _positioned(self) -> Iterator["VideoFrame"]:
        """Decode from a keyframe before the start position, trying earlier ones if the index leads beyond it."""
        container, stream, reader = self._container, self._stream, self._reader
        if self._start <= 0 or self._is_pipe or stream.codec_context.name in NO_KEYFRAMES:
            yield from reader.frames()
            return
        origin = self._origin = self._first_pts()
        wanted = origin + math.ceil(self._start)
        if container.format.name in WITHOUT_SEEK and "://" not in self._name:
            container.seek(0, unsupported_byte_offset=True)
            yield from reader.frames(after=wanted)
            return
        for target in self._seek_targets(origin, wanted):
            if self._stopped.is_set():
                return
            try:
                container.seek(target, stream=stream)
            except av.error.FFmpegError:
                continue  # there is no index, or it does not go back that far
            frames = reader.frames()
            first = next(frames, None)
            if first is not None and first.pts is not None:
                needed = wanted if not reader.deinterlaces or wanted <= origin else wanted - 1
                if first.pts <= needed:
                    yield first
                    yield from frames
                    return
            reader.restart()
        with suppress(av.error.FFmpegError):
            container.seek(origin, stream=stream)
        yield from reader.frames()

    def _first_pts(self) -> int:
        """Return the pts of the first frame that can be decoded, which all times are counted from."""
        first = next(self._reader.frames(), None)
        self._reader.restart()
        if first is None or first.pts is None:
            return self._stream.start_time or 0
        return first.pts

    def _seek_targets(self, origin: int, wanted: int) -> Iterator[int]:
        """Yield the pts to seek to, one after the other, until one leads to a frame at or before `wanted`."""
        step = int(_STEP_BACK_S / self._time_base)
        yield wanted
        while wanted - step > origin:
            yield wanted - step
            step *= 2
        yield origin - int(_BEFORE_ALL_S / self._time_base)

    def _cut_off(self, count: int) -> list[str]:
        """Return a problem if the file ends before the end that it states, else nothing."""
        end = self._stated_end()
        if end is None or self._last_end is None:
            return []
        missing_s = float((end - self._last_end) * self._time_base)
        expected = self._stream.frames if self._start <= 0 else 0
        if expected:
            limit_s = 1.5 * float(nominal_step(self._stream, self._time_base) * self._time_base)
            is_cut = count < expected and missing_s > limit_s
        else:
            is_cut = missing_s > _MISSING_TAIL_S
        total = f" of {expected}" if expected else ""
        return [f"is cut off: {count}{total} frames could be read, {missing_s:.2g} s are missing"] if is_cut else []

    def _stated_end(self) -> int | None:
        """Return the pts at which this stream ends according to the container, None if it does not say."""
        stream = self._stream
        origin = (self._origin or 0) if stream.start_time is None else stream.start_time
        if self.log.clock_jumps or self._reader.timeline.jumps:
            return None
        if stream.duration is not None:
            # A fragmented MP4 that starts late counts its start in.
            is_late = self._container.format.name.startswith("mov") and not stream.frames and stream.duration > origin
            return stream.duration if is_late else origin + stream.duration
        tag = stream.metadata.get("DURATION")  # Matroska: HH:MM:SS.fraction, counted from time zero
        if tag is not None and (stated := _HOURS_MINUTES_SECONDS.fullmatch(tag)):
            hours, minutes, seconds = stated.groups()
            return int((int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)) / self._time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return int(Fraction(self._container.duration, av.time_base) / self._time_base)
        return None  # the container's duration may be that of a longer audio stream

    def _estimated_count(self, rate: Fraction | None) -> int | None:
        stream = self._stream
        end, count = self._stated_end(), stream.frames or None
        if end is None and self._container.duration is not None:
            end = (self._origin or 0) + int(Fraction(self._container.duration, av.time_base) / self._time_base)
        if end is not None and rate and (count is None or self._start > 0 or self._end is not None):
            length = float(end - (self._origin or 0))
            length = (length if self._end is None else min(self._end, length)) - max(0.0, self._start)
            count = max(1, round(length * float(self._time_base * rate)))
        if count is not None and self._max_frames is not None:
            return min(count, self._max_frames)
        return count

    def _nothing_found(self, start_s: float | None, end_s: float | None) -> Exception:
        if self._last_end is None or (start_s is None and end_s is None):
            if self._reader.refused is not None:
                return self._reader.refused
            reasons = ", ".join(self._problems)
            what = f"contains no frame that can be decoded{reasons and ': ' + reasons}"
            hint = "the device may not support it: use --hwaccel auto or off"
            error = UndecodablePartError if start_s else SourceError
            return error(what, where=self._name, hint=hint if self._stream.codec_context.is_hwaccel else "")
        if end_s is not None and end_s <= (start_s or 0):
            return UsageError(f"--end {end_s:g} is not after --start {start_s or 0:g}", where=self._name)
        length_s = float((self._last_end - (self._origin or 0)) * self._time_base)
        if end_s is not None and length_s > end_s:
            return EmptyPartError(
                f"no frame lies between --start {start_s or 0:g} and --end {end_s:g}", where=self._name
            )
        return EmptyPartError(f"ends at {length_s:.6g} s, before --start {start_s:g}", where=self._name)


def open_file(
    path: Path, decoder: str, log: CaptureLog, demuxer: str | None, reads_folder: bool, limits: Limits
) -> "InputContainer":
    if not path.exists():
        raise SourceNotFoundError("no such file", where=str(path), hint="check the name")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError("the file is empty", where=str(path))
    try:
        return _open_listed(path, decoder, log, demuxer, reads_folder, limits)
    except av.error.InvalidDataError as error:
        what = "is not a video in a supported format, or its header is missing (cut off?)"
        raise SourceError(what, where=str(path)) from error
    except (av.error.FFmpegError, OSError) as error:
        if demuxer := refused_format(error):
            raise list_refused(demuxer, str(path)) from error
        raise SourceError(f"cannot be opened: {reason_of(error)}", where=str(path)) from error


def _open_listed(
    path: Path, decoder: str, log: CaptureLog, demuxer: str | None, reads_folder: bool, limits: Limits
) -> "InputContainer":
    """Open a file; if `reads_folder`, also a playlist, with what it names in its own folder."""
    try:
        return hwaccel.open_container(file_url(path), decoder, log, format=demuxer, limits=limits)
    except (av.error.FFmpegError, OSError) as error:
        if not reads_folder or refused_format(error) != HLS:
            raise
    folder = Folder(path)
    address = file_url(path.absolute())
    return hwaccel.open_container(
        address, decoder, log, format=HLS, io_open=folder.open_named, budget=folder, limits=limits
    )


def list_refused(demuxer: str, where: str) -> SourceError:
    """Return the error for a source that FFmpeg would open other files or hosts for."""
    what = f"is a list that names other files or hosts (FFmpeg's {demuxer}), not a video"
    hint = "only what holds its own pictures is opened: name one of those files"
    hint += ", or add --input-option reach=folder" if demuxer == HLS else ""
    return SourceError(what, where=where, hint=hint)
