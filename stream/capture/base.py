"""The contract of every source, and the log of what a source could not read.

Invariant: a source is opened by its constructor (which raises `SourceNotFoundError` or `SourceError`),
iterated by one thread, interrupted from any thread, and closed any number of times.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from stream.frames import Frame, SourceInfo


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
    decoder_fallbacks: int = 0
    """Times that a source was opened with CPU decoding although a hardware decoder was requested."""
    ignored: int = 0
    """Folder entries that are not images."""
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
            decoder_fallbacks=self.decoder_fallbacks + later.decoder_fallbacks,
            ignored=self.ignored + later.ignored,
            dropped=dict(Counter(self.dropped) + Counter(later.dropped)),
            warnings=self.warnings + later.warnings,
            notes=list(dict.fromkeys(self.notes + later.notes)),
            reconnects=self.reconnects + later.reconnects,
            waiting=later.waiting or self.waiting,
        )


class Source(ABC):
    """A stream of frames. See the module docstring for the life cycle.

    A constructor sets `info` and `_log`.
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

    @abstractmethod
    def interrupt(self) -> None:
        """Make iteration end soon, from any thread; never blocks."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; idempotent; called after iteration has ended."""
