"""Progress on stderr: a live bar on a terminal, plain lines elsewhere, nothing when quiet.

Invariant: it only reads; it never slows or fails a run, whoever closes stderr.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

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
        is_terminal = self._stream.isatty() and not quiet
        self._bar = _rich_bar(self._stream) if is_terminal else None
        self._every_s = _REDRAW_EVERY_S if is_terminal else PLAIN_EVERY_S
        self._next_s = clock() + (0.0 if is_terminal else PLAIN_EVERY_S)
        self._started_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with self._off_on_error():
                self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line above the bar; shown also when not a terminal, never when quiet."""
        if self._quiet:
            return
        with self._off_on_error():
            if self._bar is not None:
                self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, file=self._stream, flush=True)

    def __call__(self, progress: "Progress") -> None:
        """Redraw if it is time to."""
        now = self._clock()
        if self._started_s is None:
            self._started_s = now
        if self._quiet or now < self._next_s:
            return
        self._next_s = now + self._every_s
        with self._off_on_error():
            self._draw(progress, describe(progress, elapsed_s=now - self._started_s))

    def _draw(self, progress: "Progress", line: str) -> None:
        if self._bar is None:
            print(line, file=self._stream, flush=True)
            return
        if not self._bar.tasks:
            self._bar.start()
            self._bar.add_task("", total=progress.total)
        self._bar.update(self._bar.task_ids[0], description=line, completed=progress.metrics.written)
        self._bar.refresh()

    @contextmanager
    def _off_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # nobody reads on: the pipe is closed, or the terminal is gone
            self._quiet = True


def _rich_bar(stream: TextIO) -> "RichProgress":
    """A bar that is gone when it stops; redrawn by us alone, so it needs no thread."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream, stderr=stream is sys.stderr)
    columns = BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
    return Progress(*columns, console=console, auto_refresh=False, transient=True)


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
