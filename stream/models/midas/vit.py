"""ViT-L, and ViT-B behind a ResNet-50 (the hybrid), encoders of MiDaS v3.0; both are timm's.

Dosovitskiy et al. 2020 (arXiv:2010.11929); the ResNet is BiT's, with group norm and standardised kernels (Kolesnikov
et al. 2019, arXiv:1912.11370).
Invariant: keys are those of `dpt_large_384.pt` and `dpt_hybrid_384.pt` under `pretrained.`.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from stream.models.backbones import HybridEmbed, ResNetV2, VisionTransformer
from stream.models.layers import SizeCache, StandardizedConv2d, size_of
from stream.models.midas.reassemble import Reassembled, tokens

_PATCH = 16


class _Vit(Reassembled):
    """timm's transformer under `model`, with MiDaS's rule for the position table.

    Args:
        grid: patches along each side in pre-training.
    """

    model: VisionTransformer

    def __init__(self, *, width: int, taps: Sequence[int], channels: Sequence[int], grid: int) -> None:
        super().__init__(width=width, taps=taps, channels=channels)
        self._grid, self._positions = grid, SizeCache()

    def from_patches(self, patches: Tensor) -> list[Tensor]:
        """N×C×h×w → maps of the tapped blocks, finest first."""
        grid_hw, model = size_of(patches), self.model
        assert model.cls_token is not None
        table = self._positions.get(grid_hw, patches.device, patches.dtype, lambda: self._resampled(grid_hw))
        return self.maps(tokens(patches, model.cls_token) + table, model.blocks, grid_hw)

    def _resampled(self, grid_hw: tuple[int, int]) -> Tensor:
        """float32 1×(1+h·w)×C. Bilinear, as MiDaS does it; timm's is bicubic: 0.04 to 0.11 standard deviations off."""
        assert self.model.pos_embed is not None
        table = self.model.pos_embed.float()
        grid = table[:, 1:].reshape(1, self._grid, self._grid, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=grid_hw, mode="bilinear", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)


class VitLarge(_Vit):
    """ViT-L/16, by default the one for 384 pixels."""

    def __init__(
        self,
        *,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        taps: Sequence[int] = (5, 11, 17, 23),
        channels: Sequence[int] = (256, 512, 1024, 1024),
        grid: int = 24,
    ) -> None:
        super().__init__(width=width, taps=taps, channels=channels, grid=grid)
        self.model = VisionTransformer(
            img_size=_PATCH * grid, patch_size=_PATCH, embed_dim=width, depth=depth, num_heads=heads
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 16 → four maps of strides 4 to 32."""
        return self.from_patches(self.model.patch_embed.proj(x))


class VitHybrid(_Vit):
    """ViT-B whose patches are a ResNet-50's last map; the ResNet also gives the two finest maps.

    Args:
        layers, stages: blocks and channels of the ResNet's stages.
    """

    def __init__(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        taps: Sequence[int] = (8, 11),
        channels: Sequence[int] = (256, 512, 768, 768),
        layers: Sequence[int] = (3, 4, 9),
        stages: Sequence[int] = (256, 512, 1024),
        grid: int = 24,
    ) -> None:
        super().__init__(width=width, taps=taps, channels=channels, grid=grid)
        # timm's convolution standardises its kernels at every forward; this one does so once, see `fold_for_inference`.
        convolution = partial(StandardizedConv2d, bias=False)
        resnet = ResNetV2(
            list(layers),
            tuple(stages),
            num_classes=0,
            global_pool="",
            preact=False,
            stem_type="same",
            conv_layer=convolution,
        )
        self.model = VisionTransformer(
            img_size=_PATCH * grid, patch_size=1, embed_dim=width, depth=depth, num_heads=heads,
            embed_layer=partial(HybridEmbed, backbone=resnet),
        )  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 16 → four maps of strides 4 to 32."""
        embed = self.model.patch_embed
        x, finer = embed.backbone.stem(x), []
        for stage in embed.backbone.stages:
            x = stage(x)
            finer.append(x)
        return [*finer[:-1], *self.from_patches(embed.proj(x))]
