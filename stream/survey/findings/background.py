"""The background: are things at different depths told apart there, and in the right order?

Invariant: the sky is no part of the background, and every number has one meaning: levels are counted in each photo and
are no merit, order is judged by a truth only.
"""

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask
from stream.media import cv2
from stream.survey.findings.base import Answers, Basis, Finding, Number, Place
from stream.survey.findings.levels import LEVEL_DETAILS, levels, true_levels
from stream.survey.findings.maps import at_work_size, normalised, place, place_of, reduced, size_within
from stream.survey.findings.sky_region import known_sky
from stream.survey.scene import Scene, Truth

_QUARTER = 0.25
_CONSENSUS_PX = 200
_RATIO = 1.25
"""How much farther the farther of two points must be, to be clearly so: the ratio of δ₁ (Eigen et al. 2014)."""
_PAIRS = 40_000
_LEAST_PAIRS = 200
_LEAST_PX = 64
_SEED = 18
_GRID = 8
_WRONG = 0.3
"""Share of wrong pairs from which on a place is shown."""
_PLACES = 3


def true_background(truth: Truth) -> Mask | None:
    """The farthest quarter of the pixels whose depth is known, the sky excluded; None if there are too few."""
    known = truth.disparity > 0  # NaN is not
    if truth.sky is not None:
        known &= ~truth.sky
    if np.count_nonzero(known) < 4 * _LEAST_PX:
        return None
    return known & (truth.disparity <= np.quantile(truth.disparity[known], _QUARTER))


def agreed_background(scene: Scene) -> Mask | None:
    """The quarter that is farthest by the median of the models' ranks, a visible sky excluded."""
    size = size_within(scene.size, _CONSENSUS_PX)
    normal = [normalised(at_work_size(values)) for values in scene.maps.values()]
    ranked = [_ranks(reduced(own, size)) for own in normal if own is not None]
    if not ranked:
        return None
    together = np.stack(ranked)
    known = np.isfinite(together).any(0)
    sky = known_sky(scene)
    if sky is not None:
        known &= cv2.resize(sky.mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) < 0.5
    if np.count_nonzero(known) < 4 * _LEAST_PX:
        return None
    middle = np.full(size, np.inf)
    middle[known] = np.nanmedian(together[:, known], axis=0)
    background = known & (middle <= np.quantile(middle[known], _QUARTER))
    whole = cv2.resize(background.astype(np.uint8), scene.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(whole > 0)


def _ranks(values: DepthMap) -> NDArray[np.float64]:
    """Shares of the map's values that are smaller, equal ones counted half; NaN where there is no answer."""
    known = np.isfinite(values)
    ordered = np.sort(values[known])
    ranks = np.full(values.shape, np.nan)
    below, upto = (np.searchsorted(ordered, values[known], side=side) for side in ("left", "right"))
    ranks[known] = (below + upto) / (2 * len(ordered))
    return ranks


def _measure(scene: Scene) -> Answers | None:
    region = agreed_background(scene) if scene.truth is None else true_background(scene.truth)
    if region is None:
        return None
    numbers, true = {}, {} if scene.truth is None else true_levels(scene.truth.disparity, region)
    for name, values in scene.maps.items():
        found = levels(values, region)
        if found is None:
            return None
        where = place_of(region, f"farthest quarter: levels told apart: {found.count}")
        numbers[name] = Number(value=float(found.count), details={"step": found.step, **true}, places=where)
    return Answers(basis=Basis.MODELS if scene.truth is None else Basis.TRUTH, numbers=numbers)


def _measure_order(scene: Scene) -> Answers | None:
    if scene.truth is None:
        return None
    region = true_background(scene.truth)
    if region is None:
        return None
    pixels = np.flatnonzero(region)
    one, other = np.random.default_rng(_SEED).choice(pixels, (2, _PAIRS))
    true = scene.truth.disparity.ravel()
    ratio = true[one] / true[other]
    clear = np.maximum(ratio, 1 / ratio) > _RATIO
    if np.count_nonzero(clear) < _LEAST_PAIRS:
        return None
    one, other = one[clear], other[clear]
    nearer = true[one] > true[other]
    numbers = {}
    for name, values in scene.maps.items():
        flat = values.ravel()
        answered = np.isfinite(flat[one]) & np.isfinite(flat[other])
        a, b = flat[one], flat[other]
        right = np.where(answered & (a != b), (a > b) == nearer, 0.5)
        details = {"answered": float(answered.mean()), "pairs": float(len(right))}
        numbers[name] = Number(value=float(right.mean()), details=details, places=_wrong(right, one, other, scene.size))
    return Answers(basis=Basis.TRUTH, numbers=numbers)


def _wrong(
    right: NDArray[np.float64], one: NDArray[np.int64], other: NDArray[np.int64], size_hw: tuple[int, int]
) -> tuple[Place, ...]:
    """The cells of a grid where most pairs are wrong."""
    height, width = size_hw
    rows, columns = min(_GRID, height), min(_GRID, width)
    ends = np.concatenate([one, other])
    cell = (ends // width) * rows // height * columns + (ends % width) * columns // width
    count = np.bincount(cell, minlength=rows * columns)
    share = np.bincount(cell, np.tile(1 - right, 2), minlength=rows * columns) / np.maximum(count, 1)
    bad = np.flatnonzero((share >= _WRONG) & (count >= _LEAST_PAIRS // 4))
    worst = bad[np.argsort(-(share * count)[bad], kind="stable")][:_PLACES]
    return tuple(
        place(
            i % columns * width // columns,
            i // columns * height // rows,
            -(-width // columns),
            -(-height // rows),
            size_hw,
            f"{share[i]:.0%} of the pairs in the wrong order",
        )
        for i in worst.tolist()
    )


BACKGROUND = Finding(
    key="background",
    title="Background levels",
    question="How many depths are told apart in the background?",
    unit="levels",
    better="neither",
    definition=(
        "The number of disjoint intervals, one step wide, that each hold at least 0.2 % of the farthest quarter of the "
        "photo. Values are means over cells of 0.5 % of the longer side, those across edges left out. The step is "
        "six standard deviations of what varies between near cells (median absolute second difference · 1.4826 / √6), "
        "and at least 1 % of the map's range. The quarter is the true one, or the farthest by the median rank of the "
        "models; the sky does not belong to it. The count alone is no merit: a smooth ramp has many levels, noise has "
        "one, and an inverted map has those of the right one. Compare it with the number of levels that the truth has, "
        "and see the order of the background."
    ),
    measure=_measure,
    details=LEVEL_DETAILS,
)

BACKGROUND_ORDER = Finding(
    key="background_order",
    title="Background order",
    question="Are things in the background in the right order?",
    unit="",
    better="higher",
    definition=(
        "The share of pairs of pixels that are in the true order: random pairs of the true farthest quarter, the sky "
        "excluded, one pixel at least 1.25 times as far as the other (ordinal relations as in Chen et al. 2016, "
        "arXiv:1604.03901). A pair with equal values or without an answer counts half, as guessing would. Asked only "
        "where a truth is known."
    ),
    measure=_measure_order,
    details={
        "answered": "share of the pairs for which there are answers",
        "pairs": "number of pairs",
    },
)
