"""File output shared by everything that writes: partial names, atomic writes, folders, free space.

Invariant: a file under its final name is complete.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from stream.errors import ACTING, OutputError, SinkError, UsageError, printable, reason_of

_ABANDONED_S = 600.0
"""Age of a temporary file that nobody writes any more."""
MAX_NAME_BYTES = 255
"""The longest name on the usual file systems."""
_SURROGATE = re.compile("[\ud800-\udfff]")

WriteContent = Callable[[BinaryIO], None]
"""Writes the content of one file to a binary file that is open for writing."""


def write_file(path: Path, content: bytes | WriteContent, *, may_be_pipe: bool = False) -> None:
    """Write one file atomically: readers see the old file or the complete new one, never a part.

    The content goes to a new temporary file in the same folder, which then replaces `path`, be that a link, a pipe or a
    second name of another file; on failure it is removed. Nothing is synced to the disk (no fsync), so this protects
    against a program that fails, not against a power failure.

    Args:
        may_be_pipe: `path` is of the user's own choice, so a device or pipe is written to directly.

    Raises:
        OSError: the file cannot be written (disk full, no permission).
        BaseException: what `content` raised.
    """
    if may_be_pipe and is_device_or_pipe(path):
        with _open_as_it_is(path) as pipe:
            _write(pipe, content)
        return
    # The end of the name tells the formats of one frame apart; 50 characters are at most 200 bytes of the usual 255.
    temporary, file = _create_temporary(path.with_name(f".{path.name[-50:]}.partial"))
    try:
        with file:
            _write(file, content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def create_file(path: Path) -> BinaryIO:
    """Create a file for writing, with the user's umask; anything of that name is an error, a link to nothing too.

    Raises:
        OSError: `FileExistsError`, or the file cannot be created.
    """
    return path.open("xb")


def _create_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """Create a temporary file: `path`, or a name beside it if that is there, because of another run or planted."""
    while True:
        try:
            return path, create_file(path)
        except FileExistsError:
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime > _ABANDONED_S and not stat.S_ISDIR(path.lstat().st_mode):
                    path.unlink()
                    continue
            path = path.with_name(f"{path.name.removesuffix('.partial')[:50]}.{os.urandom(4).hex()}.partial")


def _write(file: BinaryIO, content: bytes | WriteContent) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        content(file)


def expanded(text: str | os.PathLike[str]) -> str:
    """Return a path with `~` or `~user` at its start replaced, as a shell does; a file that has this name wins."""
    path = os.fspath(text)
    return os.path.expanduser(path) if path.startswith("~") and not os.path.lexists(path) else path


def path_of_url(text: str) -> str:
    """The path of a `file:` URL: what is there under the text as it is, otherwise with its %XX decoded.

    Raises:
        UsageError: it names another machine.
    """
    rest = text.partition(":")[2]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if not slash or host.lower() not in ("", "localhost"):
            hint = "write file:///FOLDER/FILE, or the path alone"
            raise UsageError(f"{host} would be another machine", where=text, hint=hint)
        rest = slash + path
    if os.path.exists(rest):
        return rest
    if os.name == "nt":
        from urllib.request import url2pathname  # an HTTP client comes with it

        return url2pathname(rest)
    return os.fsdecode(unquote_to_bytes(os.fsencode(rest)))


def real(path: Path) -> Path:
    """Return the absolute path behind links; a link that leads to itself, and a name with a NUL, stay as they are."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return path.absolute()


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, never a pipe, which may send nothing, or a device, which may never end.

    Raises:
        OSError: it cannot be opened, or is something else.
    """

    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer

    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind in _NOT_FILES:  # not even opened: that alone may act on a device
            raise OSError(errno.EINVAL, f"{_NOT_FILES[kind]}, not a file")
        file = open(path, "rb", opener=without_waiting)  # noqa: SIM115  the caller closes it
    except ValueError as error:
        raise OSError(errno.EINVAL, "no name holds a NUL") from error
    if stat.S_IFMT(os.fstat(file.fileno()).st_mode) in _NOT_FILES:  # it was replaced in between
        file.close()
        raise OSError(errno.EINVAL, "not a file any more")
    return file


_NOT_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def fitted_stem(stem: str, suffix: str) -> str:
    """Return `stem`, cut where `stem` + `suffix` would be too long for a name.

    A cut stem ends in `~` and eight hex digits of its hash, so that two long names stay apart; equal ones stay equal.

    Args:
        stem: a name without folder. Bytes that are not UTF-8 stay as they are.
        suffix: all that will follow, `.partial` included.
    """
    room = MAX_NAME_BYTES - len(os.fsencode(suffix))
    if len(os.fsencode(stem)) <= room:
        return stem
    import hashlib  # 7 ms, which `depthstream --help` need not wait for

    mark = "~" + hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    cut = stem[: room - len(mark)]  # a character takes a byte or more
    while len(os.fsencode(cut)) > room - len(mark):
        cut = cut[:-1]
    return cut + mark


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return JSON that every parser, encoding and terminal takes.

    What would act on a terminal is escaped in JSON's own way and reads back as it was. Only the bytes of a name that
    are not UTF-8 are written as `errors.printable` writes them.

    Args:
        value: plain values.
        indent: see `json.dumps`.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    text = _SURROGATE.sub(lambda found: printable(found[0]).replace("\\", "\\\\"), text)
    return ACTING.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def read_json(path: Path, *, most_bytes: int = 16_000_000) -> object:
    """Return the JSON in a file, or None if it is missing, no file, too long, damaged or too deeply nested.

    Args:
        most_bytes: the longest; parsed, JSON takes up to twenty times its size.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return None
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        return None if len(content) > most_bytes else json.loads(content)
    except (OSError, ValueError, RecursionError):
        return None


