"""How picture and depth share one image.

Invariant: the result's size depends only on the layout and the picture's size.
"""

from enum import StrEnum

import numpy as np

from stream.frames import RgbImage
from stream.media import cv2

GAP_PX = 50
"""White gap of the side layout, as in Depth Anything's run.py."""


class Layout(StrEnum):
    """See `compose`."""

    SIDE = "side"
    """Picture left, white gap, depth right."""
    DEPTH = "depth"
    """Depth alone."""
    OVERLAY = "overlay"
    """Depth over the picture."""


def output_size(layout: Layout, size_hw: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the composed image for pictures of `size_hw`."""
    height, width = size_hw
    return (height, 2 * width + GAP_PX) if layout is Layout.SIDE else size_hw


def compose(rgb: RgbImage, coloured: RgbImage, layout: Layout, *, alpha: float) -> RgbImage:
    """Put a picture and its coloured depth together.

    Args:
        rgb, coloured: uint8 H×W×3.
        alpha: share of the depth colours in the overlay, 0 to 1.

    Returns:
        uint8 of `output_size`; may be `coloured` itself.
    """
    match layout:
        case Layout.DEPTH:
            return coloured
        case Layout.OVERLAY:
            return np.asarray(cv2.addWeighted(coloured, alpha, rgb, 1 - alpha, 0), dtype=np.uint8)
        case Layout.SIDE:
            height, width = rgb.shape[:2]
            side = np.empty((*output_size(layout, (height, width)), 3), np.uint8)
            side[:, :width] = rgb
            side[:, width : width + GAP_PX] = 255
            side[:, width + GAP_PX :] = coloured
            return side
