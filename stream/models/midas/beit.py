"""BEiT, encoder of MiDaS v3.1's best models (Bao et al. 2021, arXiv:2106.08254); it is timm's.

MiDaS made it take pictures of any size by resampling the tables of relative positions.
Invariant: keys are those of the official checkpoints under `pretrained.`, without `relative_position_index`, which
follows from the size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stream.models.backbones import Beit, BeitAttention, gen_relative_position_index
from stream.models.layers import SizeCache, size_of
from stream.models.midas.reassemble import Reassembled, tokens

_PATCH = 16
_CLASS_TOKEN_ENTRIES = 3
"""Rows at the end of a table: class token to token, token to class token, class token to itself."""


class ResampledBeitAttention(BeitAttention):
    """timm's attention with MiDaS's rule for the table; timm's own is 0.02 to 0.04 standard deviations off.

    Args:
        grid: patches along each side in pre-training.
        indices: shared by all blocks, because they are large (4 MB for 512×512 pixels) and the same in all.

    Attributes:
        window_size: the grid (height, width) of the current input; the encoder sets it before each forward.
    """

    def __init__(self, width: int, heads: int, *, grid: int, indices: SizeCache) -> None:
        super().__init__(width, heads, qkv_bias=True, window_size=(grid, grid))
        self.relative_position_index = None  # timm's is for `grid` alone, and there is one in every block
        self._grid, self._indices, self._tables = grid, indices, SizeCache()

    def _get_rel_pos_bias(self) -> Tensor:
        """1×heads×(1+L)×(1+L) for the current grid."""
        grid_hw, weight = self.window_size, self.qkv.weight
        table = self._tables.get(grid_hw, weight.device, weight.dtype, lambda: self._resampled(grid_hw))
        index = self._indices.get(
            grid_hw, weight.device, torch.int32, lambda: gen_relative_position_index(grid_hw, weight.device)
        )
        return table.index_select(1, index.flatten()).view(1, self.num_heads, *index.shape)

    def _resampled(self, grid_hw: tuple[int, int]) -> Tensor:
        """float32 heads×entries; bilinear, as MiDaS does it."""
        table, side = self.relative_position_bias_table.float().t(), 2 * self._grid - 1
        size_hw = (2 * grid_hw[0] - 1, 2 * grid_hw[1] - 1)
        places = table[:, :-_CLASS_TOKEN_ENTRIES].reshape(1, -1, side, side)
        if size_hw != (side, side):
            places = F.interpolate(places, size=size_hw, mode="bilinear", align_corners=False)
        return torch.cat([places[0].flatten(1), table[:, -_CLASS_TOKEN_ENTRIES:]], 1)


class BeitEncoder(Reassembled):
    """BEiT with DPT's reassembly.

    Args:
        grid: patches along each side in pre-training.
        taps: tapped blocks; `channels`: of the four maps.
    """

    def __init__(
        self, *, width: int, depth: int, heads: int, grid: int, taps: Sequence[int], channels: Sequence[int]
    ) -> None:
        super().__init__(width=width, taps=taps, channels=channels)
        self.model = Beit(
            img_size=_PATCH * grid, embed_dim=width, depth=depth, num_heads=heads, use_abs_pos_emb=False,
            init_values=1.0,
        )  # fmt: skip
        indices = SizeCache()
        for block in self.model.blocks:
            block.attn = ResampledBeitAttention(width, heads, grid=grid, indices=indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 16 → four maps of strides 4 to 32."""
        patches = self.model.patch_embed.proj(x)
        grid_hw, blocks = size_of(patches), self.model.blocks
        for attention in (block.attn for block in blocks):
            attention.window_size = grid_hw  # type: ignore[union-attr]
        return self.maps(tokens(patches, self.model.cls_token), blocks, grid_hw)
