"""A frame and its depth become one picture.

Invariant: near is bright, whatever the model's numbers mean.
"""

from stream.frames import Depth, Frame, RgbImage
from stream.render import colormap as colormaps
from stream.render.layout import Layout, compose, output_size
from stream.render.range import RangePolicy, to_disparity


class Renderer:
    """Renders results; `layout`, `colormap`, `alpha` and `range_policy` may be changed between frames.

    Raises:
        UsageError: unknown colormap.
    """

    def __init__(self, *, layout: Layout, colormap: str, range_policy: RangePolicy, alpha: float = 0.6) -> None:
        self.layout, self.alpha, self.range_policy = layout, alpha, range_policy
        self.colormap = colormap
        colormaps.table(colormap)
        self.current_range: tuple[float, float] | None = None
        """(low, high) disparity of the last frame."""

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the pictures made of frames of `size_hw`."""
        return output_size(self.layout, size_hw)

    def render(self, frame: Frame, depth: Depth) -> RgbImage:
        """uint8 of `output_size(frame.size)`."""
        disparity = to_disparity(depth.values, depth.kind)
        self.current_range = self.range_policy.range_for(disparity, frame.rgb)
        coloured = colormaps.apply(disparity, *self.current_range, colormaps.table(self.colormap))
        return compose(frame.rgb, coloured, self.layout, alpha=self.alpha)
