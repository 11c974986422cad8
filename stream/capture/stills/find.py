"""Finds the image files that a source text names (a file, folder, glob, numbered sequence or list), in natural order.

Invariant: no file is returned twice, and every ignored entry is reported.
"""

import difflib
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stream.capture.stills import raw
from stream.capture.stills.formats import SUFFIXES
from stream.errors import SourceError, SourceNotFoundError, reason_of
from stream.files import expanded

LIST_SUFFIX = ".txt"
VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".ogv", ".ogm", ".flv"),
        *(".f4v", ".wmv", ".asf", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".m2v", ".vob", ".mxf", ".nut", ".y4m"),
    )
)
"""Of files that are taken for videos where a folder is searched."""
_NOT_AN_IMAGE = "not an image"
_LONGEST_LIST_BYTES, _MOST_LISTED = 256 << 20, 1_000_000
"""Limits on a list: an image takes about 700 bytes before it is read, and as many in the report if it is missing."""
_DIGITS = re.compile(r"([0-9]+)")
_CONVERSION = re.compile(r"(%%|%(?:0[1-9])?d)")


class FoundPictures(NamedTuple):
    """The result of `find_pictures`.

    Attributes:
        paths: image files in natural order (a list keeps its own order). Entries of a list need not exist.
        root: the folder that image names are relative to.
        ignored: names of ignored entries, hidden files excepted.
        ignored_because: why: not an image by its suffix, the RAW of an image, or listed more than once.
        unreadable: names of folders and of entries of a list that cannot be read, and why.
        notes: what to tell about the choice.
    """

    paths: tuple[Path, ...]
    root: Path
    ignored: tuple[str, ...] = ()
    ignored_because: str = ""
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def find_pictures(source: str | Path, *, recursive: bool = False) -> FoundPictures:
    """Find the image files that `source` names.

    Args:
        source: one file; a folder; a glob (`photos/*.jpg`, `photos/**/*.png`); a numbered sequence
            (`frame_%04d.png`); or a .txt list with one path a line, relative to the folder of the list. Blank lines and
            `#` comments are skipped.
        recursive: search subfolders of a folder too, except hidden ones and symbolic links.

    Raises:
        SourceNotFoundError: the source does not exist or contains no images.
        SourceError: the folder or list cannot be read.
    """
    path = Path(expanded(source))
    try:
        if path.is_dir():
            return _in_folder(path, recursive=recursive)
        if path.is_file():
            return _in_list(path) if path.suffix.lower() == LIST_SUFFIX else FoundPictures((path,), path.parent)
        if (numbered := _numbered(path.name)) is not None:
            return _in_sequence(path, numbered)
        if glob.has_magic(str(source)):
            return _in_glob(str(path))
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=str(source)) from error
    except RecursionError:  # Python's own glob
        raise SourceError("the folders are nested too deeply", where=str(source), hint="name one below") from None
    raise not_found(path)


def not_found(path: Path) -> SourceNotFoundError:
    """Return the error for a path that does not exist, with the most similar existing name as a hint."""
    folder = path.parent
    try:
        names = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
    except PermissionError:
        names = []
    if path.is_symlink():
        return SourceNotFoundError(f"is a link to {os.readlink(path)}, which is not there", where=str(path))
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean {folder / near[0]}?" if near else ""
    if not folder.is_dir():
        hint = f"the folder {folder} does not exist either"
    return SourceNotFoundError("no such file or folder", where=str(path), hint=hint)


def is_pattern(text: str) -> bool:
    """Return True for a glob or a numbered sequence; a file of that very name comes first."""
    return glob.has_magic(text) or _numbered(Path(text).name) is not None


class FoundMedia(NamedTuple):
    """The result of `find_media`.

    Attributes:
        paths: images and videos, in natural order.
        ignored: number of other files, hidden ones excepted.
        unreadable: folders that cannot be read, and why.
    """

    paths: tuple[Path, ...]
    ignored: int
    unreadable: tuple[tuple[str, str], ...]


def find_media(folder: Path) -> FoundMedia:
    """Find the images and videos in a folder and the folders below it, except hidden ones and symbolic links.

    A RAW photo beside an image of the same name is left out.

    Raises:
        SourceError: the folder cannot be read.
    """
    unreadable: list[tuple[str, str]] = []
    try:
        names = [path.relative_to(folder).as_posix() for path in _walk(folder, unreadable)]
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=str(folder)) from error
    found = [name for name in media_among(names) if not is_special(folder / name)]
    return FoundMedia(tuple(folder / name for name in found), len(names) - len(found), tuple(unreadable))


def is_special(path: Path) -> bool:
    """True for a pipe, a socket or a device, which is no file to be found: opening it may wait for ever."""
    try:
        kind = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)


