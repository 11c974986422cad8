"""Depth maps on the disk between the two passes of a run that needs to know the whole clip first.

The file has no name where the system allows that, and is gone with the process however that ends. The values are stored
as they are: FFV1 would save 44 % of the disk and cost 50 ms of a core for a 640×480 map, and as much to read it.
Invariant: what is read is what was written, bit for bit, in the same order.
"""

import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple
from fractions import Fraction
from io import BufferedIOBase
from pathlib import Path
from typing import cast

import numpy as np

from stream.errors import OutputError, SinkError, reason_of
from stream.files import Need, by_disk, check_free_space
from stream.frames import Depth, DepthKind, DepthMap, Frame, Intrinsics

PREFIX = "depthstream-clip-"
"""Start of the file's name where it has one (Windows)."""
_HEADER = struct.Struct("<qqqqQQ??????4d")
"""Index, pts and time base of the frame, height, width, whether pixels are masked, whether values are
refined, steadied and carried, whether confidence follows the values, and whether intrinsics follow here."""
_CAMERA = ("fx", "fy", "cx", "cy")
_HINT = "free some space, or set TMPDIR to a folder on another disk"


class Maps:
    """Depth maps in a binary file: append them all, then read them all.

    Args:
        file: to write and read, or to read only.
        folder: for errors.
        keeps_confidence: store that as well.
        kind, model: of maps that are there already.
        hint: what to do when the disk is full.
    """

    def __init__(
        self,
        file: BufferedIOBase,
        folder: Path,
        *,
        keeps_confidence: bool = False,
        kind: DepthKind = DepthKind.RELATIVE_DISPARITY,
        model: str = "",
        hint: str = "free some space",
    ) -> None:
        self._file, self._folder, self._keeps_confidence, self._hint = file, folder, keeps_confidence, hint
        self.kind, self.model = kind, model
        self.count = 0

    def append(self, frame: Frame, depth: Depth) -> None:
        """Store the depth of a frame.

        Raises:
            SinkError: the disk is full.
        """
        height, width = depth.size
        camera = (0.0,) * 4 if depth.intrinsics is None else astuple(depth.intrinsics)
        has_mask, has_camera = depth.valid is not None, depth.intrinsics is not None
        confidence = depth.confidence if self._keeps_confidence else None
        ticks = frame.time_base
        header = _HEADER.pack(
            frame.index,
            frame.pts,
            ticks.numerator,
            ticks.denominator,
            height,
            width,
            has_mask,
            depth.refined,
            depth.steadied,
            depth.carried,
            confidence is not None,
            has_camera,
            *camera,
        )
        self.kind, self.model = depth.kind, depth.model
        try:
            self._file.write(header)
            self._file.write(np.ascontiguousarray(depth.values).data)
            if confidence is not None:
                self._file.write(np.ascontiguousarray(confidence).data)
        except OSError as error:
            raise self._failed(error) from error
        self.count += 1

    def __iter__(self) -> Iterator[tuple[Fraction, Depth]]:
        """The time in seconds of each frame and its depth, from the first one on.

        Raises:
            SinkError: the file cannot be written to the end, or read, or is damaged where that shows.
        """
        try:
            size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            while self._file.tell() < size:
                try:
                    found = self._next(size)
                except (ValueError, ZeroDivisionError, struct.error) as error:
                    what = "the depth maps are damaged since they were stored"
                    raise SinkError(what, where=str(self._folder)) from error
                yield found
        except OSError as error:
            raise self._failed(error) from error

    def _next(self, size: int) -> tuple[Fraction, Depth]:
        """The map at this place of a file of so many bytes. Raises `ValueError` and others if there is none."""
        index, pts, numerator, denominator, height, width, *more = _HEADER.unpack(self._file.read(_HEADER.size))
        has_mask, refined, steadied, carried, has_confidence, has_camera, *camera = more
        if self._file.tell() + (8 if has_confidence else 4) * height * width > size:
            raise ValueError(f"there are fewer bytes than {height}x{width} values")
        values = self._read(height, width)
        return pts * Fraction(numerator, denominator), Depth(
            values=values,
            kind=self.kind,
            index=index,
            model=self.model,
            valid=~np.isnan(values) if has_mask else None,
            confidence=self._read(height, width) if has_confidence else None,
            refined=refined,
            steadied=steadied,
            carried=carried,
            intrinsics=Intrinsics(**dict(zip(_CAMERA, camera, strict=True))) if has_camera else None,
        )

    def _read(self, height: int, width: int) -> DepthMap:
        values = np.empty((height, width), np.float32)
        if self._file.readinto(values.data.cast("B")) != values.nbytes:
            raise ValueError("the file has become shorter")
        return values

    def close(self) -> None:
        """Free the space; idempotent."""
        with suppress(OSError):  # what was still to be written does not matter any more
            self._file.close()

    def _failed(self, error: OSError) -> SinkError:
        return _failed(error, self._folder, self._hint)


class Spool(Maps):
    """Depth maps in a temporary file. Close it to free the space.

    Args:
        size_hw: of the maps; later ones may have another.
        count: an estimate of how many there will be, None if unknown.
        beside: what the run writes while they are on the disk.
        keeps_confidence: store that as well.

    Raises:
        OutputError: they will not fit on the disk of temporary files.
        SinkError: no temporary file can be created.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        count: int | None,
        beside: Sequence[Need] = (),
        *,
        keeps_confidence: bool = False,
    ) -> None:
        folder = Path(tempfile.gettempdir())
        check_maps_fit(folder, size_hw, count, beside, keeps_confidence=keeps_confidence, hint=_HINT)
        try:
            file = tempfile.TemporaryFile(prefix=PREFIX, dir=folder)  # noqa: SIM115 - `close` closes it
        except OSError as error:
            raise _failed(error, folder, _HINT) from error
        super().__init__(cast("BufferedIOBase", file), folder, keeps_confidence=keeps_confidence, hint=_HINT)


def check_maps_fit(
    folder: Path,
    size_hw: tuple[int, int],
    count: int | None,
    beside: Sequence[Need] = (),
    *,
    keeps_confidence: bool = False,
    hint: str = "",
) -> None:
    """Refuse depth maps that will not fit on the disk of `folder`; see `Spool`. Raises `OutputError`."""
    needed = (count or 0) * (_HEADER.size + (8 if keeps_confidence else 4) * size_hw[0] * size_hw[1])
    try:
        first, *_ = by_disk([Need(folder=folder, size=needed, what=f"{count} temporary depth maps"), *beside])
        check_free_space(folder, first.size, first.what)
    except OutputError as error:
        raise OutputError(error.what, where=error.where, hint=hint or error.hint) from error


def _failed(error: OSError, folder: Path, hint: str) -> SinkError:
    what = f"temporary depth maps cannot be stored: {reason_of(error)}"
    return SinkError(what, where=str(folder), hint=hint)
