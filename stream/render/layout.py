"""How picture and depth share the output picture.

Invariant: every layout has a depth pane of the picture's own size, so depth is coloured in place and never copied.
"""

from enum import StrEnum

import numpy as np

from stream.frames import RgbImage
from stream.media import cv2

GAP_PX = 50
"""White columns between picture and depth, as in Depth Anything's own script."""
_WHITE = 255


class Layout(StrEnum):
    """What the output shows."""

    SIDE = "side"
    """The picture left, a white gap, the depth right."""
    DEPTH = "depth"
    """The depth alone."""
    OVERLAY = "overlay"
    """The depth blended over the picture."""


def output_size(layout: Layout, size_hw: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the output for pictures of `size_hw`, in pixels."""
    height, width = size_hw
    return (height, 2 * width + GAP_PX) if layout is Layout.SIDE else (height, width)


def depth_pane(canvas: RgbImage, layout: Layout) -> RgbImage:
    """The part of an output-sized canvas that the coloured depth belongs into; a view."""
    if layout is Layout.SIDE:
        return canvas[:, (canvas.shape[1] + GAP_PX) // 2 :]
    return canvas


def complete(canvas: RgbImage, rgb: RgbImage, layout: Layout, *, alpha: float) -> None:
    """Add everything but the depth to a canvas whose depth pane is filled.

    Args:
        canvas: uint8, of `output_size`; changed in place.
        rgb: uint8 H×W×3.
        alpha: weight of the depth in the overlay, 0 to 1.
    """
    if layout is Layout.SIDE:
        width = rgb.shape[1]
        canvas[:, :width] = rgb
        canvas[:, width : width + GAP_PX] = _WHITE
    elif layout is Layout.OVERLAY:
        cv2.addWeighted(rgb, 1 - alpha, canvas, alpha, 0, dst=canvas)


def compose(rgb: RgbImage, coloured: RgbImage, layout: Layout, *, alpha: float) -> RgbImage:
    """A new output picture from a picture and its coloured depth.

    Args:
        rgb, coloured: uint8 H×W×3 of the same size.
        alpha: weight of the depth in the overlay, 0 to 1.

    Raises:
        ValueError: the sizes differ.
    """
    if rgb.shape != coloured.shape:
        raise ValueError(f"picture {rgb.shape} and depth {coloured.shape} differ in size")
    canvas = np.empty((*output_size(layout, rgb.shape[:2]), 3), np.uint8)
    depth_pane(canvas, layout)[...] = coloured
    complete(canvas, rgb, layout, alpha=alpha)
    return canvas
