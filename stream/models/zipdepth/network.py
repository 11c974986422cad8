"""ZipDepth (base): a convolutional network that runs at camera speed on a CPU. https://github.com/fabiotosi92/ZipDepth

Invariant: keys are those of the published files, which hold the form of training: branches that are added, each with a
batch norm of its own. `fold_for_inference` makes one convolution of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.layers import Mergeable, doubled, merge_norm, size_of

_CROSS_SCALE = 0.3
"""Factor of what the two coarsest maps give each other."""
_FUSION_GROUPS = 4
_NEIGHBOURS = 9
"""Of the 3×3 window that a pixel of the depth map is mixed from."""


def _conv(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = _conv(inputs, outputs, kernel, stride=stride)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class RepBlock(Mergeable):
    """RepVGG's block: a 3×3 and a 1×1 convolution and the input itself, added (Ding et al. 2021, arXiv:2101.03697).

    The input, unlike RepVGG's, has no batch norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.branch_3x3 = nn.Sequential(_conv(inputs, outputs, 3, stride=stride), nn.BatchNorm2d(outputs))
        self.branch_1x1: nn.Sequential | None = nn.Sequential(
            _conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        )
        self.has_skip = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H/s×W/s."""
        y: Tensor = self.branch_3x3(x)
        if self.branch_1x1 is not None:
            y = y + self.branch_1x1(x)
            y = y + x if self.has_skip else y
        return F.relu(y, inplace=True)

    def merge(self) -> None:
        """Make the 3×3 convolution the whole block, in place."""
        if self.branch_1x1 is None:
            return
        whole, bias = _merged(self.branch_3x3)
        point, point_bias = _merged(self.branch_1x1)
        centre = whole.weight.data[:, :, 1, 1]
        centre += point.weight.data[:, :, 0, 0]
        if self.has_skip:
            centre.diagonal().add_(1)
        bias += point_bias
        self.branch_1x1 = None


def _merged(branch: nn.Sequential) -> tuple[nn.Conv2d, Tensor]:
    """The convolution of a branch and its bias, with the branch's norm merged into both."""
    conv, norm = branch
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    bias = merge_norm(norm, conv)
    branch[1] = nn.Identity()
    return conv, bias


class TwoWindows(Mergeable):
    """The input, and two depthwise convolutions of it that see windows of 3×3 and 5×5 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch1 = _conv(channels, channels, 3, groups=channels)
        self.branch2 = _conv(channels, channels, 3, groups=channels, dilation=2)
        self.bn: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        return x + self.bn(self.branch1(x) + self.branch2(x))

    def merge(self) -> None:
        """Merge the batch norm of the sum into both convolutions."""
        if isinstance(self.bn, nn.BatchNorm2d):
            merge_norm(self.bn, self.branch1, self.branch2)
            self.bn = nn.Identity()


class AxisGate(nn.Module):
    """Weighs each pixel by the means of its row and of its column, channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate_conv = nn.Sequential(_conv(channels, channels, groups=channels), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        means = x.mean(3, keepdim=True) + x.mean(2, keepdim=True)
        return x * torch.sigmoid(self.gate_conv(means))


class ChannelGate(nn.Module):
    """Weighs each channel by the means of all (squeeze and excitation, Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(_conv(channels, hidden), nn.ReLU(inplace=True), _conv(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class GlobalContext(nn.Module):
    """Adds one vector to all pixels: their mean, weighed by attention (Cao et al. 2019, arXiv:1904.11492)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.context_weight = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        weights = self.context_weight(x).flatten(2).softmax(2)
        context = x.flatten(2) @ weights.transpose(1, 2)
        return x + self.transform(context[..., None])


class PooledPyramid(nn.Module):
    """Maxima over windows of 5, 9 and 13 pixels beside the map itself (YOLO's fast spatial pyramid pooling)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = ConvNorm(channels, channels // 4, 1)
        self.cv2 = ConvNorm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → the same shape."""
        maps = [self.cv1(x)]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], 5, 1, 2))
        return self.cv2(torch.cat(maps, 1))


class CrossScale(nn.Module):
    """Lets the two coarsest maps, of which one is twice as large as the other, see each other."""

    def __init__(self, fine: int, coarse: int) -> None:
        super().__init__()
        self.low_to_high = _conv(coarse, fine, groups=_FUSION_GROUPS)
        self.high_to_low = _conv(fine, coarse, groups=_FUSION_GROUPS)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """N×C×2H×2W and N×C'×H×W → the same shapes."""
        up = F.interpolate(self.low_to_high(coarse), scale_factor=2.0, mode="nearest")
        down = F.avg_pool2d(self.high_to_low(fine), 2)
        return fine + _CROSS_SCALE * up, coarse + _CROSS_SCALE * down


