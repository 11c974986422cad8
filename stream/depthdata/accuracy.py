"""How far a depth map is from a truth: the numbers that benchmarks print.

Invariant: all maps are measured at the same pixels, so leaving out pixels makes no map better.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.depthdata.alignment import rank_correlation, spread_over
from stream.frames import DepthMap

_SAMPLES = 250_000
_FLOOR = 0.01
"""Disparity per metre, below which all is equally far: 100 m."""
_PAIRS = 50_000
"""As many as Xian et al. 2020 (CVPR, Structure-Guided Ranking Loss) draw in a picture."""
_APART = 1.05
"""Pairs whose true depths differ by a smaller factor have no order: sensors are not more exact."""
_UNANSWERED = 1.0
"""Least error of a pixel without an answer: a constant map has 0.4 to 0.7 on most photos, and softened edges that a map
leaves out have more."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How far a map is from the truth, see `ACCURACY`."""

    abs_rel: float
    delta_1_25: float
    spearman: float
    compared: float


def errors(values: DepthMap, truth: DepthMap) -> Errors | None:
    """How far a map in the units of the truth is from it; None if it has no answer where a true depth is known.

    Args:
        values, truth: float32 H×W disparities, 1/m.
    """
    place = spread_over(np.isfinite(truth) & (truth > 0), _SAMPLES)
    true, found = (x.ravel()[place].astype(np.float64) for x in (truth, values))
    answered = ~np.isnan(found)
    if not answered.any():
        return None
    constant = np.full_like(true, true.mean())
    unanswered = max(_UNANSWERED, float(_error(constant, true).mean()))
    found = np.where(answered, found, constant)
    return Errors(
        abs_rel=float(np.where(answered, _error(found, true), unanswered).mean()),
        delta_1_25=float((answered & _close(found, true)).mean()),
        spearman=rank_correlation(found, true),
        compared=float(answered.mean()),
    )


def ordinal_accuracy(values: DepthMap, truth: DepthMap) -> float | None:
    """Share of the pairs of pixels that a map puts in the right order: which of the two is nearer.

    The pairs are random ones (with a fixed seed) whose true depths differ by 5 % or more. A tie and a pixel without an
    answer are wrong, so a map that says nothing has 0, and one that guesses 0.5. It needs no alignment.

    Args:
        values, truth: float32 H×W disparities; those of `values` in any unit.

    Returns:
        None if the truth has no such pair.
    """
    place = spread_over(np.isfinite(truth) & (truth > 0), _SAMPLES)
    if not place.size:
        return None
    first, second = np.random.default_rng(0).choice(place, (2, _PAIRS))
    true, found = truth.ravel(), values.ravel()
    near, far = np.maximum(true[first], true[second]), np.minimum(true[first], true[second])
    apart = near >= np.float32(_APART) * far
    if not apart.any():
        return None
    is_right = (true[first] > true[second]) & (found[first] > found[second])
    is_right |= (true[first] < true[second]) & (found[first] < found[second])
    return float(is_right[apart].mean())


def _error(found: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """|z − z*| / z* of each pixel."""
    return np.abs(np.maximum(true, _FLOOR) / np.maximum(found, _FLOOR) - 1)


def _close(found: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.bool_]:
    ratio = np.maximum(true, _FLOOR) / np.maximum(found, _FLOOR)
    return np.maximum(ratio, 1 / ratio) < 1.25
