"""Depth Anything V1 in metres: the relative model with ZoeDepth's head (Bhat et al. 2023, arXiv:2302.12288).

The head places 64 depths ("bins") in each part of the picture and weighs them pixel by pixel.
Invariant: keys are those of `depth_anything_metric_depth_indoor.pt`, without its two constants.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stream.models.depth_anything.dinov2 import grid_of
from stream.models.depth_anything.network import DepthAnything, DepthHead
from stream.models.layers import size_of, upsample

_BINS = 64
_ATTRACTORS = (16, 8, 4, 1)
"""Number at each of the decoder's levels, coarsest first."""
_STRENGTH = 300.0
"""Of the attractors. The configuration of the checkpoints says 1000, which the official code does not use."""
_SEED_WIDTH, _WIDTH, _LAST_WIDTH = 256, 128, 32
"""Channels of the coarsest map, of the embeddings of bins, and of the relative model's last features."""
_COLDEST, _HOTTEST = 0.0212, 50.0
"""Range of the temperature that a pixel's weights are computed at."""
_EPS, _EPS_LOG = 1e-4, 1e-7


class _Mlp(nn.Module):
    """Two 1×1 convolutions with a ReLU between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self._net = nn.Sequential(nn.Conv2d(inputs, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×H×W in the last layer's precision."""
        first, relu, last = self._net
        return last(relu(first(x)).to(last.weight.dtype))


class _Core(nn.Module):
    """The relative model; the official code wraps it, and keys say so."""

    def __init__(self, core: DepthAnything) -> None:
        super().__init__()
        self.core = core


class _Binomial(nn.Module):
    """Features of a pixel → weights of its bins: a binomial distribution, sharpened or flattened by a temperature."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(channels, channels // 2, 1), nn.GELU(), nn.Conv2d(channels // 2, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → float32 N×64×H×W whose sum over the bins is 1."""
        first, gelu, last = self.mlp
        p0, p1, t0, t1 = F.softplus(last(gelu(first(x)).to(last.weight.dtype)).float()).split(1, 1)
        p = _share(p0, p1)
        temperature = _COLDEST + (_HOTTEST - _COLDEST) * _share(t0, t1)
        k = torch.arange(_BINS, device=x.device, dtype=torch.float32).view(-1, 1, 1)
        last_bin = float(_BINS - 1)
        logits = _log_coefficients(k) + k * p.clamp(_EPS, 1.0).log() + (last_bin - k) * (1 - p).clamp(_EPS, 1.0).log()
        return (logits / temperature).softmax(1)


def _share(one: Tensor, other: Tensor) -> Tensor:
    return (one + _EPS) / (one + other + 2 * _EPS)


def _log_coefficients(k: Tensor) -> Tensor:
    """Logarithms of the binomial coefficients of 63 over k by Stirling's formula without its last term.

    The checkpoints were trained with it; the exact coefficients move the result by 10 % of its standard deviation.
    """
    n, k = _BINS - 1 + torch.full_like(k, _EPS_LOG), k + _EPS_LOG
    return n * n.log() - k * k.log() - (n - k) * (n - k + _EPS_LOG).log()


class ZoeDepthAnything(nn.Module):
    """Normalised RGB → metres, without an upper limit.

    Args:
        width, depth, heads, taps, channels, outputs: see `DepthAnything`.
    """

    def __init__(
        self, *, width: int, depth: int, heads: int, taps: Sequence[int], channels: int, outputs: Sequence[int]
    ) -> None:
        super().__init__()
        core = DepthAnything(width=width, depth=depth, heads=heads, taps=taps, channels=channels, outputs=outputs)
        self.core = _Core(core)
        self.conv2 = nn.Conv2d(channels, _SEED_WIDTH, 1)
        self.seed_bin_regressor = _Mlp(_SEED_WIDTH, _SEED_WIDTH, _BINS)
        self.seed_projector = _Mlp(_SEED_WIDTH, _WIDTH, _WIDTH)
        self.projectors = nn.ModuleList(_Mlp(channels, _WIDTH, _WIDTH) for _ in _ATTRACTORS)
        self.attractors = nn.ModuleList(_Mlp(_WIDTH, _WIDTH, count) for count in _ATTRACTORS)
        self.conditional_log_binomial = _Binomial(_LAST_WIDTH + 1 + _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W, sides multiples of 14 → N×H×W."""
        core, grid_hw = self.core.core, grid_of(x)
        coarsest, paths = _decoded(core.depth_head, core.pretrained(x), grid_hw)
        features, relative = _last(core.depth_head, paths[-1], grid_hw)

        seed = self.conv2(coarsest)
        bins, embedding = F.softplus(self.seed_bin_regressor(seed)), self.seed_projector(seed)
        for path, projector, attractor in zip(paths, self.projectors, self.attractors, strict=True):
            embedded = projector(path)
            points = F.softplus(attractor(embedded + upsample(embedding, size_of(path))))
            bins = _attracted(upsample(bins, size_of(path)), points)
            embedding = embedded

        # No constraint on the order of bins: the weights' order is that of training.
        known = torch.cat([features, relative.to(features.dtype), upsample(embedding, size_of(x))], 1)
        weights = self.conditional_log_binomial(known)
        return (weights * upsample(bins.float(), size_of(x))).sum(1)


def _attracted(bins: Tensor, points: Tensor) -> Tensor:
    """N×64×H×W moved towards N×A×H×W points, by the mean of what each exerts."""
    distance = points[:, :, None] - bins[:, None]
    return bins + (distance / (1 + _STRENGTH * distance.square())).mean(1)


def _decoded(head: DepthHead, tokens: Sequence[Tensor], grid_hw: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
    """The coarsest map that enters the decoder, and the decoder's path after each level, coarsest first."""
    maps = [resize(x) for x, resize in zip(head.projected(tokens, grid_hw), head.resize_layers, strict=True)]
    maps = [head.scratch.reduced(level, x) for level, x in enumerate(maps, 1)]
    paths: list[Tensor] = []
    for level in range(len(maps), 0, -1):
        size_hw = size_of(maps[level - 2]) if level > 1 else None
        paths.append(head.scratch.fused(level, paths[-1] if paths else None, maps[level - 1], size_hw))
    return maps[-1], paths


def _last(head: DepthHead, path: Tensor, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The relative model's last features, N×32×14h×14w, and its disparity."""
    first, relu, last = head.scratch.output_conv2  # type: ignore[misc]
    features = relu(first(head.enlarged(path, grid_hw)))
    return features, F.relu(last(features.to(last.weight.dtype)))
