"""Reads depth in metres from a file: what was measured or rendered, not what a model says.

A file has metres along the viewing axis (a 16-bit PNG without a description of its own: millimetres). NaN, infinity, 0
and what is negative or nearer than a millimetre are unknown.
Invariant: the size is read from the header before pixels take memory; no file runs code.
"""

import math
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stream.capture.limits import Limits
from stream.capture.stills import exr
from stream.capture.stills.boundary import readable_errors
from stream.depthdata.description import Description
from stream.depthdata.mapping import MILLIMETRE, Mapping
from stream.depthdata.storage import TAG
from stream.errors import SourceError, reason_of
from stream.files import open_regular
from stream.frames import DepthKind, DepthMap

SUFFIXES = (".npy", ".exr", ".pfm", ".depth16.png", ".png")
"""Where a photo has several files, the first: the others may be pictures or rounded."""
_NEAREST_M = 0.001
_HEADER_BYTES = 1 << 20
_PFM = re.compile(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.0-9eE]{1,40})\s")
_DEPTH_CHANNELS = ("z", "depth", "y", "v")

Check = Callable[[int, int, int], None]
"""Takes height, width and bytes per pixel; raises `SourceError` if there are too many."""


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
