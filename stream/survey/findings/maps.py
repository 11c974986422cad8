"""Small tools with which several findings measure maps.

Invariant: nothing here depends on the units of a map, and NaN stays without an answer.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.depthdata.alignment import averaged
from stream.frames import DepthMap, Mask
from stream.media import cv2
from stream.survey.findings.base import Place

WORK_PX = 800
"""Longest side at which regions are measured."""
_ENDS = (1.0, 99.0)
"""Percentiles between which lies the range of a map: a few wild pixels do not make it."""
_WILD = 10.0
_MOST = float(np.finfo(np.float32).max) / 4
"""So that differences do not overflow."""
_SAMPLES = 250_000
"""Pixels that are enough for a percentile."""


def range_of(values: DepthMap) -> float:
    """The range of a map: its 99th less its 1st percentile; 0 of a constant map and of one without answers."""
    known = sampled(values)
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0
    low, high = np.percentile(known.astype(np.float64), _ENDS)
    spread = float(high - low)
    # what float32 rounds is no depth: a constant map remains constant after an alignment
    return spread if spread > 1e-6 * max(abs(float(low)), abs(float(high))) else 0.0


def normalised(values: DepthMap) -> DepthMap | None:
    """A map in units of its range around its median; None if it has no range.

    What is ten ranges off is clipped, so that a few wild pixels overflow nothing. NaN stays NaN.
    """
    extent = range_of(values)
    if not extent:
        return None
    some = sampled(values)
    middle = float(np.median(some[np.isfinite(some)]))
    low, high = max(middle - _WILD * extent, -_MOST), min(middle + _WILD * extent, _MOST)
    centred = np.clip(values, np.float32(low), np.float32(high)) - np.float32(middle)
    return np.asarray(centred / np.float32(min(extent, _MOST)), np.float32)


def sampled(values: NDArray[Any]) -> NDArray[Any]:
    """Every n-th pixel in each direction of H×W, so that at most about `_SAMPLES` remain."""
    step = max(1, math.ceil((values.size / _SAMPLES) ** 0.5))
    return values[::step, ::step]


def size_within(size_hw: tuple[int, int], longest: int) -> tuple[int, int]:
    """The (height, width) of a picture reduced to `longest` pixels along its longer side, never enlarged."""
    scale = min(1.0, longest / max(size_hw))
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def at_work_size(values: DepthMap) -> DepthMap:
    """A map at half of the size of a large scene, which is enough for what is wider than a few pixels."""
    return reduced(values, size_within((values.shape[0], values.shape[1]), WORK_PX))


def reduced(values: DepthMap, size_hw: tuple[int, int]) -> DepthMap:
    """A map at a smaller size, by averaging the answers."""
    return values if values.shape == size_hw else averaged(values, size_hw[::-1])


def reduced_mask(mask: Mask, size_hw: tuple[int, int]) -> Mask:
    """A mask at a smaller size: the pixels that lie in it wholly."""
    if mask.shape == size_hw:
        return mask
    share = cv2.resize(mask.astype(np.float32), size_hw[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(share > 0.999)


def eroded(mask: Mask, radius: int) -> Mask:
    """The pixels of a mask farther than `radius` from what does not belong to it; the picture's edge does not count."""
    return np.asarray(cv2.erode(mask.astype(np.uint8), _square(radius)) > 0) if radius else mask


def dilated(mask: Mask, radius: int) -> Mask:
    """The pixels within `radius` of a mask."""
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _square(radius)) > 0) if radius else mask


def _square(radius: int) -> NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def place_of(mask: Mask, text: str) -> tuple[Place, ...]:
    """The largest connected part of a mask as a place; none if the mask is empty."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count < 2:
        return ()
    left, top, width, height, _ = (int(x) for x in stats[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())])
    return (place(left, top, width, height, mask.shape, text),)


def place(left: int, top: int, width: int, height: int, size_hw: tuple[int, ...], text: str) -> Place:
    """A place given in pixels of a picture of `size_hw`."""
    rows, columns = size_hw[:2]
    return Place(box=(left / columns, top / rows, width / columns, height / rows), text=text)
