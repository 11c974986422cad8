"""ResNeXt-101 32×8d (Xie et al. 2017, arXiv:1611.05431), encoder of MiDaS v2.1; it is timm's.

Invariant: keys are those of `midas_v21_384.pt` under `pretrained.`.
"""

from typing import Any

from torch import nn

from stream.models.backbones import ResNet, ResNetBottleneck
from stream.models.midas.v21 import FourLayers


class ResNext101(FourLayers):
    """ResNeXt-101 32×8d without its classifier; the stem belongs to the first layer."""

    channels = (256, 512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        network: Any = ResNet(ResNetBottleneck, (3, 4, 23, 3), num_classes=0, cardinality=32, base_width=8)  # type: ignore[arg-type]
        self.layer1 = nn.Sequential(network.conv1, network.bn1, network.act1, network.maxpool, network.layer1)
        self.layer2, self.layer3, self.layer4 = network.layer2, network.layer3, network.layer4
