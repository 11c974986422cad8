"""Depth maps of different models made comparable: one scale and shift each, and numbers for how well they then agree.

Everything is in disparity (near = large), where relative models are defined up to scale and shift (Ranftl et al. 2019,
arXiv:1907.01341, section 5). Invariant: nothing here depends on a map's size, and every number is finite.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap
from stream.media import cv2

_SAMPLES = 65_536
"""Pixels that are looked at: 256×256 gives each number to three digits."""
_NEAR, _FAR = 1.0, 0.1
"""Disparities that the reference's 99th and 1st percentile stand for, where the reference is relative: as if the
farthest were ten times as far as the nearest. Without such a choice AbsRel would have no meaning."""
_FLOOR = 0.01
"""Disparities below this are taken as this before they are inverted: 100 times as far as the nearest."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """`scale · disparity + shift` is closest to the reference, by least squares."""

    scale: float
    shift: float

    def apply(self, values: DepthMap) -> DepthMap:
        """float32 of the same shape."""
        return np.float32(self.scale) * values + np.float32(self.shift)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well a map agrees with a reference after it was fitted.

    Attributes:
        abs_rel: mean of |z − z_ref| / z_ref over depths z = 1 / disparity; 0 is best.
        delta_1_25: share of pixels with max(z / z_ref, z_ref / z) < 1.25; 1 is best.
        spearman: rank correlation of the disparities, before fitting; 1 is best, negative means opposite polarity.
    """

    abs_rel: float
    delta_1_25: float
    spearman: float


def fit(values: DepthMap, reference: DepthMap) -> Fit:
    """The scale and shift that bring `values` to `reference`; both are disparities of the same picture.

    A map that is constant, or runs against the reference, gets the scale 0 and the reference's mean.

    Args:
        values, reference: float32 H×W, sizes may differ.
    """
    a, b = _sampled(values, reference)
    variance = a.var()
    scale = float(((a - a.mean()) * (b - b.mean())).mean() / variance) if variance > 0 else 0.0
    scale = max(scale, 0.0)
    return Fit(scale=scale, shift=float(b.mean() - scale * a.mean()))


def agreement(values: DepthMap, reference: DepthMap, *, is_metric: bool = False) -> Agreement:
    """How well `values` agree with `reference`.

    Args:
        values, reference: float32 H×W disparities of the same picture, sizes may differ.
        is_metric: the reference is in 1/m; otherwise it is brought to the range 0.1 to 1 first.
    """
    a, b = _sampled(values, reference)
    correlation = _spearman(a, b)
    if not is_metric:
        low, high = np.percentile(b, (1, 99))
        b = _FAR + (b - low) * ((_NEAR - _FAR) / (high - low)) if high > low else np.full_like(b, _NEAR)
    fitted = fit(a[None].astype(np.float32), b[None].astype(np.float32))
    z, z_ref = (1 / np.maximum(d, _FLOOR) for d in (fitted.scale * a + fitted.shift, b))
    ratio = np.maximum(z / z_ref, z_ref / z)
    return Agreement(
        abs_rel=float((np.abs(z - z_ref) / z_ref).mean()),
        delta_1_25=float((ratio < 1.25).mean()),
        spearman=correlation,
    )


def _sampled(values: DepthMap, reference: DepthMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both maps at the same places: the reference's pixels, or as many as are looked at."""
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
    """Ranks from 1, equal values sharing their mean rank."""
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]
