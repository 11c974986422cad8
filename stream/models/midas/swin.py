"""Swin and Swin V2, encoders of MiDaS v3.1; both are timm's. They take one picture size.

Liu et al. 2021 (arXiv:2103.14030) and 2022 (arXiv:2111.09883).
Invariant: keys are those of the official checkpoints under `pretrained.`, without `attn_mask` and
`relative_position_index`, which follow from the size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stream.models.backbones import SwinTransformer, SwinTransformerV2


class SwinStage(nn.Module):
    """Blocks of one resolution, and the merging to the next; timm now counts the merging to the next stage."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks, self.downsample = nn.ModuleList(blocks), downsample

    def init_non_persistent_buffers(self) -> None:
        """Compute the masks of the blocks; timm's blocks of version 2 do so only since 1.0.31."""
        for block in self.blocks:
            block.attn_mask = block.get_attn_mask(device=torch.device("cpu"), dtype=torch.float32)  # type: ignore[operator]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """N×H×W×C → the blocks' output, and the same merged."""
        for block in self.blocks:
            x = block(x)
        return x, self.downsample(x)


class SwinNetwork(nn.Module):
    """timm's network under the official names; `norm` and `head` are in every file, and unused."""

    def __init__(self, network: SwinTransformer | SwinTransformerV2) -> None:
        super().__init__()
        stages: list[Any] = list(network.layers)
        merging = [*(stage.downsample for stage in stages[1:]), nn.Identity()]
        self.patch_embed = network.patch_embed
        self.layers = nn.ModuleList(
            SwinStage(stage.blocks, downsample) for stage, downsample in zip(stages, merging, strict=True)
        )
        self.norm, self.head = network.norm, network.head.fc

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×S×S → N×C×h×w each, strides 4 to 32: the last map of each resolution, before merging."""
        x = self.patch_embed(x)
        maps = []
        for stage in self.layers:
            finished, x = stage(x)
            maps.append(finished.permute(0, 3, 1, 2))
        return maps


class Swin(nn.Module):
    """Swin (`version` 1) or Swin V2.

    Args:
        size: width and height of the images, in pixels.
        width: channels of the first map.
        depths, heads: blocks and attention heads of each resolution.
        window: side of the attention's windows; smaller where the map is.
        trained_windows: of the pre-training, one for each resolution; 0 where it was the same. Version 2 only.
    """

    def __init__(
        self,
        *,
        version: int,
        size: int,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int,
        trained_windows: Sequence[int] = (0, 0, 0, 0),
    ) -> None:
        super().__init__()
        self.channels = tuple(width << n for n in range(len(depths)))
        shape: dict[str, Any] = {
            "img_size": size,
            "embed_dim": width,
            "depths": depths,
            "num_heads": heads,
            "window_size": window,
        }
        if version == 1:
            network: SwinTransformer | SwinTransformerV2 = SwinTransformer(**shape)
        else:
            network = SwinTransformerV2(**shape, pretrained_window_sizes=tuple(trained_windows))
        self.model = SwinNetwork(network)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×S×S → four maps of strides 4 to 32."""
        return self.model(x)
