"""The progress of a batch on stderr: a live table on a terminal, a line now and then elsewhere.

Invariant: as for every `Display`, it only reads.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from stream.cli.display import Display
from stream.cli.progress import clock_text
from stream.errors import masked, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from stream.batch.summary import Status

_MOST_ROWS = 16
_LONGEST_NAME = 60


class BatchDisplay(Display["Live"]):
    """Shows what is done, running and failed."""

    def __init__(
        self, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, quiet: bool = False
    ) -> None:
        super().__init__(_live, stream=stream, clock=clock, quiet=quiet)

    def say(self, line: str) -> None:
        """As for any display, without secrets."""
        super().say(masked(line))

    def __call__(self, status: "Status") -> None:
        """Redraw if it is time to."""
        if not self._is_due(self._clock()):
            return
        with self._off_on_error():
            if self._picture is None:
                print(printable(describe(status)), file=self._stream, flush=True)
                return
            self._picture.start()
            self._picture.update(table(status), refresh=True)


def describe(status: "Status") -> str:
    """One line: `12/50 done (10 earlier) · 2 failed · 2 running · 31.2 fps · 0:06 left`."""
    total = status.total - status.elsewhere
    parts = [f"{status.done}/{total} done" + (f" ({status.earlier} earlier)" if status.earlier else "")]
    if status.failed:
        parts.append(f"{status.failed} failed")
    if status.phase:
        parts.append(status.phase)
    if status.running:
        parts.append(f"{len(status.running)} running")
    if status.fps is not None:
        parts.append(f"{status.fps:.1f} fps")
    if status.left_s is not None:
        parts.append(f"{clock_text(status.left_s)} left")
    return " · ".join(parts)


def table(status: "Status") -> "RenderableType":
    """A row for each source that is running, under the line of `describe`."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 2))
    for name, frames, total in status.running[:_MOST_ROWS]:
        name = printable(name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}")
        count = f"{frames}/{total} frames" if total else f"{frames} frames" if frames else ""
        bar = ProgressBar(total=total or 1, completed=min(frames, total or 0), width=24)
        rows.add_row(Text("  " + name, no_wrap=True), bar, Text(count))
    return Group(rows, Text(printable(describe(status))))


def _live(stream: TextIO) -> "Live":
    """A table that is gone when it stops; redrawn by us alone, so it needs no thread."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream)
    return Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
