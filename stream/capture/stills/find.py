"""Finds the image files that a source text names (a file, folder, glob or list), in the order people expect.

Invariant: no file is returned twice, and every ignored entry is reported.
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
from stream.errors import SourceError, SourceNotFoundError, reason_of

LIST_SUFFIX = ".txt"
_VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".ts", ".mts", ".mpg"}
_NOT_AN_IMAGE = "not an image"
_DIGITS = re.compile(r"([0-9]+)")


class FoundPictures(NamedTuple):
    """The result of `find_pictures`.

    Attributes:
        paths: image files in natural order (a list keeps its own order). Entries of a list need not exist.
        root: the folder that image names are relative to.
        ignored: names of ignored entries, hidden files excepted.
        ignored_because: why they are ignored: not an image by its suffix, or listed more than once.
    """

    paths: tuple[Path, ...]
    root: Path
    ignored: tuple[str, ...] = ()
    ignored_because: str = ""


def find_pictures(source: str | Path, *, recursive: bool = False) -> FoundPictures:
    """Find the image files that `source` names.

    Args:
        source: one file; a folder; a glob (`photos/*.jpg`, `photos/**/*.png`); or a .txt list with one path a line,
            relative to the folder of the list. Blank lines and `#` comments are skipped.
        recursive: search subfolders of a folder too, except hidden ones and symbolic links.

    Raises:
        SourceNotFoundError: the source does not exist or contains no images.
        SourceError: the folder or list cannot be read.
    """
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _in_folder(path, recursive=recursive)
        if path.is_file():
            return _in_list(path) if path.suffix.lower() == LIST_SUFFIX else FoundPictures((path,), path.parent)
        if glob.has_magic(str(source)):
            return _in_glob(str(path))
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=str(source)) from error
    raise not_found(path)


def not_found(path: Path) -> SourceNotFoundError:
    """Return the error for a path that does not exist, with the most similar existing name as a hint."""
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
    """Return a sort key that puts `img2` before `img10`, ignores case and compares folder by folder."""
    return tuple(
        tuple(int(part) if part.isdigit() else part.casefold() for part in _DIGITS.split(folder))
        for folder in name.split("/")
    )


def _in_folder(folder: Path, *, recursive: bool) -> FoundPictures:
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
        hint = f"subfolders contain {_count(below, 'image')}: add --recursive" if below else ""
        if not below and any(Path(name).suffix.lower() in _VIDEO_SUFFIXES for name in ignored):
            hint = "the folder contains videos; pass one of them"
        raise _no_pictures(str(folder), len(ignored), hint=hint)
    names.sort(key=lambda name: (natural_key(name), name))
    paths = tuple(folder / name for name in names)
    return FoundPictures(paths, folder, tuple(sorted(ignored, key=natural_key)), _NOT_AN_IMAGE)


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield Path(parent, name)


def _in_glob(pattern: str) -> FoundPictures:
    files = [Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file()]
    pictures = {path for path in files if _is_picture_name(path)}
    if not files:
        raise SourceNotFoundError("no file matches", where=pattern)
    if not pictures:
        raise _no_pictures(pattern, len(files))
    root = _common_folder(pictures)
    paths = sorted(pictures, key=lambda path: (natural_key(path.as_posix()), path.as_posix()))
    others = {path.as_posix() for path in files} - {path.as_posix() for path in pictures}
    return FoundPictures(tuple(paths), root, tuple(sorted(others, key=natural_key)), _NOT_AN_IMAGE)


def _in_list(listing: Path) -> FoundPictures:
    try:
        text = listing.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError("the list is not UTF-8 text", where=str(listing)) from error
    lines = [line.strip() for line in text.splitlines()]
    entries = [listing.parent / Path(line).expanduser() for line in lines if line and not line.startswith("#")]
    counts = Counter(Path(os.path.normpath(entry)) for entry in entries)
    paths = tuple(counts)
    if not paths:
        raise SourceNotFoundError("the list names no images", where=str(listing))
    repeated = (path.name for path in counts for _ in range(counts[path] - 1))
    return FoundPictures(paths, _common_folder(paths), tuple(repeated), "listed more than once")


def _common_folder(paths: Iterable[Path]) -> Path:
    """Return the deepest folder that contains all `paths`; absolute if any of them is."""
    parents = {path.parent for path in paths}
    if len({parent.is_absolute() for parent in parents}) > 1:
        parents = {parent.absolute() for parent in parents}
    return Path(os.path.commonpath(parents))


def _is_picture_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _no_pictures(where: str, ignored: int, *, hint: str = "") -> SourceNotFoundError:
    what = f"no images, {_count(ignored, 'other file')}" if ignored else "no images"
    return SourceNotFoundError(what, where=where, allowed=" ".join(sorted(SUFFIXES)), hint=hint)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
