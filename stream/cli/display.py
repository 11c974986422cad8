"""What is shown on stderr while work goes on: a live picture on a terminal, plain lines elsewhere, nothing when quiet.

Invariant: it only reads; it never slows or fails the work, whoever closes stderr.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, Self, TextIO, TypeVar

from stream.cli.terminal import raw
from stream.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_EVERY_S = 10.0
"""A log file gets a line this often."""
_REDRAW_EVERY_S = 0.2


class Picture(Protocol):
    """What redraws its part of a terminal: rich's `Live` or `Progress`."""

    @property
    def console(self) -> "Console": ...
    def stop(self) -> None: ...


P = TypeVar("P", bound=Picture)


class Display(Generic[P]):
    """Prints lines, and knows when it is time for the next one; use as a context manager.

    Args:
        picture: makes what is redrawn on a terminal.
        clock: monotonic seconds.
    """

    def __init__(
        self, picture: Callable[[TextIO], P], *, stream: TextIO | None, clock: Callable[[], float], quiet: bool
    ) -> None:
        self._stream = raw(stream or sys.stderr)
        self._clock, self._quiet = clock, quiet
        is_terminal = self._stream.isatty() and not quiet
        self._picture = picture(self._stream) if is_terminal else None
        self._every_s = _REDRAW_EVERY_S if is_terminal else PLAIN_EVERY_S
        self._next_s = clock() + (0.0 if is_terminal else PLAIN_EVERY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._picture is not None:
            with self._off_on_error():
                self._picture.stop()

    def say(self, line: str) -> None:
        """Print a line above the picture; also when not on a terminal, never when quiet."""
        if self._quiet:
            return
        line = printable(line)
        with self._off_on_error():
            if self._picture is not None:
                self._picture.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, file=self._stream, flush=True)

    def _is_due(self, now: float, *, is_last: bool = False) -> bool:
        """Whether it is time to redraw; then the next time is counted from `now`.

        Args:
            is_last: it is time in any case.
        """
        if self._quiet or (now < self._next_s and not is_last):
            return False
        self._next_s = now + self._every_s
        return True

    @contextmanager
    def _off_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # nobody reads on: the pipe is closed, or the terminal is gone
            self._quiet = True
