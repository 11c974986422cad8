"""DINOv2's vision transformer, the encoder of Depth Anything (Oquab et al. 2023, arXiv:2304.07193).

Not timm's: its import would make the most used models start 3 s later.
Invariant: keys are those of the official Depth Anything checkpoints under `pretrained.`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import Mlp, SelfAttention, SizeCache

PATCH = 14
_GRID = 37
"""Patches along each side in pre-training: 518 / 14."""
_OFFSET = 0.1
"""Added to the grid's size when the position table is resampled; the authors trained the checkpoints with it."""
_EPS = 1e-6


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """…×C → …×C."""
        return x * self.gamma


class SwiGlu(nn.Module):
    """Gated feed-forward layer (Shazeer 2020, arXiv:2002.05202), with the hidden width of the xFormers original."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """…×C → …×C."""
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and scaled after."""

    def __init__(self, width: int, heads: int, *, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = SelfAttention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = SwiGlu(width) if gated else Mlp(width, 4 * width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor, *position: Tensor) -> Tensor:
        """N×L×C → N×L×C; `position` is passed on to the attention."""
        x = x + self.ls1(self.attn(self.norm1(x), *position))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patches of 14×14 pixels → vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×(H/14·W/14)×C."""
        return self.proj(x).flatten(2).transpose(1, 2)


def grid_of(x: Tensor) -> tuple[int, int]:
    """(rows, columns) of patches of N×3×H×W."""
    return x.shape[-2] // PATCH, x.shape[-1] // PATCH


class DinoV2(nn.Module):
    """Normalised RGB → the normalised outputs of the tapped blocks.

    Args:
        taps: numbers of the tapped blocks.
        norm_eps: of the last norm.
        has_mask: the checkpoint holds the token that stands for hidden patches in training.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        taps: Sequence[int],
        gated: bool = False,
        norm_eps: float = _EPS,
        has_mask: bool = True,
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, _GRID * _GRID + 1, width))
        if has_mask:
            self.mask_token = nn.Parameter(torch.zeros(1, width))  # used in training only
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(Block(width, heads, gated=gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self._positions = SizeCache()

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 14 → N×(H/14·W/14)×C each, without the class token."""
        return [tokens[:, 1:] for tokens in self.tokens(x)]

    def tokens(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 14 → N×(1+H/14·W/14)×C each, the class token first."""
        x, maps = self.embedded(x, grid_of(x)), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                maps.append(self.norm(x))
        return maps

    def embedded(self, x: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """N×3×H×W → N×(1+h·w)×C, the class token first, before any block."""
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1), x], 1)
        return x + self._positions.get(grid_hw, x.device, x.dtype, lambda: self._resampled(grid_hw))

    def _resampled(self, grid_hw: tuple[int, int]) -> Tensor:
        table = self.pos_embed.float()
        if grid_hw == (_GRID, _GRID):
            return table
        grid = table[:, 1:].reshape(1, _GRID, _GRID, -1).permute(0, 3, 1, 2)
        # Resample by factor, not by size: because of the offset, the two sample at different positions.
        factors = [(side + _OFFSET) / _GRID for side in grid_hw]
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)
