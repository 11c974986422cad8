"""Where the pixels of a frame were in the frame before: dense optical flow at a small size.

Invariant: only places that are found forwards and backwards alike count as found.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.frames import Mask, RgbImage
from stream.media import cv2

Gray = NDArray[np.uint8]
"""uint8 H×W."""
_Floats = NDArray[np.float32]

LONGER_SIDE = 320
"""Frames are reduced to this; the longer side in pixels."""
SHORTEST_SIDE = 64
"""Sides that would be shorter are stretched to this: OpenCV 5.0 crashes on 320×20."""
LEAST_FOUND = 0.15
"""Share of the pixels that is found at least where two frames show the same scene. Measured: 150 pairs of different
photographs reach at most 0.13; photographs compared with themselves, enlarged by 1.1, rolled by 4°, panned by 5 % of
their width or at half the exposure, keep at least 0.24."""
_TOLERANCE_PX, _TOLERANCE_SHARE = 1.0, 0.05
"""How far forward and backward flow may lie apart: this much, and this share of their length."""
_MOSTLY = 0.5
"""A place between pixels is found if so much of it is."""


def flow_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which flow is computed for frames of `size_hw`."""
    shrink = min(1.0, LONGER_SIDE / max(size_hw))
    height, width = (max(SHORTEST_SIDE, round(side * shrink)) for side in size_hw)
    return height, width


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Where each pixel of a frame was in the frame before, both reduced to the flow's size.

    Attributes:
        x, y: float32 H×W, coordinates in the frame before.
        is_found: bool H×W, where they can be relied on.
    """

    x: _Floats
    y: _Floats
    is_found: Mask

    @property
    def share_found(self) -> float:
        """Share of the pixels that were found, 0 to 1."""
        return float(self.is_found.mean())

    def after(self, earlier: "Motion | None") -> "Motion":
        """Where each pixel was one frame earlier still.

        Args:
            earlier: of the frame before; None if nothing moved there.
        """
        if earlier is None:
            return self
        x, y, found = (
            cv2.remap(each, self.x, self.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for each in (earlier.x, earlier.y, earlier.is_found.astype(np.float32))
        )
        is_found = self.is_found & (np.asarray(found, np.float32) > _MOSTLY)
        return Motion(x=np.asarray(x, np.float32), y=np.asarray(y, np.float32), is_found=is_found)


class OpticalFlow:
    """The motion from one frame to the next by DIS (Kroeger et al. 2016, arXiv:1603.03590), as OpenCV computes it."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._pixels: tuple[_Floats, _Floats] | None = None

    def between(self, before: Gray, now: Gray) -> Motion:
        """Where the pixels of `now` were in `before`; both of the same `flow_size`."""
        return self._motion(self._flow(now, before), self._flow(before, now))

    def both(self, before: Gray, now: Gray) -> tuple[Motion, Motion]:
        """The same, and where the pixels of `before` are in `now`."""
        to_before, to_now = self._flow(now, before), self._flow(before, now)
        return self._motion(to_before, to_now), self._motion(to_now, to_before)

    def _motion(self, there: _Floats, back: _Floats) -> Motion:
        """The motion by a flow (float32 H×W×2), checked by the flow of the other direction."""
        height, width = there.shape[:2]
        own_x, own_y = self._own((height, width))
        x, y = own_x + there[..., 0], own_y + there[..., 1]
        returned = there + cv2.remap(back, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        apart, length = (cv2.magnitude(flow[..., 0], flow[..., 1]) for flow in (returned, there))
        is_inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        return Motion(x=x, y=y, is_found=is_inside & (apart <= _TOLERANCE_PX + _TOLERANCE_SHARE * length))

    def _flow(self, start: Gray, end: Gray) -> _Floats:
        """Where the pixels of `start` are in `end`, relative to themselves: float32 H×W×2."""
        no_guess: Any = None  # allowed, but not in OpenCV's stubs
        return np.asarray(self._dis.calc(start, end, no_guess), np.float32)

    def _own(self, size_hw: tuple[int, ...]) -> tuple[_Floats, _Floats]:
        """The pixels' own coordinates."""
        if self._pixels is None or self._pixels[0].shape != size_hw:
            y, x = np.mgrid[: size_hw[0], : size_hw[1]].astype(np.float32)
            self._pixels = np.ascontiguousarray(x), np.ascontiguousarray(y)
        return self._pixels


def reduced(rgb: RgbImage, size_hw: tuple[int, int]) -> Gray:
    """A frame in grey at the flow's size."""
    height, width = size_hw
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
