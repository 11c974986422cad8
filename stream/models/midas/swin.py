"""Swin and Swin V2, encoders of MiDaS v3.1 (Liu et al. 2021, arXiv:2103.14030; Liu et al. 2022, arXiv:2111.09883).

As timm 0.6.12 has them; they take one picture size. Invariant: keys are those of the official checkpoints under
`pretrained.`, without `attn_mask` and `relative_position_index`, which follow from the size.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import Mlp, SizeCache

_CLASSES = 1000
_MASKED = -100.0
"""Added to the attention between pixels that are neighbours only because the shifted map was wrapped around."""
_MAX_LOGIT_SCALE = math.log(100.0)
_MAX_BIAS = 16.0


def relative_index(window: int, device: torch.device) -> Tensor:
    """int64 W²×W²: the bias table's row for query i and key j of a W×W window."""
    rows = torch.arange(window, device=device).repeat_interleave(window)
    columns = torch.arange(window, device=device).repeat(window)
    down = rows[:, None] - rows[None] + window - 1
    across = columns[:, None] - columns[None] + window - 1
    return down * (2 * window - 1) + across


def shift_mask(side: int, window: int, shift: int, device: torch.device) -> Tensor:
    """float32 windows×W²×W², to be added: keeps regions apart that a cyclic shift has brought together."""
    edges = torch.tensor([side - window, side - shift], device=device)
    region = torch.bucketize(torch.arange(side, device=device), edges, right=True)
    regions = (3 * region[:, None] + region[None])[None, None]
    regions = to_windows(regions, window).flatten(2)[0]
    return _MASKED * (regions[:, :, None] != regions[:, None, :]).float()


def to_windows(x: Tensor, window: int) -> Tensor:
    """N×C×H×W → N×windows×W²×C."""
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // window, window, width // window, window)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, window * window, channels)


class WindowAttention(nn.Module, ABC):
    """What both versions share: attention inside windows, with a bias for each relative position.

    Args:
        window, shift: of this block, in pixels of the map; `side`: the map's height and width.
    """

    def __init__(self, width: int, heads: int, *, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self._side, self._shift = heads, window, side, shift
        self.proj = nn.Linear(width, width)
        self._tables, self._masks = SizeCache(), SizeCache()

    @abstractmethod
    def projected(self, x: Tensor) -> Tensor:
        """…×C → …×3C: queries, keys and values."""

    @abstractmethod
    def similarity_bias(self) -> Tensor:
        """float32 heads×(2W−1)²."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """N×(windows·heads)×W²×d each, `mask` 1×…×W²×W² → like `q`."""
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def forward(self, x: Tensor) -> Tensor:
        """N×H×W×C → the same shape."""
        batch, height, width, channels = x.shape
        if self._shift:
            x = x.roll((-self._shift, -self._shift), (1, 2))
        x = to_windows(x.permute(0, 3, 1, 2), self.window)
        windows, length = x.shape[1:3]
        qkv = self.projected(x).view(batch, windows, length, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        x = self.attend(q, k, v, self._mask(x, windows)).unflatten(1, (windows, self.heads))
        x = self.proj(x.transpose(2, 3).flatten(3))
        x = x.view(batch, height // self.window, width // self.window, self.window, self.window, channels)
        x = x.transpose(2, 3).reshape(batch, height, width, channels)
        return x.roll((self._shift, self._shift), (1, 2)) if self._shift else x

    def _mask(self, x: Tensor, windows: int) -> Tensor:
        """1×(windows·heads)×W²×W²."""
        size, length = (self._side, self.window), self.window**2
        table = self._tables.get(size, x.device, x.dtype, self.similarity_bias)
        index = relative_index(self.window, x.device).flatten()
        bias = table.index_select(1, index).view(1, self.heads, length, length).expand(windows, -1, -1, -1)
        if self._shift:
            apart = self._masks.get(
                size, x.device, x.dtype, lambda: shift_mask(self._side, self.window, self._shift, x.device)
            )
            bias = bias + apart[:, None]
        return bias.reshape(1, windows * self.heads, length, length)


class AttentionV1(WindowAttention):
    """Scaled dot products and a table of biases."""

    def __init__(self, width: int, heads: int, *, side: int, window: int, shift: int) -> None:
        super().__init__(width, heads, side=side, window=window, shift=shift)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(width, 3 * width)

    def projected(self, x: Tensor) -> Tensor:
        """See `WindowAttention`."""
        return self.qkv(x)

    def similarity_bias(self) -> Tensor:
        """See `WindowAttention`."""
        return self.relative_position_bias_table.float().t()


class AttentionV2(WindowAttention):
    """Cosine similarities, and biases that a small network computes from log-spaced distances.

    Args:
        trained_window: of the pre-training, where it was smaller.
    """

    def __init__(self, width: int, heads: int, *, side: int, window: int, shift: int, trained_window: int = 0) -> None:
        super().__init__(width, heads, side=side, window=window, shift=shift)
        self._reach = (trained_window or window) - 1
        self.logit_scale = nn.Parameter(torch.zeros(heads, 1, 1))
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def projected(self, x: Tensor) -> Tensor:
        """See `WindowAttention`."""
        return F.linear(x, self.qkv.weight, torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]))

    def similarity_bias(self) -> Tensor:
        """See `WindowAttention`."""
        weight = next(self.cpb_mlp.parameters())
        distance = torch.arange(1 - self.window, self.window, device=weight.device).float() * (8 / self._reach)
        distance = distance.sign() * (distance.abs() + 1).log2() / 3  # log2(8) = 3
        places = torch.stack(torch.meshgrid(distance, distance, indexing="ij"), -1).flatten(0, 1)
        return _MAX_BIAS * torch.sigmoid(self.cpb_mlp(places.to(weight.dtype)).float()).t()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """See `WindowAttention`; `1/√d` is replaced by the learned scale."""
        scale = self.logit_scale.float().clamp(max=_MAX_LOGIT_SCALE).exp().to(q.dtype)
        scale = scale.repeat(q.shape[1] // self.heads, 1, 1)
        q, k = F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


class BlockV1(nn.Module):
    """Normalised before attention and feed-forward."""

    attention: type[WindowAttention] = AttentionV1

    def __init__(self, width: int, heads: int, **attention: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = self.attention(width, heads, **attention)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """N×H×W×C → the same shape."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class BlockV2(BlockV1):
    """Normalised after."""

    attention = AttentionV2

    def forward(self, x: Tensor) -> Tensor:
        """N×H×W×C → the same shape."""
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp(x))


