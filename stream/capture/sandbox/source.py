"""Sources whose media are decoded in a sandbox; see `docs/security.md` for what that holds off.

Invariant: every value that comes from the child is checked before it is used, and names of files, which outputs are
named after, never come from it. The end of a child, however it ends, is at most one skipped input.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from stream import errors
from stream.capture.base import CaptureLog, EmptyPartError, Skipped, Source, UndecodablePartError
from stream.capture.limits import PROGRAM_BYTES, Limits
from stream.capture.sandbox import wire
from stream.capture.sandbox.process import DiedError, Message, Process
from stream.capture.sandbox.sound import Sound
from stream.capture.sandbox.wire import Fields, ViolationError
from stream.capture.stills.source import frame_name, ignored_note, nothing_readable
from stream.capture.video.live import BEHIND
from stream.config import CaptureConfig
from stream.errors import SourceError, StreamError
from stream.frames import Frame, SourceInfo, SourceKind

MEMORY_BYTES = 4 << 30
"""Most that decoding may take unless `--max-memory` is given."""
_MOST_NOTES = 10_000
"""Notes and warnings of one child; more breaks the rules."""
_MOST_COUNT, _MOST_TICKS = 1 << 40, 1 << 62
_AHEAD = 4
"""Pictures that the child may have open when it dies: so many are decoded one at a time by the next one."""


class SandboxedSource(Source):
    """Yields the frames of one file or pipe.

    Args:
        request: what the child opens, without `options`; see `child`.
        name: of the source.
        options: of the source.
        path: the file, None for a pipe.
        stdin, is_starved: see `Process`.
        clock: monotonic seconds.

    Raises:
        SourceError: it cannot be opened, or the child has died.
        UsageError: an option does not apply to it.
    """

    def __init__(
        self,
        request: Mapping[str, object],
        *,
        name: str,
        options: CaptureConfig,
        path: Path | None = None,
        stdin: int | None = None,
        is_starved: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._clock, self._options = name, clock, options
        self._log = CaptureLog()
        self._sound: Sound | None = None
        self._last: Frame | None = None
        self._delivered = 0
        files = [] if path is None else [str(path)]
        self._process = _started(request, files, options, stdin=stdin, is_starved=is_starved)
        try:
            self._messages = self._received()
            first = next(self._messages, None)
            if first is None or "info" not in first.fields:
                raise ViolationError("no description of the source")
            self.info = self._described(first.fields.inner("info"), path, may_be_live=options.live == "live")
            self._first = next(self._frames(), None)
            if self._first is None:
                raise SourceError("contains no frame that can be decoded", where=name)
            self.info = replace(self.info, notes=(*self.info.notes, *self.log.notes))
            self.log.notes.clear()
        except (DiedError, ViolationError) as error:
            self._process.close()
            raise _lost(error, name) from None
        except BaseException:
            self._process.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        try:
            first, self._first = self._first, None
            if first is not None:
                yield first if self.info.is_live else replace(first, captured_at=self._clock())
            del first
            yield from self._frames()
        except (DiedError, ViolationError) as error:
            reason = f"{_lost(error, '').what} after {self._delivered} frames; the rest is not read"
            self.log.skipped.append(Skipped(name=self._name, reason=reason))
        finally:
            if self._sound is not None:
                self._sound.end()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def interrupt(self) -> None:
        """See `Source`."""
        self._process.interrupt()

    def close(self) -> None:
        """See `Source`."""
        self._first = None
        self._process.close()

    def _received(self) -> Iterator[Message]:
        """Messages until the end or `interrupt`; logs and sound are taken care of."""
        seen = _Log(self.log)
        while (message := self._process.receive()) is not None:
            fields = message.fields
            if "end" in fields:
                return
            if "error" in fields:
                raise _error(fields, self._name)
            if "sound" in fields and self._sound is not None:
                self._sound.put(fields, message.blob)
            elif not seen.takes(fields):
                yield message

    def _frames(self) -> Iterator[Frame]:
        for message in self._messages:
            if message.rgb is None:
                raise ViolationError("neither a frame nor anything else that is known")
            last, fields = self._last, message.fields
            now = self._clock()
            frame = Frame(
                index=fields.integer("index", 0 if last is None else last.index + 1, _MOST_COUNT),
                pts=fields.integer("pts", -_MOST_TICKS if last is None else last.pts + 1, _MOST_TICKS),
                time_base=self.info.time_base,
                captured_at=min(now, fields.real("captured_at")) if self.info.is_live else now,
                rgb=message.rgb,
                duration=fields.integer("duration", 0, _MOST_TICKS) if "duration" in fields else None,
                name=self.info.names[0] if self.info.names else "",
                intrinsics=fields.camera("camera") if "camera" in fields else None,
            )
            del message
            self._last = frame
            self._delivered += 1
            yield frame
            del frame

    def _described(self, fields: Fields, path: Path | None, *, may_be_live: bool) -> SourceInfo:
        kind = fields.text("kind")
        if kind not in (SourceKind.VIDEO, SourceKind.STILLS) or (fields.truth("is_live") and not may_be_live):
            raise ViolationError("no kind of source that a file can be")
        if "audio" in fields:
            self._sound = Sound(fields.inner("audio"), self.log.notes.append)
        size = fields.integers("size", 2, 1, 1 << 30)
        is_still = kind == SourceKind.STILLS and path is not None
        return SourceInfo(
            name=self._name,
            size=(size[0], size[1]),
            is_live=fields.truth("is_live"),
            time_base=fields.fraction("time_base"),
            rate=fields.fraction("rate") if "rate" in fields else None,
            frame_count=fields.integer("frame_count", 0, _MOST_COUNT) if "frame_count" in fields else None,
            kind=SourceKind(kind),
            audio=None if self._sound is None else self._sound.audio,
            not_kept=fields.text("not_kept"),
            start_s=self._options.start,
            end_s=self._options.until,
            names=(path.name,) if is_still and path is not None else (),
            files=() if path is None else (path,),
            notes=tuple(fields.texts("notes", 100)),
        )


class SandboxedImages(Source):
    """Yields the images at `paths`, like `ImagesSource`; one that brings the child down is skipped like a damaged one.

    The child decodes ahead. When it dies, it is not known which image was to blame, so the next child decodes those
    that may be one at a time.

    Args:
        paths: files to read, in this order.
        name: the source as the user typed it.
        root: folder that frame names are relative to.
        rate: frames per second if the images become a video.
        options: of the source.
        ignored, ignored_because, unreadable, notes: see `ImagesSource`.
        clock: monotonic seconds.

    Raises:
        SourceError: no image can be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        name: str,
        root: Path,
        rate: Fraction | None,
        options: CaptureConfig,
        ignored: Sequence[str] = (),
        ignored_because: str = "",
        unreadable: Sequence[tuple[str, str]] = (),
        notes: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths, self._root, self._options, self._clock = tuple(paths), root, options, clock
        self._names = tuple(frame_name(path, root) for path in self._paths)
        self._rate, self._name = rate, name
        self._process: Process | None = None
        self._stopped = threading.Event()
        self._log = CaptureLog(ignored=len(ignored))
        self._log.skipped += [Skipped(name=folder, reason=f"cannot be read: {reason}") for folder, reason in unreadable]
        self._found = len(self._log.skipped)
        self._time_base = 1 / rate if rate else Fraction(1)
        self._frames = self._deliver()
        try:
            self._first = next(self._frames, None)
        except BaseException:
            self.close()
            raise
        if self._first is None:
            self.close()
            raise nothing_readable(name, self._paths, self.log.skipped[self._found :])
        self.info = SourceInfo(
            name=name,
            size=self._first.size,
            is_live=False,
            time_base=self._time_base,
            rate=rate,
            frame_count=min(len(self._names), options.max_frames or len(self._names)),
            kind=SourceKind.STILLS,
            names=self._names,
            files=self._paths,
            notes=(*notes, *((ignored_note(ignored, ignored_because),) if ignored else ())),
        )

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        first, self._first = self._first, None
        if first is not None and not self._stopped.is_set():
            yield replace(first, captured_at=self._clock())
        del first
        yield from self._frames

    def interrupt(self) -> None:
        """See `Source`."""
        self._stopped.set()
        if (process := self._process) is not None:
            process.interrupt()

    def close(self) -> None:
        """See `Source`."""
        self._stopped.set()
        self._first = None
        if self._process is not None:
            self._process.close()

    def _deliver(self) -> Iterator[Frame]:
        self._at, self._careful = 0, 0
        self._delivered = 0
        while (
            self._at < len(self._paths) and not self._stopped.is_set() and self._delivered != self._options.max_frames
        ):
            request = {
                "pictures": [str(path) for path in self._paths[self._at :]],
                "root": str(self._root),
                "careful": self._careful,
            }
            self._process = _started(request, request["pictures"], self._options)
            try:
                if not self._stopped.is_set():  # `interrupt` may have missed this process
                    yield from self._pictures(self._process)
            except (DiedError, ViolationError) as error:
                self._blame(error)
            finally:
                self._process.close()

    def _blame(self, error: DiedError | ViolationError) -> None:
        """Skip the picture that has ended a child, or find out which one it was."""
        is_hang = isinstance(error, DiedError) and error.is_hang
        if self._at >= len(self._paths):
            return
        if self._careful or is_hang:
            self._take(Skipped(name=self._names[self._at], reason=_lost(error, "").what))
            return
        self._careful = min(_AHEAD, len(self._paths) - self._at)
        which = f"{self._names[self._at]} or one of the next {self._careful - 1}" if self._careful > 1 else ""
        self.log.notes.append(
            f"{which or self._names[self._at]}: {_lost(error, '').what}; decoded again, one image at a time"
        )

    def _pictures(self, process: Process) -> Iterator[Frame]:
        """Frames until the child ends; `_at` is the number of the picture that it is at."""
        seen = _Log(self.log)
        while (message := process.receive()) is not None and "end" not in message.fields:
            fields = message.fields
            if "error" in fields:
                raise DiedError(f"failed ({_error(fields, '').what})")
            if seen.takes(fields):
                continue
            if self._at >= len(self._paths):
                raise ViolationError("more pictures than there are files")
            if message.rgb is None:
                self._take(Skipped(name=self._names[self._at], reason=fields.text("skipped")))
                continue
            frame = Frame(
                index=self._at,
                pts=self._at if self._rate is None else self._delivered,  # a video has no gaps
                time_base=self._time_base,
                captured_at=self._clock(),
                rgb=message.rgb,
                duration=1 if self._rate else None,
                name=self._names[self._at],
                intrinsics=fields.camera("camera") if "camera" in fields else None,
            )
            del message
            self._take(None)
            self._delivered += 1
            yield frame
            del frame
            if self._delivered == self._options.max_frames:
                return
        if message is not None and self._at < len(self._paths):
            raise DiedError("ended too early")

    def _take(self, skipped: Skipped | None) -> None:
        if skipped is not None:
            self.log.skipped.append(skipped)
        self._at += 1
        self._careful = max(0, self._careful - 1)


