"""The contract of every source, and the log of what a source could not read.

Invariant: a source is opened by its constructor (which raises `SourceNotFoundError` or `SourceError`),
iterated by one thread, interrupted from any thread, and closed any number of times.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

from stream.errors import SourceError, UsageError
from stream.frames import Frame, SourceInfo


class EmptyPartError(UsageError):
    """A source ends before the part that is asked for, or has no frame in it."""


class UndecodablePartError(SourceError):
    """No frame can be decoded from the place in a source on that is asked for."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An input item that was attempted but not delivered."""

    name: str
    reason: str


@dataclass(kw_only=True)
class CaptureLog:
    """Events while reading. Only the source's thread writes it; others read it afterwards, or during a run for display,
    where a value may be a moment old."""

    skipped: list[Skipped] = field(default_factory=list)
    """Items attempted and lost: each counts as captured and makes the exit code 3."""
    repaired_pts: int = 0
    """Frames whose pts was missing or did not increase, and was replaced."""
    clock_jumps: int = 0
    """Times that the timestamps started again or jumped, and the parts were joined."""
    size_changes: int = 0
    """Times that the frame size changed; only the first one is noted."""
    damaged_packets: int = 0
    """Packets of video that could not be decoded."""
    damaged_frames: int = 0
    """Frames delivered although the decoder had to conceal errors in them."""
    decoder_fallbacks: int = 0
    """Times that a source was opened with CPU decoding although a hardware decoder was requested."""
    transport_fallbacks: int = 0
    """Times that an RTSP camera was opened over UDP because it refuses TCP."""
    ignored: int = 0
    """Folder entries that are not images."""
    further_images: int = 0
    """Pages, frames and images beside the one that was taken from a file of several."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames that a live driver or decoder lost before delivery, by cause."""
    warnings: list[str] = field(default_factory=list)
    """Damage such as a truncated end, each reported once; makes the exit code 3."""
    notes: list[str] = field(default_factory=list)
    """Messages to report once, without effect on the exit code (a fallback, a change of size)."""
    reconnects: int = 0
    """How often a live stream was reopened."""
    waiting: str = ""
    """What the source is waiting for while it is interrupted; "" while frames arrive."""

    def plus(self, later: "CaptureLog") -> "CaptureLog":
        """The events of both logs, as a new log."""
        return CaptureLog(
            skipped=self.skipped + later.skipped,
            repaired_pts=self.repaired_pts + later.repaired_pts,
            clock_jumps=self.clock_jumps + later.clock_jumps,
            size_changes=self.size_changes + later.size_changes,
            damaged_packets=self.damaged_packets + later.damaged_packets,
            damaged_frames=self.damaged_frames + later.damaged_frames,
            decoder_fallbacks=self.decoder_fallbacks + later.decoder_fallbacks,
            transport_fallbacks=self.transport_fallbacks + later.transport_fallbacks,
            ignored=self.ignored + later.ignored,
            further_images=self.further_images + later.further_images,
            dropped=dict(Counter(self.dropped) + Counter(later.dropped)),
            warnings=self.warnings + later.warnings,
            notes=list(dict.fromkeys(self.notes + later.notes)),
            reconnects=self.reconnects + later.reconnects,
            waiting=later.waiting or self.waiting,
        )

    def renamed(self, path: str, name: str) -> "CaptureLog":
        """The same events, as a new log whose messages say `name` for `path`, a temporary file."""
        return replace(
            self,
            skipped=[Skipped(name=s.name, reason=s.reason.replace(path, name)) for s in self.skipped],
            warnings=[text.replace(path, name) for text in self.warnings],
            notes=[text.replace(path, name) for text in self.notes],
        )


class Source(ABC):
    """A stream of frames, open: iterated once, by one thread; `interrupt` ends that from any thread.

    `with` closes it. A constructor sets `info` and `_log`.
    """

    info: SourceInfo
    """Known before the first frame; never changes."""
    _log: CaptureLog

    @property
    def log(self) -> CaptureLog:
        """Events so far."""
        return self._log

    @property
    def silence_limit_s(self) -> float | None:
        """Seconds without a frame after which the pipeline stops waiting for this source; None to wait for ever."""
        return None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the end of the source, `interrupt()`, or a `SourceError`."""

    def read_sound(self, until_s: float | None) -> None:  # noqa: B027 - most sources have none
        """Pass on the sound from where it was read to last; no frame is delivered any more.

        Args:
            until_s: seconds after the first frame; None for the end of what is read.
        """

    def end_before(self, number: int) -> None:  # noqa: B027 - most sources have no pictures
        """Call before the iteration: pictures from this number on need not be read."""

    def end_after(self, frames: int) -> int | None:  # noqa: ARG002 - known to few sources
        """The pts at which the last of so many frames ends, if these are all and the source states it; else None."""
        return None

    @abstractmethod
    def interrupt(self) -> None:
        """Make iteration end soon, from any thread; never blocks."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; idempotent; called after iteration has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class WrappedSource(Source):
    """A source that changes the frames of another one, which it interrupts and closes.

    Args:
        source: the other one. If the constructor of a subclass raises, it stays open.
    """

    def __init__(self, source: Source) -> None:
        self._source, self.info = source, source.info

    @property
    def log(self) -> CaptureLog:
        """See `Source`."""
        return self._source.log

    @property
    def silence_limit_s(self) -> float | None:
        """See `Source`."""
        return self._source.silence_limit_s

    def read_sound(self, until_s: float | None) -> None:
        """See `Source`."""
        self._source.read_sound(until_s)

    def end_before(self, number: int) -> None:
        """See `Source`."""
        self._source.end_before(number)

    def end_after(self, frames: int) -> int | None:
        """See `Source`."""
        return self._source.end_after(frames)

    def interrupt(self) -> None:
        """See `Source`."""
        self._source.interrupt()

    def close(self) -> None:
        """See `Source`."""
        self._source.close()
