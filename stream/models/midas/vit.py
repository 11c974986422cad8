"""The plain vision transformer and the hybrid with a ResNet in front, encoders of MiDaS v3.0.

Dosovitskiy et al. 2020 (arXiv:2010.11929), as timm 0.6.12 has them: `vit_large_patch16_384`, `vit_base_resnet50_384`.
Invariant: keys are those of `dpt_large_384.pt` and `dpt_hybrid_384.pt` under `pretrained.`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import Attention, Mlp, SizeCache, size_of
from stream.models.midas.reassemble import Reassembled, with_class_token
from stream.models.midas.resnet_v2 import ResNetV2

PATCH = 16
_GRID = 24
"""Patches a side in pre-training: 384 / 16."""
_EPS = 1e-6
_CLASSES = 1000
"""The classifier is in every file, and unused."""


class Block(nn.Module):
    """Attention and feed-forward, each normalised before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """N×L×C → N×L×C."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Patches of 16×16 pixels → vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """N×3×H×W → N×C×H/16×W/16; no other maps."""
        return self.proj(x), []


class HybridEmbed(nn.Module):
    """A ResNet instead of large patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = ResNetV2()
        self.proj = nn.Conv2d(self.backbone.channels[-1], width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """N×3×H×W → N×C×H/16×W/16, and the ResNet's maps of strides 4 and 8."""
        *finer, last = self.backbone(x)
        return self.proj(last), finer


class VisionTransformer(nn.Module):
    """Normalised RGB → the outputs of some blocks, class token first, not normalised."""

    def __init__(self, *, width: int, depth: int, heads: int, embed: nn.Module) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, _GRID * _GRID + 1, width))
        self.patch_embed = embed
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.head = nn.Linear(width, _CLASSES)
        self._positions = SizeCache()

    def forward(self, x: Tensor, taps: Sequence[int]) -> tuple[list[Tensor], list[Tensor], tuple[int, int]]:
        """N×3×H×W → maps of the embedding, N×(1+L)×C of each tapped block, and the grid (H/16, W/16)."""
        x, maps = self.patch_embed(x)
        grid_hw = size_of(x)
        x = with_class_token(self.cls_token, x.flatten(2).transpose(1, 2))
        x = x + self._positions.get(grid_hw, x.device, x.dtype, lambda: self._resampled(grid_hw))
        tapped = []
        for number, block in enumerate(self.blocks[: max(taps) + 1]):
            x = block(x)
            if number in taps:
                tapped.append(x)
        return maps, tapped, grid_hw

    def _resampled(self, grid_hw: tuple[int, int]) -> Tensor:
        """Bilinear, as MiDaS does it; timm's is bicubic with antialiasing."""
        table = self.pos_embed.float()
        grid = table[:, 1:].reshape(1, _GRID, _GRID, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=grid_hw, mode="bilinear", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)


class VitLarge(Reassembled):
    """ViT-L/16 at 384 pixels."""

    channels = (256, 512, 1024, 1024)
    _taps = (5, 11, 17, 23)

    def __init__(self) -> None:
        super().__init__()
        self.model = VisionTransformer(width=1024, depth=24, heads=16, embed=PatchEmbed(1024))
        self.add_reassembly(1024, self.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 16 → four maps of strides 4 to 32."""
        _, tapped, grid_hw = self.model(x, self._taps)
        return self.reassemble(tapped, grid_hw)


class VitHybrid(Reassembled):
    """ViT-B with a ResNet-50: the two finest maps come from the ResNet."""

    channels = (256, 512, 768, 768)
    _taps = (8, 11)

    def __init__(self) -> None:
        super().__init__()
        self.model = VisionTransformer(width=768, depth=12, heads=12, embed=HybridEmbed(768))
        self.add_reassembly(768, self.channels, first=3)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 16 → four maps of strides 4 to 32."""
        maps, tapped, grid_hw = self.model(x, self._taps)
        return [*maps, *self.reassemble(tapped, grid_hw, first=3)]
