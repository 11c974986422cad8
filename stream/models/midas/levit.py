"""LeViT-384, encoder of MiDaS v3.1's `dpt_levit_224` (Graham et al. 2021, arXiv:2104.01136), as in timm 0.6.12.

Not today's timm: its stages hide the outputs that the decoder needs.
Invariant: keys are those of the official checkpoint, without `attention_bias_idxs`, which follows from the size.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import SizeCache, merge_heads

_KEY = 32
"""Channels of the queries and keys of a head."""
_WIDTHS, _HEADS, _DEPTH = (384, 512, 768), (6, 9, 12), 4
_SIDES = (14, 7, 4)
"""Sides of the maps for a picture of 224×224 pixels."""
_TAPS = (3, 11, 21)
_CLASSES = 1000


class LinearNorm(nn.Module):
    """Linear layer and batch norm over all tokens."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.c = nn.Linear(inputs, outputs, bias=False)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×L×C → N×L×C'."""
        return self.bn(self.c(x).flatten(0, 1)).unflatten(0, x.shape[:2])


class ConvNorm(nn.Module):
    """3×3 convolution of stride 2 and batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/2×W/2."""
        return self.bn(self.c(x))


class ConvTransposeNorm(nn.Module):
    """3×3 transposed convolution that doubles the size, and batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.c = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×2H×2W."""
        return self.bn(self.c(x))


def stem_transpose() -> nn.Sequential:
    """N×256×H×W → N×64×4H×4W before the head, because the encoder's finest map has stride 16."""
    return nn.Sequential(ConvTransposeNorm(256, 128), nn.Hardswish(), ConvTransposeNorm(128, 64), nn.Hardswish())


def bias_index(side: int, stride: int, device: torch.device) -> Tensor:
    """int64 Q×K: the index of the bias for each query (every `stride`-th pixel) and key of a `side`×`side` map."""
    places = torch.arange(side, device=device)
    distance = (places[::stride, None] - places[None]).abs()
    index = side * distance[:, None, :, None] + distance[None, :, None, :]
    return index.flatten(2).flatten(0, 1)


class BiasedAttention(nn.Module):
    """Base of both kinds of attention: a learned bias for each distance.

    Args:
        side: side of the map of keys; `stride`: distance between queries in it.
    """

    def __init__(self, heads: int, *, side: int, stride: int) -> None:
        super().__init__()
        self.heads, self._side, self._stride = heads, side, stride
        self.attention_biases = nn.Parameter(torch.zeros(heads, side**2))
        self._biases = SizeCache()

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """N×L×heads×d each → N×Q×(heads·d)."""
        bias = self._biases.get((self._side, self._stride), q.device, q.dtype, self._expanded)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))

    def _expanded(self) -> Tensor:
        table = self.attention_biases.float()
        return table[:, bias_index(self._side, self._stride, table.device)][None]


class LevitAttention(BiasedAttention):
    """Self-attention; values are twice as wide as keys."""

    def __init__(self, width: int, heads: int, *, side: int) -> None:
        super().__init__(heads, side=side, stride=1)
        self.qkv = LinearNorm(width, heads * 4 * _KEY)
        self.proj = nn.Sequential(nn.Hardswish(), LinearNorm(heads * 2 * _KEY, width))

    def forward(self, x: Tensor) -> Tensor:
        """N×L×C → the same shape."""
        q, k, v = self.qkv(x).unflatten(2, (self.heads, -1)).split([_KEY, _KEY, 2 * _KEY], 3)
        return self.proj(self.attend(q, k, v))


class AttentionSubsample(BiasedAttention):
    """Attention with a query at every second pixel, which halves the map; values are four times as wide as keys."""

    def __init__(self, width: int, outputs: int, *, side: int) -> None:
        heads = width // _KEY
        super().__init__(heads, side=side, stride=2)
        self.kv = LinearNorm(width, heads * 5 * _KEY)
        self.q = nn.Sequential(nn.Identity(), LinearNorm(width, heads * _KEY))
        self.proj = nn.Sequential(nn.Hardswish(), LinearNorm(heads * 4 * _KEY, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """N×L×C → N×⌈√L/2⌉²×C'."""
        k, v = self.kv(x).unflatten(2, (self.heads, -1)).split([_KEY, 4 * _KEY], 3)
        every_second = x.unflatten(1, (self._side, self._side))[:, ::2, ::2].flatten(1, 2)
        q = self.q(every_second).unflatten(2, (self.heads, _KEY))
        return self.proj(self.attend(q, k, v))


class Residual(nn.Module):
    """A skip around `m`."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        """N×L×C → the same shape."""
        return x + self.m(x)


def _mlp(width: int) -> Residual:
    return Residual(nn.Sequential(LinearNorm(width, 2 * width), nn.Hardswish(), LinearNorm(2 * width, width)))


class Classifier(nn.Module):
    """Batch norm and linear layer; the file holds two of them, and the decoder uses neither."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)
        self.l = nn.Linear(width, _CLASSES)


class LevitNetwork(nn.Module):
    """Normalised RGB → the outputs of the tapped blocks."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 48, 96, 192, 384)
        stem: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            stem += [ConvNorm(inputs, outputs), nn.Hardswish()]
        self.patch_embed = nn.Sequential(*stem[:-1])
        blocks: list[nn.Module] = []
        for stage, (width, heads, side) in enumerate(zip(_WIDTHS, _HEADS, _SIDES, strict=True)):
            if stage:
                blocks += [AttentionSubsample(_WIDTHS[stage - 1], width, side=_SIDES[stage - 1]), _mlp(width)]
            for _ in range(_DEPTH):
                blocks += [Residual(LevitAttention(width, heads, side=side)), _mlp(width)]
        self.blocks = nn.ModuleList(blocks)
        self.head, self.head_dist = Classifier(_WIDTHS[-1]), Classifier(_WIDTHS[-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×224×224 → N×L×C each."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        tapped = []
        for number, block in enumerate(self.blocks[: _TAPS[-1] + 1]):
            x = block(x)
            if number in _TAPS:
                tapped.append(x)
        return tapped


class Levit(nn.Module):
    """LeViT-384: maps of strides 16, 32 and 64."""

    channels = _WIDTHS

    def __init__(self) -> None:
        super().__init__()
        self.model = LevitNetwork()

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×224×224 → three maps, finest first."""
        tapped = self.model(x)
        return [x.transpose(1, 2).unflatten(2, (side, side)) for x, side in zip(tapped, _SIDES, strict=True)]
