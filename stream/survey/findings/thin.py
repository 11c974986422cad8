"""Thin structures: whether poles, wires and vanes a few pixels wide stand out in depth, or are gone.

Invariant: a structure that neither truth nor any model raises is not asked for, so a line printed on a wall does not
count.
"""

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask, RgbImage
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
    px,
    robust_range,
)
from stream.survey.scene import Scene, Truth

MOST_WIDTH = 10
"""Widest structure, in px, that is looked for in a picture or in a true depth without marks."""
_LEAST_LENGTH = 24
"""Shortest structure that is looked for, px; shorter ones are dots and letters."""
_CONTRAST = 28
"""Least contrast of a structure to both sides, of 255, in one of L*, a* and b* of CIE Lab (a* and b* in their own
units): 11 % of white is plain to see, and above the grain of a photo."""
_GAP_PX = 2
"""Between a structure and what counts as its sides, for edges that are not sharp in a picture."""
_SIDE_PX = 10
"""Width of the sides, px of 1600."""
_AWAY_PX = 24
"""From a place of chance to the lines of the picture, px of 1600: more than a structure and its side."""
_MOST_PIECES = 1500
_ON = np.linspace(-0.5, 0.5, 5, dtype=np.float32)
"""Where the depth of a structure is sampled, in half widths: its middle, since edges may be soft."""
_SIDE = np.linspace(0, 1, 5, dtype=np.float32)


def _measure(scene: Scene) -> Answers | None:
    if min(scene.size) < LEAST_SIDE:
        return None
    if scene.truth is None:
        return _by_models(scene)
    pieces = marked(scene.truth.thin) if scene.truth.thin is not None else thin_in_depth(scene.truth)
    pieces = pieces.thinned(_MOST_PIECES)
    true = steps(scene.truth.disparity, pieces, scene.size)
    is_asked = true >= LEAST_STEP * robust_range(scene.truth.disparity)
    is_asked &= true > 0
    pieces, true = pieces.take(is_asked), true[is_asked]
    numbers = {}
    for name, values in in_true_units(scene, scene.truth).items():
        shares = steps(values, pieces, scene.size) / true
        numbers[name] = _number(pieces, shares, scene.size, missed="thin structures missed")
    return _answers(Basis.TRUTH, numbers)


def _by_models(scene: Scene) -> Answers | None:
    bright, dark = thin_masks(scene.rgb)
    pieces = _in_picture(bright, dark).thinned(_MOST_PIECES)
    chance = places_of_chance(pieces, bright | dark, px(_AWAY_PX, scene.size))
    found, largest = {}, np.zeros(len(pieces), np.float32)
    for name, values in scene.raw.items():
        extent = robust_range(values) or np.inf
        found[name] = steps(values, pieces, scene.size) / extent
        least = least_shown(found[name], steps(values, chance, scene.size) / extent, LEAST_STEP)
        # what a map does anywhere is not shown
        found[name] = np.where(found[name] < least, np.minimum(found[name], 0), found[name])
        largest = np.fmax(largest, found[name])
    is_asked = largest > 0
    if is_asked.sum() < LEAST_PIECES:
        return None
    pieces, largest = pieces.take(is_asked), largest[is_asked]
    missed = "thin structures that another model shows"
    numbers = {name: _number(pieces, one[is_asked] / largest, scene.size, missed=missed) for name, one in found.items()}
    return _answers(Basis.MODELS, numbers)


def _answers(basis: Basis, numbers: dict[str, Number]) -> Answers | None:
    asked = any(number.value is not None for number in numbers.values())
    return Answers(basis=basis, numbers=numbers) if asked else None


def _number(pieces: Pieces, shares: Floats, size: tuple[int, int], *, missed: str) -> Number:
    """The number of one model, from its steps as shares of the largest that are known."""
    known = ~np.isnan(shares)
    if not known.any():
        return Number(value=None)
    is_shown = known & (shares >= SHOWN)
    places = densest(pieces.boxes[known & ~is_shown], size, missed)
    places += densest(pieces.boxes[is_shown], size, "thin structures shown", 2)
    return Number(
        value=float(is_shown.sum() / known.sum()),
        details={"contrast": float(shares[known].clip(0, 1).mean()), "pieces": float(known.sum())},
        places=tuple(places),
    )


def steps(values: DepthMap, pieces: Pieces, size: tuple[int, int]) -> Floats:
    """How much nearer each piece is than the nearer one of its two sides, in disparity.

    Returns:
        float32 P; 0 where a piece itself has no answer but a side has one, NaN where neither side has an answer.
    """
    wide = _SIDE * px(_SIDE_PX, size, least=4)
    half = pieces.half[:, None]
    on = _mean(pieces.profiles(values, half * _ON))
    beside = [_mean(pieces.profiles(values, sign * (half + _GAP_PX + wide))) for sign in (-1, 1)]
    step = on - np.fmax(*beside)
    return np.where(np.isnan(on) & ~np.isnan(np.fmax(*beside)), np.float32(0), step)


