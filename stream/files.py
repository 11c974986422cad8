"""File output shared by everything that writes: partial names, atomic writes, folders, free space.

Invariant: a file under its final name is complete.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from stream.errors import OutputError, SinkError, reason_of

WriteContent = Callable[[BinaryIO], None]
"""Writes the content of one file to a binary file that is open for writing."""


def write_file(path: Path, content: bytes | WriteContent) -> None:
    """Write one file atomically: readers see the old file or the complete new one, never a part.

    The content goes to a temporary file in the same folder, which then replaces `path`; on failure it is removed.
    A device or pipe is written to directly. Nothing is synced to the disk (no fsync), so this protects against a
    program that fails, not against a power failure.

    Raises:
        OSError: the file cannot be written (disk full, no permission).
        BaseException: what `content` raised.
    """
    if is_device_or_pipe(path):
        with path.open("wb") as file:
            _write(file, content)
        return
    # The end of the name tells the formats of one frame apart; 50 characters are at most 200 bytes of the usual 255.
    temporary = path.with_name(f".{path.name[-50:]}.partial")
    try:
        with temporary.open("wb") as file:
            _write(file, content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _write(file: BinaryIO, content: bytes | WriteContent) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        content(file)


def is_device_or_pipe(path: Path) -> bool:
    """True if `path` exists and is neither a regular file nor a folder: `/dev/stdout`, a named pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def as_sink_error(path: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into a `SinkError` that names `path`."""
    try:
        yield
    except OSError as error:
        hint = "free some space or choose another disk with -o" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise SinkError(f"cannot be written: {reason_of(error)}", where=str(path), hint=hint) from error


class CreatedFolders:
    """Creates folders, and removes them again if they stay empty, so that a failed run leaves no trace."""

    def __init__(self) -> None:
        self._created: list[Path] = []

    def create(self, folder: Path) -> None:
        """Create `folder` and its missing parents. Raises `OSError`."""
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._created.append(path)

    def remove_empty(self) -> None:
        """Remove the created folders that are empty. Idempotent, raises nothing."""
        for folder in reversed(self._created):
            with contextlib.suppress(OSError):  # not empty: something was written there
                folder.rmdir()
        self._created.clear()


def partial_path(path: Path) -> Path:
    """The name of a file until it is complete: NAME.partial.EXT, in the same folder."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def check_partial(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace the partial file of an earlier run or of one that is still running.

    Raises:
        OutputError: the partial file of `path` exists and `overwrite` is False.
    """
    partial = partial_path(path)
    if partial.exists() and not overwrite:
        raise OutputError(
            "was left by an interrupted run, or another run is writing it",
            where=str(partial),
            hint="move it away, choose another output with -o, or pass --overwrite to replace it",
        )


def existing_parent(path: Path) -> Path:
    """The nearest parent folder of `path` that exists."""
    parent = path.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    return parent


def check_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse a job whose output cannot fit on the disk.

    Args:
        folder: the output folder; need not exist yet.
        needed_bytes: see `sinks.naming.estimated_bytes`.
        what: the output, for the message: "3600 npy files".

    Raises:
        OutputError: less than `needed_bytes` is free there, or the free space is unknown.
    """
    place = folder if folder.exists() else existing_parent(folder)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise OutputError(f"the free space cannot be read: {reason_of(error)}", where=str(place)) from error
    if needed_bytes > free:
        raise OutputError(
            f"{what} would take about {_readable(needed_bytes)}, but only {_readable(free)} is free",
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
