"""MiDaS v2.1 (Ranftl et al. 2019, arXiv:1907.01341): the small model's encoder and the large model's decoder block.

Invariant: keys are those of `midas_v21_384.pt` and `midas_v21_small_256.pt` under `pretrained.` and `scratch.`.
"""

from torch import Tensor, nn

from stream.models import efficientnet_lite
from stream.models.decoder import ResidualConvUnit, Skip
from stream.models.layers import doubled, upsample


class FourLayers(nn.Module):
    """An encoder of `layer1` to `layer4`, each of which gives a map."""

    channels: tuple[int, ...]

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 32 → four maps of strides 4 to 32."""
        maps = []
        for level in range(1, 5):
            x = getattr(self, f"layer{level}")(x)
            maps.append(x)
        return maps


class EfficientNetLite3(FourLayers):
    """EfficientNet-Lite3 without its classifier; not timm's, which is 1.2 to 1.4 times as slow."""

    channels = (32, 48, 136, 384)

    def __init__(self) -> None:
        super().__init__()
        stages = efficientnet_lite.stages((24, 32, 48, 96, 136, 232, 384), (1, 3, 3, 5, 5, 6, 1))
        stem = efficientnet_lite.stem_conv(), efficientnet_lite.batch_norm(efficientnet_lite.STEM_CHANNELS)
        self.layer1 = nn.Sequential(*stem, nn.ReLU6(inplace=True), *stages[:2])
        self.layer2 = nn.Sequential(*stages[2:3])
        self.layer3 = nn.Sequential(*stages[3:5])
        self.layer4 = nn.Sequential(*stages[5:])


class RectifiedFusion(nn.Module):
    """`decoder.FeatureFusion` of the large model: without a final convolution, and with rectified skips."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        if channels != outputs:
            raise ValueError(f"this fusion keeps {channels} channels and cannot give {outputs}")
        self.resConfUnit1 = ResidualConvUnit(channels, skip=Skip.RECTIFIED)
        self.resConfUnit2 = ResidualConvUnit(channels, skip=Skip.RECTIFIED)

    def forward(self, path: Tensor, skip: Tensor | None = None, *, size_hw: tuple[int, int] | None = None) -> Tensor:
        """N×C×H×W → N×C×h×w with (h, w) = `size_hw`, or twice the size."""
        if skip is not None:
            path = path + self.resConfUnit1(skip)
        return upsample(self.resConfUnit2(path), size_hw or doubled(path))