class Encoder(nn.Module):
    """Normalised RGB → maps of strides 2, 4, 8, 16 and 32 with 24, 48, 96, 192 and 384 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_half = ConvNorm(3, 24, 3, 2)
        self.stem_quarter = ConvNorm(24, 48, 3, 2)
        self.stage1 = _blocks(48, 2)
        self.down2 = RepBlock(48, 96, 2)
        self.stage2 = _blocks(96, 2, TwoWindows(96), AxisGate(96))
        self.down3 = RepBlock(96, 192, 2)
        self.stage3 = _blocks(192, 6, ChannelGate(192, 24), GlobalContext(192, 48))
        self.down4 = RepBlock(192, 384, 2)
        self.stage4 = _blocks(384, 2)
        self.spp = PooledPyramid(384)
        self.cross_scale = CrossScale(192, 384)

    def forward(self, x: Tensor) -> list[Tensor]:
        """N×3×H×W, sides multiples of 32 → five maps, finest first."""
        half = self.stem_half(x)
        quarter = self.stage1(self.stem_quarter(half))
        eighth = self.stage2(self.down2(quarter))
        fine = self.stage3(self.down3(eighth))
        coarse = self.spp(self.stage4(self.down4(fine)))
        return [half, quarter, eighth, *self.cross_scale(fine, coarse)]


def _blocks(channels: int, count: int, *further: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(RepBlock(channels, channels) for _ in range(count)), *further)


class Fusion(Mergeable):
    """Adds a coarser map to a finer one, each through a convolution in groups."""

    def __init__(self, fine: int, coarse: int, outputs: int) -> None:
        super().__init__()
        self.proj_high = _conv(fine, outputs, groups=_FUSION_GROUPS)
        self.proj_low = _conv(coarse, outputs, groups=_FUSION_GROUPS)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """N×C×H×W and N×C'×H/2×W/2 → N×C"×H×W."""
        # The official code enlarges first; a 1×1 convolution commutes with that and costs a quarter here.
        low = _enlarged(self.proj_low(coarse), size_of(fine))
        return F.relu(self.bn(self.proj_high(fine) + low), inplace=True)

    def merge(self) -> None:
        """Merge the batch norm of the sum into both convolutions."""
        if isinstance(self.bn, nn.BatchNorm2d):
            # Only the finer one gets a bias: it would be the same after enlarging.
            merge_norm(self.bn, self.proj_high, self.proj_low)
            self.bn = nn.Identity()


def _enlarged(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)


def _run(layers: nn.Sequential, x: Tensor) -> Tensor:
    """The layers, the last of which may have a precision of its own."""
    *first, last = layers
    for layer in first:
        x = layer(x)
    assert isinstance(last, nn.Conv2d)
    return last(x.to(last.weight.dtype))


class ConvexUpsampling(nn.Module):
    """Doubles a depth map: each pixel is a mean of a 3×3 window, with weights of its own (RAFT, arXiv:2003.12039)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask_pred = nn.Sequential(
            _conv(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4 * _NEIGHBOURS, 1)
        )

    def forward(self, depth: Tensor, features: Tensor) -> Tensor:
        """N×1×H×W and N×C×H×W → N×1×2H×2W."""
        height, width = size_of(depth)
        weights = _run(self.mask_pred, features).unflatten(1, (_NEIGHBOURS, 4)).softmax(1)
        around = F.pad(depth, (1, 1, 1, 1), mode="replicate")
        window = [around[..., dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
        return F.pixel_shuffle((weights * torch.stack(window, 1)).sum(1), 2)


class BlendedUpsampling(nn.Module):
    """Doubles a depth map: a mixture, pixel by pixel, of the nearest and the bilinear map; for neural processors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.where_conv = nn.Sequential(
            _conv(channels, 16),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            _conv(16, 16, 5, groups=16),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            _conv(16, 1),
        )

    def forward(self, depth: Tensor, features: Tensor) -> Tensor:
        """N×1×H×W and N×C×H×W → N×1×2H×2W."""
        size_hw = doubled(depth)
        share = torch.sigmoid(_enlarged(_run(self.where_conv, features), size_hw))
        nearest = F.interpolate(depth, scale_factor=2.0, mode="nearest")
        return share * nearest + (1 - share) * _enlarged(depth, size_hw)


class Decoder(nn.Module):
    """Five maps → disparity at twice the finest size."""

    def __init__(self, channels: Sequence[int], *, convex: bool) -> None:
        super().__init__()
        half, quarter, eighth, fine, coarse = channels
        self.proj4 = ConvNorm(coarse, 288, 1)
        self.fuse3 = Fusion(fine, 288, 192)
        self.fuse2 = Fusion(eighth, 192, 144)
        self.fuse1 = Fusion(quarter, 144, 96)
        self.fuse_half = Fusion(half, 96, 32)
        self.head_half = nn.Conv2d(32, 1, 3, padding=1)
        self.convex_up = ConvexUpsampling(32) if convex else BlendedUpsampling(32)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """N×C×H×W each, finest first → N×1×2H×2W of the finest, 0 or more."""
        half, quarter, eighth, fine, coarse = maps
        y = self.fuse3(fine, self.proj4(coarse))
        y = self.fuse2(eighth, y)
        y = self.fuse1(quarter, y)
        y = self.fuse_half(half, y)
        depth = self.head_half(y.to(self.head_half.weight.dtype))
        return F.relu(self.convex_up(depth, y))


class ZipDepth(nn.Module):
    """Normalised RGB → relative inverse depth, 0 or more: larger = nearer.

    Args:
        convex: the last enlargement mixes 3×3 windows (base), instead of blending two maps (npu).
    """

    def __init__(self, *, convex: bool) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder((24, 48, 96, 192, 384), convex=convex)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W, sides multiples of 32 → N×H×W."""
        return self.decoder(self.encoder(x))[:, 0]
