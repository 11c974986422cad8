"""Writes what FFmpeg muxes to a pipe whose reader may stop reading.

A write to a full pipe ends only with an exception, and PyAV drops those that are no `Exception`, such as
`KeyboardInterrupt`: so it waits in short slices, and keeps what was raised.
Invariant: a `write` that cannot go on ends soon after the run was asked to stop.
"""

import errno
import os
import select
import sys
import time
from collections.abc import Callable

SLICE_S = 0.05
"""Seconds between two looks at whether to go on waiting."""
PATIENCE_S = 2.0
"""How long a reader that takes nothing holds up the end of a run that was asked to stop."""


class PipeWriter:
    """A file object for PyAV.

    Args:
        file_no: where to write.
        stopping: whether the run was asked to stop.

    Attributes:
        gave_up: a `write` was given up, and its data with it.
        interrupt: what was raised while a `write` waited and is no `Exception`; the caller raises it again.
    """

    def __init__(self, file_no: int, stopping: Callable[[], bool]) -> None:
        self._file_no, self.stopping = file_no, stopping
        self.gave_up = False
        self._is_open = True
        self.interrupt: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Write all of `data`. Raises `OSError`: `BrokenPipeError` once the reader has left or a write was given up."""
        if self.gave_up or not self._is_open:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        try:
            self._write(memoryview(data))
        except Exception:
            raise
        except BaseException as error:
            self.gave_up, self.interrupt = True, error
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
        return len(data)

    def stop(self) -> None:
        """Release what is held. Idempotent."""

    def _is_hopeless(self, stalled_s: float) -> bool:
        """Whether a run that was asked to stop need not wait for a reader that has taken nothing for so long."""
        return stalled_s > PATIENCE_S

    def _write(self, left: memoryview) -> None:
        if sys.platform == "win32":  # cannot wait for a pipe
            while left:
                left = left[os.write(self._file_no, left) :]
            return
        writable = select.poll()
        writable.register(self._file_no, select.POLLOUT)
        moved_s = time.monotonic()
        while left:
            if writable.poll(SLICE_S * 1000):
                left = left[os.write(self._file_no, left[: select.PIPE_BUF]) :]  # as much as cannot block
                moved_s = time.monotonic()
            elif self.stopping() and self._is_hopeless(time.monotonic() - moved_s):
                self.gave_up = True
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
