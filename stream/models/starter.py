"""The built-in model: an EfficientNet-Lite0 encoder with a light feature-pyramid decoder, 3.2 M parameters.

Invariant: the state-dict keys are those of `stream/data/starter.safetensors`, so weights trained later load unchanged.
The encoder is written here, with timm's key names for `tf_efficientnet_lite0`: importing timm takes longer than
running the model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import SameConv2d

ENCODER_STAGES = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""EfficientNet-Lite0 (TensorFlow's `efficientnet_lite_builder.py`): EfficientNet-B0 without squeeze-excitation."""
TAPPED_STAGES = (0, 1, 2, 4, 6)
"""The last stage of each stride, 2 to 32."""
DECODER_CHANNELS = (24, 32, 64, 96, 128)
"""Finest level first."""
_ENCODER_BN_EPS = 1e-3  # TensorFlow's default; PyTorch's is 1e-5


def _same_conv(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> SameConv2d:
    return SameConv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)


def _encoder_bn(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_ENCODER_BN_EPS)


class SeparableBlock(nn.Module):
    """Depthwise then pointwise convolution, without expansion."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _same_conv(inputs, inputs, kernel, stride=stride, groups=inputs)
        self.bn1 = _encoder_bn(inputs)
        self.conv_pw = _same_conv(inputs, outputs)
        self.bn2 = _encoder_bn(outputs)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        y: Tensor = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        y = self.bn2(self.conv_pw(y))
        return y + x if self.has_skip else y


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.conv_pw = _same_conv(inputs, hidden)
        self.bn1 = _encoder_bn(hidden)
        self.conv_dw = _same_conv(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.bn2 = _encoder_bn(hidden)
        self.conv_pwl = _same_conv(hidden, outputs)
        self.bn3 = _encoder_bn(outputs)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        y: Tensor = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.has_skip else y


class Encoder(nn.Module):
    """EfficientNet-Lite0 without its classifier; gives the feature maps of strides 2 to 32."""

    channels = tuple(ENCODER_STAGES[stage][4] for stage in TAPPED_STAGES)

    def __init__(self) -> None:
        super().__init__()
        width = 32
        self.conv_stem = _same_conv(3, width, 3, stride=2)
        self.bn1 = _encoder_bn(width)
        stages = []
        for repeats, kernel, stride, expansion, outputs in ENCODER_STAGES:
            blocks: list[nn.Module] = []
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                if expansion == 1:
                    blocks.append(SeparableBlock(width, outputs, kernel, step))
                else:
                    blocks.append(InvertedResidual(width, outputs, kernel, step, expansion))
                width = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)

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
    """Normalised RGB in, relative inverse depth out: larger = nearer, unbounded, without a final ReLU.

    Sides must be multiples of 32. Attribute names are those of the weights file: `lat` adds the encoder's map to each
    level, `red` brings the coarser level down to it, `ref` refines, `ctx` is the global context; index 0 is the finest.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = DECODER_CHANNELS
        coarsest = channels[-1]
        self.enc = Encoder()
        self.lat = nn.ModuleList(_conv_bn(e, c) for e, c in zip(Encoder.channels, channels, strict=True))
        self.ctx = nn.Sequential(nn.Linear(Encoder.channels[-1], coarsest), nn.ReLU(), nn.Linear(coarsest, coarsest))
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
        return _resize(self.head(y), x.shape[-2:])[:, 0]


def _resize(x: Tensor, size_hw: torch.Size) -> Tensor:
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)
