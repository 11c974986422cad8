"""Video files through PyAV: every frame, upright, with the container's own timestamps.

Invariant: a frame that can be decoded is delivered; what cannot is named once in `log.warnings`.
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import CaptureLog
from stream.capture.decode import FrameMaker, explain, first_video_stream, nominal_step
from stream.errors import SourceError, SourceNotFoundError, UsageError
from stream.frames import Frame, SourceInfo, SourceKind
from stream.media import av

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_MISSING_TAIL_S = 0.25
"""A file whose last frame ends this much before its stated end was cut off; less is rounding and edit lists."""


class VideoSource:
    """Frames of a video file or finite URL.

    Args:
        path: file name or URL.
        start_s, end_s: part to read, in seconds after the file's first frame; `end_s` is exclusive.
        max_frames: stop after this many.
        threads: decoder threads; default: half the cores, at most 4, so that the model keeps the rest.
        options: FFmpeg demuxer and protocol options.
        timeout_s: (open, read) limits for URLs.

    Raises:
        SourceNotFoundError: no such file.
        SourceError: no video in it, or not a single frame can be decoded.
        UsageError: `start_s` lies behind the end.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        max_frames: int | None = None,
        threads: int | None = None,
        options: dict[str, str] | None = None,
        timeout_s: tuple[float, float] | None = None,
        kind: SourceKind = SourceKind.VIDEO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = str(path)
        self.log = CaptureLog()
        self._stopped = threading.Event()
        self._end_s, self._max_frames = end_s, max_frames
        is_file = "://" not in self._name
        if is_file:
            _check_file(Path(self._name))
        try:
            self._container = av.open(self._name, options=options or {}, timeout=timeout_s)
        except (av.error.FFmpegError, OSError) as error:
            raise _unopenable(self._name, error) from error
        try:
            self._stream = stream = first_video_stream(self._container, self._name)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads or max(1, min(4, (os.cpu_count() or 1) // 2))
            self._time_base = stream.time_base or Fraction(1, 90_000)
            self._damaged = 0
            self._last_end: int | None = None
            self._origin: int | None = None if stream.start_time is None else stream.start_time
            maker = FrameMaker(
                self.log,
                time_base=self._time_base,
                pixel_aspect=stream.codec_context.sample_aspect_ratio,
                step=nominal_step(stream, self._time_base),
                clock=clock,
            )
            self._frames = self._decode(start_s or 0.0, maker)
            self._first = next(self._frames, None)
        except BaseException:
            self._container.close()
            raise
        if self._first is None:
            self._container.close()
            if start_s:
                raise UsageError(f"ends before {start_s:g} s", where=self._name, hint="choose an earlier --start")
            raise SourceError("holds no frame that can be decoded", where=self._name)
        rate = stream.average_rate or stream.guessed_rate
        self.info = SourceInfo(
            name=self._name,
            size=self._first.size,
            is_live=False,
            time_base=self._time_base,
            rate=rate,
            frame_count=self._estimated_count(rate, start_s or 0.0),
            kind=kind,
            audio=self._name if self._container.streams.audio else None,
            start_s=start_s,
            end_s=end_s,
            notes=tuple(self.log.notes),
        )
        self.log.notes.clear()

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        if self._first is not None and not self._stopped.is_set():
            first, self._first = self._first, None
            yield first
        for frame in self._frames:
            if self._stopped.is_set():
                return
            yield frame

    def interrupt(self) -> None:
        """See `Source`."""
        self._stopped.set()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._first = None
        self._frames.close()
        self._container.close()

    def _decode(self, start_s: float, maker: FrameMaker) -> Generator[Frame, None, None]:
        stream = self._stream
        if start_s > 0:
            origin = self._origin or 0
            try:
                self._container.seek(origin + int(start_s / self._time_base), stream=stream)
            except av.error.FFmpegError:
                self._container.seek(0, stream=stream)  # no index: decode from the beginning
        start_units = start_s / self._time_base - Fraction(1, 1000)
        for decoded in self._decoded():
            if self._stopped.is_set():
                return
            pts = maker.repaired(decoded.pts)
            if self._origin is None:
                self._origin = pts
            since = pts - self._origin
            if since < start_units:
                continue
            if self._end_s is not None and since * self._time_base >= self._end_s:
                return
            self._last_end = pts + (decoded.duration or 0)
            yield maker.make(decoded, pts)
            if self._max_frames is not None and maker.count >= self._max_frames:
                return
        if maker.count or self._damaged:
            self._tell_what_is_missing(maker.count)

    def _decoded(self) -> Iterator["VideoFrame"]:
        """Every frame the decoder gives, its delayed ones included."""
        try:
            for packet in self._container.demux(self._stream):
                if self._stopped.is_set():
                    return
                if packet.is_corrupt:
                    self._damaged += 1
                try:
                    yield from packet.decode()
                except av.error.EOFError:
                    return
                except av.error.FFmpegError:
                    self._damaged += 1  # counted, and named once when the source ends
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError) as error:
            if self._stopped.is_set():
                return
            if isinstance(error, TimeoutError | av.error.ExitError) or "://" in self._name:
                raise SourceError(f"reading failed: {explain(error)}", where=self._name) from error
            self.log.warnings.append(f"{self._name}: cannot be read further: {explain(error)}")

    def _tell_what_is_missing(self, count: int) -> None:
        if self._damaged:
            self.log.warnings.append(f"{self._name}: {self._damaged} damaged packets could not be decoded")
        stream = self._stream
        end = stream.duration
        if end is None and self._container.duration is not None:
            end = int(Fraction(self._container.duration, av.time_base) / self._time_base)
        if end is None or self._last_end is None or self._origin is None:
            return
        missing_s = float((end - (self._last_end - self._origin)) * self._time_base)
        expected = stream.frames
        if missing_s > _MISSING_TAIL_S and (not expected or count < expected):
            told = f" of {expected} frames" if expected else ""
            self.log.warnings.append(
                f"{self._name}: is cut off: {count}{told or ' frames'} could be read, {missing_s:.1f} s are missing"
            )

    def _estimated_count(self, rate: Fraction | None, start_s: float) -> int | None:
        stream = self._stream
        duration_s: float | None = None
        if stream.duration is not None:
            duration_s = float(stream.duration * self._time_base)
        elif self._container.duration is not None:
            duration_s = self._container.duration / av.time_base
        if duration_s is None or not rate:
            count = stream.frames or None
        elif start_s or self._end_s is not None:
            end_s = duration_s if self._end_s is None else min(self._end_s, duration_s)
            count = max(1, round((end_s - start_s) * rate))
        else:
            count = stream.frames or max(1, round(duration_s * rate))
        if count is not None and self._max_frames is not None:
            return min(count, self._max_frames)
        return count


def _check_file(path: Path) -> None:
    if not path.exists():
        raise SourceNotFoundError("no such file", where=str(path), hint="check the name")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError("is empty (zero bytes)", where=str(path))


def _unopenable(name: str, error: BaseException) -> SourceError:
    if isinstance(error, av.error.InvalidDataError):
        return SourceError("is not a video that can be read, or its header is missing (cut off?)", where=name)
    return SourceError(f"cannot be opened: {explain(error)}", where=name)
