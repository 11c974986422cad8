"""The depth that a user has measured: `--truth DIR`, a file for each photo.

A file has metres along the viewing axis (a 16-bit PNG without a description of its own: millimetres). NaN, infinity, 0
and what is negative or nearer than a millimetre are unknown.
Invariant: the size is read from the header before pixels take memory; no file runs code.
"""

import math
import re
import struct
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stream.capture.limits import Limits
from stream.capture.stills import exr
from stream.capture.stills.boundary import readable_errors
from stream.capture.stills.find import common_folder
from stream.capture.stills.picture import orientation_in
from stream.capture.stills.source import frame_name
from stream.depthdata.description import Description
from stream.depthdata.mapping import Mapping
from stream.depthdata.storage import TAG
from stream.errors import SourceError, UsageError, reason_of
from stream.files import open_regular, real
from stream.frames import DepthKind, DepthMap, Frame, SourceInfo
from stream.notes import note
from stream.sinks.depthfiles import MILLIMETRE
from stream.survey.scene import Truth
from stream.survey.sink import TruthOf

SUFFIXES = (".npy", ".exr", ".pfm", ".depth16.png", ".png")
"""Where a photo has several files, the first: the others may be pictures or rounded."""
_NEAREST_M = 0.001
_FARTHEST_USUAL_M = 1000.0
"""A median beyond is a mistake of the unit more often than a view of mountains."""
_HEADER_BYTES = 1 << 20
_PFM = re.compile(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.0-9eE]{1,40})\s")
_DEPTH_CHANNELS = ("z", "depth", "y", "v")
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


Check = Callable[[int, int, int], None]
"""Takes height, width and bytes per pixel; raises `SourceError` if there are too many."""


