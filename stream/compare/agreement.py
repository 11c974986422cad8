"""Alignment of depth maps of different models by a scale and a shift, and numbers for how well they agree.

All maps are disparities (larger = nearer), in which relative models are defined up to scale and shift (Ranftl et al.
2019, arXiv:1907.01341, section 5). Invariant: the results do not depend on the size of a map, and are always finite.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap
from stream.media import cv2

_SAMPLES = 65_536
"""Number of pixels compared: 256×256 is enough for three digits."""
_NEAR, _FAR = 1.0, 0.1
"""Disparities assigned to the 99th and 1st percentile of a relative reference, as if the farthest point were ten times
as far as the nearest. AbsRel needs such a choice."""
_FLOOR = 0.01
"""Lower limit of disparities before they are inverted: 100 times as far as the nearest point."""


@dataclass(frozen=True, kw_only=True)
class ScaleShift:
    """The least-squares alignment of a disparity map to a reference: `scale · disparity + shift`."""

    scale: float
    shift: float

    def apply(self, values: DepthMap) -> DepthMap:
        """Return the aligned map, float32 of the same shape."""
        return np.float32(self.scale) * values + np.float32(self.shift)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well a map agrees with a reference after alignment.

    Attributes:
        abs_rel: mean of |z − z_ref| / z_ref over depths z = 1 / disparity; 0 is best.
        delta_1_25: share of pixels with max(z / z_ref, z_ref / z) < 1.25; 1 is best.
        spearman: rank correlation of the disparities, before alignment; 1 is best, negative means opposite polarity.
    """

    abs_rel: float
    delta_1_25: float
    spearman: float


def fit_scale_shift(values: DepthMap, reference: DepthMap) -> ScaleShift:
    """Return the scale and shift that align `values` to `reference`.

    A map that is constant, or negatively correlated with the reference, gets scale 0 and the reference's mean.

    Args:
        values, reference: float32 H×W disparities of the same image; sizes may differ.
    """
    a, b = _sampled(values, reference)
    variance = a.var()
    scale = float(((a - a.mean()) * (b - b.mean())).mean() / variance) if variance > 0 else 0.0
    scale = max(scale, 0.0)
    return ScaleShift(scale=scale, shift=float(b.mean() - scale * a.mean()))


def agreement(values: DepthMap, reference: DepthMap, *, is_metric: bool = False) -> Agreement:
    """Measure how well `values` agree with `reference`.

    Args:
        values, reference: float32 H×W disparities of the same image; sizes may differ.
        is_metric: the reference is in 1/m; otherwise it is first scaled to the range 0.1 to 1.
    """
    a, b = _sampled(values, reference)
    correlation = _spearman(a, b)
    if not is_metric:
        low, high = np.percentile(b, (1, 99))
        b = _FAR + (b - low) * ((_NEAR - _FAR) / (high - low)) if high > low else np.full_like(b, _NEAR)
    fitted = fit_scale_shift(a[None].astype(np.float32), b[None].astype(np.float32))
    z, z_ref = (1 / np.maximum(d, _FLOOR) for d in (fitted.scale * a + fitted.shift, b))
    ratio = np.maximum(z / z_ref, z_ref / z)
    return Agreement(
        abs_rel=float((np.abs(z - z_ref) / z_ref).mean()),
        delta_1_25=float((ratio < 1.25).mean()),
        spearman=correlation,
    )


def _sampled(values: DepthMap, reference: DepthMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sample both maps at the same points: the reference's pixels, reduced to at most `_SAMPLES`."""
    height, width = reference.shape
    shrink = min(1.0, (_SAMPLES / (height * width)) ** 0.5)
    size_wh = max(1, round(width * shrink)), max(1, round(height * shrink))

    def at(x: DepthMap) -> NDArray[np.float64]:
        same = x.shape == size_wh[::-1]
        return (x if same else np.asarray(cv2.resize(x, size_wh, interpolation=cv2.INTER_AREA))).astype(np.float64)

    return at(values).ravel(), at(reference).ravel()


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    ranks = [_ranks(x) for x in (a, b)]
    deviations = [r - r.mean() for r in ranks]
    scale = float(np.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum()))
    return float((deviations[0] * deviations[1]).sum() / scale) if scale > 0 else 0.0


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]
