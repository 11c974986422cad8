"""The labelled sheet of a comparison: the picture, then each model's depth in the same colours.

Invariant: near is bright everywhere, and one colour means the same disparity in all panes, as far as a scale and a
shift for each model can make it so; a map that runs against the first one is shown in its own range.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from stream.compare.agreement import Fit, fit
from stream.frames import ComparedDepth, Depth, DepthMap, Frame, RgbImage
from stream.media import cv2
from stream.render import colormap as colormaps
from stream.render.range import Range, RangePolicy, displayed

MAX_PANE_PX = 1280
"""Longest side of a pane: enough to judge outlines, and a sheet of five still opens everywhere."""
MAX_WIDTH_PX = 4096
"""Of a sheet of a video: H.264 level 5.2, and most hardware decoders, end there."""
GAP_PX = 8
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_FONT = cv2.FONT_HERSHEY_DUPLEX


class SheetRenderer:
    """Makes the sheet of each result; to be called in order, from one thread.

    Args:
        models: names, in the order of the depths: the first is the reference that the others are fitted to.
        colormap: one of `colormap.NAMES`.
        range_policy: what maps to the ends of the colormap, decided on the reference.
        max_width: of the whole sheet, None for any.
    """

    def __init__(
        self, models: Sequence[str], *, colormap: str, range_policy: RangePolicy, max_width: int | None = None
    ) -> None:
        self.models, self.range_policy, self._max_width = tuple(models), range_policy, max_width
        self._table = colormaps.table(colormap)

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the sheet for a picture of `size_hw`."""
        (height, width), title, count = self.pane_size(size_hw), self._title_height(size_hw), len(self.models) + 1
        return height + title, count * width + (count - 1) * GAP_PX

    def render(self, frame: Frame, depth: Depth) -> RgbImage:
        """The sheet of one result.

        Args:
            depth: a `ComparedDepth` with one map for each model.

        Returns:
            uint8 H×W×3 of `output_size(frame.size)`.
        """
        if not isinstance(depth, ComparedDepth):
            raise TypeError(f"a comparison needs ComparedDepth, not {type(depth).__name__}")
        (height, width), title = self.pane_size(frame.size), self._title_height(frame.size)
        sheet = np.full((*self.output_size(frame.size), 3), 255, np.uint8)
        shrunk = [shrink(displayed(one), (height, width)) for one in depth.all]
        low, high = self.range_policy.range_for(shrunk[0], frame.rgb)
        for number, name in enumerate(("original", *self.models)):
            left = number * (width + GAP_PX)
            pane = sheet[title:, left : left + width]
            if number == 0:
                pane[...] = shrink(frame.rgb, (height, width))
            else:
                values = shrunk[number - 1]
                if number > 1:
                    values = self._fitted(values, shrunk[0], (low, high))
                pane[...] = colormaps.apply(values, low, high, self._table)
            label(sheet[:title, left : left + width], name)
        return sheet

    @staticmethod
    def _fitted(values: DepthMap, reference: DepthMap, ends: Range) -> DepthMap:
        """In the reference's terms; a map that runs against it is shown in its own range, which shows it."""
        found = fit(values, reference)
        if found.scale == 0:
            low, high = float(values.min()), float(values.max())
            scale = (ends[1] - ends[0]) / (high - low) if high > low else 0.0
            found = Fit(scale=scale, shift=ends[0] - scale * low)
        return found.apply(values)

    def pane_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of each pane for a picture of `size_hw`."""
        height, width = size_hw
        scale = min(1.0, MAX_PANE_PX / max(size_hw))
        if self._max_width is not None:
            count = len(self.models) + 1
            scale = min(scale, (self._max_width - (count - 1) * GAP_PX) / (count * width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _title_height(self, size_hw: tuple[int, int]) -> int:
        return max(16, self.pane_size(size_hw)[1] // 16)


Image = TypeVar("Image", RgbImage, DepthMap)


def shrink(image: Image, size_hw: tuple[int, int]) -> Image:
    """A picture or map resized by averaging, to (height, width)."""
    if image.shape[:2] == size_hw:
        return image
    height, width = size_hw
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), image.dtype)


def label(strip: RgbImage, text: str) -> None:
    """Write `text`, ASCII, into a white strip, as large as fits; changed in place."""
    height, width = strip.shape[:2]
    strip[...] = _WHITE
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, 1.0, 1)
    scale = min(0.9 * width / text_width, 0.6 * height / text_height)
    place = (round((width - scale * text_width) / 2), round((height + scale * (text_height - below / 2)) / 2))
    canvas = np.ascontiguousarray(strip)
    cv2.putText(canvas, text, place, _FONT, scale, _BLACK, max(1, round(scale)), cv2.LINE_AA)
    strip[...] = canvas
