"""Crispness: how wide the edges of objects are in depth, and whether they are where they belong.

Invariant: all models are measured at the same edges, and an edge that a map does not show counts as the softest there
is. So neither noise nor leaving out edges makes a map crisp.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask
from stream.media import cv2
from stream.survey.findings.base import Answers, Basis, Finding, Number
from stream.survey.findings.pieces import (
    LEAST_PIECES,
    LEAST_SIDE,
    LEAST_STEP,
    SHOWN,
    Floats,
    Pieces,
    densest,
    filled,
    in_true_units,
    least_shown,
    pieces_of,
    places_of_chance,
    robust_range,
)
from stream.survey.scene import Scene, Truth

RISE_PER_SIGMA = 2.5631
"""10–90 % rise of a step blurred by a Gaussian, per standard deviation: 2·Φ⁻¹(0.9)."""
_EXPLAINED = 0.8
"""Least share of the variance of a profile that a blurred step explains, for it to be an edge."""
_CLEAN = 0.95
"""The same for an edge of the truth: a plain step, with nothing else beside it that soft edges would mix with."""
_CLEAN_SIGMA = 1.0
"""Softest edge of the truth, px."""
_SIGMAS = 24
_SHARPEST = 0.3
"""Standard deviation, px, below which a step sampled every pixel looks the same."""
_MOST_PIECES = 800
CANNY = 80, 200
"""Thresholds of the picture's edges, of the sum of the absolute Sobel derivatives of 8-bit colours."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """Blurred steps fitted to profiles, P of each.

    Attributes:
        step: from one side to the other, with its sign.
        at: where, px along the normal.
        sigma: standard deviation of the blur, px.
        explained: share of the variance of the profile; 0 where it is constant.
        known: whether the profile has an answer everywhere.
        is_softest: whether it is the softest that was tried, which fits slopes as well.
    """

    step: Floats
    at: Floats
    sigma: Floats
    explained: Floats
    known: Mask
    is_softest: Mask

    @property
    def is_edge(self) -> Mask:
        """Whether a step explains the profile, and no slope."""
        return (self.explained >= _EXPLAINED) & ~self.is_softest

    @property
    def height(self) -> Floats:
        """Of the edge; 0 where there is none, NaN where the profile has gaps."""
        return np.where(self.known, np.abs(self.step) * self.is_edge, np.float32(np.nan)).astype(np.float32)

    def take(self, which: Mask) -> "Edges":
        """Some of them."""
        return Edges(**{name: value[which] for name, value in vars(self).items()})

    @property
    def rise(self) -> Floats:
        """10–90 % rise, px."""
        return np.float32(RISE_PER_SIGMA) * self.sigma


def reach_px(size: tuple[int, int]) -> int:
    """How far to each side of an edge depth is looked at: 32 px of 1600."""
    return int(min(32, max(8, round(max(size) / 50))))


def _measure(scene: Scene) -> Answers | None:
    if min(scene.size) < LEAST_SIDE:
        return None
    return _by_models(scene) if scene.truth is None else _by_truth(scene, scene.truth)


def _by_truth(scene: Scene, truth: Truth) -> Answers | None:
    disparity, reach = truth.disparity, reach_px(scene.size)
    extent = robust_range(disparity)
    pieces = depth_edges(disparity, LEAST_STEP * extent).thinned(2 * _MOST_PIECES)
    true = fitted_edges(pieces, disparity, reach)
    is_clean = true.known & (true.explained >= _CLEAN) & (true.sigma <= _CLEAN_SIGMA) & (np.abs(true.at) <= 1.5)
    is_clean &= np.abs(true.step) >= max(LEAST_STEP * extent, np.finfo(np.float32).tiny)
    which = np.flatnonzero(is_clean)
    if len(which) > _MOST_PIECES:
        which = which[np.linspace(0, len(which) - 1, _MOST_PIECES).round().astype(np.intp)]
    pieces, step, at = pieces.take(which), true.step[which], true.at[which]
    numbers = {}
    for name, values in in_true_units(scene, truth).items():
        found = fitted_edges(pieces, values, reach)
        is_shown = found.is_edge & (found.step / step >= SHOWN)
        answers = not np.isnan(values).all()
        numbers[name] = _number(pieces, found, is_shown, found.at - at, scene.size, answers=answers)
    return _answers(Basis.TRUTH, numbers)


def _by_models(scene: Scene) -> Answers | None:
    reach = reach_px(scene.size)
    edges = cv2.Canny(cv2.GaussianBlur(scene.rgb, (0, 0), 1.0), *CANNY) > 0
    jumps = np.zeros(scene.size, bool)
    extents = {name: robust_range(values) for name, values in scene.raw.items()}
    near = np.ones((2 * (reach // 2) + 3,) * 2, np.uint8)
    for name, values in scene.raw.items():
        if extents[name] > 0:
            jumps |= cv2.morphologyEx(filled(values), cv2.MORPH_GRADIENT, near) >= LEAST_STEP * extents[name]
    pieces = pieces_of(edges, edges & jumps, scene.grey, window=7).thinned(_MOST_PIECES)
    chance = places_of_chance(pieces, edges, reach)
    found, shown, is_asked = {}, {}, np.zeros(len(pieces), bool)
    for name, values in scene.raw.items():
        found[name] = one = fitted_edges(pieces, values, reach)
        anywhere = fitted_edges(chance, values, reach)
        floor = max(LEAST_STEP * extents[name], float(np.finfo(np.float32).tiny))
        shown[name] = one.height >= floor
        is_asked |= one.height >= least_shown(one.height, anywhere.height, floor)
    if is_asked.sum() < LEAST_PIECES:
        return None
    at = _at_in_picture(pieces, scene.grey)[is_asked]
    pieces = pieces.take(is_asked)
    numbers = {}
    for name, one in found.items():
        asked = one.take(is_asked)
        answers = not np.isnan(scene.raw[name]).all()
        numbers[name] = _number(pieces, asked, shown[name][is_asked], asked.at - at, scene.size, answers=answers)
    return _answers(Basis.MODELS, numbers)


def _answers(basis: Basis, numbers: dict[str, Number]) -> Answers | None:
    asked = any(number.value is not None for number in numbers.values())
    return Answers(basis=basis, numbers=numbers) if asked else None


def _number(
    pieces: Pieces, found: Edges, is_shown: Mask, off: Floats, size: tuple[int, int], *, answers: bool
) -> Number:
    """The number of one model.

    Args:
        answers: whether the map has any answer. Where it has none at an edge, it shows none.
        is_shown: at these edges the model has one.
        off: px from the edge to the model's.
    """
    is_shown = is_shown & found.known
    if not (answers and len(pieces)):
        return Number(value=None)
    softest = RISE_PER_SIGMA * sigmas(reach_px(size))[-1]
    per_mille = 1000 / max(size)
    widths = np.where(is_shown, found.rise, softest)
    details = {"edges": float(len(pieces)), "recall": float(is_shown.mean())}
    if is_shown.any():
        details["shown_width"] = float(np.median(found.rise[is_shown])) * per_mille
        details["position_error"] = float(np.abs(off[is_shown]).mean()) * per_mille
    places = densest(pieces.boxes[~is_shown], size, "edges without a step in depth")
    soft = is_shown & (found.rise >= np.median(found.rise[is_shown])) if is_shown.any() else is_shown
    places += densest(pieces.boxes[soft], size, "softest edges", 2)
    return Number(value=float(widths.mean()) * per_mille, details=details, places=tuple(places))


def _at_in_picture(pieces: Pieces, grey: Floats) -> Floats:
    """Where the edge of the picture is, px along the normal: centre of gravity of the gradient within 2 px, since
    Canny's edges lie on pixels and those of the picture between them. 0 where luminance has none."""
    offsets = np.arange(-2, 2.25, 0.5, dtype=np.float32)
    gradient = np.hypot(*(cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0)))
    weights = np.nan_to_num(pieces.profiles(gradient, offsets))
    total = weights.sum(axis=1)
    return np.where(total > 0, (weights * offsets).sum(axis=1) / np.maximum(total, 1e-12), 0).astype(np.float32)


