"""Next-ViT-L, encoder of MiDaS v3.1's `dpt_next_vit_large_384` (Li et al. 2022, arXiv:2207.05501).

Invariant: keys are those of the official checkpoint under `pretrained.`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import merge_heads

_HEAD = 32
"""Channels of an attention head, and of a convolution's group."""
_CLASSES = 1000
_DEPTHS = (3, 4, 30, 3)
_TAPS = (2, 6, 36, 39)
_MIX = 0.75
"""Share of a transformer block's channels that come from attention."""


def _conv1x1(inputs: int, outputs: int, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=bias)


class ConvNormRelu(nn.Module):
    """3×3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class PatchEmbed(nn.Module):
    """Halves the resolution by averaging and changes the channels, where either is asked for."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.avgpool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        is_needed = stride == 2 or inputs != outputs
        self.conv = _conv1x1(inputs, outputs) if is_needed else nn.Identity()
        self.norm = nn.BatchNorm2d(outputs) if is_needed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        return self.norm(self.conv(self.avgpool(x)))


class ConvAttention(nn.Module):
    """The paper's multi-head convolutional attention: a grouped convolution and a projection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_conv3x3 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels // _HEAD, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.projection = _conv1x1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        return self.projection(F.relu(self.norm(self.group_conv3x3(x)), inplace=True))


class ConvMlp(nn.Module):
    """1×1 convolution, ReLU, 1×1 convolution."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.conv1 = _conv1x1(channels, ratio * channels, bias=True)
        self.conv2 = _conv1x1(ratio * channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        return self.conv2(F.relu(self.conv1(x), inplace=True))


class ConvBlock(nn.Module):
    """Next Convolution Block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(inputs, outputs, stride)
        self.mhca = ConvAttention(outputs)
        self.norm = nn.BatchNorm2d(outputs)
        self.mlp = ConvMlp(outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        x = self.patch_embed(x)
        x = x + self.mhca(x)
        return x + self.mlp(self.norm(x))


class ReducedAttention(nn.Module):
    """Self-attention whose keys and values are averages over runs of `reduction`² tokens, in row order."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self._run = reduction**2
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """N×L×C → the same shape."""
        context = x
        if self._run > 1:
            context = self.norm(F.avg_pool1d(x.transpose(1, 2), self._run, self._run)).transpose(1, 2)
        q, k, v = self._heads(self.q(x)), self._heads(self.k(context)), self._heads(self.v(context))
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, _HEAD)).transpose(1, 2)


class TransformerBlock(nn.Module):
    """Next Transformer Block: attention for most channels, convolution for the others."""

    def __init__(self, inputs: int, outputs: int, stride: int, reduction: int) -> None:
        super().__init__()
        attended = int(outputs * _MIX)
        self.patch_embed = PatchEmbed(inputs, attended, stride)
        self.norm1 = nn.BatchNorm2d(attended)
        self.e_mhsa = ReducedAttention(attended, reduction)
        self.projection = PatchEmbed(attended, outputs - attended)
        self.mhca = ConvAttention(outputs - attended)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.mlp = ConvMlp(outputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        x = self.patch_embed(x)
        tokens = self.e_mhsa(self.norm1(x).flatten(2).transpose(1, 2))
        x = x + tokens.transpose(1, 2).unflatten(2, x.shape[-2:])
        convolved = self.projection(x)
        x = torch.cat([x, convolved + self.mhca(convolved)], 1)
        return x + self.mlp(self.norm2(x))


class NextVitNetwork(nn.Module):
    """Normalised RGB → the outputs of the tapped blocks."""

    def __init__(self, taps: Sequence[int]) -> None:
        super().__init__()
        self._taps = tuple(taps)
        stem = ((3, 64, 2), (64, 32, 1), (32, 64, 1), (64, 64, 2))
        self.stem = nn.Sequential(*(ConvNormRelu(*sizes) for sizes in stem))
        blocks: list[nn.Module] = []
        width = 64
        for stage, depth in enumerate(_DEPTHS):
            convolved, mixed, every = ((96, 0, 0), (192, 256, 4), (384, 512, 5), (768, 1024, 3))[stage]
            for n in range(depth):
                stride = 2 if stage and n == 0 else 1
                if every and (n + 1) % every == 0:
                    blocks.append(TransformerBlock(width, mixed, stride, (8, 4, 2, 1)[stage]))
                    width = mixed
                else:
                    blocks.append(ConvBlock(width, convolved, stride))
                    width = convolved
        self.features = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(width)  # this and the classifier are in the file, and unused
        self.proj_head = nn.Sequential(nn.Linear(width, _CLASSES))

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W → N×C×h×w each."""
        x = self.stem(x)
        maps = []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in self._taps:
                maps.append(x)
        return maps


class NextVit(nn.Module):
    """Next-ViT-L: maps of strides 4 to 32."""

    channels = (96, 256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.model = NextVitNetwork(_TAPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 32 → four maps, finest first."""
        return self.model(x)
