"""From what was typed (a picture, a folder, a glob, a list) to the pictures it means, in the order people expect.

Invariant: no picture comes twice, and what is left out of a folder is counted.
"""

import difflib
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stream.capture.stills.picture import SUFFIXES
from stream.errors import SourceError, SourceNotFoundError

LIST_SUFFIX = ".txt"
_VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".ts", ".mts", ".mpg"}
_DIGITS = re.compile(r"([0-9]+)")


class Found(NamedTuple):
    """What `find_pictures` found.

    Attributes:
        paths: the pictures, naturally sorted (a list keeps its own order). Entries of a list need not exist.
        root: the folder that the names of the pictures are relative to.
        ignored: names of entries left out: not pictures by their suffix, or listed twice. Hidden files do not count.
    """

    paths: tuple[Path, ...]
    root: Path
    ignored: tuple[str, ...]


def find_pictures(source: str | Path, *, recursive: bool = False) -> Found:
    """The pictures that `source` means.

    Args:
        source: one file; a folder; a glob (`photos/*.jpg`, `photos/**/*.png`); or a .txt list, one path a line,
            relative ones from the folder of the list, blank lines and `#` comments skipped.
        recursive: descend into the folders below a folder, links to folders and hidden ones excepted.

    Raises:
        SourceNotFoundError: it does not exist or holds no pictures.
        SourceError: the folder or list cannot be read.
    """
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _in_folder(path, recursive=recursive)
        if path.is_file():
            return _in_list(path) if path.suffix.lower() == LIST_SUFFIX else Found((path,), path.parent, ())
        if glob.has_magic(str(source)):
            return _in_glob(str(path))
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", where=str(source)) from error
    raise not_found(path)


def not_found(path: Path) -> SourceNotFoundError:
    """The error for a path that does not exist, naming the nearest name that does."""
    folder = path.parent
    try:
        names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
    except PermissionError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean {folder / near[0]}?" if near else ""
    if not folder.is_dir():
        hint = f"the folder {folder} does not exist either"
    return SourceNotFoundError("no such file or folder", where=str(path), hint=hint)


def natural_key(name: str) -> tuple[tuple[str | int, ...], ...]:
    """Sort key under which `img2` comes before `img10`, case ignored and folder by folder."""
    return tuple(
        tuple(int(part) if part.isdigit() else part.casefold() for part in _DIGITS.split(folder))
        for folder in name.split("/")
    )


def _in_folder(folder: Path, *, recursive: bool) -> Found:
    names: list[str] = []
    ignored: list[str] = []
    below = 0
    for path in _walk(folder):
        relative = path.relative_to(folder)
        if len(relative.parts) > 1 and not recursive:
            below += _is_picture_name(path)
        elif _is_picture_name(path):
            names.append(relative.as_posix())
        else:
            ignored.append(relative.as_posix())
    if not names:
        hint = f"{_count(below, 'picture')} in the folders below: add --recursive" if below else ""
        if not below and any(Path(name).suffix.lower() in _VIDEO_SUFFIXES for name in ignored):
            hint = "videos are run one at a time: name one"
        raise _no_pictures(str(folder), len(ignored), hint=hint)
    names.sort(key=lambda name: (natural_key(name), name))
    return Found(tuple(folder / name for name in names), folder, tuple(sorted(ignored, key=natural_key)))


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield Path(parent, name)


def _in_glob(pattern: str) -> Found:
    files = [Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file()]
    pictures = {path for path in files if _is_picture_name(path)}
    if not files:
        raise SourceNotFoundError("no file matches", where=pattern)
    if not pictures:
        raise _no_pictures(pattern, len(files))
    root = _common_folder(pictures)
    paths = sorted(pictures, key=lambda path: (natural_key(path.as_posix()), path.as_posix()))
    others = {path.as_posix() for path in files} - {path.as_posix() for path in pictures}
    return Found(tuple(paths), root, tuple(sorted(others, key=natural_key)))


def _in_list(listing: Path) -> Found:
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError("is not a list of paths in UTF-8", where=str(listing)) from error
    lines = [line.strip() for line in text.splitlines()]
    entries = [listing.parent / Path(line).expanduser() for line in lines if line and not line.startswith("#")]
    counts = Counter(Path(os.path.normpath(entry)) for entry in entries)
    paths = tuple(counts)
    if not paths:
        raise SourceNotFoundError("the list names no pictures", where=str(listing))
    repeated = (f"{path.name} (listed again)" for path in counts for _ in range(counts[path] - 1))
    return Found(paths, _common_folder(paths), tuple(repeated))


def _common_folder(paths: Iterable[Path]) -> Path:
    """The deepest folder above all `paths`, which are all absolute or all relative, or a mixture made absolute."""
    parents = {path.parent for path in paths}
    if len({parent.is_absolute() for parent in parents}) > 1:
        parents = {parent.absolute() for parent in parents}
    return Path(os.path.commonpath(parents))


def _is_picture_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _no_pictures(where: str, ignored: int, *, hint: str = "") -> SourceNotFoundError:
    what = f"no pictures, {_count(ignored, 'other file')}" if ignored else "no pictures"
    return SourceNotFoundError(what, where=where, allowed=" ".join(sorted(SUFFIXES)), hint=hint)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
