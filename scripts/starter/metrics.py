"""Scores a relative depth map: errors after aligning it to the truth, ordinal accuracy, sharpness at outlines.

Alignment: least squares (scale, shift) of the prediction to inverse depth over the valid pixels, as in MiDaS (Ranftl et
al. 2020, arXiv:1907.01341); AbsRel and δ<1.25 on depth (Eigen et al. 2014, arXiv:1406.2283); ordinal accuracy as the
share of random pixel pairs with depths more than 10 % apart that are ordered correctly (Chen et al. 2016,
arXiv:1604.03901).
"""

from dataclasses import astuple, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
PAIRS = 40_000
FARTHER = 1.1
"""Pairs count whose depths differ by more than this factor."""
OUTLINE = 1.25
"""Neighbouring depths (4 pixels apart at a height of 240) that differ by this factor are an outline."""


@dataclass(frozen=True)
class Score:
    """`sharpness`: the share of the step in inverse depth at outlines that the prediction has; NaN without outlines."""

    abs_rel: float
    delta1: float
    ordinal: float
    sharpness: float


def score(predicted: F64, inverse: F64, *, farthest: float | None, seed: int = 0) -> Score:
    """Compare a prediction with the truth.

    Args:
        predicted: H×W, relative inverse depth, larger = nearer.
        inverse: H×W, inverse depth or disparity; 0 or less = not measured.
        farthest: depths are capped at this many metres (10 indoors, 80 outdoors); None for disparity, which is capped
            at half its smallest value.
    """
    valid = inverse > 0
    x, y = predicted[valid].astype(float), inverse[valid].astype(float)
    scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
    least = 1 / farthest if farthest else 0.5 * y.min()
    ours, truth = 1 / np.maximum(scale * x + shift, least), 1 / y
    rng = np.random.default_rng(seed)
    i, j = rng.integers(0, len(x), (2, PAIRS))
    counts = np.maximum(truth[i] / truth[j], truth[j] / truth[i]) > FARTHER
    i, j = i[counts], j[counts]
    right = np.where(x[i] == x[j], 0.5, np.sign(x[i] - x[j]) == np.sign(y[i] - y[j]))
    return Score(
        abs_rel=float(np.mean(np.abs(ours - truth) / truth)),
        delta1=float(np.mean(np.maximum(ours / truth, truth / ours) < 1.25)),
        ordinal=float(right.mean()) if len(right) else float("nan"),
        sharpness=_sharpness(scale * predicted + shift, inverse, valid),
    )


def _sharpness(aligned: F64, inverse: F64, valid: NDArray[np.bool_]) -> float:
    """At 4:3 pictures of height 240, over 4 pixels across every outline: predicted step / true step, cut to 0…1."""
    k = 240 / inverse.shape[0]
    size = (max(8, round(inverse.shape[1] * k)), 240)
    ours = cv2.resize(aligned.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    truth = cv2.resize(np.where(valid, inverse, 0).astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    shares = []
    for axis in (0, 1):
        a, b = np.take(truth, range(truth.shape[axis] - 4), axis), np.take(truth, range(4, truth.shape[axis]), axis)
        p, q = np.take(ours, range(truth.shape[axis] - 4), axis), np.take(ours, range(4, truth.shape[axis]), axis)
        known = (a > 0) & (b > 0)
        ratio = np.where(known, np.maximum(a, b) / np.maximum(np.minimum(a, b), 1e-9), 1)
        edge = known & (ratio > OUTLINE)
        shares.append(np.clip(((p - q) / np.where(edge, a - b, 1))[edge], 0, 1))
    every = np.concatenate(shares)
    return float(every.mean()) if len(every) else float("nan")


def mean(scores: list[Score]) -> Score:
    """The mean of each figure, leaving out those that are not defined."""
    table = np.array([astuple(s) for s in scores], float)
    known = ~np.isnan(table)
    sums = np.where(known, table, 0).sum(0) / np.maximum(known.sum(0), 1)
    return Score(*(float(value) for value in sums))
