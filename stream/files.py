"""Files: partial names, one atomic write, free space.

Invariant: a file under its final name is complete.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from stream.errors import OutputError, SinkError

Encode = Callable[[BinaryIO], None]
"""Writes the content of one file."""


def write_file(target: Path, encode: Encode, *, temporary: Path | None = None) -> None:
    """Write one file; on failure it is removed.

    Args:
        target: its name; replaced if it exists.
        encode: writes the content.
        temporary: written under this name first, in the same folder.

    Raises:
        SinkError: it could not be written (disk full, no permission).
    """
    path = temporary or target
    try:
        try:
            with path.open("wb") as file:
                encode(file)
            if temporary is not None:
                os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
    except OSError as error:
        hint = "free some space or choose another disk with -o" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise SinkError(f"cannot be written: {reason(error)}", where=str(target), hint=hint) from error


def partial_path(path: Path) -> Path:
    """What a file is called until it is complete: NAME.partial.EXT, beside it."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def check_partial(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace what an earlier run has kept, or another one is writing.

    Raises:
        OutputError: `path`'s partial file exists and may not be replaced.
    """
    partial = partial_path(path)
    if partial.exists() and not overwrite:
        raise OutputError(
            "is left from an interrupted run, or another one is writing it",
            where=str(partial),
            hint="move it away, choose another -o, or pass --overwrite to replace it",
        )


def existing_parent(path: Path) -> Path:
    """The nearest parent of `path` that exists."""
    parent = path.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    return parent


def check_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse a job whose result cannot fit.

    Args:
        folder: where it will be written; need not exist yet.
        needed_bytes: see `estimated_bytes`.
        what: what is written, for the message: "3600 npy files".

    Raises:
        OutputError: fewer than `needed_bytes` are free there.
    """
    place = folder if folder.exists() else existing_parent(folder)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise OutputError(f"free space is unknown: {error.strerror or error}", where=str(place)) from error
    if needed_bytes > free:
        raise OutputError(
            f"{what} would take about {_readable(needed_bytes)}, but {_readable(free)} are free",
            where=str(folder),
            hint="choose another disk with -o, a smaller format (--save png16) or fewer frames (--max-frames)",
        )


def _readable(count: int) -> str:
    value, unit = float(count), "bytes"
    for unit in ("kB", "MB", "GB", "TB"):  # noqa: B007 - the last unit is the largest
        value /= 1000
        if value < 1000:
            break
    return f"{value:.3g} {unit}"


def reason(error: OSError) -> str:
    """The system's words for it, without number and path."""
    return error.strerror or str(error)
