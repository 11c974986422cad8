"""Points on a grid that are followed through a scene along the optical flow.

Invariant: a point that was lost once stays lost.
"""

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask
from stream.media import cv2
from stream.motion.flow import Motion


class Points:
    """The points of a scene's first frame and where they are now, at the flow's size.

    Args:
        size_hw: of the flow.
        spacing_px: from one point to the next.

    Attributes:
        is_found: bool N, False for those that were lost.
    """

    def __init__(self, size_hw: tuple[int, ...], spacing_px: int) -> None:
        height, width = size_hw
        middle = spacing_px // 2
        y, x = np.mgrid[middle:height:spacing_px, middle:width:spacing_px].astype(np.float32)
        self._start = self._at = np.stack([x.ravel(), y.ravel()])
        self.is_found: Mask = np.ones(self._at.shape[1], np.bool_)

    @property
    def moved_px(self) -> NDArray[np.float32]:
        """How far each is from where it began, float32 N."""
        return np.asarray(np.hypot(*(self._at - self._start)), np.float32)

    def follow(self, onward: Motion) -> None:
        """Go on to the next frame.

        Args:
            onward: where the pixels of this frame are in the next one.
        """
        self.is_found &= self._sampled(onward.is_found.astype(np.float32), cv2.INTER_NEAREST) > 0
        self._at = np.stack([self.values(onward.x), self.values(onward.y)])

    def values(self, of: DepthMap) -> NDArray[np.float32]:
        """A map of this frame at the points, float32 N."""
        return self._sampled(of, cv2.INTER_LINEAR)

    def _sampled(self, of: DepthMap, how: int) -> NDArray[np.float32]:
        found = cv2.remap(of, self._at[:1], self._at[1:], how, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.float32).ravel()
