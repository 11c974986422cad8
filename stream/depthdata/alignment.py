"""Alignment of depth maps by a scale and a shift, and rank correlation: what makes maps without a unit comparable.

All maps are disparities (larger = nearer), in which relative models are defined up to scale and shift (Ranftl et al.
2019, arXiv:1907.01341, section 5). NaN marks a pixel without an answer.
Invariant: the results are finite, and do not depend on the unit of a map.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask
from stream.media import cv2

_SAMPLES = 65_536
"""Pixels that an alignment is fitted to."""
_INNER = (0.5, 99.5)
"""Percentiles between which the plain values of a map lie."""
_ODD = 5.0
"""Values farther outside than this many times the distance of those percentiles are odd: nearly always mistakes."""


@dataclass(frozen=True, kw_only=True)
class ScaleShift:
    """The least-squares alignment of a disparity map to a reference: `scale · disparity + shift`."""

    scale: float
    shift: float

    def apply(self, values: DepthMap) -> DepthMap:
        """Return the aligned map, float32 of the same shape."""
        return np.float32(self.scale) * values + np.float32(self.shift)


def fitted(values: DepthMap, reference: DepthMap) -> DepthMap:
    """A map in the units of the reference, by `alignment`.

    Where no positive scale fits it, that is the mean of the reference throughout: what the map says in its own units
    says nothing about the reference. Unchanged where no pixel is known in both.
    """
    found = alignment(values, reference)
    if found is None:
        return values
    if found.scale > 0:
        return found.apply(values)
    return np.where(np.isnan(values), np.float32(np.nan), np.float32(found.shift))


def alignment(values: DepthMap, reference: DepthMap) -> ScaleShift | None:
    """The least-squares scale, at least 0, and shift of a map to a reference of the same size.

    It is of single pixels that are known in both, so a sparse reference serves as a dense one does, and a map that is
    exact up to scale and shift is fitted exactly. Odd values, see `_ODD`, are left out if the rest fits better without
    them: one pixel of 1e5 would rule the squares, but a pole before a wall is odd, too, and right.

    Returns:
        None if no pixel is known in both.
    """
    place = spread_over(np.isfinite(values) & np.isfinite(reference), _SAMPLES)
    if not place.size:
        return None
    a, b = (x.ravel()[place].astype(np.float64) for x in (values, reference))
    (low, high), ends = _plain(a), _plain(b)
    plain = (a >= low) & (a <= high) & (b >= ends[0]) & (b <= ends[1])
    candidates = [_least_squares(a, b)]
    if not plain.all() and plain.any():
        candidates.append(_least_squares(a[plain], b[plain]))

    def deviation(found: ScaleShift) -> float:
        return float(np.abs(np.clip(found.scale * a + found.shift, *ends) - np.clip(b, *ends)).mean())

    return min(candidates, key=deviation)


def _least_squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> ScaleShift:
    centred = a - a.mean()
    size = float(np.abs(centred).max())
    if size == 0:
        return ScaleShift(scale=0.0, shift=float(b.mean()))
    centred /= size  # else the squares of 1e-200 are 0
    scale = max(0.0, float((centred * (b - b.mean())).mean() / (centred**2).mean())) / size
    return ScaleShift(scale=scale, shift=float(b.mean() - scale * a.mean()))


def _plain(values: NDArray[np.float64]) -> tuple[float, float]:
    """Between which values none is odd; all of them where nearly all are the same."""
    low, high = np.percentile(values, _INNER)
    if high <= low:
        return float(values.min()), float(values.max())
    margin = _ODD * (high - low)
    return float(low - margin), float(high + margin)


def spread_over(known: Mask, count: int) -> NDArray[np.int64]:
    """Places, in a flat map, of at most `count` of the known pixels, evenly spread over these.

    Each is a random one (with a fixed seed) of as many in a row, or a width that is a multiple of the distance would
    give a few columns.
    """
    places = np.flatnonzero(known)
    if places.size <= count:
        return places
    within = np.random.default_rng(0).random(count)
    return np.asarray(places[((np.arange(count) + within) * (places.size / count)).astype(np.int64)])


def averaged(x: DepthMap, size_wh: tuple[int, int]) -> DepthMap:
    """A map resized by averaging the answers in each new pixel; NaN where at most half of it has an answer."""
    known = ~np.isnan(x)
    if known.all():
        return np.asarray(cv2.resize(x, size_wh, interpolation=cv2.INTER_AREA))
    share = cv2.resize(known.astype(np.float32), size_wh, interpolation=cv2.INTER_AREA)
    total = cv2.resize(np.where(known, x, np.float32(0)), size_wh, interpolation=cv2.INTER_AREA)
    return np.where(share > 0.5, total / np.maximum(share, 0.5), np.float32(np.nan))


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's rank correlation of 1-D values; 0 if one of them is constant."""
    ranks = [_ranks(x) for x in (a, b)]
    deviations = [r - r.mean() for r in ranks]
    scale = float(np.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum()))
    return float((deviations[0] * deviations[1]).sum() / scale) if scale > 0 else 0.0


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]
