"""Video files through PyAV: every frame, upright, with the container's own timestamps.

Invariant: a frame that can be decoded is delivered; what cannot is named once in `log.warnings`.
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import CaptureLog
from stream.capture.video import hwaccel
from stream.capture.video.decode import Damage, FrameMaker, choose_video_stream, decode, explain, nominal_step, shown
from stream.errors import SourceError, SourceNotFoundError, UsageError
from stream.frames import Frame, SourceInfo, SourceKind
from stream.media import av

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

_MISSING_TAIL_S = 0.25
"""Where no number of frames is stated, an end this much too early means a cut-off file; less is rounding."""
_STEP_BACK_S = 2.0
"""First step back where a seek landed after the wanted time; doubled until it did not."""
_BEFORE_ALL_S = 60.0
"""A seek so long before the first frame leads to it in MPEG-TS too, which looks for the earlier decoding times."""
_NO_KEYFRAMES = frozenset(("gif", "apng"))
"""Each frame changes the one before, though demuxers call every packet a keyframe: never seek in these."""
_TICK_SHARE = 1e-3
"""Of a pts unit: `--start 0.04` means the frame at 1/25 s, which is not the float 0.04."""


class VideoSource:
    """Frames of a video file or finite URL.

    Args:
        path: file name or URL.
        start_s, end_s: part to read, in seconds after the file's first frame; `end_s` is exclusive.
        max_frames: stop after this many.
        threads: decoder threads; default: half the cores, at most 4, so that the model keeps the rest.
        decoder: what decodes, see `hwaccel.open_container`.
        container, log: `path` already opened, as `open_network` has it, and what happened; closed with the source.
        kind: what `info` says it is.
        clock: monotonic seconds.

    Raises:
        SourceNotFoundError: no such file.
        SourceError: no video in it, or not a single frame can be decoded.
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
        container: "InputContainer | None" = None,
        log: CaptureLog | None = None,
        kind: SourceKind = SourceKind.VIDEO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = shown(str(path))
        self.log = CaptureLog() if log is None else log
        self._stopped = threading.Event()
        self._max_frames, self._clock = max_frames, clock
        self._container = _open_file(Path(path), decoder, self.log) if container is None else container
        try:
            self._stream = stream = choose_video_stream(self._container, self._name)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads or max(1, min(4, (os.cpu_count() or 1) // 2))
            self._time_base = stream.time_base or Fraction(1, 90_000)
            self._start = 0.0 if start_s is None else start_s / self._time_base - _TICK_SHARE
            self._end = None if end_s is None else end_s / self._time_base - _TICK_SHARE
            self._origin = stream.start_time
            self._damage = Damage()
            self._problems: list[str] = []
            self._last_end: int | None = None
            maker = FrameMaker(
                self.log,
                time_base=self._time_base,
                pixel_aspect=stream.sample_aspect_ratio,
                step=nominal_step(stream, self._time_base),
                clock=clock,
            )
            self._frames = self._deliver(maker)
            self._first = next(self._frames, None)
            if self._first is None:
                raise self._nothing_found(start_s, end_s)
            hwaccel.check_first_frame(stream.codec_context, self.log)
            rate = stream.average_rate or stream.guessed_rate
            self.info = SourceInfo(
                name=self._name,
                size=self._first.size,
                is_live=False,
                time_base=self._time_base,
                rate=rate,
                frame_count=self._estimated_count(rate),
                kind=kind,
                files=(Path(path),) if kind is SourceKind.VIDEO else (),
                audio=str(path) if self._container.streams.audio else None,
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
            yield replace(first, captured_at=self._clock())  # not when the file was opened, before the model's loading
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

    def _deliver(self, maker: FrameMaker) -> Generator[Frame, None, None]:
        """The frames asked for; after the last one, one line in `log.warnings` says what is missing."""
        for decoded in self._readable():
            if self._stopped.is_set():
                return
            pts = maker.repaired(decoded.pts)
            if self._origin is None:
                self._origin = pts
            since = pts - self._origin
            self._last_end = pts + (decoded.duration or 0)
            if since < self._start:
                continue
            if self._end is not None and since >= self._end:
                break
            self._damage.frames += decoded.is_corrupt
            yield maker.make(decoded, pts, duration=self._shown_for(decoded, pts, maker.count + 1))
            if self._max_frames is not None and maker.count >= self._max_frames:
                break
        else:
            self._problems += self._cut_off(maker.count)
        if self._damage.packets or self._damage.frames:
            self._problems.append(str(self._damage))
        if self._problems and maker.count and not self._stopped.is_set():
            self.log.warnings.append(f"{self._name}: {', '.join(self._problems)}")

    def _shown_for(self, decoded: "VideoFrame", pts: int, number: int) -> int | None:
        """Display time of frame `number`; the decoder tells the time to the next *decoded* one, wrong with B-frames."""
        stream, told = self._stream, decoded.duration or None
        if stream.duration is None or stream.start_time is None:
            return told
        left = stream.start_time + stream.duration - pts
        if left <= 0:
            return told
        is_last = self._start <= 0 and number == stream.frames
        return left if is_last else told and min(told, left)

    def _readable(self) -> Iterator["VideoFrame"]:
        """All frames from the first one wanted (or earlier) on, as far as the file can be read."""
        try:
            yield from self._positioned()
        except (av.error.FFmpegError, OSError) as error:
            if self._stopped.is_set():
                return
            if "://" in self._name:
                reason = "no data in time" if isinstance(error, av.error.ExitError) else explain(error)
                raise SourceError(f"reading failed: {reason}", where=self._name) from error
            self._problems.append(f"cannot be read further: {explain(error)}")

    def _positioned(self) -> Iterator["VideoFrame"]:
        """Decode from the keyframe before the start; where a container's index leads behind it, from an earlier one."""
        container, stream, origin = self._container, self._stream, self._origin
        if self._start > 0 and origin is not None and stream.codec_context.name not in _NO_KEYFRAMES:
            wanted = origin + int(self._start)
            for target in self._seek_targets(origin, wanted):
                if self._stopped.is_set():
                    return
                try:
                    container.seek(target, stream=stream)
                except av.error.FFmpegError:
                    continue  # no index, or not so far back
                frames = decode(container, stream, self._stopped, self._damage)
                first = next(frames, None)
                if first is not None and first.pts is not None and first.pts <= wanted:
                    yield first
                    yield from frames
                    return
                self._damage = Damage()  # of a stretch that will be read again
            with suppress(av.error.FFmpegError):
                container.seek(origin, stream=stream)
        yield from decode(container, stream, self._stopped, self._damage)

    def _seek_targets(self, origin: int, wanted: int) -> Iterator[int]:
        """pts to seek for one after the other, until one leads to a frame that is not behind `wanted`."""
        step = int(_STEP_BACK_S / self._time_base)
        yield wanted
        while wanted - step > origin:
            yield wanted - step
            step *= 2
        yield origin - int(_BEFORE_ALL_S / self._time_base)

    def _cut_off(self, count: int) -> list[str]:
        """What to say if the file ends before the end that it states."""
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
        told = f" of {expected}" if expected else ""
        return [f"is cut off: {count}{told} frames could be read, {missing_s:.2g} s are missing"] if is_cut else []

    def _stated_end(self) -> int | None:
        """pts at which the container says that the video ends; None where it says nothing about this stream."""
        stream, origin = self._stream, self._origin or 0
        if stream.duration is not None:
            return origin + stream.duration
        tag = stream.metadata.get("DURATION")  # Matroska: HH:MM:SS.fraction, counted from time zero
        if tag is not None and tag.count(":") == 2:
            hours, minutes, seconds = tag.split(":")
            return int((int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)) / self._time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return int(Fraction(self._container.duration, av.time_base) / self._time_base)
        return None  # the container's duration may be that of a longer sound

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
        if self._last_end is None:
            reasons = ", ".join(self._problems)
            what = f"holds no frame that can be decoded{reasons and ': ' + reasons}"
            hint = "perhaps the device does not decode it: use --hwaccel auto or off"
            return SourceError(what, where=self._name, hint=hint if self._stream.codec_context.is_hwaccel else "")
        if end_s is not None and end_s <= (start_s or 0):
            return UsageError(f"--end {end_s:g} is not after --start {start_s or 0:g}", where=self._name)
        length_s = float((self._last_end - (self._origin or 0)) * self._time_base)
        if end_s is not None and length_s > end_s:
            return UsageError(f"no frame lies between --start {start_s or 0:g} and --end {end_s:g}", where=self._name)
        return UsageError(f"ends at {length_s:.6g} s, before --start {start_s:g}", where=self._name)


def _open_file(path: Path, decoder: str, log: CaptureLog) -> "InputContainer":
    if not path.exists():
        raise SourceNotFoundError("no such file", where=str(path), hint="check the name")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError("is empty (zero bytes)", where=str(path))
    try:
        return hwaccel.open_container(str(path), decoder, log)
    except av.error.InvalidDataError as error:
        what = "is not a video that can be read, or its header is missing (cut off?)"
        raise SourceError(what, where=str(path)) from error
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(f"cannot be opened: {explain(error)}", where=str(path)) from error
