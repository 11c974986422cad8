"""stdin, stdout and stderr of a command, whatever they are: closed, full, a pipe that nobody reads, a terminal.

Invariant: no text on stdout or stderr acts on a terminal, but for what is written through `raw`; a reader that goes
away changes neither the work nor the exit code.
"""

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from stream.errors import printable


class _Lasting(io.TextIOWrapper):
    """A text stream that goes on into nothing once writing fails.

    Attributes:
        failure: what failed first, if it is to be told: what is written to stdout on a full disk was asked for.
    """

    def __init__(self, binary: io.BufferedIOBase, number: int, like: io.TextIOWrapper | None) -> None:
        super().__init__(
            binary,  # type: ignore[arg-type]  # typeshed wants a protocol that a BufferedWriter has
            encoding=like.encoding if like else "utf-8",
            errors="backslashreplace",  # a name or a sign that the encoding lacks is no error
            line_buffering=like.line_buffering if like else False,
        )
        self._number = number
        self.failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """See `TextIOBase.write`."""
        try:
            super().write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        """See `IOBase.flush`."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.discard()
        if self._number == 1 and not isinstance(error, BrokenPipeError):
            self.failure = self.failure or error

    def discard(self) -> None:
        """Let what is still buffered, and whatever follows, go nowhere."""
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._number)
            os.close(null)


class PrintableStream(_Lasting):
    """Escapes what acts on a terminal, see `errors.printable`: in our lines, warnings of libraries and tracebacks."""

    def __init__(self, binary: io.BufferedIOBase, number: int, like: io.TextIOWrapper | None) -> None:
        super().__init__(binary, number, like)
        self.raw_text = _Lasting(binary, number, like)

    def write(self, text: str, /) -> int:
        """See `TextIOBase.write`."""
        super().write(printable(text, lines=True))
        return len(text)


def raw(stream: TextIO) -> TextIO:
    """The stream as rich needs it, which moves the cursor; what is printed there must be `printable` before."""
    return stream.raw_text if isinstance(stream, PrintableStream) else stream


def prepare() -> None:
    """Make the three standard streams safe to use; call it once, before anything else is opened."""
    _occupy_closed()
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # it is closed; writing to stdout fails when it is flushed, as with any program
            setattr(sys, name, PrintableStream(open(number, "wb", closefd=False), number, None))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, PrintableStream(stream.buffer, number, stream))


def _occupy_closed() -> None:
    """Occupy the numbers 0 to 2 where they are closed, so that no output file gets one of them and is printed into.

    Each is opened the wrong way round: reading or writing it stays an error.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)


def flush() -> OSError | None:
    """Write out what stdout and stderr hold, and return what failed; Python's own flush at exit cannot fail then."""
    try:
        sys.stderr.flush()
        sys.stdout.flush()
    except OSError as error:  # of streams that are not ours
        return error
    streams = (sys.stdout, raw(sys.stdout))
    return next((stream.failure for stream in streams if isinstance(stream, _Lasting) and stream.failure), None)
