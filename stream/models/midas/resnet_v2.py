"""The ResNet-50 in front of `dpt_hybrid_384`: BiT's blocks with group norm and standardised kernels.

Kolesnikov et al. 2019 (arXiv:1912.11370), as in timm 0.6.12: `ResNetV2((3, 4, 9), preact=False, stem_type="same")`.
Invariant: keys are those of `dpt_hybrid_384.pt` under `pretrained.model.patch_embed.backbone.`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import StandardizedConv2d, same_padding

_GROUPS = 32


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> StandardizedConv2d:
    return StandardizedConv2d(inputs, outputs, kernel, stride=stride, bias=False)


class ConvNorm(nn.Module):
    """Convolution and group norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = _conv(inputs, outputs, kernel, stride)
        self.norm = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions around a skip."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = outputs // 4
        has_projection = stride != 1 or inputs != outputs
        self.downsample = ConvNorm(inputs, outputs, 1, stride) if has_projection else nn.Identity()
        self.conv1, self.norm1 = _conv(inputs, hidden), _norm(hidden)
        self.conv2, self.norm2 = _conv(hidden, hidden, 3, stride), _norm(hidden)
        self.conv3, self.norm3 = _conv(hidden, outputs), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        return F.relu(self.norm3(self.conv3(y)) + self.downsample(x), inplace=True)


class Stage(nn.Module):
    """Blocks of one resolution."""

    def __init__(self, inputs: int, outputs: int, depth: int, stride: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Bottleneck(outputs if n else inputs, outputs, 1 if n else stride) for n in range(depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        return self.blocks(x)


class ResNetV2(nn.Module):
    """Normalised RGB → maps of strides 4, 8 and 16."""

    channels = (256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 64, 7, 2)
        self.stages = nn.Sequential(Stage(64, 256, 3, 1), Stage(256, 512, 4, 2), Stage(512, 1024, 9, 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W → three maps, finest first."""
        x = F.relu(self.stem(x), inplace=True)
        extra_h, extra_w = (same_padding(side, 3, 2) for side in x.shape[-2:])
        pad = (extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2)
        x = F.max_pool2d(F.pad(x, pad), 3, 2)  # after a ReLU, zeros are as good as −∞
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
