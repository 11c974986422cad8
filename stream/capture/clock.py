"""A clock in the picture: each frame shows when it was captured, so that whoever sees the frame knows its age.

The code is a grid of black and white cells inside a magenta border inside a white one: 24 bits of the capture time
(`time.monotonic`) in milliseconds, and 8 bits of their CRC-32. It survives scaling, JPEG and 4:2:0 colour.
Invariant: of pixels that are no code, or parts of two, `read` takes 1 in 256 for one.
"""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.capture.base import Source, WrappedSource
from stream.errors import SourceNotFoundError
from stream.frames import Frame, RgbImage
from stream.media import cv2

NAME = "clock"
"""Of the pattern: `pattern:clock`."""
PERIOD_MS = 1 << 24
"""After 4.7 hours times repeat."""
_ROWS, _COLUMNS = 4, 8
_SHARE = 0.45
"""Share of the picture's width or height that the code takes with its borders, whichever is less."""
_LEAST_CELL_PX = 4
_BORDER, _MARGIN = (255, 0, 255), (255, 255, 255)
"""The magenta and the white border, each half a cell wide; the white one parts the other from its surroundings."""


class Box(NamedTuple):
    """A code's place in an image with its magenta border, in pixels."""

    left: int
    top: int
    width: int
    height: int


class ClockSource(WrappedSource):
    """Draws its capture time into the middle of each frame of `source`.

    Raises:
        SourceNotFoundError: the frames are too small for the code.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.info = replace(source.info, name=f"pattern:{NAME}")
        if _cell_px(self.info.size) < _LEAST_CELL_PX:
            height, width = self.info.size
            raise SourceNotFoundError(f"{width}×{height} is too small for a clock", where=self.info.name)

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        for frame in self._source:
            yield replace(frame, rgb=drawn(frame.rgb, int(1000 * frame.captured_at)))


def drawn(rgb: RgbImage, time_ms: int) -> RgbImage:
    """A copy of an image, uint8 H×W×3, with the code of a time in its middle."""
    image, cell = rgb.copy(), _cell_px(rgb.shape[:2])
    top, left = ((side - (count + 2) * cell) // 2 for side, count in zip(rgb.shape, (_ROWS, _COLUMNS), strict=False))
    for inset, colour in (0, _MARGIN), (cell // 2, _BORDER):
        height, width = ((count + 2) * cell - 2 * inset for count in (_ROWS, _COLUMNS))
        image[top + inset : top + inset + height, left + inset : left + inset + width] = colour
    payload = (time_ms % PERIOD_MS).to_bytes(3, "big")
    bits = np.unpackbits(np.frombuffer(payload + _checksum(payload), np.uint8)).reshape(_ROWS, _COLUMNS)
    cells = np.repeat(np.repeat(bits * np.uint8(255), cell, axis=0), cell, axis=1)
    top, left = top + cell, left + cell
    image[top : top + cells.shape[0], left : left + cells.shape[1]] = cells[..., None]
    return image


def read(image: NDArray[Any], box: Box) -> int | None:
    """The time in milliseconds, modulo `PERIOD_MS`, of the code at a place; None if there is none.

    Args:
        image: uint8 H×W×3 or more channels, green in the second.
    """
    rows = box.top + (np.arange(_ROWS) + 1) * box.height // (_ROWS + 1)
    columns = box.left + (np.arange(_COLUMNS) + 1) * box.width // (_COLUMNS + 1)
    *payload, checksum = np.packbits(image[..., 1][np.ix_(rows, columns)] > 127).tolist()
    return int.from_bytes(payload, "big") if _checksum(bytes(payload)) == bytes([checksum]) else None


def locate(image: RgbImage) -> Box | None:
    """The place of a code in an image, uint8 H×W×3 RGB, of any size; None if there is none."""
    red, green, blue = (image[..., channel] for channel in range(3))
    mask = ((red > 150) & (green < 110) & (blue > 150)).astype(np.uint8)
    count, _, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for left, top, width, height, _ in sorted(found[1:count].tolist(), key=lambda one: -one[2] * one[3]):
        box = Box(left, top, width, height)
        large_enough = width >= 2 * (_COLUMNS + 1) and height >= 2 * (_ROWS + 1)
        if large_enough and read(image, box) is not None:
            return box
    return None


def _cell_px(size_hw: tuple[int, int]) -> int:
    """Side of a cell; even, so that half a cell is whole."""
    height, width = size_hw
    return int(_SHARE * min(width / (_COLUMNS + 2), height / (_ROWS + 2))) // 2 * 2


def _checksum(payload: bytes) -> bytes:
    return (zlib.crc32(payload) & 0xFF).to_bytes(1, "big")
