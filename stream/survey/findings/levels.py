"""How many depths a map tells apart in a region.

Invariant: float values are not counted. Two levels are at least one step apart, and the step exceeds the map's noise.
More levels are no better: a smooth ramp that knows nothing of a photo has as many as fit into its range.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask
from stream.survey.findings.maps import at_work_size, normalised, reduced, reduced_mask, size_within

_CELLS = 200
"""Cells along the longer side: 8 px of 1600."""
_LEAST_STEP = 0.01
"""As a share of the map's range: about what colours and 8-bit depth videos still show."""
_STEP_TO_NOISE = 6.0
"""So that the values of one layer, three standard deviations to both sides, are one level."""
_LEAST_SHARE = 0.002
"""Of a region's cells, that a level must have: more than lie farther than that from the middle of a layer."""
_APART = 3
"""Cells between those whose differences are noise: the pixels of a small network cover more than one cell."""
_LEAST_CELLS = 50
_KNOWN = 0.5
"""Share of a region in which a truth must be known for its levels to be counted."""


LEVEL_DETAILS = {
    "step": "between two levels, as a share of the map's range",
    "true_levels": "levels that the truth has there, counted alike; only where a truth is known",
}
"""Of a finding that counts levels."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Attributes:
    count: of levels.
    step: between levels, as a share of the map's range; 0 for a constant map.
    """

    count: int
    step: float


def levels(values: DepthMap, region: Mask) -> Levels | None:
    """Count the levels of a map in a region of the same size; None if it is too small to have any.

    A level is an interval of one step that holds at least `_LEAST_SHARE` of the region. The intervals follow each other
    from the farthest to the nearest and do not overlap; each begins where enough cells have come together.
    """
    size = size_within((values.shape[0], values.shape[1]), _CELLS)
    inside = reduced_mask(region, size)
    if np.count_nonzero(inside) < _LEAST_CELLS:
        return None
    shrunk = at_work_size(values)
    if not (np.isfinite(shrunk) & reduced_mask(region, shrunk.shape)).any():
        return Levels(count=0, step=0.0)
    own = normalised(shrunk)
    if own is None:
        return Levels(count=1, step=0.0)
    means = reduced(own, size).astype(np.float64)
    spread = np.sqrt(np.maximum(reduced(own * own, size) - means * means, 0))
    inside = inside & np.isfinite(means)  # the region of a small photo is the caller's own
    step = max(_LEAST_STEP, _STEP_TO_NOISE * _noise(means, inside))
    one_depth = inside & (spread <= step / 2)  # a cell across an edge has a depth that is nowhere
    cells = np.sort(means[one_depth])
    least = max(3, round(_LEAST_SHARE * np.count_nonzero(reduced_mask(region, size))))
    return Levels(count=_packed(cells, step, least), step=step)


def true_levels(disparity: DepthMap, region: Mask) -> dict[str, float]:
    """The levels of a truth in a region, as the detail `true_levels` of a map's; nothing where too little is known."""
    size = size_within((disparity.shape[0], disparity.shape[1]), _CELLS)
    known = np.isfinite(reduced(at_work_size(disparity), size))
    inside = reduced_mask(region, size)
    found = levels(disparity, region)
    if found is None or np.count_nonzero(known & inside) < _KNOWN * np.count_nonzero(inside):
        return {}
    return {"true_levels": float(found.count)}


def _noise(means: NDArray[np.float64], inside: Mask) -> float:
    """Standard deviation of what varies from cell to cell, by second differences: 0 on a plane, and steps are few.

    The median absolute deviation times 1.4826 is the standard deviation of Gaussian noise; a second difference has √6
    times that of the values.
    """
    seconds = []
    for x, m in ((means, inside), (means.T, inside.T)):
        if x.shape[0] > 2 * _APART:
            before, here, after = (slice(0, -2 * _APART), slice(_APART, -_APART), slice(2 * _APART, None))
            together = m[before] & m[here] & m[after]
            seconds.append(np.abs(x[before] - 2 * x[here] + x[after])[together])
    differences = np.concatenate(seconds) if seconds else np.empty(0)
    return float(1.4826 * np.median(differences) / 6**0.5) if differences.size else 0.0


def _packed(cells: NDArray[np.float64], step: float, least: int) -> int:
    ends = np.searchsorted(cells, cells + step)
    held = np.flatnonzero(ends - np.arange(len(cells)) >= least)
    count, i = 0, 0
    while True:
        following = np.searchsorted(held, i)
        if following == len(held):
            return count
        begin = cells[held[following] + least - 1]
        count, i = count + 1, int(np.searchsorted(cells, begin + step))
