"""Finds the measured depth of photos in a folder: a file for each photo, see `depthmap`.

Invariant: a map is as upright as its photo, and of its shape.
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.capture.limits import Limits
from stream.capture.stills.depthmap import SUFFIXES, read_depth
from stream.capture.stills.find import common_folder
from stream.capture.stills.picture import orientation_in
from stream.capture.stills.source import frame_name
from stream.errors import SourceError, UsageError
from stream.files import real
from stream.frames import DepthMap, Frame, SourceInfo
from stream.notes import note

_FARTHEST_USUAL_M = 1000.0
"""A median beyond is a mistake of the unit more often than a view of mountains."""
_MOST_NAMED = 3
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, 1),
}
"""EXIF 2.32, tag 0x0112: what makes the map of a sensor upright, for the orientations that swap its sides."""
_SAME_SIDES = (2, 3, 4)
"""Orientations that mirror a picture or put it upside down."""

DepthOf = Callable[[Frame], DepthMap | None]
"""The measured depth of a photo, float32 H×W in metres, NaN where unknown; None if there is none.

Raises `SourceError` if there is some that cannot be used.
"""


class DepthFolder:
    """A folder with the measured depth of photos.

    The photo `sub/a.jpg` has `sub/a.npy`, or `sub/a.jpg.npy` as where `a.jpg` and `a.heic` clash, or `a.npy` without
    the subfolder; see `SUFFIXES`.

    Args:
        folder: of the files.
        limits: on their size.
        option: that named the folder, for messages.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path, limits: Limits, *, option: str) -> None:
        self._folder, self._limits, self._option = folder, limits, option
        self._said: set[str] = set()
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "no such folder"
            raise UsageError(what, where=f"{option} {folder}", hint="name the folder of the depth files")

    def of(self, info: SourceInfo) -> DepthOf:
        """What is known of the photos of a source; how many have none is noted.

        Raises:
            UsageError: none has any.
        """
        photos = dict(zip(info.names, info.files, strict=False))
        missing = [name for name in info.names if self._file_of(name, photos.get(name)) is None]
        if missing and len(missing) == len(info.names):
            stem = PurePosixPath(missing[0]).stem
            raise UsageError(
                "has no depth of any of the photos",
                where=f"{self._option} {self._folder}",
                allowed=", ".join(f"{stem}{suffix}" for suffix in SUFFIXES),
            )
        if missing:
            named = ", ".join(missing[:_MOST_NAMED]) + ", …" * (len(missing) > _MOST_NAMED)
            note(f"{self._option}: {len(missing)} of {len(info.names)} photos have none: {named}")
        if unused := self._unused(photos):
            named = ", ".join(path.name for path in unused[:_MOST_NAMED]) + ", …" * (len(unused) > _MOST_NAMED)
            what = "1 file belongs" if len(unused) == 1 else f"{len(unused)} files belong"
            note(f"{self._option}: {what} to none of the photos: {named}")
        return lambda frame: self._depth(frame, photos.get(frame.name))

    def _unused(self, photos: dict[str, Path]) -> list[Path]:
        """Files of depth in the folder that are neither of a photo nor a photo."""
        known = {real(path) for path in photos.values()}
        known |= {real(path) for name, photo in photos.items() for path in self._files_of(name, photo)}
        files = (path for path in self._folder.iterdir() if path.name.lower().endswith(SUFFIXES) and path.is_file())
        return sorted(path for path in files if not path.name.startswith(".") and real(path) not in known)

    def among(self, photos: Collection[Path]) -> list[Path]:
        """Those of the files, resolved, that hold the depth of another of them."""
        root = common_folder(photos)
        found = (self._file_of(frame_name(path, root), path) for path in photos)
        depths = {real(path) for path in found if path is not None}
        return [path for path in map(real, photos) if path in depths]

    def _depth(self, frame: Frame, photo: Path | None) -> DepthMap | None:
        path = self._file_of(frame.name or f"{frame.index:06d}", photo)
        if path is None:
            return None
        depth = self._upright(read_depth(path, self._limits), path, frame, photo)
        known = depth[~np.isnan(depth)]
        if not known.size:
            raise SourceError("holds no depth: no number is finite and positive", where=str(path))
        if float(np.median(known)) > _FARTHEST_USUAL_M:
            self._say("unit", f"{path}: half of it is beyond {_FARTHEST_USUAL_M:g} m; depth must be in metres")
        return depth

    def _file_of(self, name: str, photo: Path | None) -> Path | None:
        """The file for the photo of that name."""
        return next(self._files_of(name, photo), None)

    def _files_of(self, name: str, photo: Path | None) -> Iterator[Path]:
        """All that may be for the photo of that name, the best first; never the photo itself."""
        inside = PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("/", "..")))
        for base in dict.fromkeys(
            (inside, inside.with_suffix(""), PurePosixPath(inside.name), PurePosixPath(inside.stem))
        ):
            for suffix in SUFFIXES:
                for path in (self._folder / f"{base}{suffix}", self._folder / f"{base}{suffix.upper()}"):
                    if path.is_file() and (photo is None or not photo.exists() or not path.samefile(photo)):
                        yield path

    def _upright(self, depth: DepthMap, path: Path, frame: Frame, photo: Path | None) -> DepthMap:
        """The map as the photo is shown. Raises `SourceError` if its sides do not fit."""
        (height, width), shown, where = depth.shape, f"{frame.size[1]}×{frame.size[0]}", str(path)
        fits, fits_turned = _fits((height, width), frame.size), _fits((width, height), frame.size)
        turn = orientation_in(photo) if photo is not None else 1
        if fits:
            if turn in _SAME_SIDES:
                self._say(
                    "both", f"{path}: fits as shown and as the sensor saw it (orientation {turn}): taken as shown"
                )
            if fits_turned and turn in _UPRIGHT:
                self._say("square", f"{path}: is square, so it is taken as it lies: upright like the photo")
        elif fits_turned and turn in _UPRIGHT:
            self._say("turned", f"{path}: lies as the sensor saw it, and is turned like the photo (orientation {turn})")
            depth = _UPRIGHT[turn](depth)
        elif fits_turned:
            what = f"{width}×{height} is turned against its photo of {shown}, which states no orientation"
            raise SourceError(what, where=where, hint="turn it")
        else:
            raise SourceError(f"{width}×{height} has not the shape of its photo, {shown}", where=where)
        if max(depth.shape) < max(frame.size):
            self._say("small", f"{path}: {width}×{height} is less than its photo: its edges are only so exact")
        return np.ascontiguousarray(depth)

    def _say(self, what: str, text: str) -> None:
        """Note the first of a kind."""
        if what not in self._said:
            self._said.add(what)
            note(text)


def _fits(size_hw: tuple[int, int], other_hw: tuple[int, int]) -> bool:
    """Whether a map of one size is the other's, reduced or enlarged: up to the rounding of one side."""
    (height, width), (other_height, other_width) = size_hw, other_hw
    return (
        abs(other_width * height / other_height - width) <= 1 or abs(other_height * width / other_width - height) <= 1
    )
