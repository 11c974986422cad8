"""The classes of timm (https://github.com/huggingface/pytorch-image-models) that MiDaS's encoders are built from.

Importing this module takes 3 s, most of it torchvision's import; `registry` imports it only for models that need it.
Invariant: no other module imports timm, so torchvision has always been made importable before.
"""

from stream.models.torchvision_ops import import_torchvision

import_torchvision()

from timm.layers.hybrid_embed import HybridEmbed  # noqa: E402
from timm.models.beit import Attention as BeitAttention  # noqa: E402
from timm.models.beit import Beit, gen_relative_position_index  # noqa: E402
from timm.models.nextvit import NextViT  # noqa: E402
from timm.models.resnet import Bottleneck as ResNetBottleneck  # noqa: E402
from timm.models.resnet import ResNet  # noqa: E402
from timm.models.resnetv2 import ResNetV2  # noqa: E402
from timm.models.swin_transformer import SwinTransformer  # noqa: E402
from timm.models.swin_transformer_v2 import SwinTransformerV2  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

__all__ = [
    "Beit",
    "BeitAttention",
    "HybridEmbed",
    "NextViT",
    "ResNet",
    "ResNetBottleneck",
    "ResNetV2",
    "SwinTransformer",
    "SwinTransformerV2",
    "VisionTransformer",
    "gen_relative_position_index",
]