def depth_edges(disparity: DepthMap, least: float) -> Pieces:
    """The pieces of the edges of a true depth: where it jumps by at least `least` from a pixel to the next."""
    known = filled(disparity)
    unit = max(least, float(np.finfo(np.float32).tiny)) / 64
    # Canny's thinning of the edges takes 16-bit derivatives. Those of a step of `least` are 4 · 64 for Sobel's weights.
    dx, dy = (
        np.clip(cv2.Sobel(known, cv2.CV_32F, one, 1 - one) / np.float32(unit), -16000, 16000).astype(np.int16)
        for one in (1, 0)
    )
    edges = cv2.Canny(dx, dy, 128, 256) > 0
    return pieces_of(edges, edges, known, window=7)


def sigmas(reach: int) -> NDArray[np.float64]:
    """The blurs that are tried, px: up to what fits into profiles of `reach` px to each side."""
    return np.geomspace(_SHARPEST, reach / 2, _SIGMAS)


@lru_cache(maxsize=4)
def _templates(reach: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Blurred steps from 0 to 1: each with mean 0 and length 1 (K×T), its length before, its blur and its place."""
    blur = sigmas(reach)
    at = np.arange(-(reach // 2), reach // 2 + 0.25, 0.5)
    blur, at = (grid.ravel() for grid in np.meshgrid(blur, at, indexing="ij"))
    t = np.arange(-reach, reach + 1)
    normal = (t - at[:, None]) / blur[:, None]
    steps = 0.5 * (1 + np.vectorize(math.erf)(normal / math.sqrt(2)))
    steps -= steps.mean(axis=1, keepdims=True)
    length = np.linalg.norm(steps, axis=1)
    as_float = [array.astype(np.float32) for array in (steps / length[:, None], length, blur, at)]
    return as_float[0], as_float[1], as_float[2], as_float[3]


def fitted_edges(pieces: Pieces, values: DepthMap, reach: int) -> Edges:
    """Fit a blurred step to the depth across each piece, by least squares over its blur, place, height and level.

    A step blurred by a Gaussian is the model of an edge of Elder and Zucker 1998 (IEEE PAMI 20(7)).
    """
    shapes, lengths, blurs, places = _templates(reach)
    profiles = pieces.profiles(values, np.arange(-reach, reach + 1, dtype=np.float32))
    known = np.asarray(~np.isnan(profiles).any(axis=1))
    profiles = np.where(known[:, None], profiles, np.float32(0))
    profiles = profiles - profiles.mean(axis=1, keepdims=True)
    peak = np.maximum(np.abs(profiles).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    profiles /= peak  # so that no unit is too small or too large for squares
    power = (profiles * profiles).sum(axis=1)
    match = profiles @ shapes.T
    best = np.abs(match).argmax(axis=1) if len(pieces) else np.zeros(0, np.intp)
    rows = np.arange(len(pieces))
    height = match[rows, best]
    # the best blur between those that were tried: the vertex of a parabola in log σ
    apart = np.searchsorted(blurs, blurs[0], side="right")
    inner = np.clip(best, apart, len(blurs) - apart - 1)
    low, mid, high = (np.abs(match[rows, inner + step]) for step in (-apart, 0, apart))
    bend = 2 * mid - low - high
    shift = np.where((best == inner) & (bend > 0), (high - low) / np.maximum(2 * bend, 1e-30), 0).clip(-0.5, 0.5)
    sigma = blurs[best] * (blurs[apart] / blurs[0]) ** shift
    return Edges(
        step=height / lengths[best] * peak[:, 0],
        at=places[best],
        sigma=sigma.astype(np.float32),
        is_softest=best >= len(blurs) - apart,
        explained=height * height / np.maximum(power, np.finfo(np.float32).tiny),
        known=known,
    )


CRISPNESS = Finding(
    key="crispness",
    title="Crispness",
    question="How wide are the edges of things in depth?",
    unit="‰",
    better="lower",
    definition=(
        "The mean over edges of the 10–90 % rise of disparity along the normal, 2.56·σ of the step blurred by a "
        "Gaussian of σ that fits best (Elder and Zucker 1998) to profiles averaged along 16 px of the edge, in ‰ of "
        "the longer side of the picture: 1 ‰ is 1.6 px of 1600. An edge that a map does not show (no step explains "
        "80 % of the profile, or it is less than a quarter of the true one, without a truth 3 % of the map's range) "
        "or that it has no answer at, counts as the softest that is measured, 26 ‰. With a truth, the edges are its "
        "plain steps of at least 3 % of its range. Without, they are those edges of the picture (Canny) at which at "
        "least one model has such a step, and higher ones than at places without an edge, such that at most a fifth "
        "can be chance (decoys, Elias and Gygi 2007); models may be wrong. Position error and recall correspond to "
        "the depth boundary errors of Koch et al. 2018 (arXiv:1805.01328)."
    ),
    measure=_measure,
    details={
        "shown_width": "median rise of the edges that the map shows, ‰",
        "position_error": "mean distance of these from the edges they belong to, ‰; up to 10 ‰ are looked at",
        "recall": "share of the edges that the map shows; 1 is best",
        "edges": "number of pieces of edges, 16 px long each",
    },
)
