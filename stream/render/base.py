"""The contract of every renderer that the pipeline uses.

Invariant: `render` returns a new array of `output_size(frame.size)`, so a sink may keep it.
"""

from abc import ABC, abstractmethod

from stream.frames import Depth, Frame, RgbImage


class BaseRenderer(ABC):
    """Makes the output image of each result, in order, on one thread."""

    @property
    def scene_cuts(self) -> int:
        """Scene cuts seen so far; 0 for a renderer that does not look for them."""
        return 0

    @abstractmethod
    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the image that `render` returns for frames of `size_hw`."""

    @abstractmethod
    def render(self, frame: Frame, depth: Depth) -> RgbImage:
        """The output image of one result, uint8 H×W×3."""
