"""Alignment of depth maps of different models by a scale and a shift, and numbers for how well they agree.

All maps are disparities (larger = nearer), in which relative models are defined up to scale and shift (Ranftl et al.
2019, arXiv:1907.01341, section 5); depths enter as 1/z. NaN marks a pixel without an answer, which no number includes.
Invariant: the results do not depend on the size of a map, and are always finite.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.depthdata.alignment import ScaleShift, averaged, rank_correlation
from stream.frames import DepthKind, DepthMap

_SAMPLES = 65_536
"""Number of pixels compared: 256×256 is enough for three digits."""
_NEAR, _FAR = 1.0, 0.1
"""Disparities assigned to the 99th and 1st percentile of a relative reference, as if the farthest point were ten times
as far as the nearest. AbsRel needs such a choice."""
_FLOOR = 0.01
"""Lower limit of disparities before they are inverted: 100 times as far as the nearest point."""
_CONSTANT = 1e-6
"""Standard deviation, in shares of the largest value, at which only rounding of float32 is left."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well a map agrees with a reference after alignment.

    Attributes:
        abs_rel: mean of |z − z_ref| / z_ref over depths z = 1 / disparity; 0 is best.
        delta_1_25: share of pixels with max(z / z_ref, z_ref / z) < 1.25; 1 is best.
        spearman: rank correlation of the disparities, before alignment; 1 is best, negative means opposite polarity.
        compared: share of the pixels for which both maps have an answer; the other numbers are of these.
    """

    abs_rel: float
    delta_1_25: float
    spearman: float
    compared: float


def fit_scale_shift(values: DepthMap, reference: DepthMap) -> ScaleShift:
    """Return the scale and shift that align `values` to `reference`.

    A map that is constant, or negatively correlated with the reference, gets scale 0 and the reference's mean; 0 if
    no pixel has an answer in both.

    Args:
        values, reference: float32 H×W disparities of the same image; sizes may differ.
    """
    a, b, _ = _sampled(values, reference)
    if not a.size:
        return ScaleShift(scale=0.0, shift=0.0)
    return _fitted(a, b)


def _fitted(a: NDArray[np.float64], b: NDArray[np.float64]) -> ScaleShift:
    variance = a.var()
    scale = float(((a - a.mean()) * (b - b.mean())).mean() / variance) if variance > 0 else 0.0
    scale = max(scale, 0.0)
    return ScaleShift(scale=scale, shift=float(b.mean() - scale * a.mean()))


def agreement(
    values: DepthMap, reference: DepthMap, *, kind: DepthKind = DepthKind.RELATIVE_DISPARITY
) -> Agreement | None:
    """Measure how well `values` agree with `reference`.

    Args:
        values, reference: float32 H×W disparities of the same image; sizes may differ.
        kind: of the depth that the reference was: metric depth stays as it is, in 1/m; relative depth is scaled so that
            the nearest 1 % is at 1 and farther; disparity, whose zero is unknown, too, to the range 0.1 to 1.

    Returns:
        None if no pixel has an answer in both.
    """
    a, b, compared = _sampled(values, reference)
    if not a.size:
        return None
    correlation = rank_correlation(a, b)
    if kind is not DepthKind.METRIC_DEPTH:
        low, high = np.percentile(b, (1, 99))
        if not kind.is_disparity:
            b = b * (_NEAR / high)
        elif high > low:
            b = _FAR + (b - low) * ((_NEAR - _FAR) / (high - low))
        else:
            b = np.full_like(b, _NEAR)
    fitted = _fitted(a, b)
    z, z_ref = (1 / np.maximum(d, _FLOOR) for d in (fitted.scale * a + fitted.shift, b))
    ratio = np.maximum(z / z_ref, z_ref / z)
    return Agreement(
        abs_rel=float((np.abs(z - z_ref) / z_ref).mean()),
        delta_1_25=float((ratio < 1.25).mean()),
        spearman=correlation,
        compared=compared,
    )


def moved(values: DepthMap, reference: DepthMap) -> float | None:
    """How much of a map's structure is not that of the reference: RMS of s · values + t − reference, in shares of the
    reference's standard deviation, with the best scale s ≥ 0 and shift t.

    Args:
        values, reference: float32 H×W disparities of the same scene; sizes may differ.

    Returns:
        0 if they are alike up to scale and shift, 1 if `values` says nothing about the reference; √(1 − r²) with their
        linear correlation r ≥ 0. None if no pixel has an answer in both, or the reference is constant.
    """
    a, b, _ = _sampled(values, reference)
    if not a.size:
        return None
    spread = float(b.std())
    if spread <= _CONSTANT * float(np.abs(b).max()):
        return None
    found = _fitted(a, b)
    return min(1.0, float(np.sqrt(np.mean((found.scale * a + found.shift - b) ** 2))) / spread)


def _sampled(values: DepthMap, reference: DepthMap) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Sample both maps at the same points: the reference's pixels, reduced to at most `_SAMPLES`.

    Returns:
        What both have an answer for, 1-D; the share of the points for which they have one.
    """
    height, width = reference.shape
    shrink = min(1.0, (_SAMPLES / (height * width)) ** 0.5)
    size_wh = max(1, round(width * shrink)), max(1, round(height * shrink))

    def at(x: DepthMap) -> NDArray[np.float64]:
        return (x if x.shape == size_wh[::-1] else averaged(x, size_wh)).astype(np.float64).ravel()

    a, b = at(values), at(reference)
    known = ~(np.isnan(a) | np.isnan(b))
    return a[known], b[known], float(known.mean())
