"""EfficientNet-Lite's blocks, shared by `starter` (Lite0) and MiDaS v2.1 small (Lite3).

TensorFlow's `efficientnet_lite_builder.py`: EfficientNet (Tan & Le 2019, arXiv:1905.11946) without squeeze-excitation,
with ReLU6. Invariant: keys are timm's for `tf_efficientnet_lite*` (its implementation is 1.2 to 1.4 times as slow).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import SameConv2d

STEM_CHANNELS = 32
_STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
"""Kernel, stride and expansion of each stage; the same for every size."""
_BN_EPS = 1e-3  # TensorFlow's default; PyTorch's is 1e-5


def _conv(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> SameConv2d:
    return SameConv2d(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=_BN_EPS)


def stem_conv() -> SameConv2d:
    """N×3×H×W → N×32×H/2×W/2."""
    return _conv(3, STEM_CHANNELS, 3, stride=2)


class SeparableBlock(nn.Module):
    """Depthwise and pointwise convolution, without expansion."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _conv(inputs, inputs, kernel, stride=stride, groups=inputs)
        self.bn1 = batch_norm(inputs)
        self.conv_pw = _conv(inputs, outputs)
        self.bn2 = batch_norm(outputs)
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
        self.conv_pw = _conv(inputs, hidden)
        self.bn1 = batch_norm(hidden)
        self.conv_dw = _conv(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.bn2 = batch_norm(hidden)
        self.conv_pwl = _conv(hidden, outputs)
        self.bn3 = batch_norm(outputs)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        y: Tensor = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.has_skip else y


def stages(channels: Sequence[int], repeats: Sequence[int]) -> list[nn.Sequential]:
    """The seven stages after the stem; strides 2, 4, 8, 16, 16, 32 and 32 of the picture.

    Args:
        channels, repeats: output channels and number of blocks of each stage.
    """
    built, width = [], STEM_CHANNELS
    for (kernel, stride, expansion), outputs, count in zip(_STAGES, channels, repeats, strict=True):
        blocks: list[nn.Module] = []
        for n in range(count):
            step = 1 if n else stride
            if expansion == 1:
                blocks.append(SeparableBlock(width, outputs, kernel, step))
            else:
                blocks.append(InvertedResidual(width, outputs, kernel, step, expansion))
            width = outputs
        built.append(nn.Sequential(*blocks))
    return built
