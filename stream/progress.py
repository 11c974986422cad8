"""Progress on stderr: a live bar on a terminal, plain lines elsewhere, nothing when quiet.

Invariant: it only reads; it never slows or fails a run.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from stream.pipeline import Progress

PLAIN_EVERY_S = 10.0
"""A log file gets a line this often."""
_REDRAW_EVERY_S = 0.2


class ProgressDisplay:
    """Shows frames, total, fps, time left, queued frames and drops; use as a context manager."""

    def __init__(
        self, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, quiet: bool = False
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock, self._quiet = clock, quiet
        self._redraws = self._stream.isatty() and not quiet
        self._every_s = _REDRAW_EVERY_S if self._redraws else PLAIN_EVERY_S
        self._next_s = clock() + (0.0 if self._redraws else PLAIN_EVERY_S)
        self._started_s: float | None = None
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._clear()

    def say(self, line: str) -> None:
        """Print a line above the bar; shown also when not a terminal, never when quiet."""
        if not self._quiet:
            self._clear()
            print(line, file=self._stream, flush=True)

    def __call__(self, progress: "Progress") -> None:
        """Redraw if it is time to."""
        now = self._clock()
        if self._started_s is None:
            self._started_s = now
        if self._quiet or now < self._next_s:
            return
        self._next_s = now + self._every_s
        line = describe(progress, elapsed_s=now - self._started_s)
        if self._redraws:
            self._stream.write(f"\r\x1b[K{_bar(progress)}{line}")
            self._stream.flush()
            self._drawn = True
        else:
            print(line, file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def describe(progress: "Progress", *, elapsed_s: float) -> str:
    """One line: `120/300 frames · 31.2 fps · 0:06 left · queued 4+2 · dropped 3`."""
    metrics, stages = progress.metrics, progress.stages
    done, total = metrics.written, progress.total
    rate = metrics.output_rate.per_s
    parts = [f"{done}/{total} frames" if total else f"{done} frames", f"{rate:.1f} fps"]
    if total and done and total > done:
        parts.append(f"{clock_text(elapsed_s * (total - done) / done)} left")
    else:
        parts.append(clock_text(elapsed_s))
    parts.append(f"queued {len(stages.frames)}+{len(stages.results)}")
    dropped = sum(metrics.dropped.values())
    if dropped:
        parts.append(f"dropped {dropped}")
    skipped = len(stages.source.log.skipped) + len(stages.refused)
    if skipped:
        parts.append(f"skipped {skipped}")
    return " · ".join(parts)


def clock_text(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _bar(progress: "Progress", width: int = 24) -> str:
    if not progress.total:
        return ""
    filled = min(width, round(width * progress.metrics.written / progress.total))
    return "━" * filled + "╌" * (width - filled) + " "
