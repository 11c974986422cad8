"""Text over an image: numbers, messages, help, and the depth at a point.

Invariant: the text is readable on any image (light text on a darkened box), and its size is a fixed fraction of the
image's height. Text is ASCII only, as OpenCV's fonts have no other characters.
"""

from collections.abc import Sequence

import numpy as np

from stream.frames import RgbImage
from stream.media import cv2

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _RED = (240, 240, 240), (230, 40, 40)
_DARKEN = 0.35
"""Brightness that remains under text, as a fraction."""
_LINES = 24
"""Lines of text that fill an image's height; each takes at least `_MIN_LINE_PX`."""
_MIN_LINE_PX = 14


def write_lines(image: RgbImage, lines: Sequence[str], *, at_bottom: bool = False) -> None:
    """Write `lines` into the upper (or lower) left corner of `image`, uint8 H×W×3, in place."""
    if not lines:
        return
    height, width = image.shape[:2]
    line_px = max(_MIN_LINE_PX, height // _LINES)
    scale, thickness = line_px / 36, max(1, line_px // 18)
    widest = max(cv2.getTextSize(line, _FONT, scale, thickness)[0][0] for line in lines)
    if widest > width - line_px:
        scale *= max(0.3, (width - line_px) / widest)
    box_px = line_px * len(lines) + line_px // 2
    top = max(0, height - box_px) if at_bottom else 0
    box = image[top : top + box_px, : min(width, widest + line_px)]
    np.multiply(box, _DARKEN, out=box, casting="unsafe")
    for number, line in enumerate(lines):
        foot = top + line_px * (number + 1)
        cv2.putText(image, line, (line_px // 2, foot), _FONT, scale, _INK, thickness, cv2.LINE_AA)


def recording_dot(image: RgbImage) -> None:
    """Draw a red dot in the upper right corner, in place: a recording is running."""
    height, width = image.shape[:2]
    radius = max(4, height // 40)
    cv2.circle(image, (width - 2 * radius, 2 * radius), radius, _RED, -1, cv2.LINE_AA)


def mark_point(image: RgbImage, points: Sequence[tuple[int, int]], text: str) -> None:
    """Mark each of the (x, y) `points` with a cross and write `text` beside the last one, in place."""
    size = max(4, image.shape[0] // 60)
    for x, y in points:
        for colour, thickness in ((0, 0, 0), 3), (_INK, 1):
            cv2.drawMarker(image, (x, y), colour, cv2.MARKER_CROSS, 2 * size, thickness, cv2.LINE_AA)
    if not points:
        return
    line_px = max(_MIN_LINE_PX, image.shape[0] // _LINES)
    scale = line_px / 36
    (wide, _), _ = cv2.getTextSize(text, _FONT, scale, 2)
    x, y = points[-1]
    left, foot = max(0, min(x + size, image.shape[1] - wide - 2)), max(line_px, y - size)
    box = image[max(0, foot - line_px) : foot + line_px // 3, left : left + wide + 4]
    np.multiply(box, _DARKEN, out=box, casting="unsafe")
    cv2.putText(image, text, (left + 2, foot), _FONT, scale, _INK, max(1, line_px // 18), cv2.LINE_AA)