def media_among(names: Collection[str]) -> list[str]:
    """Return those of the file names that are images or videos, in natural order; see `find_media`."""
    pictures = {name for name in names if _is_picture_name(Path(name))}
    found = pictures - _raw_beside_picture(pictures) | {name for name in names if is_video_name(name)}
    return sorted(found, key=lambda name: (natural_key(name), name))


def is_video_name(name: str | Path) -> bool:
    """Return True for a name that a video has, a depth video excepted: its numbers are no picture."""
    low = str(name).lower()
    return os.path.splitext(low)[1] in VIDEO_SUFFIXES and not low.endswith((".depth.mkv", ".depth.mp4"))


def natural_key(name: str) -> tuple[tuple[str | int, ...], ...]:
    """Return a sort key that puts `img2` before `img10`, ignores case and compares folder by folder."""
    return tuple(
        tuple(int(part) if place % 2 else part.casefold() for place, part in enumerate(_DIGITS.split(folder)))
        for folder in name.split("/")
    )


def _in_folder(folder: Path, *, recursive: bool) -> FoundPictures:
    unreadable: list[tuple[str, str]] = []
    files = [path.relative_to(folder).as_posix() for path in _walk(folder, unreadable if recursive else None)]
    names, ignored, because = pictures_among(files)
    if not names:
        raise no_pictures(str(folder), len(ignored), hint="" if recursive else _hint_below(folder, ignored))
    return FoundPictures(
        tuple(folder / name for name in names),
        folder,
        ignored,
        because,
        tuple((f"{Path(name).relative_to(folder).as_posix()}/", reason) for name, reason in unreadable),
    )


def pictures_among(files: Iterable[str]) -> tuple[list[str], tuple[str, ...], str]:
    """Return those of the file names that are images, in natural order, the ignored ones, and why these are ignored."""
    names: list[str] = []
    ignored: list[str] = []
    for name in files:
        (names if _is_picture_name(Path(name)) else ignored).append(name)
    beside = _raw_beside_picture(names)
    names = sorted(set(names) - beside, key=lambda name: (natural_key(name), name))
    because = f"{_NOT_AN_IMAGE}, or the RAW of one" if beside else _NOT_AN_IMAGE
    return names, tuple(sorted((*ignored, *beside), key=natural_key)), because


def _walk(folder: Path, unreadable: list[tuple[str, str]] | None) -> Iterator[Path]:
    """Yield the files in a folder that are not hidden, and if `unreadable` is not None in the folders below it, too.

    Folders below that cannot be read are appended to `unreadable`, with the reason.

    Raises:
        OSError: `folder` itself cannot be read.
    """

    waiting = [str(folder)]
    while waiting:  # no recursion: folders may be nested more deeply than Python's stack
        parent = waiting.pop()
        try:
            with os.scandir(parent) as found:
                entries = [entry for entry in found if not entry.name.startswith(".")]
        except OSError as error:
            if unreadable is None or parent == str(folder):
                raise
            unreadable.append((parent, reason_of(error)))
            continue
        for entry in entries:
            if not _is_folder(entry):
                yield Path(entry.path)
            elif unreadable is not None and not entry.is_symlink():
                waiting.append(entry.path)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or a link to one. A link that leads nowhere or to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _hint_below(folder: Path, ignored: Iterable[str]) -> str:
    """Return what to do about a folder without images."""
    below = sum(_is_picture_name(path) for path in _walk(folder, []))
    if below:
        return f"subfolders contain {_count(below, 'image')}: add --recursive"
    has_video = any(Path(name).suffix.lower() in VIDEO_SUFFIXES for name in ignored)
    return "the folder contains videos; pass one of them" if has_video else ""


def _raw_beside_picture(names: Iterable[str]) -> set[str]:
    """Return the RAW photos that a camera has written beside a JPEG or HEIC of the same name."""
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(os.path.splitext(name)[0].casefold(), []).append(name)
    found: set[str] = set()
    for same in by_stem.values():
        raws = {name for name in same if Path(name).suffix.lower() in raw.SUFFIXES}
        if len(raws) < len(same):
            found |= raws
    return found


def _in_glob(pattern: str) -> FoundPictures:
    files = [Path(match) for match in glob.glob(_with_folders_as_they_are(pattern), recursive=True)]
    files = [path for path in files if not path.is_dir()]  # a pipe or device is skipped by name, like a broken image
    pictures = {path for path in files if _is_picture_name(path)}
    if not files:
        raise SourceNotFoundError("no file matches", where=pattern)
    if not pictures:
        raise no_pictures(pattern, len(files))
    root = common_folder(pictures)
    paths = sorted(pictures, key=lambda path: (natural_key(path.as_posix()), path.as_posix()))
    others = {path.as_posix() for path in files} - {path.as_posix() for path in pictures}
    return FoundPictures(tuple(paths), root, tuple(sorted(others, key=natural_key)), _NOT_AN_IMAGE)