class _Log:
    """Takes what a child notes over into the log of a source."""

    def __init__(self, log: CaptureLog) -> None:
        self._log, self._left = log, _MOST_NOTES

    def takes(self, fields: Fields) -> bool:
        """Take over a message that belongs in the log; False if it is another one.

        Raises:
            ViolationError: there are too many.
        """
        if "note" in fields:
            self._add(self._log.notes, [fields.text("note")])
            return True
        if "log" not in fields:
            return False
        news, log = fields.inner("log"), self._log
        for key in wire.LOG_LISTS:
            if key in news:
                self._add(getattr(log, key), news.texts(key, _MOST_NOTES))
        for key in wire.LOG_COUNTS:
            if key in news:
                setattr(log, key, getattr(log, key) + news.integer(key, 0, _MOST_COUNT))
        if "dropped" in news:
            log.dropped = {BEHIND: news.inner("dropped").integer(BEHIND, 0, _MOST_COUNT)}
        return True

    def _add(self, to: list[str], texts: list[str]) -> None:
        self._left -= len(texts)
        if self._left < 0:
            raise ViolationError("too many notes")
        to += [text for text in texts if text not in to]


def _started(
    request: Mapping[str, object],
    files: object,
    options: CaptureConfig,
    *,
    stdin: int | None = None,
    is_starved: Callable[[], bool] = lambda: False,
) -> Process:
    room = Limits.of(options).room
    memory = min(MEMORY_BYTES, room) if options.max_memory is None else room
    whole = {
        **request,
        "files": files,
        "memory_bytes": memory,
        "options": options.model_copy(update={"max_memory": memory + PROGRAM_BYTES}).model_dump(mode="json"),
        "stdin": stdin,
    }
    try:
        return Process(whole, most_pixels=options.max_pixels, stdin=stdin, is_starved=is_starved)
    except OSError as error:
        raise SourceError(f"the sandbox cannot be started: {errors.reason_of(error)}", where="--sandbox") from error


def _error(fields: Fields, name: str) -> StreamError:
    """The error that a child reports, of the kinds that a source may raise."""
    own = (EmptyPartError, UndecodablePartError)
    kinds = {kind.__name__: kind for kind in (SourceError, errors.UsageError, errors.SourceNotFoundError, *own)}
    kind = kinds.get(fields.text("error"), SourceError)
    texts = [fields.text(key) for key in ("what", "where", "allowed", "hint")]
    return kind(texts[0], where=texts[1] or name, allowed=texts[2], hint=texts[3])


def _lost(error: DiedError | ViolationError, name: str) -> SourceError:
    what = f"broke the sandbox's rules ({error})" if isinstance(error, ViolationError) else str(error)
    return SourceError(f"the sandbox that decoded it {what}", where=name)
