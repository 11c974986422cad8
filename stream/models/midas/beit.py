"""BEiT, encoder of MiDaS v3.1's best models (Bao et al. 2021, arXiv:2106.08254).

MiDaS made timm 0.6.12's `beit_*_patch16_{384,512}` take any size by resampling the relative-position tables.
Invariant: keys are those of the official checkpoints under `pretrained.`, without `relative_position_index`, which
follows from the size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import Mlp, SizeCache, merge_heads, size_of, split_heads
from stream.models.midas.reassemble import Reassembled, with_class_token

PATCH = 16
_EPS = 1e-6
_CLASSES = 1000
_CLASS_TOKEN_ENTRIES = 3
"""Rows at the end of a table: class token to token, token to class token, class token to itself."""


class Attention(nn.Module):
    """Self-attention with a learned bias for each relative position; keys have no bias of their own."""

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads, self._grid = heads, grid
        entries = (2 * grid - 1) ** 2 + _CLASS_TOKEN_ENTRIES
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(entries, heads))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self._tables = SizeCache()

    def forward(self, x: Tensor, grid_hw: tuple[int, int], index: Tensor) -> Tensor:
        """N×(1+L)×C → the same shape.

        Args:
            index: of `relative_positions` for this grid.
        """
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = split_heads(F.linear(x, self.qkv.weight, bias), self.heads)
        table = self._tables.get(grid_hw, x.device, x.dtype, lambda: self._resampled(grid_hw))
        mask = table.index_select(1, index.flatten()).view(1, self.heads, *index.shape)
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))

    def _resampled(self, grid_hw: tuple[int, int]) -> Tensor:
        """float32 heads×entries for a grid of another size; bilinear, as MiDaS does it."""
        table = self.relative_position_bias_table.float().t()
        side = 2 * self._grid - 1
        size_hw = (2 * grid_hw[0] - 1, 2 * grid_hw[1] - 1)
        places = table[:, :-_CLASS_TOKEN_ENTRIES].reshape(1, -1, side, side)
        if size_hw != (side, side):
            places = F.interpolate(places, size=size_hw, mode="bilinear", align_corners=False)
        return torch.cat([places[0].flatten(1), table[:, -_CLASS_TOKEN_ENTRIES:]], 1)


def relative_positions(grid_hw: tuple[int, int], device: torch.device) -> Tensor:
    """int64 (1+L)×(1+L): the table's entry for query i and key j, the class token first."""
    height, width = grid_hw
    rows = torch.arange(height, device=device).repeat_interleave(width)
    columns = torch.arange(width, device=device).repeat(height)
    down = rows[:, None] - rows[None] + height - 1
    across = columns[:, None] - columns[None] + width - 1
    entries = (2 * height - 1) * (2 * width - 1)
    index = torch.empty((height * width + 1, height * width + 1), dtype=torch.int64, device=device)
    index[1:, 1:] = down * (2 * width - 1) + across
    index[0, 1:] = entries
    index[1:, 0] = entries + 1
    index[0, 0] = entries + 2
    return index


class Block(nn.Module):
    """Attention and feed-forward, each normalised before and scaled after."""

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.ones(width))
        self.gamma_2 = nn.Parameter(torch.ones(width))
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = Attention(width, heads, grid)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, grid_hw: tuple[int, int], index: Tensor) -> Tensor:
        """N×(1+L)×C → the same shape."""
        x = x + self.gamma_1 * self.attn(self.norm1(x), grid_hw, index)
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Patches of 16×16 pixels → vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)


class BeitTransformer(nn.Module):
    """Normalised RGB → the outputs of some blocks, class token first."""

    def __init__(self, *, width: int, depth: int, heads: int, grid: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embed = PatchEmbed(width)
        self.blocks = nn.ModuleList(Block(width, heads, grid) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(width, eps=_EPS)
        self.head = nn.Linear(width, _CLASSES)
        self._indices = SizeCache()

    def forward(self, x: Tensor, taps: Sequence[int]) -> tuple[list[Tensor], tuple[int, int]]:
        """N×3×H×W → N×(1+L)×C of each tapped block, and the grid (H/16, W/16)."""
        x = self.patch_embed.proj(x)
        grid_hw = size_of(x)
        index = self._indices.get(grid_hw, x.device, torch.int32, lambda: relative_positions(grid_hw, x.device))
        x = with_class_token(self.cls_token, x.flatten(2).transpose(1, 2))
        tapped = []
        for number, block in enumerate(self.blocks[: max(taps) + 1]):
            x = block(x, grid_hw, index)
            if number in taps:
                tapped.append(x)
        return tapped, grid_hw


class Beit(Reassembled):
    """BEiT with DPT's reassembly.

    Args:
        grid: patches a side in pre-training.
        taps: tapped blocks; `channels`: of the four maps.
    """

    def __init__(
        self, *, width: int, depth: int, heads: int, grid: int, taps: Sequence[int], channels: Sequence[int]
    ) -> None:
        super().__init__()
        self.channels, self._taps = tuple(channels), tuple(taps)
        self.model = BeitTransformer(width=width, depth=depth, heads=heads, grid=grid)
        self.add_reassembly(width, self.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 16 → four maps of strides 4 to 32."""
        tapped, grid_hw = self.model(x, self._taps)
        return self.reassemble(tapped, grid_hw)