def _numbered(name: str) -> re.Pattern[str] | None:
    """Return what matches the file names of a printf pattern with one number, None if `name` is none.

    As in FFmpeg and Blender, `%d` and `%04d` are the number, and `%%` is a percent sign.
    """
    parts = _CONVERSION.split(name)
    if sum(part not in ("", "%%") for part in parts[1::2]) != 1:
        return None
    matching = ""
    for part in parts:
        if not _CONVERSION.fullmatch(part):
            matching += re.escape(part)
        elif part == "%%":
            matching += "%"
        else:
            width = int(part[1:-1] or 1)
            matching += rf"([0-9]{{{width}}}|[1-9][0-9]{{{width},}})"
    return re.compile(matching)


def _in_sequence(pattern: Path, numbered: re.Pattern[str]) -> FoundPictures:
    if not pattern.parent.is_dir():
        raise not_found(pattern)
    matches = (numbered.fullmatch(entry.name) for entry in os.scandir(pattern.parent) if not _is_folder(entry))
    by_number = {int(match[1]): pattern.with_name(match[0]) for match in matches if match}
    numbers = sorted(by_number)
    if not numbers:
        raise SourceNotFoundError("no file matches", where=str(pattern))
    if not _is_picture_name(pattern):
        raise no_pictures(str(pattern), len(numbers))
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    notes = (f"{pattern.name}: {missing} of the numbers {numbers[0]}…{numbers[-1]} are missing",) if missing else ()
    return FoundPictures(tuple(by_number[number] for number in numbers), pattern.parent, notes=notes)


def _with_folders_as_they_are(pattern: str) -> str:
    """The pattern with its leading folders escaped as far as they exist: `trip [2024]/*.jpg` means that folder."""
    for folder in Path(pattern).parents:
        if os.path.isdir(folder) and glob.has_magic(str(folder)):
            return os.path.join(glob.escape(str(folder)), os.path.relpath(pattern, folder))
    return pattern


def _in_list(listing: Path) -> FoundPictures:
    if listing.stat().st_size > _LONGEST_LIST_BYTES:
        allowed = f"up to {_LONGEST_LIST_BYTES >> 20} MiB"
        raise SourceError("the list is too long", where=str(listing), allowed=allowed, hint="split it")
    text = listing.read_text(encoding="utf-8-sig", errors="surrogateescape")  # a name may be any bytes
    lines = Counter(line for line in map(str.strip, text.split("\n")) if line and not line.startswith("#"))
    if len(lines) > _MOST_LISTED:
        what = f"the list names {len(lines)} images"
        raise SourceError(what, where=str(listing), allowed=f"up to {_MOST_LISTED}", hint="split it")
    # The kernel ends a name at a NUL, and Python refuses it. Strings, not paths: a list may have a million lines.
    impossible = tuple((line, "no name holds a NUL") for line in lines if "\0" in line)
    folder = str(listing.parent)
    entries = {line: os.path.join(folder, expanded(line)) for line in lines if "\0" not in line}
    if not _is_utf8(text) and not any(map(os.path.exists, entries.values())):
        raise SourceError("the list is not UTF-8 text", where=str(listing))
    counts = Counter[str]()
    for line, entry in entries.items():
        counts[os.path.normpath(entry)] += lines[line]
    paths = tuple(map(Path, counts))
    if not paths:
        raise SourceNotFoundError("the list names no images", where=str(listing))
    repeated = (os.path.basename(path) for path, count in counts.items() for _ in range(count - 1))
    return FoundPictures(paths, common_folder(paths), tuple(repeated), "listed more than once", impossible)


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in text)


def common_folder(paths: Iterable[Path]) -> Path:
    """Return the deepest folder that contains all `paths`; absolute if any of them is."""
    parents = {os.path.dirname(path) for path in paths}
    if len({os.path.isabs(parent) for parent in parents}) > 1:
        parents = {os.path.join(os.getcwd(), parent) for parent in parents}
    return Path(os.path.commonpath(parents))


def _is_picture_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def no_pictures(where: str, ignored: int, *, hint: str = "") -> SourceNotFoundError:
    """Return the error for a folder or glob without images."""
    what = f"no images, {_count(ignored, 'other file')}" if ignored else "no images"
    return SourceNotFoundError(
        what, where=where, allowed=f"{' '.join(sorted(SUFFIXES - raw.SUFFIXES))} and RAW photos", hint=hint
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
