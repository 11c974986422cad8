"""Output names: the name of each frame's file, and the checks of an output path before any work.

Invariant: no two frames of a run get the same name, even on a file system that ignores case.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import urlsplit

from stream.errors import OutputError, reason_of
from stream.files import existing_parent, fitted_stem, real
from stream.frames import Frame, SourceInfo, SourceKind

_BYTES_PER_PIXEL = {
    "npy": 4.0,
    "pfm": 4.0,
    "conf": 4.0,
    "exr": 3.9,
    "png16": 1.25,
    "ply": 15.0,
    "rrd": 4.3,
    "png": 0.8,
    "jpg": 0.13,
    "webp": 0.04,
    "video": 0.01,
    "depth video (ffv1)": 0.6,
    "depth video (hevc12)": 0.4,
    "depth video (float32)": 2.3,
}
"""Exact for raw formats; for compressed ones, measured on a 1080p photograph and its depth with the sinks' settings."""

_AFTER_SEQUENCE = ".0000000000.depth16.png.partial"
"""The longest end of the name of a frame's file."""


class FrameNames:
    """Gives every frame a file stem, relative to the output folder.

    An image keeps its own stem: `sub/a.jpg` gives `sub/a`. Images whose stems clash keep their suffix: `a.jpg` and
    `a.heic` give `a.jpg` and `a.heic`, and the sink appends its own suffix. A name that is still in use gets `_2`,
    `_3`, … Video frames have no name and get their index: `000012`. A name too long for its suffix is cut, see
    `files.fitted_stem`.

    Args:
        names: all input names (`Frame.name`), if known. Then both of two clashing files keep their suffix; otherwise
            only the later one does.
        suffixes: of all files in the folder, so that `a` with `.depth16.png` clashes with `a.depth16` with `.png`.
    """

    def __init__(self, names: Collection[str] = (), suffixes: Collection[str] = ("",)) -> None:
        self._longest = max(suffixes, key=lambda suffix: len(os.fsencode(suffix)))
        self.shortened = 0
        """Number of stems that were cut."""
        planned = _plan({_relative(name) for name in names}, suffixes)
        self._planned = {name: self._fit(stem) for name, stem in planned.items()}
        self._reserved = {_key(stem) for stem in self._planned.values()}
        self._used: set[str] = set()

    @property
    def planned(self) -> Collection[str]:
        """The stems of the names that were known from the start."""
        return self._planned.values()

    def stem(self, frame: Frame) -> str:
        """Return the stem of `frame`, with `/` between folders; never the same twice."""
        return self.stem_of(frame.name, frame.index)

    def stem_of(self, name: str, index: int) -> str:
        """Return the stem of the frame with this name and index, and mark it as used."""
        full = _relative(name)
        if not full:
            planned, fallback = f"{index:06d}", f"{index:06d}"
        else:
            planned, fallback = self._planned.get(full) or self._fit(_short(full)), full
        stem = self._first_free(planned, fallback, is_planned=full in self._planned)
        self._used.add(_key(stem))
        self.shortened += bool(full) and self._fit(_short(full)) != _short(full)
        return stem

    def _first_free(self, planned: str, fallback: str, *, is_planned: bool) -> str:
        if _key(planned) not in self._used and (is_planned or _key(planned) not in self._reserved):
            return planned
        candidate, n = self._fit(fallback), 1
        while _key(candidate) in self._used or _key(candidate) in self._reserved:
            n += 1
            candidate = self._fit(f"{fallback}_{n}")
        return candidate

    def _fit(self, stem: str) -> str:
        folder, slash, name = stem.rpartition("/")
        return f"{folder}{slash}{fitted_stem(name, self._longest)}"


def _plan(names: set[str], suffixes: Collection[str]) -> dict[str, str]:
    """The stem of each name: without its suffix, unless another name would give the same file name."""
    wanted = Counter(_key(_short(name) + suffix) for name in names for suffix in suffixes)
    full = {_key(name + suffix) for name in names for suffix in suffixes}

    def is_free(stem: str) -> bool:
        return all(wanted[_key(stem + suffix)] == 1 and _key(stem + suffix) not in full for suffix in suffixes)

    return {name: stem if is_free(stem := _short(name)) else name for name in names}


def sequence_name(info: SourceInfo) -> str:
    """What stands before the number in the name of a frame, as compositing programs expect it: `clip.` of `clip.mp4`.

    Empty for stills, which have names of their own, and for a source without a name.
    """
    if info.kind is SourceKind.STILLS:
        return ""
    name = urlsplit(info.name).path if info.kind is SourceKind.NETWORK else info.name
    is_device = info.kind in (SourceKind.CAMERA, SourceKind.PATTERN)
    stem = name if is_device else PurePath(name).stem
    plain = re.sub(r"[\\/:?#*%]", "_", stem).strip("._ ")  # programs that read sequences take % and # for the number
    return f"{fitted_stem(plain, _AFTER_SEQUENCE)}." if plain else ""


def _relative(name: str) -> str:
    """`name` without the parts that would lead out of the output folder."""
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", ".."))


def _short(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.stem)) if name else ""


def _key(stem: str) -> str:
    return stem.casefold()


def check_output(path: Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that would destroy something or cannot be created; call it before any sink opens.

    Args:
        path: the file or folder to write. A folder with only hidden entries counts as empty.
        overwrite: existing files may be replaced, but never an input.
        inputs: the files and folders that are read.

    Raises:
        OutputError: the output exists, is or contains an input, or its folder is not writable.
    """
    where = str(path)
    try:
        for source in inputs if path.exists() else ():  # a list may have millions of lines
            # os.path, not Path: a name that the system does not allow is no file either.
            if os.path.exists(source) and os.path.samefile(source, path):
                raise OutputError("the output is the input", where=where, hint="choose another name")
            if os.path.isfile(source) and path.is_dir() and real(path) in real(source).parents:
                raise OutputError("the output folder contains the input", where=where, hint="choose another folder")
        is_used = (
            any(not entry.name.startswith(".") for entry in path.iterdir()) if path.is_dir() else os.path.lexists(path)
        )
    except OSError as error:
        raise OutputError(f"cannot be used: {reason_of(error)}", where=where) from error
    if is_used and not overwrite:
        what = "the folder exists and is not empty" if path.is_dir() else "the file exists"
        raise OutputError(what, where=where, hint="choose another name or pass --overwrite")
    folder = path if path.is_dir() else existing_parent(path)
    if not folder.is_dir():
        raise OutputError("is a file, not a folder", where=str(folder), hint="choose another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError("the folder is not writable", where=str(folder), hint="choose another output with -o")


def estimated_bytes(format: str, size_hw: tuple[int, int], frame_count: int) -> int:
    """Estimate the size of `frame_count` files of an image or depth format, in bytes.

    Args:
        format: `npy`, `png16`, `pfm`, `exr`, `ply`, `rrd`, `png`, `jpg`, `webp` or `video`.
        size_hw: (height, width) of each, in pixels.

    Raises:
        KeyError: unknown format.
    """
    return round(_BYTES_PER_PIXEL[format] * size_hw[0] * size_hw[1]) * frame_count
