"""Layers that architectures share: same-padded convolutions, parts of transformers, tables for each input size.

Invariant: folding changes no output by more than rounding (1e-5 of its standard deviation for `starter`).
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, which is asymmetric for stride 2 and even sizes."""

    padded_weights: "SizeCache | None" = None
    """Set by `fold_for_inference`: weights that no longer change are padded once."""

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W → N×C'×⌈H/s⌉×⌈W/s⌉."""
        height, width = x.shape[-2:]
        total_h = same_padding(height, self.kernel_size[0], self.stride[0])
        total_w = same_padding(width, self.kernel_size[1], self.stride[1])
        # An odd total needs one more pixel of padding after the input than before it. A row or column of zeros in front
        # of the kernel does the same without copying the input: 290 instead of 806 µs for the largest map of `starter`.
        odd_hw = (total_h % 2, total_w % 2)
        weight = self.weight
        if any(odd_hw):
            cache, compute = self.padded_weights, partial(F.pad, weight, (odd_hw[1], 0, odd_hw[0], 0))
            weight = compute() if cache is None else cache.get(odd_hw, weight.device, weight.dtype, compute)
        padding = ((total_h + 1) // 2, (total_w + 1) // 2)
        return F.conv2d(x, weight, self.bias, self.stride, padding, 1, self.groups)


def same_padding(side: int, kernel: int, stride: int) -> int:
    """Pixels of padding on both sides together; of an odd number, the larger half comes last."""
    return max((-(-side // stride) - 1) * stride + kernel - side, 0)


class StandardizedConv2d(SameConv2d):
    """Same-padded convolution whose kernels have zero mean and unit variance (Qiao et al. 2019, arXiv:1903.10520).

    `fold_for_inference` standardises the weights once; `forward` does not.
    """

    _EPS = 1e-8  # of BiT and timm's ResNetV2

    def standardize(self) -> None:
        """Standardise the weights, in place."""
        flat = self.weight.double().flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, keepdim=True, correction=0) + self._EPS).sqrt()
        self.weight.data.copy_(flat.view_as(self.weight))


class Mergeable(nn.Module, ABC):
    """A module that is trained as a sum of convolutions and merges them, and their batch norms, by itself."""

    @abstractmethod
    def merge(self) -> None:
        """Merge what can be merged, in place; again it changes nothing."""


def fold_for_inference(network: nn.Module, *, merge_norms: bool = True) -> None:
    """Do in advance, and in place, the work that depends on the weights only: merge norms, standardise kernels.

    Changes the tensors of the network, but not a file that they are mapped from (the mapping is private). Expects a
    network in eval mode whose modules register each batch norm right after the layer that feeds it, or are `Mergeable`.

    Args:
        merge_norms: merge batch norms into convolutions, and branches into one.
    """
    for module in network.modules():
        if isinstance(module, StandardizedConv2d):
            module.standardize()
        if isinstance(module, SameConv2d):
            module.padded_weights = SizeCache()
    if merge_norms:
        fold_batch_norms(network)


def fold_batch_norms(module: nn.Module) -> None:
    """Merge each batch norm into the convolution registered right before it, and `Mergeable` modules, in place."""
    if isinstance(module, Mergeable):
        module.merge()
        return
    previous: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            merge_norm(child, previous)
            setattr(module, name, nn.Identity())
        else:
            fold_batch_norms(child)
        previous = child


def merge_norm(norm: nn.BatchNorm2d, conv: nn.Conv2d, *others: nn.Conv2d) -> Tensor:
    """Merge a batch norm into the convolution before it, or into those whose sum it normalises.

    Modifies weights in place: copy-on-write duplicates only the touched pages of the memory-mapped file; a new tensor
    would double the memory.

    Returns:
        The bias, which `conv` has now.

    Raises:
        ValueError: the norm has no running statistics, or `others` have biases.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a batch norm without running statistics cannot be merged")
    if any(other.bias is not None for other in others):
        raise ValueError("only the first convolution of a sum may have a bias")
    scale = norm.weight.data * torch.rsqrt(variance + norm.eps)
    bias = 0 if conv.bias is None else conv.bias.data
    for each in (conv, *others):
        each.weight.data.mul_(scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter(norm.bias.data + (bias - mean) * scale, requires_grad=False)
    return conv.bias


class Mlp(nn.Module):
    """Linear layer, exact GELU, linear layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """…×C → …×C."""
        return self.fc2(F.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values, as in ViT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """N×L×C → N×L×C."""
        q, k, v = split_heads(self.qkv(x), self.heads)
        return self.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """N×L×3C, queries first → three of N×heads×L×C/heads."""
    batch, length, width = qkv.shape
    q, k, v = qkv.view(batch, length, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    return q, k, v


def merge_heads(x: Tensor) -> Tensor:
    """N×heads×L×C/heads → N×L×C."""
    return x.transpose(1, 2).flatten(2)


_kept: ContextVar[list[Tensor] | None] = ContextVar("_kept", default=None)


@contextmanager
def tables_kept() -> Iterator[list[Tensor]]:
    """Collect the tables that `SizeCache` gives in this context, so that they outlive the cache's own keeping."""
    tables: list[Tensor] = []
    token = _kept.set(tables)
    try:
        yield tables
    finally:
        _kept.reset(token)


class SizeCache:
    """Tables computed once for each input size, such as resampled position tables; keeps the most recently used ones.

    Not part of the state dict. A copy of a network starts with empty caches.
    """

    _SIZES = 8

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()

    def __deepcopy__(self, _memo: object) -> "SizeCache":
        return SizeCache()

    def get(
        self, size_hw: tuple[int, int], device: torch.device, dtype: torch.dtype, compute: Callable[[], Tensor]
    ) -> Tensor:
        """The table for `size_hw` on `device` and in `dtype`; `compute` makes it if it is not cached."""
        key = (size_hw, device, dtype)
        table = self._tables.pop(key, None)
        if table is None:
            table = compute().to(device, dtype)
        self._tables[key] = table
        if (kept := _kept.get()) is not None:
            kept.append(table)
        while len(self._tables) > self._SIZES:
            self._tables.popitem(last=False)
        return table


def upsample(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """N×C×H×W → N×C×h×w, bilinear with aligned corners, as in the official decoders."""
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=True)


def size_of(x: Tensor) -> tuple[int, int]:
    """(height, width) of N×C×H×W."""
    return int(x.shape[-2]), int(x.shape[-1])


def doubled(x: Tensor) -> tuple[int, int]:
    """Twice the (height, width) of N×C×H×W."""
    height, width = size_of(x)
    return 2 * height, 2 * width
