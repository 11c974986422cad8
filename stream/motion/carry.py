"""Depth of a frame that no model has seen, carried from the frames beside it along the motion of the picture.

Values are carried as they are, each kind in its own numbers. Disparity of a relative model has an unknown shift, so its
inverse means nothing; and the distance in metres of a point that moves evenly changes evenly with time, which a mean of
two frames weighted by time gets right, and a mean of inverses does not.
Invariant: each map is sampled once, however many frames it is carried over, so nothing is blurred more and more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.frames import Depth, DepthMap
from stream.media import cv2
from stream.motion.flow import Motion

_Floats = NDArray[np.float32]

_NOT_FOUND = 1e-3
"""Weight of a place that was not found, where the other frame has found it. If neither has, both count by time."""
_HALF = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """A frame that the model has seen, beside one that it has not.

    Attributes:
        depth: its depth.
        motion: where the pixels of the other frame are in it; None if nothing moved.
        apart_s: seconds between the two, positive.
    """

    depth: Depth
    motion: Motion | None
    apart_s: float


class Carrier:
    """Carries depth to frames; for one thread."""

    def __init__(self) -> None:
        self._pixels: _Floats | None = None

    def carried(self, index: int, seen: Sequence[Seen]) -> Depth:
        """The depth of the frame with this `index`.

        Args:
            seen: the frame before it, the one after it, or both; of the same model and size.
        """
        nearest = min(seen, key=lambda one: one.apart_s).depth
        maps = [self._moved(one.depth.values, one, is_masked=one.depth.valid is not None) for one in seen]
        sure = [None if one.depth.confidence is None else self._moved(one.depth.confidence, one) for one in seen]
        values, confidence = maps[0], sure[0]
        valid = None if seen[0].depth.valid is None else np.isfinite(values)
        if len(seen) > 1:
            share = _share(seen[0], seen[1], nearest.size)
            if seen[0].depth.valid is None and seen[1].depth.valid is None:
                values = _mean(maps[0], maps[1], share)
            else:
                values, valid = _mean_of_answers(maps[0], maps[1], share)
            if sure[0] is not None and sure[1] is not None:
                confidence = _mean(sure[0], sure[1], share)
        return replace(nearest, values=values, valid=valid, confidence=confidence, index=index, carried=True)

    def _moved(self, values: _Floats, one: Seen, *, is_masked: bool = False) -> DepthMap:
        """A map of the frame that was seen, at the places of the pixels of the other one."""
        if one.motion is None:
            return values
        # A mean with a pixel that has no answer is none; a map with a mask is sampled instead.
        how = cv2.INTER_NEAREST if is_masked else cv2.INTER_LINEAR
        places = self._places(one.motion, one.depth.size)
        return np.asarray(cv2.remap(values, places, None, how, borderMode=cv2.BORDER_REPLICATE), np.float32)  # type: ignore[call-overload]

    def _places(self, motion: Motion, size_hw: tuple[int, int]) -> _Floats:
        """The motion at the size of the frame: float32 H×W×2, x and y."""
        height, width = size_hw
        rows, columns = motion.x.shape
        if self._pixels is None or self._pixels.shape[:2] != size_hw:
            y, x = np.mgrid[:height, :width].astype(np.float32)
            self._pixels = np.dstack([x, y])
        # The way is enlarged, not the place: places beyond the outermost pixels would stay behind.
        own_y, own_x = np.mgrid[:rows, :columns].astype(np.float32)
        x, y = (motion.x - own_x) * np.float32(width / columns), (motion.y - own_y) * np.float32(height / rows)
        way = np.dstack([x, y])
        places = cv2.resize(way, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.add(places, self._pixels, dst=places), np.float32)


def _share(first: Seen, second: Seen, size_hw: tuple[int, int]) -> _Floats:
    """The weight of the second map against the first, 0 to 1: float32 H×W."""
    weights = []
    motion = first.motion or second.motion
    if motion is None:
        return np.full(size_hw, first.apart_s / (first.apart_s + second.apart_s), np.float32)
    for one in (first, second):
        trust = np.ones_like(motion.x) if one.motion is None else np.where(one.motion.is_found, 1, _NOT_FOUND)
        weights.append(np.asarray(trust / one.apart_s, np.float32))
    share = weights[1] / (weights[0] + weights[1])
    return np.asarray(cv2.resize(share, size_hw[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _mean(first: _Floats, second: _Floats, share: _Floats) -> _Floats:
    mean = cv2.subtract(second, first)
    cv2.multiply(mean, share, dst=mean)
    return np.asarray(cv2.add(mean, first, dst=mean), np.float32)


def _mean_of_answers(first: _Floats, second: _Floats, share: _Floats) -> tuple[DepthMap, NDArray[np.bool_]]:
    """The mean where both have an answer, else that of the one that has; whether there is one is as in the heavier."""
    known, known_too = np.isfinite(first), np.isfinite(second)
    values = np.where(known & known_too, _mean(first, second, share), np.where(known, first, second))
    return values, np.where(share > _HALF, known_too, known)
