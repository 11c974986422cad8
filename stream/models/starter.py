"""The built-in model: an EfficientNet-Lite0 encoder with a light feature-pyramid decoder, 3.2 M parameters.

Invariant: the state-dict keys are those of `stream/data/starter.safetensors`, so weights trained later load unchanged.
The encoder is our own, with timm's key names for `tf_efficientnet_lite0`: timm's is 1.35 times as slow, and importing
timm takes 3 s.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models import efficientnet_lite

ENCODER_CHANNELS, ENCODER_REPEATS = (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)
"""EfficientNet-Lite0."""
TAPPED_STAGES = (0, 1, 2, 4, 6)
"""The last stage of each stride, 2 to 32."""
DECODER_CHANNELS = (24, 32, 64, 96, 128)
"""Finest level first."""


class StarterEncoder(nn.Module):
    """EfficientNet-Lite0 without its classifier: maps of strides 2 to 32."""

    channels = tuple(ENCODER_CHANNELS[stage] for stage in TAPPED_STAGES)

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = efficientnet_lite.stem_conv()
        self.bn1 = efficientnet_lite.batch_norm(efficientnet_lite.STEM_CHANNELS)
        self.blocks = nn.Sequential(*efficientnet_lite.stages(ENCODER_CHANNELS, ENCODER_REPEATS))

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W → five maps, stride 2 first."""
        x = F.relu6(self.bn1(self.conv_stem(x)), inplace=True)
        maps = []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in TAPPED_STAGES:
                maps.append(x)
        return maps


def _conv_bn(inputs: int, outputs: int, kernel: int = 1, *, groups: int = 1, relu6: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if relu6 else nn.Sequential(*layers)


class Refine(nn.Module):
    """A residual unit of two depthwise-separable convolutions."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.m = nn.Sequential(
            _conv_bn(channels, channels, kernel, groups=channels, relu6=True),
            _conv_bn(channels, channels, relu6=True),
            _conv_bn(channels, channels, 3, groups=channels, relu6=True),
            _conv_bn(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        return F.relu6(x + self.m(x), inplace=True)


class Starter(nn.Module):
    """Normalised RGB → relative inverse depth: larger = nearer, unbounded, without a final ReLU.

    Sides must be multiples of 32. Attribute names are those of the weights file: `lat` adds the encoder's map to each
    level, `red` reduces the coarser level to as many channels, `ref` refines the sum, `ctx` is the global context;
    index 0 is the finest level.
    """

    def __init__(self) -> None:
        super().__init__()
        maps, channels = StarterEncoder.channels, DECODER_CHANNELS
        coarsest = channels[-1]
        self.enc = StarterEncoder()
        self.lat = nn.ModuleList(_conv_bn(e, c) for e, c in zip(maps, channels, strict=True))
        self.ctx = nn.Sequential(nn.Linear(maps[-1], coarsest), nn.ReLU(), nn.Linear(coarsest, coarsest))
        self.red = nn.ModuleList(_conv_bn(channels[level + 1], channels[level]) for level in range(4))
        self.ref = nn.ModuleList(Refine(c, 3 if level == 0 else 5) for level, c in enumerate(channels))
        self.head = nn.Sequential(nn.Conv2d(channels[0], 16, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        maps = self.enc(x)
        context = self.ctx(maps[-1].mean((2, 3)))
        y = self.ref[4](self.lat[4](maps[4]) + context[:, :, None, None])
        for level in (3, 2, 1, 0):
            coarser = _resize(self.red[level](y), maps[level].shape[-2:])
            y = self.ref[level](self.lat[level](maps[level]) + coarser)
        first, relu, last = self.head
        y = last(relu(first(y)).to(last.weight.dtype))
        return _resize(_mend_corners(y), x.shape[-2:])[:, 0]


def _resize(x: Tensor, size_hw: torch.Size) -> Tensor:
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)


def _mend_corners(y: Tensor) -> Tensor:
    """Give each corner the mean of its two neighbours.

    Padding meets itself there, and training hardly sees corners: one came out twice as near as anything in the picture,
    which left half of the colours to all the rest.
    """

    def mended(row: Tensor, inner: Tensor) -> Tensor:
        left, right = (row[..., 1:2] + inner[..., :1]) / 2, (row[..., -2:-1] + inner[..., -1:]) / 2
        return torch.cat([left, row[..., 1:-1], right], -1)

    top, bottom = mended(y[:, :, :1], y[:, :, 1:2]), mended(y[:, :, -1:], y[:, :, -2:-1])
    return torch.cat([top, y[:, :, 1:-1], bottom], 2)
