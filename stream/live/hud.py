"""Text over a picture: numbers, messages, help, and the depth under a point.

Invariant: the text stays readable on any picture (light on a darkened box) and of the same share of the picture's
height; only ASCII, as OpenCV's fonts have nothing else.
"""

from collections.abc import Sequence

import numpy as np

from stream.frames import RgbImage
from stream.media import cv2

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _RED = (240, 240, 240), (230, 40, 40)
_DARKEN = 0.35
"""What is left of the picture's brightness under text."""
_LINES = 24
"""Lines of text that would fill a picture's height; at least `_MIN_LINE_PX` each."""
_MIN_LINE_PX = 14


def write_lines(picture: RgbImage, lines: Sequence[str], *, at_bottom: bool = False) -> None:
    """Write `lines` into the upper (or lower) left corner of uint8 H×W×3, in place."""
    if not lines:
        return
    height, width = picture.shape[:2]
    line_px = max(_MIN_LINE_PX, height // _LINES)
    scale, thickness = line_px / 36, max(1, line_px // 18)
    widest = max(cv2.getTextSize(line, _FONT, scale, thickness)[0][0] for line in lines)
    if widest > width - line_px:
        scale *= max(0.3, (width - line_px) / widest)
    box_px = line_px * len(lines) + line_px // 2
    top = max(0, height - box_px) if at_bottom else 0
    box = picture[top : top + box_px, : min(width, widest + line_px)]
    np.multiply(box, _DARKEN, out=box, casting="unsafe")
    for number, line in enumerate(lines):
        foot = top + line_px * (number + 1)
        cv2.putText(picture, line, (line_px // 2, foot), _FONT, scale, _INK, thickness, cv2.LINE_AA)


def recording_dot(picture: RgbImage) -> None:
    """A red dot in the upper right corner, in place."""
    height, width = picture.shape[:2]
    radius = max(4, height // 40)
    cv2.circle(picture, (width - 2 * radius, 2 * radius), radius, _RED, -1, cv2.LINE_AA)


def mark_point(picture: RgbImage, points: Sequence[tuple[int, int]], text: str) -> None:
    """Cross each of the (x, y) `points` and write `text` beside the last of them, in place."""
    size = max(4, picture.shape[0] // 60)
    for x, y in points:
        for colour, thickness in ((0, 0, 0), 3), (_INK, 1):
            cv2.drawMarker(picture, (x, y), colour, cv2.MARKER_CROSS, 2 * size, thickness, cv2.LINE_AA)
    if not points:
        return
    line_px = max(_MIN_LINE_PX, picture.shape[0] // _LINES)
    scale = line_px / 36
    (wide, _), _ = cv2.getTextSize(text, _FONT, scale, 2)
    x, y = points[-1]
    left, foot = max(0, min(x + size, picture.shape[1] - wide - 2)), max(line_px, y - size)
    box = picture[max(0, foot - line_px) : foot + line_px // 3, left : left + wide + 4]
    np.multiply(box, _DARKEN, out=box, casting="unsafe")
    cv2.putText(picture, text, (left + 2, foot), _FONT, scale, _INK, max(1, line_px // 18), cv2.LINE_AA)
