"""The convolutional decoder of DPT and MiDaS: fuses feature maps of several strides into one map.

Ranftl et al. 2021, "Vision Transformers for Dense Prediction" (arXiv:2103.13413), figure 1. The attribute names are
those of the official checkpoints of MiDaS and Depth Anything.
Invariant: maps go in and out finest first.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto

from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import doubled, size_of, upsample


class Skip(Enum):
    """What a residual unit adds to its convolutions' result."""

    INPUT = auto()
    RECTIFIED = auto()
    """The input after its ReLU: in MiDaS v2.1 that ReLU works in place, before the skip is added."""


class ResidualConvUnit(nn.Module):
    """Two 3×3 convolutions, each after a ReLU, around a skip."""

    def __init__(self, channels: int, *, skip: Skip = Skip.INPUT) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self._skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        rectified = F.relu(x)
        y = self.conv2(F.relu(self.conv1(rectified), inplace=True))
        return y + (x if self._skip is Skip.INPUT else rectified)


class FeatureFusion(nn.Module):
    """Adds a finer map to the coarser path and resizes the sum to the next size.

    The coarsest fusion has no path to add to; its `resConfUnit1` is unused but present in every checkpoint.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(channels, outputs, 1)
        self.resConfUnit1 = ResidualConvUnit(channels)
        self.resConfUnit2 = ResidualConvUnit(channels)

    def forward(self, path: Tensor, skip: Tensor | None = None, *, size_hw: tuple[int, int] | None = None) -> Tensor:
        """N×C×H×W → N×C'×h×w with (h, w) = `size_hw`, or twice the size."""
        if skip is not None:
            path = path + self.resConfUnit1(skip)
        # The official code upsamples first; a 1×1 convolution commutes with that and costs a quarter here.
        return upsample(self.out_conv(self.resConfUnit2(path)), size_hw or doubled(path))


class Scratch(nn.Module):
    """Maps of any channels → one map at twice the finest size.

    Args:
        inputs: channels of the maps.
        channels: channels of the decoder, one number for all levels or one for each.
        fusion: (channels, outputs) → a module with `FeatureFusion`'s interface.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        channels: int | Sequence[int],
        *,
        fusion: Callable[[int, int], nn.Module] = FeatureFusion,
    ) -> None:
        super().__init__()
        widths = (channels,) * len(inputs) if isinstance(channels, int) else tuple(channels)
        self._levels = range(1, len(inputs) + 1)
        for level, count, width in zip(self._levels, inputs, widths, strict=True):
            self.add_module(f"layer{level}_rn", nn.Conv2d(count, width, 3, padding=1, bias=False))
            self.add_module(f"refinenet{level}", fusion(width, widths[max(level - 2, 0)]))

    def fuse(self, maps: Sequence[Tensor]) -> Tensor:
        """N×C×H×W each, finest first → N×C'×2H×2W of the finest."""
        maps = [self.reduced(level, x) for level, x in zip(self._levels, maps, strict=True)]
        path: Tensor | None = None
        for level in reversed(self._levels):
            path = self.fused(level, path, maps[level - 1], size_of(maps[level - 2]) if level > 1 else None)
        assert path is not None
        return path

    def reduced(self, level: int, x: Tensor) -> Tensor:
        """The map of a level, 1 for the finest, with the decoder's channels."""
        y: Tensor = getattr(self, f"layer{level}_rn")(x)
        return y

    def fused(self, level: int, path: Tensor | None, x: Tensor, size_hw: tuple[int, int] | None = None) -> Tensor:
        """The path after a level.

        Args:
            path: the path after the coarser level; None at the coarsest.
            x: the reduced map of this level.
            size_hw: size of the next finer map; None at the finest, which doubles the size.
        """
        fusion = getattr(self, f"refinenet{level}")
        y: Tensor = fusion(x, size_hw=size_hw) if path is None else fusion(path, x, size_hw=size_hw)
        return y
