"""The encoders and the decoder block of MiDaS v2.1 (Ranftl et al. 2019, arXiv:1907.01341).

Invariant: keys are those of `midas_v21_384.pt` and `midas_v21_small_256.pt` under `pretrained.` and `scratch.`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from stream.models import efficientnet_lite
from stream.models.layers import doubled, upsample

_GROUPS = 32
_GROUP_WIDTH = 8


class Bottleneck(nn.Module):
    """ResNeXt's block (Xie et al. 2017, arXiv:1611.05431), the stride in the 3×3 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = outputs * _GROUPS * _GROUP_WIDTH // 256
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=_GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def _stage(inputs: int, outputs: int, depth: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(outputs if n else inputs, outputs, 1 if n else stride) for n in range(depth)))


class FourLayers(nn.Module):
    """`layer1` to `layer4`, each giving a map."""

    channels: tuple[int, ...]

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 32 → four maps of strides 4 to 32."""
        maps = []
        for level in range(1, 5):
            x = self.get_submodule(f"layer{level}")(x)
            maps.append(x)
        return maps


class ResNext101(FourLayers):
    """ResNeXt-101 32×8d."""

    channels = (256, 512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
            _stage(64, 256, 3, 1),
        )
        self.layer2 = _stage(256, 512, 4, 2)
        self.layer3 = _stage(512, 1024, 23, 2)
        self.layer4 = _stage(1024, 2048, 3, 2)


class EfficientNetLite3(FourLayers):
    """EfficientNet-Lite3 without its classifier."""

    channels = (32, 48, 136, 384)

    def __init__(self) -> None:
        super().__init__()
        stages = efficientnet_lite.stages((24, 32, 48, 96, 136, 232, 384), (1, 3, 3, 5, 5, 6, 1))
        stem = efficientnet_lite.stem_conv(), efficientnet_lite.batch_norm(efficientnet_lite.STEM_CHANNELS)
        self.layer1 = nn.Sequential(*stem, nn.ReLU6(inplace=True), *stages[:2])
        self.layer2 = nn.Sequential(*stages[2:3])
        self.layer3 = nn.Sequential(*stages[3:5])
        self.layer4 = nn.Sequential(*stages[5:])


class ResidualConvUnit(nn.Module):
    """Two 3×3 convolutions around a skip; the official code's ReLU works in place, so the skip is rectified too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        x = F.relu(x)
        return self.conv2(F.relu(self.conv1(x), inplace=True)) + x


class Fusion(nn.Module):
    """`decoder.FeatureFusion` of the large model: without a convolution at the end."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        if channels != outputs:
            raise ValueError(f"channels stay {channels} here, not {outputs}")
        self.resConfUnit1 = ResidualConvUnit(channels)
        self.resConfUnit2 = ResidualConvUnit(channels)

    def forward(self, path: Tensor, skip: Tensor | None = None, *, size_hw: tuple[int, int] | None = None) -> Tensor:
        """N×C×H×W → N×C×h×w with (h, w) = `size_hw`, or twice the size."""
        if skip is not None:
            path = path + self.resConfUnit1(skip)
        return upsample(self.resConfUnit2(path), size_hw or doubled(path))
