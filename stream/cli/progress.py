"""Progress of runs and downloads on stderr: a live bar on a terminal, a line now and then elsewhere.

Invariant: as for every `Display`, it only reads.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from stream.cli.display import Display
from stream.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from stream.jobs.several import Part
    from stream.models.weights.fetch import Transfer
    from stream.pipeline.runner import Progress

FRAME = "frame"
"""What is counted, unless a command has a word of its own for it."""


class ProgressDisplay(Display["RichProgress"]):
    """Shows frames, total, fps, time left, queued frames and drops, and downloads.

    Args:
        stills: what a frame of stills is called.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        quiet: bool = False,
        stills: str = FRAME,
    ) -> None:
        super().__init__(_rich_bar, stream=stream, clock=clock, quiet=quiet)
        self._stills = self.unit = stills
        """What a frame is called, as far as is known yet."""
        self._started_s: dict[str, float] = {}

    def __call__(self, progress: "Progress") -> None:
        """Redraw if it is time to."""
        from stream.frames import SourceKind

        self.unit = self._stills if progress.stages.source.info.kind is SourceKind.STILLS else FRAME
        task = f"frames {progress.part}"
        elapsed_s = self._due(task)
        if elapsed_s is not None:
            self._draw(describe(progress, elapsed_s=elapsed_s, unit=self.unit), task, progress.done, progress.total)

    def show_parts(self, parts: "Sequence[Part]") -> None:
        """Redraw several sources if it is time to."""
        elapsed_s = self._due("sources")
        if elapsed_s is not None:
            self._draw(describe_parts(parts, elapsed_s=elapsed_s), "sources", 0, None)

    def download(self, transfer: "Transfer") -> None:
        """Redraw a download if it is time to; a bar always gets to its end, because loading the model follows."""
        is_last = self._picture is not None and transfer.done_bytes == transfer.total_bytes
        elapsed_s = self._due(transfer.file, is_last=is_last)
        if elapsed_s is not None:
            line = describe_download(transfer, elapsed_s=elapsed_s)
            self._draw(line, transfer.file, transfer.done_bytes, transfer.total_bytes)

    def _due(self, task: str, *, is_last: bool = False) -> float | None:
        """Seconds since `task` began, None while it is not time to redraw."""
        now = self._clock()
        started_s = self._started_s.setdefault(task, now)
        return now - started_s if self._is_due(now, is_last=is_last) else None

    def _draw(self, line: str, task: str, done: int, total: int | None) -> None:
        with self._off_on_error():
            line = printable(line)
            if self._picture is None:
                print(line, file=self._stream, flush=True)
                return
            shown = self._picture.tasks[0] if self._picture.tasks else None
            if shown is None or shown.fields["task"] != task:  # a download makes room for the run, or for the next one
                if shown is not None:
                    self._picture.remove_task(shown.id)
                self._picture.start()
                self._picture.add_task("", total=total, task=task)
            self._picture.update(self._picture.task_ids[0], description=line, completed=done)
            self._picture.refresh()


def _rich_bar(stream: TextIO) -> "RichProgress":
    """A bar that is gone when it stops; redrawn by us alone, so it needs no thread."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream)
    columns = BarColumn(bar_width=24), TextColumn("{task.description}", markup=False)
    # Not through rich, which would print what is for stdout on stderr, and what others print unescaped.
    return Progress(
        *columns, console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    )


def count_text(count: int, unit: str) -> str:
    """`1 photo`, `2 photos`."""
    return f"{count} {unit}{'s' * (count != 1)}"


def rate_text(per_s: float, unit: str) -> str:
    """`31.2 fps`, `2.5 photos/s`; where one of them takes longer than a second, `4.2 s/photo`, and "" for none."""
    if unit == FRAME:
        return f"{per_s:.1f} fps"
    if per_s >= 1:
        return f"{per_s:.1f} {unit}s/s"
    return f"{1 / per_s:.1f} s/{unit}" if per_s > 0 else ""


def describe(progress: "Progress", *, elapsed_s: float, unit: str = FRAME) -> str:
    """One line: `pass 1 of 2 · 120/300 frames · 31.2 fps · 0:06 left · queued 4+2 · dropped 3`.

    Frames that an earlier run has done count, and are named: `220/300 frames, 100 of them before`.
    """
    metrics, stages = progress.metrics, progress.stages
    done, total, now = progress.done, progress.total, metrics.written
    rate = metrics.output_rate.per_s
    parts = [progress.part] if progress.part else []
    before = f", {progress.earlier} of them before" if progress.earlier else ""
    parts.append(f"{done}/{total} {unit}s{before}" if total else f"{done} {unit}s{before}")
    if speed := rate_text(rate, unit):
        parts.append(speed)
    if total and now and total > done:
        parts.append(f"{clock_text(elapsed_s * (total - done) / now)} left")
    else:
        parts.append(clock_text(elapsed_s))
    parts.append(f"queued {len(stages.frames)}+{len(stages.results)}")
    log = stages.source.log
    if log.waiting:
        parts.append(log.waiting)
    elif stages.inference.waiting:
        parts.append(stages.inference.waiting)
    elif log.reconnects:
        parts.append(f"reconnected {log.reconnects}×")
    dropped = sum(metrics.dropped.values())
    if dropped:
        parts.append(f"dropped {dropped}")
    skipped = len(log.skipped) + len(stages.refused)
    if skipped:
        parts.append(f"skipped {skipped}")
    return " · ".join(parts)


def describe_parts(parts: "Sequence[Part]", *, elapsed_s: float) -> str:
    """One line: `3 of 4 sources live · 39.8 fps · 0:10 · dropped 3 · rtsp://host/cam: reconnecting (2)`."""
    running = [part.progress for part in parts if part.progress is not None and part.state == "live"]
    live = sum(not one.stages.source.log.waiting for one in running)
    rate = sum(one.metrics.output_rate.per_s for one in running)
    words = [f"{live} of {len(parts)} sources live", f"{rate:.1f} fps", clock_text(elapsed_s)]
    dropped = sum(sum(part.progress.metrics.dropped.values()) for part in parts if part.progress is not None)
    if dropped:
        words.append(f"dropped {dropped}")
    for part in parts:
        waiting = part.progress.stages.source.log.waiting if part.progress is not None else ""
        if part.state != "live":
            words.append(f"{part.name}: {part.state}")
        elif waiting:
            words.append(f"{part.name}: {waiting}")
    return " · ".join(words)


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
