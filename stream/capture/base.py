"""What every source offers, and how it reports what it could not read.

Invariant: a source is opened by its constructor (which raises `SourceNotFoundError` or `SourceError`),
iterated by one thread, interrupted from any thread, and closed any number of times.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from stream.frames import Frame, SourceInfo


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An input item that was attempted but not delivered."""

    name: str
    reason: str


@dataclass(kw_only=True)
class CaptureLog:
    """What happened while reading; written by the source's thread only, read after it ended (or racily for display)."""

    skipped: list[Skipped] = field(default_factory=list)
    """Attempted and lost: each counts as captured and makes the exit code 3."""
    repaired_pts: int = 0
    """Frames whose pts was missing or did not increase."""
    decoder_fallbacks: int = 0
    """Openings in which the processor decodes where a hardware decoder was hoped for."""
    ignored: int = 0
    """Folder entries that are not pictures."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames a live driver or decoder lost before delivery, by cause."""
    warnings: list[str] = field(default_factory=list)
    """A truncated tail and the like: named once, makes the exit code 3."""
    notes: list[str] = field(default_factory=list)
    """Worth saying once, without effect on the exit code (a fallback, a change of size)."""
    reconnects: int = 0
    """How often a live stream was opened again."""
    waiting: str = ""
    """What the source waits for, while it is away."""

    def plus(self, later: "CaptureLog") -> "CaptureLog":
        """What happened in both, as a new log."""
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


class Source(Protocol):
    """A stream of frames. See the module docstring for the life cycle."""

    @property
    def info(self) -> SourceInfo: ...

    @property
    def log(self) -> CaptureLog: ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the end of the source, `interrupt()`, or a `SourceError`."""
        ...

    def interrupt(self) -> None:
        """Make iteration end soon, from any thread; never blocks."""
        ...

    def close(self) -> None:
        """Release everything; idempotent; called after iteration has ended."""
        ...
