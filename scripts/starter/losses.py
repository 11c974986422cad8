"""Losses for depth that is known in places only: scale- and shift-invariant, and strict at outlines.

Predictions and truths are N×H×W inverse depth; the truth is below 0 where nothing was measured.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PAIRS = 3000
APART = math.log(1.1)
"""Ranked pairs differ by at least this in log depth, and pairs across an outline by twice as much."""
REACHES = (2, 4)
"""Pixels across an outline."""


def normalised(disparity: Tensor, known: Tensor) -> Tensor:
    """Shift by the median of the known pixels, scale by their mean absolute deviation, each picture by itself."""
    nan = torch.full_like(disparity, math.nan)
    sparse = torch.where(known, disparity, nan)[:, ::2, ::2].flatten(1)
    full = torch.where(known, disparity, nan).flatten(1)
    few = torch.isnan(sparse).all(1)
    middle = torch.where(few, full.nanmedian(1).values, sparse.nanmedian(1).values)[:, None, None].nan_to_num()
    spread = ((disparity - middle).abs() * known).sum((1, 2)) / known.sum((1, 2)).clamp(min=1)
    return (disparity - middle) / spread.clamp(min=1e-4)[:, None, None]


def depth_loss(predicted: Tensor, inverse: Tensor, gradient: float, ordinal: float, outline: float) -> Tensor:
    """L1 + multi-scale gradients (Ranftl et al. 2020) + ranked pairs (Chen et al. 2016) + steps across outlines, ranked
    and of the right height (after Xian et al. 2020, "Structure-guided ranking loss"); weights of the last three."""
    known = inverse >= 0
    ours = normalised(predicted, known)
    truth = normalised(inverse, known).clamp(-6, 10)
    weight = known.float()
    difference = (ours - truth) * weight
    total = difference.abs().sum() / weight.sum().clamp(min=1)
    for scale in range(4):
        step = 2**scale
        e, w = difference[:, ::step, ::step], weight[:, ::step, ::step]
        for axis in (1, 2):
            a, b = _shifted(e, 1, axis)
            both = torch.mul(*_shifted(w, 1, axis))
            total = total + gradient * ((a - b).abs() * both).sum() / both.sum().clamp(min=1)
    deep = torch.log(inverse.clamp(min=0) + 1e-3)
    total = total + ordinal * _ranked(ours.flatten(1), deep.flatten(1), weight.flatten(1))
    return total + outline * _outlines(ours, truth, deep, known)


def _shifted(x: Tensor, by: int, axis: int) -> tuple[Tensor, Tensor]:
    size = x.shape[axis] - by
    return x.narrow(axis, 0, size), x.narrow(axis, by, size)


def _ranked(ours: Tensor, deep: Tensor, weight: Tensor) -> Tensor:
    index = torch.multinomial(weight + 1e-9, 2 * PAIRS, replacement=True)
    first, second = index[:, :PAIRS], index[:, PAIRS:]
    apart = deep.gather(1, first) - deep.gather(1, second)
    counts = (apart.abs() > APART) * weight.gather(1, first) * weight.gather(1, second)
    margin = (ours.gather(1, first) - ours.gather(1, second)) * apart.sign()
    return (F.softplus(-4 * margin) * counts).sum() / counts.sum().clamp(min=1)


def _outlines(ours: Tensor, truth: Tensor, deep: Tensor, known: Tensor) -> Tensor:
    total, number = ours.new_zeros(()), ours.new_zeros(())
    for axis in (1, 2):
        for reach in REACHES:
            near, far = _shifted(deep, reach, axis)
            both = torch.logical_and(*_shifted(known, reach, axis))
            edge = (((near - far).abs() > 2 * APART) & both).float()
            a, b = _shifted(ours, reach, axis)
            c, d = _shifted(truth, reach, axis)
            height = (c - d).abs()
            error = ((a - b) - (c - d)).abs() / (height + 0.15) + 0.5 * F.softplus(-4 * (a - b) * (near - far).sign())
            total, number = total + (error * edge).sum(), number + edge.sum()
    return total / number.clamp(min=1)


def unsteadiness(still: Tensor, other: Tensor, grid: Tensor) -> Tensor:
    """As train.py's: error of depth that should have moved with the image, in mean deviations of the depth."""
    expected = F.grid_sample(still[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    inside = (grid.abs() < 1).all(-1)
    spread = (still - still.mean((1, 2), keepdim=True)).abs().mean((1, 2)).detach()
    return ((other - expected).abs() * inside).mean((1, 2)).div(spread.clamp(min=1e-4)).mean()