class MergingV1(nn.Module):
    """Four neighbours become one pixel of twice the channels; normalised before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """N×H×W×C → N×H/2×W/2×2C."""
        return self.reduction(self.norm(_neighbours(x)))


class MergingV2(nn.Module):
    """Normalised after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """N×H×W×C → N×H/2×W/2×2C."""
        return self.norm(self.reduction(_neighbours(x)))


def _neighbours(x: Tensor) -> Tensor:
    return torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)


class Layer(nn.Module):
    """Blocks of one resolution, every second one shifted, and the merging to the next.

    Args:
        side: height and width of the map.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        depth: int,
        *,
        side: int,
        window: int,
        version: int,
        trained_window: int,
        last: bool,
    ) -> None:
        super().__init__()
        block, merging = ((BlockV1, MergingV1), (BlockV2, MergingV2))[version - 1]
        extra = {"trained_window": trained_window} if version == 2 else {}
        shift = window // 2 if window < side else 0
        window = min(window, side)
        self.blocks = nn.ModuleList(
            block(width, heads, side=side, window=window, shift=shift if n % 2 else 0, **extra) for n in range(depth)
        )
        self.downsample = nn.Identity() if last else merging(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """N×H×W×C → the blocks' output, and the same merged."""
        for block in self.blocks:
            x = block(x)
        return x, self.downsample(x)


class PatchEmbed(nn.Module):
    """Patches of 4×4 pixels → vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, 4)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H/4×W/4×C."""
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class SwinTransformer(nn.Module):
    """Normalised RGB → the last map of each resolution, before merging."""

    def __init__(
        self,
        *,
        version: int,
        size: int,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int,
        trained_windows: Sequence[int],
    ) -> None:
        super().__init__()
        last = len(depths) - 1
        self.patch_embed = PatchEmbed(width)
        self.layers = nn.ModuleList(
            Layer(
                width << n,
                heads[n],
                depth,
                side=size >> (2 + n),
                window=window,
                version=version,
                trained_window=trained_windows[n],
                last=n == last,
            )
            for n, depth in enumerate(depths)
        )
        self.norm = nn.LayerNorm(width << last)  # this and the classifier are in every file, and unused
        self.head = nn.Linear(width << last, _CLASSES)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×S×S → N×C×h×w each, strides 4 to 32."""
        x = self.patch_embed(x)
        maps = []
        for layer in self.layers:
            finished, x = layer(x)
            maps.append(finished.permute(0, 3, 1, 2))
        return maps


class Swin(nn.Module):
    """Swin (`version` 1) or Swin V2.

    Args:
        size: of the pictures, in pixels.
        width: channels of the first map.
        window: of the attention; smaller where the map is.
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
        self.model = SwinTransformer(
            version=version,
            size=size,
            width=width,
            depths=depths,
            heads=heads,
            window=window,
            trained_windows=trained_windows,
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×S×S → four maps of strides 4 to 32."""
        return self.model(x)
