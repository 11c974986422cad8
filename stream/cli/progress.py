"""Progress of runs and downloads on stderr: a live bar on a terminal, plain lines elsewhere, nothing when quiet.

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

    from stream.models.weights.fetch import Transfer
    from stream.pipeline.runner import Progress

PLAIN_EVERY_S = 10.0
"""A log file gets a line this often."""
_REDRAW_EVERY_S = 0.2


class ProgressDisplay:
    """Shows frames, total, fps, time left, queued frames and drops, and downloads; use as a context manager."""

    def __init__(
        self, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, quiet: bool = False
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock, self._quiet = clock, quiet
        is_terminal = self._stream.isatty() and not quiet
        self._bar = _rich_bar(self._stream) if is_terminal else None
        self._every_s = _REDRAW_EVERY_S if is_terminal else PLAIN_EVERY_S
        self._next_s = clock() + (0.0 if is_terminal else PLAIN_EVERY_S)
        self._started_s: dict[str, float] = {}

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
        elapsed_s = self._due("frames")
        if elapsed_s is not None:
            self._draw(describe(progress, elapsed_s=elapsed_s), "frames", progress.metrics.written, progress.total)

    def download(self, transfer: "Transfer") -> None:
        """Redraw a download if it is time to; a bar always gets to its end, because loading the model follows."""
        is_last = self._bar is not None and transfer.done_bytes == transfer.total_bytes
        elapsed_s = self._due(transfer.file, is_last=is_last)
        if elapsed_s is not None:
            line = describe_download(transfer, elapsed_s=elapsed_s)
            self._draw(line, transfer.file, transfer.done_bytes, transfer.total_bytes)

    def _due(self, task: str, *, is_last: bool = False) -> float | None:
        """Seconds since `task` began, None while it is not time to redraw."""
        now = self._clock()
        started_s = self._started_s.setdefault(task, now)
        if self._quiet or (now < self._next_s and not is_last):
            return None
        self._next_s = now + self._every_s
        return now - started_s

    def _draw(self, line: str, task: str, done: int, total: int | None) -> None:
        with self._off_on_error():
            if self._bar is None:
                print(line, file=self._stream, flush=True)
                return
            shown = self._bar.tasks[0] if self._bar.tasks else None
            if shown is None or shown.fields["task"] != task:  # a download makes room for the run, or for the next one
                if shown is not None:
                    self._bar.remove_task(shown.id)
                self._bar.start()
                self._bar.add_task("", total=total, task=task)
            self._bar.update(self._bar.task_ids[0], description=line, completed=done)
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
    log = stages.source.log
    if log.waiting:
        parts.append(log.waiting)
    elif log.reconnects:
        parts.append(f"reconnected {log.reconnects}×")
    dropped = sum(metrics.dropped.values())
    if dropped:
        parts.append(f"dropped {dropped}")
    skipped = len(log.skipped) + len(stages.refused)
    if skipped:
        parts.append(f"skipped {skipped}")
    return " · ".join(parts)


def describe_download(transfer: "Transfer", *, elapsed_s: float) -> str:
    """One line: `dpt_large_384.pt: 120 MB of 1.4 GB · 31.2 MB/s · 0:41 left`."""
    from stream.models.weights.fetch import size_text

    done, total = transfer.done_bytes, transfer.total_bytes
    parts = [f"{transfer.file}: {size_text(done)}" + (f" of {size_text(total)}" if total else "")]
    new = done - transfer.resumed_bytes
    if new > 0 and elapsed_s > 0:
        parts.append(f"{new / elapsed_s / 1e6:.1f} MB/s")
        if total:
            parts.append(f"{clock_text((total - done) * elapsed_s / new)} left")
    return " · ".join(parts)


def clock_text(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