def is_device_or_pipe(path: Path) -> bool:
    """True if `path` is written to as it is: a device, a named pipe, or what a link of the system's leads to.

    `/dev/stdout` is one, be stdout redirected to a regular file. Other links are none: somebody may have planted them.
    """
    if path.is_symlink():
        folder = os.path.realpath(path.parent)  # not /dev/shm, where everybody may create links
        return (folder in ("/dev", "/dev/fd") or folder.startswith("/proc/")) and path.exists() and not path.is_dir()
    return path.exists() and not path.is_file() and not path.is_dir()


def _open_as_it_is(path: Path) -> BinaryIO:
    """Open what exists for writing behind what it holds. Raises `OSError`."""
    for number, text in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):  # closed
            if os.path.samestat(path.stat(), os.fstat(number)):  # another opening would not share its position
                text.flush()
                return os.fdopen(os.dup(number), "wb")
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "wb")


@contextlib.contextmanager
def as_sink_error(path: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into a `SinkError` that names `path`."""
    try:
        yield
    except OSError as error:
        hint = "free some space or choose another disk with -o" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        if error.errno == errno.EFBIG:
            hint = "raise the limit on the size of a file (ulimit -f), or choose another disk with -o"
        raise SinkError(f"cannot be written: {reason_of(error)}", where=str(path), hint=hint) from error


class CreatedFolders:
    """Creates folders, and removes them again if they stay empty, so that a failed run leaves no trace."""

    def __init__(self) -> None:
        self._created: list[Path] = []

    def create(self, folder: Path, *, below: Path | None = None) -> None:
        """Create `folder` and its missing parents.

        Args:
            below: a parent; what lies below it is named by this program and must be no link to elsewhere.

        Raises:
            OSError: it cannot be created, or is a link.
        """
        if below is not None:
            inside = [part for part in (folder, *folder.parents) if below in part.parents]
            if links := [part for part in inside if part.is_symlink()]:
                raise NotADirectoryError(errno.ENOTDIR, f"{links[-1]} is a link", str(links[-1]))
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
    """The name of a file until it is complete: NAME.partial.EXT, in the same folder; a NAME that is too long is cut."""
    end = f".partial{path.suffix}"
    return path.with_name(fitted_stem(path.stem, end) + end)


def check_partial(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace the partial file of an earlier run or of one that is still running.

    Raises:
        OutputError: the partial file of `path` exists and `overwrite` is False.
    """
    partial = partial_path(path)
    if os.path.lexists(partial) and not overwrite:
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


@dataclass(frozen=True, kw_only=True)
class Need:
    """Space that a run will take.

    Attributes:
        folder: where; need not exist yet.
        size: in bytes, see `sinks.naming.estimated_bytes`.
        what: for messages: "3600 × npy".
    """

    folder: Path
    size: int
    what: str


def by_disk(needs: Iterable[Need]) -> list[Need]:
    """What is needed on each disk: everything that comes onto it at once, under the folder of the first."""
    disks: dict[int, Need] = {}
    for need in needs:
        place = need.folder if need.folder.exists() else existing_parent(need.folder)
        disk = place.stat().st_dev
        if (first := disks.get(disk)) is not None:
            need = replace(first, size=first.size + need.size, what=f"{first.what} + {need.what}")
        disks[disk] = need
    return list(disks.values())


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
