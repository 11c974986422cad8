"""Arranges a frame and its coloured depth in the output image.

Invariant: every layout has a depth pane of the frame's own size, so depth is coloured in place and never copied.
"""

from enum import StrEnum

from stream.frames import RgbImage
from stream.media import cv2

GAP_PX = 50
"""White columns between frame and depth, as in Depth Anything's own script."""
_WHITE = 255


class Layout(StrEnum):
    """What the output image shows."""

    SIDE = "side"
    """The frame on the left, a white gap, the depth on the right."""
    DEPTH = "depth"
    """The depth alone."""
    OVERLAY = "overlay"
    """The depth blended over the frame."""


def output_size(layout: Layout, size_hw: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels of the output image for frames of `size_hw`."""
    height, width = size_hw
    return (height, 2 * width + GAP_PX) if layout is Layout.SIDE else (height, width)


def depth_pane(output: RgbImage, layout: Layout) -> RgbImage:
    """The part of an output image that shows the depth, as a view."""
    if layout is Layout.SIDE:
        return output[:, (output.shape[1] + GAP_PX) // 2 :]
    return output


def add_frame(output: RgbImage, rgb: RgbImage, layout: Layout, *, alpha: float) -> None:
    """Add everything but the depth to an output image whose depth pane is filled.

    Args:
        output: uint8 of `output_size`, modified in place.
        rgb: the frame, uint8 H×W×3.
        alpha: weight of the depth in the overlay, 0 to 1.
    """
    if layout is Layout.SIDE:
        width = rgb.shape[1]
        output[:, :width] = rgb
        output[:, width : width + GAP_PX] = _WHITE
    elif layout is Layout.OVERLAY:
        cv2.addWeighted(rgb, 1 - alpha, output, alpha, 0, dst=output)
