"""Where results go: which name each frame's file gets, and what is checked before any work.

Invariant: no two frames of a run ever get the same name, on a file system that ignores case either.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from stream.errors import OutputError
from stream.files import existing_parent
from stream.frames import Frame

_BYTES_PER_PIXEL = {
    "npy": 4.0,
    "pfm": 4.0,
    "exr": 4.0,
    "png16": 1.25,
    "png": 0.8,
    "jpg": 0.13,
    "webp": 0.04,
}
"""Raw formats: exact. Compressed ones: measured on a 1080p photograph and its depth, settings as in the sinks."""


class FrameNames:
    """Gives every frame its file stem, relative to the output folder.

    A still keeps its own: `sub/a.jpg` → `sub/a`. Stills whose stems clash keep their suffix: `a.jpg` and `a.heic`
    → `a.jpg` and `a.heic`, to which the sink appends its own. A name that is still taken gets `_2`, `_3`, …
    Frames without a name (video) are called by their index: `000012`.

    Args:
        names: `Frame.name` of all inputs where the source knows them; lets the first of two clashing stills keep
            its suffix too. A clash that was not foretold changes the later name only.
        suffixes: of all files that stand in one folder, so that `a` with `.depth16.png` and `a.depth16` with `.png`
            count as a clash.
    """

    def __init__(self, names: Collection[str] = (), suffixes: Collection[str] = ("",)) -> None:
        self._planned = _plan({_relative(name) for name in names}, suffixes)
        self._reserved = {_key(stem) for stem in self._planned.values()}
        self._used: set[str] = set()

    def stem(self, frame: Frame) -> str:
        """The stem of `frame`, with `/` between folders; never the same twice."""
        return self.stem_of(frame.name, frame.index)

    def stem_of(self, name: str, index: int) -> str:
        """The stem of the frame of that name and index; counts as used from then on."""
        full = _relative(name)
        if not full:
            planned, fallback = f"{index:06d}", f"{index:06d}"
        else:
            planned, fallback = self._planned.get(full, _short(full)), full
        stem = self._first_free(planned, fallback, is_reserved_for_it=full in self._planned)
        self._used.add(_key(stem))
        return stem

    def _first_free(self, planned: str, fallback: str, *, is_reserved_for_it: bool) -> str:
        if _key(planned) not in self._used and (is_reserved_for_it or _key(planned) not in self._reserved):
            return planned
        candidate, n = fallback, 1
        while _key(candidate) in self._used or _key(candidate) in self._reserved:
            n += 1
            candidate = f"{fallback}_{n}"
        return candidate


def _plan(names: set[str], suffixes: Collection[str]) -> dict[str, str]:
    """The stem of each name: the short one unless a file of another name would be called the same."""
    wanted = Counter(_key(_short(name) + suffix) for name in names for suffix in suffixes)
    full = {_key(name + suffix) for name in names for suffix in suffixes}

    def is_free(stem: str) -> bool:
        return all(wanted[_key(stem + suffix)] == 1 and _key(stem + suffix) not in full for suffix in suffixes)

    return {name: stem if is_free(stem := _short(name)) else name for name in names}


def _relative(name: str) -> str:
    """`name` without anything that would lead out of the output folder."""
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", ".."))


def _short(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.stem)) if name else ""


def _key(stem: str) -> str:
    return stem.casefold()


def check_output(path: Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that would destroy something or cannot be created; called once, before any sink opens.

    Args:
        path: the file or folder to be written. Hidden entries do not make a folder count as used.
        overwrite: what exists may be replaced; never an input.
        inputs: files and folders that are read.

    Raises:
        OutputError: the output exists, is or holds an input, or its folder is not writable.
    """
    where = str(path)
    try:
        for source in inputs:
            if source.exists() and path.exists() and os.path.samefile(source, path):
                raise OutputError("the output is the input", where=where, hint="choose another name")
            if source.is_file() and path.is_dir() and os.path.samefile(source.absolute().parent, path):
                raise OutputError("the output folder holds the input", where=where, hint="choose another folder")
        is_used = any(not entry.name.startswith(".") for entry in path.iterdir()) if path.is_dir() else path.exists()
    except OSError as error:
        raise OutputError(f"cannot be used: {error.strerror or error}", where=where) from error
    if is_used and not overwrite:
        what = "the folder exists and is not empty" if path.is_dir() else "the file exists"
        raise OutputError(what, where=where, hint="choose another name or pass --overwrite")
    folder = path if path.is_dir() else existing_parent(path)
    if not folder.is_dir():
        raise OutputError("is a file, not a folder", where=str(folder), hint="choose another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError("the folder is not writable", where=str(folder), hint="choose another output with -o")


def estimated_bytes(format: str, size_hw: tuple[int, int], frame_count: int) -> int:
    """About how many bytes `frame_count` files of a picture or depth format take.

    Args:
        format: `npy`, `png16`, `pfm`, `exr`, `png`, `jpg` or `webp`.
        size_hw: (height, width) of each, in pixels.

    Raises:
        KeyError: unknown format.
    """
    return round(_BYTES_PER_PIXEL[format] * size_hw[0] * size_hw[1]) * frame_count
