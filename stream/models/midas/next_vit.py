"""Next-ViT-L, encoder of MiDaS v3.1's `dpt_next_vit_large_384` (Li et al. 2022, arXiv:2207.05501); it is timm's.

Invariant: keys are those of the official checkpoint under `pretrained.`.
"""

from collections import OrderedDict
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from stream.models.backbones import NextViT

_DEPTHS = (3, 4, 30, 3)
_TAPS = tuple(end - 1 for end in accumulate(_DEPTHS))
"""The last block of each stage."""


class NextVitNetwork(nn.Module):
    """timm's network under the official names; `norm` and `proj_head` are in the file, and unused."""

    def __init__(self) -> None:
        super().__init__()
        network = NextViT(3, depths=_DEPTHS)
        blocks: list[Any] = [block for stage in network.stages for block in stage.blocks]  # type: ignore[union-attr]
        for block in blocks:
            layers = block.mlp
            block.mlp = nn.Sequential(OrderedDict(conv1=layers.fc1, act=layers.act, conv2=layers.fc2))
        self.stem, self.features = network.stem, nn.Sequential(*blocks)
        self.norm, self.proj_head = network.norm, nn.Sequential(network.head.fc)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W → N×C×h×w, the last map of each stage."""
        x = self.stem(x)
        maps = []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in _TAPS:
                maps.append(x)
        return maps


class NextVit(nn.Module):
    """Next-ViT-L: maps of strides 4 to 32."""

    channels = (96, 256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.model = NextVitNetwork()

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 32 → four maps, finest first."""
        return self.model(x)