class TruthFolder:
    """A folder with the depth of photos.

    The photo `sub/a.jpg` has `sub/a.npy`, or `sub/a.jpg.npy` as where `a.jpg` and `a.heic` clash, or `a.npy` without
    the subfolder; see `SUFFIXES`.

    Args:
        folder: of the files.
        limits: on their size.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._said: set[str] = set()
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "no such folder"
            raise UsageError(what, where=f"--truth {folder}", hint="name the folder of the depth files")

    def of(self, info: SourceInfo) -> TruthOf:
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
                where=f"--truth {self._folder}",
                allowed=", ".join(f"{stem}{suffix}" for suffix in SUFFIXES),
            )
        if missing:
            named = ", ".join(missing[:_MOST_NAMED]) + ", …" * (len(missing) > _MOST_NAMED)
            note(f"--truth: {len(missing)} of {len(info.names)} photos have none: {named}")
        if unused := self._unused(photos):
            named = ", ".join(path.name for path in unused[:_MOST_NAMED]) + ", …" * (len(unused) > _MOST_NAMED)
            what = "1 file belongs" if len(unused) == 1 else f"{len(unused)} files belong"
            note(f"--truth: {what} to none of the photos: {named}")
        return lambda frame: self._truth(frame, photos.get(frame.name))

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

    def _truth(self, frame: Frame, photo: Path | None) -> Truth | None:
        path = self._file_of(frame.name or f"{frame.index:06d}", photo)
        if path is None:
            return None
        depth = self._upright(read_depth(path, self._limits), path, frame, photo)
        known = depth[~np.isnan(depth)]
        if not known.size:
            raise SourceError("holds no depth: no number is finite and positive", where=str(path))
        if float(np.median(known)) > _FARTHEST_USUAL_M:
            self._say("unit", f"{path}: half of it is beyond {_FARTHEST_USUAL_M:g} m; depth must be in metres")
        return Truth(disparity=np.float32(1) / depth)

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


def read_depth(path: Path, limits: Limits) -> DepthMap:
    """Read a file of depth.

    Args:
        path: with one of `SUFFIXES`, in any case.
        limits: larger files are refused before their pixels take memory.

    Returns:
        float32 H×W, metres; NaN where unknown.

    Raises:
        SourceError: it cannot be read, is damaged or too large, or does not hold metres.
    """
    where = str(path)
    try:
        stream = open_regular(path)
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=where) from error
    check = partial(_check, limits=limits, where=where)
    readers: dict[str, Callable[[BinaryIO, Check], NDArray[Any]]] = {
        ".png": _in_png,
        ".npy": _in_npy,
        ".pfm": _in_pfm,
        ".exr": partial(_in_exr, path),
    }
    try:
        with stream, readable_errors(path):
            values = readers[path.suffix.lower()](stream, check)
    except SourceError as error:
        if error.where:
            raise
        raise SourceError(error.what, where=where) from error
    with np.errstate(over="ignore", invalid="ignore"):
        metres = np.array(values, np.float32)
        metres[~(np.isfinite(metres) & (metres >= np.float32(_NEAREST_M)))] = np.nan
    return metres


def _check(height: int, width: int, pixel_bytes: int, *, limits: Limits, where: str) -> None:
    if height < 1 or width < 1:
        raise SourceError(f"is empty: {width}×{height} pixels")
    limits.check_picture((height, width), height * width * (pixel_bytes + 8), where)  # as float32, and what is known


def _in_png(stream: BinaryIO, check: Check) -> NDArray[Any]:
    with Image.open(stream, formats=("PNG",)) as image:
        width, height = image.size
        check(height, width, 8)
        if not image.mode.startswith("I"):
            raise SourceError(f"is a picture ({image.mode}); depth is 16-bit gray, in millimetres")
        codes = np.asarray(image)
        text = getattr(image, "text", {})
    if codes.dtype != np.uint16:
        raise SourceError("must be 16-bit gray")
    if "depth_min" in text:
        raise SourceError("an early version wrote it, whose numbers have no unit")
    mapping: Mapping | None = Mapping.of_unit(MILLIMETRE)
    if TAG in text:
        about = Description.from_json(text[TAG])
        _check_metres(about.kind)
        mapping = about.mapping
    if mapping is None:
        raise SourceError("does not say what its numbers are")
    return mapping.decode(codes)[0]


def _in_npy(stream: BinaryIO, check: Check) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise SourceError(f"NPY {version[0]}.{version[1]} is not supported")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    sides = [side for side in shape if side != 1] if len(shape) == 3 else list(shape)
    if dtype.kind != "f" or len(sides) != 2:
        raise SourceError(f"holds {dtype} {'×'.join(map(str, shape))}; depth is float H×W, in metres")
    height, width = sides
    check(height, width, dtype.itemsize)
    flat = _numbers(stream, dtype, height * width)
    return flat.reshape(height, width, order="F" if is_fortran else "C")


def _in_pfm(stream: BinaryIO, check: Check) -> NDArray[Any]:
    found = _PFM.match(stream.read(200))
    if found is None:
        raise SourceError("the header is damaged")
    if found[1] != b"Pf":
        raise SourceError("has three channels; depth has one (Pf)")
    width, height, scale = int(found[2]), int(found[3]), float(found[4])
    if not math.isfinite(scale) or scale == 0:
        raise SourceError("the header is damaged: it states no order of bytes")
    check(height, width, 4)
    stream.seek(found.end())
    return _numbers(stream, np.dtype("<f4" if scale < 0 else ">f4"), height * width).reshape(height, width)[::-1]


def _numbers(stream: BinaryIO, dtype: "np.dtype[Any]", count: int) -> NDArray[Any]:
    content = stream.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        raise SourceError("the end of the file is missing")
    return np.frombuffer(content, dtype)


def _in_exr(path: Path, stream: BinaryIO, check: Check) -> NDArray[Any]:
    import OpenEXR

    try:
        header = exr.read_header(stream.read(_HEADER_BYTES))
    except (IndexError, struct.error) as error:
        raise SourceError("the header is damaged") from error
    width, height = header.largest
    check(height, width, 4 * (len(header.channels) + 1))
    name = _depth_channel(header)
    part = OpenEXR.File(str(path), separate_channels=True).parts[0]
    if (kind := part.header.get("depth_kind")) is not None:
        _check_metres(DepthKind(kind))
    stored = np.asarray(part.channels[name].pixels)
    data, display = header.data, header.display
    if stored.shape != data.size[::-1]:
        raise SourceError(f"channel {name} is subsampled")
    if data == display:
        return stored
    whole = np.full(display.size[::-1], np.nan, np.float32)
    top, left = max(data.top, display.top), max(data.left, display.left)
    bottom, right = min(data.bottom, display.bottom) + 1, min(data.right, display.right) + 1
    if top < bottom and left < right:
        inside = stored[top - data.top : bottom - data.top, left - data.left : right - data.left]
        whole[top - display.top : bottom - display.top, left - display.left : right - display.left] = inside
    return whole


def _depth_channel(header: exr.Header) -> str:
    """The channel of depth: the only one, or the one with its name, whatever its layer."""
    if header.flags & exr.DEEP or header.kind.startswith("deep"):
        raise SourceError("deep EXR is not supported; flatten it first")
    names = sorted(header.channels, key=len)
    by_name = {name.lower().rpartition(".")[2]: name for name in reversed(names)}
    name = next((by_name[key] for key in _DEPTH_CHANNELS if key in by_name), names[0] if len(names) == 1 else None)
    if name is None:
        raise SourceError(f"has no channel of depth (Z): its channels are {', '.join(names[:6])}")
    if header.channels[name][0] == exr.UINT:
        raise SourceError(f"channel {name} holds whole numbers; depth is half or float, in metres")
    return name


def _check_metres(kind: DepthKind) -> None:
    if kind is not DepthKind.METRIC_DEPTH:
        raise SourceError(f"holds {kind.quantity} without a unit; a truth is in metres")


def _fits(size_hw: tuple[int, int], other_hw: tuple[int, int]) -> bool:
    """Whether a map of one size is the other's, reduced or enlarged: up to the rounding of one side."""
    (height, width), (other_height, other_width) = size_hw, other_hw
    return (
        abs(other_width * height / other_height - width) <= 1 or abs(other_height * width / other_width - height) <= 1
    )