def _mean(profiles: Floats) -> Floats:
    """The mean of what is known of each profile; NaN where less than half is."""
    known = ~np.isnan(profiles)
    count = known.sum(axis=1)
    mean = np.where(known, profiles, 0).sum(axis=1) / np.maximum(count, 1)
    return np.where(2 * count >= profiles.shape[1], mean, np.nan).astype(np.float32)


def marked(mask: Mask) -> Pieces:
    """The pieces of marked structures of any width."""
    return _lines(mask, least_length=0)


def thin_in_depth(truth: Truth) -> Pieces:
    """The pieces of what is thin and nearer than both sides in the true depth."""
    known = filled(truth.disparity)
    least = LEAST_STEP * robust_range(truth.disparity)
    raised = cv2.morphologyEx(known, cv2.MORPH_TOPHAT, _square())
    return _lines((raised > least) & ~np.isnan(truth.disparity), least_length=_LEAST_LENGTH)


def thin_in_picture(rgb: RgbImage) -> Pieces:
    """The pieces of what is thin, and brighter, darker or of another colour than both sides, in a picture."""
    return _in_picture(*thin_masks(rgb))


def _in_picture(bright: Mask, dark: Mask) -> Pieces:
    return _joined([_lines(mask, least_length=_LEAST_LENGTH) for mask in (bright, dark)])


def thin_masks(rgb: RgbImage) -> tuple[Mask, Mask]:
    """What is thin, and brighter or darker than both sides in L*, or more or less of a colour, in a picture.

    The top-hat of each channel of CIE Lab, of both signs (Soille, Morphological Image Analysis, 2003, chapter 4),
    finds what a square of `MOST_WIDTH` px does not fit into.
    """
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    tophats = (cv2.morphologyEx(lab, kind, _square()) for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT))
    bright, dark = (np.maximum(np.maximum(hat[..., 0], hat[..., 1]), hat[..., 2]) >= _CONTRAST for hat in tophats)
    return np.asarray(bright), np.asarray(dark)


def _square() -> NDArray[np.uint8]:
    return np.ones((MOST_WIDTH + 1, MOST_WIDTH + 1), np.uint8)


def _lines(mask: Mask, *, least_length: int) -> Pieces:
    """The pieces of the middle lines of a mask's long parts."""
    if least_length:
        mask = _long(mask, least_length)
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    is_middle = mask & (inside >= cv2.dilate(inside, np.ones((3, 3), np.uint8)))
    window = 2 * MOST_WIDTH + 1
    return pieces_of(mask, is_middle, mask.astype(np.float32), window=window, half=np.maximum(inside - 0.5, 0.5))


def _long(mask: Mask, least: int) -> Mask:
    """The connected parts whose bounding box has at least this diagonal."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    is_long = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) >= least
    is_long[0] = False
    return np.asarray(is_long[labels])


def _joined(parts: list[Pieces]) -> Pieces:
    before = np.cumsum([0, *(len(part.x) for part in parts)])
    return Pieces(
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        normal=np.concatenate([part.normal for part in parts]),
        half=np.concatenate([part.half for part in parts]),
        starts=np.concatenate([part.starts + start for part, start in zip(parts, before, strict=False)]),
    )


THIN = Finding(
    key="thin",
    title="Thin structures",
    question="Do thin things stand out in depth?",
    unit="",
    better="higher",
    definition=(
        "The share of the pieces of thin structures, 16 px long, with s / s* ≥ 0.25, where s = d − max(d₁, d₂) is "
        "how much nearer (in disparity) a piece is than the nearer one of its two sides. With a truth, s* is the "
        "true step, and the structures are those marked as thin, else those up to 10 px wide that are nearer than "
        "both sides. Without, they are the lines up to 10 px wide of the picture that stand out from both sides in "
        "brightness or colour, s* is the largest step that any model shows there, and lines that no model shows are "
        "not asked for, since they may be printed. A model shows a line if it raises it by 3 % of its range of "
        "disparities, and by more than places without a line, such that at most a fifth of what it shows can be "
        "chance (decoys, Elias and Gygi 2007); noise shows nothing, but a model that takes luminance for depth does. "
        "So the number says who misses what another model shows, which may be wrong. Lines: morphological top-hat "
        "(Soille 2003, chapter 4); normals: structure tensor (Bigün and Granlund 1987); the number: our own."
    ),
    measure=_measure,
    details={
        "contrast": "mean of s / s*, each limited to 0 to 1; 1 is best",
        "pieces": "number of pieces that were asked for",
    },
)
