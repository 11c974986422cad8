"""Locks between processes: whoever waits says so, and gives up when the holder does nothing.

Invariant: a wait ends. It lasts as long as the holder gets on, and `IDLE_S` longer; a holder that is stopped (Ctrl-Z, a
debugger) or hangs is named in the error.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stream.errors import ModelError
from stream.notes import note

IDLE_S = 20.0
"""How long a holder may do nothing."""
LIMIT_S = 3600.0
"""How long a wait may take in all; converting the largest network takes minutes."""
_POLL_S = 0.2
_BUSY = 0.1
"""Share of a processor core; a process that does less only waits."""
_LOCKS = Path("/proc/locks")


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    waiting: str,
    progress: Callable[[], object] | None = None,
    idle_s: float | None = None,
    limit_s: float = LIMIT_S,
) -> Iterator[None]:
    """Hold the lock file `path` during the block; its folder must exist.

    Args:
        waiting: the note if another process holds it.
        progress: its result changes while the holder gets on; default: the processor time of the holder, where the
            system tells who that is (Linux).
        idle_s: default: `IDLE_S`.

    Raises:
        ModelError: the holder does nothing, or the wait took too long.
        OSError: the file cannot be created.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        note(waiting)
        idle_s = IDLE_S if idle_s is None else idle_s
        since = begin = time.monotonic()
        known = _works(path, progress)
        while not _acquired(lock):
            now = time.monotonic()
            if now - since < idle_s and now - begin < limit_s:
                continue
            seen = _works(path, progress)
            if now - begin < limit_s and _gets_on(known, seen, now - since):
                known, since = seen, now
                continue
            what = f"waited {now - begin:.0f} s for {_holder_text(path)}, which holds this lock"
            hint = "end it, or wait until it is done, and run again"
            raise ModelError(what, where=str(path), hint=hint) from None
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: object) -> bool:
    from filelock import BaseFileLock, Timeout

    assert isinstance(lock, BaseFileLock)
    try:
        lock.acquire(timeout=_POLL_S, poll_interval=_POLL_S / 4)
    except Timeout:
        return False
    return True


def _works(path: Path, progress: Callable[[], object] | None) -> object:
    """What changes while the holder gets on; None if that cannot be seen."""
    if progress is not None:
        return progress()
    import psutil

    if (pid := _holder(path)) is None:
        return None
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _gets_on(before: object, after: object, seconds: float) -> bool:
    if isinstance(before, float) and isinstance(after, float):
        return after - before >= _BUSY * seconds
    return after is None or after != before


def _holder(path: Path) -> int | None:
    """Number of the process that holds a lock file, where the system tells."""
    try:
        inode = str(path.stat().st_ino)
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    fields = [line.split() for line in lines if "->" not in line]  # which waits
    return next((int(f[4]) for f in fields if len(f) > 5 and f[5].rpartition(":")[2] == inode and int(f[4]) > 0), None)


def _holder_text(path: Path) -> str:
    import psutil

    if (pid := _holder(path)) is None:
        return "another process"
    try:
        process = psutil.Process(pid)
        return f"process {pid} ({process.name()}, {process.status()})"
    except psutil.Error:
        return f"process {pid}"
