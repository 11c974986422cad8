"""The labelled sheet of a comparison: the image, then each model's depth in the same colours.

Invariant: near is bright in every pane, and a colour means the same disparity in all panes, up to the scale and shift
that align each model to the first. A map that is negatively correlated with the first is shown in its own range. NaN
marks a pixel without an answer.
"""

from collections.abc import Sequence

import numpy as np

from stream.compare.agreement import fit_scale_shift
from stream.depthdata.alignment import ScaleShift, averaged
from stream.frames import ComparedDepth, Depth, DepthMap, Frame, RgbImage
from stream.media import cv2
from stream.render import colormap as colormaps
from stream.render.base import BaseRenderer
from stream.render.range import Range, RangePolicy, displayed

MAX_PANE_PX = 1280
"""Longest side of a pane: enough to judge edges, and viewers can still open a sheet of five panes."""
MAX_WIDTH_PX = 4096
"""Largest width of a video of sheets: the limit of H.264 level 5.2 and of most hardware decoders."""
GAP_PX = 8
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_FONT = cv2.FONT_HERSHEY_DUPLEX


class SheetRenderer(BaseRenderer):
    """Renders the sheet of each result; call it in order, from one thread.

    Args:
        models: names, in the order of the depth maps; the others are aligned to the first.
        colormap: one of `colormap.NAMES`.
        range_policy: what maps to the ends of the colormap, determined from the first model.
        max_width: of the whole sheet in pixels, None for no limit.
    """

    def __init__(
        self, models: Sequence[str], *, colormap: str, range_policy: RangePolicy, max_width: int | None = None
    ) -> None:
        self.models, self.range_policy, self._max_width = tuple(models), range_policy, max_width
        self._table = colormaps.table(colormap)

    @property
    def scene_cuts(self) -> int:
        """See `BaseRenderer`."""
        return self.range_policy.cuts

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the sheet for an image of `size_hw`."""
        (height, width), title, count = self.pane_size(size_hw), self._title_height(size_hw), len(self.models) + 1
        return height + title, count * width + (count - 1) * GAP_PX

    def render(self, frame: Frame, depth: Depth) -> RgbImage:
        """Render the sheet of one result.

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
        masks = [None if one.valid is None else ~np.isnan(x) for one, x in zip(depth.all, shrunk, strict=True)]
        ends = self.range_policy.range_for(shrunk[0], frame.rgb, frame.time_s, valid=masks[0])
        ends = ends or (0.0, 1.0)  # the first model knows nothing here; each of the others has its own range
        for number, name in enumerate(("original", *self.models)):
            left = number * (width + GAP_PX)
            pane = sheet[title:, left : left + width]
            if number == 0:
                pane[...] = cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA)
            else:
                values, valid = shrunk[number - 1], masks[number - 1]
                if number > 1:
                    values = self._aligned(values, shrunk[0], ends)
                pane[...] = colormaps.apply(values, *ends, self._table, valid=valid)
            label(sheet[:title, left : left + width], name)
        return sheet

    @staticmethod
    def _aligned(values: DepthMap, reference: DepthMap, ends: Range) -> DepthMap:
        """Align to the reference; a map that is negatively correlated with it keeps its own range, so that it shows."""
        alignment = fit_scale_shift(values, reference)
        if alignment.scale == 0 and not np.isnan(values).all():
            low, high = float(np.nanmin(values)), float(np.nanmax(values))
            scale = (ends[1] - ends[0]) / (high - low) if high > low else 0.0
            alignment = ScaleShift(scale=scale, shift=ends[0] - scale * low)
        return alignment.apply(values)

    def pane_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of each pane for an image of `size_hw`."""
        height, width = size_hw
        scale = min(1.0, MAX_PANE_PX / max(size_hw))
        if self._max_width is not None:
            count = len(self.models) + 1
            scale = min(scale, (self._max_width - (count - 1) * GAP_PX) / (count * width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _title_height(self, size_hw: tuple[int, int]) -> int:
        return max(16, self.pane_size(size_hw)[1] // 16)


def shrink(values: DepthMap, size_hw: tuple[int, int]) -> DepthMap:
    """Resize a depth map by averaging the answers, to (height, width)."""
    return values if values.shape == size_hw else averaged(values, size_hw[::-1])


def label(strip: RgbImage, text: str) -> None:
    """Draw ASCII `text` centred on a white strip, as large as fits; in place."""
    height, width = strip.shape[:2]
    strip[...] = _WHITE
    (text_width, text_height), below = cv2.getTextSize(text, _FONT, 1.0, 1)
    scale = min(0.9 * width / text_width, 0.6 * height / text_height)
    place = (round((width - scale * text_width) / 2), round((height + scale * (text_height - below / 2)) / 2))
    drawn = np.ascontiguousarray(strip)  # OpenCV draws into contiguous memory only
    cv2.putText(drawn, text, place, _FONT, scale, _BLACK, max(1, round(scale)), cv2.LINE_AA)
    strip[...] = drawn
