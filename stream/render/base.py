"""What every renderer offers to the pipeline."""

from typing import TYPE_CHECKING, Protocol

from stream.frames import Depth, Frame, RgbImage

if TYPE_CHECKING:
    pass


class Renders(Protocol):
    """What is needed of a renderer; see `render.renderer.Renderer`."""

    @property
    def range_policy(self) -> object: ...

    def output_size(self, size_hw: tuple[int, int]) -> tuple[int, int]: ...

    def render(self, frame: Frame, depth: Depth) -> RgbImage: ...
