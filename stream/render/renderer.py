"""Renders a frame and its depth as one image to show or write.

Invariant: each returned image is a new array, so a sink may keep it; settings may be changed between two frames.
"""

import numpy as np

from stream.config import defaults
from stream.errors import ConfigError
from stream.frames import Depth, Frame, RgbImage
from stream.render import colormap as colormaps
from stream.render.base import BaseRenderer
from stream.render.layout import Layout, add_frame, depth_pane, output_size
from stream.render.range import Range, RangePolicy, displayed, native


class Renderer(BaseRenderer):
    """Makes the output image of each result; call it in order, from one thread.

    `layout`, `colormap`, `alpha` and `range_policy` may be changed at any time and apply from the next frame on.
    On one core with a smoothed range, at 640×480 and 1080p, `side` takes 0.7 and 4.0 ms, `depth` 0.6 and 3.3 ms; an
    overlay costs 0.1 and 2.5 ms more, metric depth 0.2 and 1.8 ms.

    Args:
        layout: see `Layout`.
        colormap: one of `colormap.NAMES`.
        range_policy: decides which depth maps to the ends of the colormap.
        alpha: weight of the depth in the overlay, 0 to 1.

    Raises:
        UsageError: the colormap is unknown.
        ConfigError: alpha is not from 0 to 1.
    """

    def __init__(
        self, *, layout: Layout, colormap: str, range_policy: RangePolicy, alpha: float = defaults().render.alpha
    ) -> None:
        self._earlier_cuts = 0
        self._range_policy = range_policy
        self.layout, self.colormap, self.range_policy, self.alpha = layout, colormap, range_policy, alpha
        self._model = ""
        self.current_range: Range | None = None
        """The last image's range (lo, hi) in the model's own units, as `--range` accepts it; None before the first
        image, and where nothing in an image has an answer."""

    @property
    def colormap(self) -> str:
        """Name of the colormap in use."""
        return self._colormap

    @colormap.setter
    def colormap(self, name: str) -> None:
        self._table = colormaps.table(name)
        self._colormap = name

    @property
    def alpha(self) -> float:
        """Weight of the depth in the overlay."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ConfigError(f"{value} is not a weight", where="--alpha", allowed="0 to 1")
        self._alpha = value

    @property
    def range_policy(self) -> RangePolicy:
        """Decides which depth maps to the ends of the colormap."""
        return self._range_policy

    @range_policy.setter
    def range_policy(self, policy: RangePolicy) -> None:
        if policy is not self._range_policy:
            self._earlier_cuts += self._range_policy.cuts
        self._range_policy = policy
        self._range: Range | None = None  # the old one belongs to the old policy

    @property
    def scene_cuts(self) -> int:
        """See `BaseRenderer`; includes the cuts that earlier range policies saw."""
        return self._earlier_cuts + self._range_policy.cuts

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the images that `render` returns for frames of `size_hw`."""
        return output_size(self.layout, size_hw)

    def render(self, frame: Frame, depth: Depth, *, same_range: bool = False) -> RgbImage:
        """Render one result.

        Args:
            same_range: keep the last range, because this is the last result again and only the style has changed.

        Returns:
            uint8 H×W×3 of `output_size(frame.size)`. Pixels without an answer are `colormap.NO_ANSWER`, which an
            overlay blends with the frame as it does every colour.

        Raises:
            ValueError: depth and frame differ in size.
        """
        if depth.size != frame.size:
            raise ValueError(f"{depth} does not belong to {frame}")
        shown = displayed(depth)
        if depth.model != self._model:
            self._model = depth.model
            self.range_policy.restart()
        if not same_range or self._range is None:
            self._range = self.range_policy.range_for(shown, frame.rgb, frame.time_s, valid=depth.valid)
        self.current_range = None if self._range is None else native(self._range, depth.kind)
        lo, hi = self._range or (0.0, 0.0)  # nothing has an answer: one colour
        output = np.empty((*self.output_size(frame.size), 3), np.uint8)
        colormaps.apply(shown, lo, hi, self._table, out=depth_pane(output, self.layout), valid=depth.valid)
        add_frame(output, frame.rgb, self.layout, alpha=self.alpha)
        return output
