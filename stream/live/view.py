"""State of a live view: the result on show, and what its viewers have chosen.

Invariant: only the pipeline's thread changes a view. `shown` is replaced as a whole, so any thread may read it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from stream.frames import Depth, DepthKind, Frame, RgbImage
from stream.render.layout import GAP_PX, Layout
from stream.render.renderer import Renderer

MESSAGE_S = 4.0
"""Seconds that a message stays on screen."""


def in_words(number: str, kind: DepthKind) -> str:
    """A number, or two, with what it is: `1.52 m`, `disparity 0.4`, `depth 0.4` if the unit is unknown."""
    if kind is DepthKind.METRIC_DEPTH:
        return f"{number} m"
    return f"disparity {number}" if kind.is_disparity else f"depth {number}"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A result and its rendered image, uint8 H×W×3, without text."""

    frame: Frame
    depth: Depth
    image: RgbImage


class View:
    """What is on show and how. Actions change it, and the preview draws it.

    Attributes:
        shown: None before the first result.
        frozen: new results are not shown.
        shows_numbers, shows_help: text to draw over the image.
        message: the line at the bottom, "" for none.
        needs_drawing: something changed; draw the image again.
        needs_rendering: colours or layout changed; render the result again before drawing.
        range_text: the `--range` value of the renderer's range policy.
        kind: of the last result, or what the first one will be; None if that is not known.
    """

    def __init__(
        self, renderer: Renderer, *, range_text: str, kind: DepthKind | None, clock: Callable[[], float]
    ) -> None:
        self.renderer, self.range_text, self.kind, self._clock = renderer, range_text, kind, clock
        self.shown: Shown | None = None
        self.frozen = self.shows_numbers = self.shows_help = False
        self.needs_drawing = self.needs_rendering = False
        self.message, self._message_until_s = "", 0.0
        self._point: tuple[float, float] | None = None
        """Where the viewer clicked, as fractions of the frame's width and height: frames may change size."""

    def restyle(self) -> None:
        """Render again: colours or layout have changed."""
        self.needs_rendering = self.needs_drawing = True

    def show_message(self, message: str) -> None:
        """Show a line for `MESSAGE_S`."""
        self.message, self._message_until_s, self.needs_drawing = message, self._clock() + MESSAGE_S, True

    def expire_message(self) -> None:
        """Remove a message whose time is over."""
        if self.message and self._clock() >= self._message_until_s:
            self.message, self.needs_drawing = "", True

    def point_at(self, x: int, y: int) -> None:
        """Select the point of the image whose depth to display, in pixels; beside the panes, select none."""
        self.clear_point()
        if self.shown is None:
            return
        height, width = self.shown.frame.size
        if self.renderer.layout is Layout.SIDE and x >= width + GAP_PX:
            x -= width + GAP_PX
        if 0 <= x < width and 0 <= y < height:
            self._point = x / width, y / height

    def clear_point(self) -> None:
        """Select no point."""
        self._point, self.needs_drawing = None, True

    def depth_at_point(self) -> str | None:
        """`1.52 m`, see `in_words`; `no answer` where there is none; None if no point is selected."""
        if self._point is None or self.shown is None:
            return None
        depth = self.shown.depth
        height, width = depth.size
        value = float(depth.values[int(self._point[1] * height), int(self._point[0] * width)])
        if math.isnan(value):
            return "no answer"
        return in_words(f"{value:.2f}" if depth.kind is DepthKind.METRIC_DEPTH else f"{value:.4g}", depth.kind)

    def points_px(self) -> list[tuple[int, int]]:
        """Where the selected point lies in the image, (x, y) in pixels; in the side layout in both panes."""
        if self._point is None or self.shown is None:
            return []
        height, width = self.shown.frame.size
        x, y = int(self._point[0] * width), int(self._point[1] * height)
        return [(x, y), (x + width + GAP_PX, y)] if self.renderer.layout is Layout.SIDE else [(x, y)]
