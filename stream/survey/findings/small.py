"""Size bias: whether small near things are kept in depth, or smoothed away.

Invariant: a thing counts as one whatever its size, so many small ones weigh as much as a few large ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap, Mask
from stream.media import cv2
from stream.survey.findings.base import Answers, Basis, Finding, Number, Place
from stream.survey.findings.crispness import CANNY
from stream.survey.findings.maps import dilated
from stream.survey.findings.pieces import (
    LEAST_SIDE,
    LEAST_STEP,
    SHOWN,
    filled,
    in_true_units,
    least_shown,
    place_around,
    px,
    robust_range,
)
from stream.survey.scene import Scene

MOST_SHARE = 0.08
"""Largest thing that is looked for, as a share of the picture's longer side: 128 px of 1600."""
_LEAST_OUTLINE = 0.1
"""Least share of the outline of a thing that is asked for without a truth that lies on edges of the picture."""
_LEAST_PX = 5
"""Smallest thing that is looked for: both sides of its bounding box are at least this long."""
_SIZES = (("tiny", 0.0, 0.015), ("small", 0.015, 0.03), ("larger", 0.03, np.inf))
"""Names of sizes: square root of the area as a share of the picture's longer side. 24 and 48 px of 1600."""
_MOST_THINGS = 200
_GAP_PX = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """A small thing.

    Attributes:
        box: left, top, right, bottom of the thing with its surroundings, px, right and bottom exclusive.
        inside: bool, of the box: the thing.
        around: bool, of the box: what surrounds it and is no small thing.
        size: square root of its area, px.
        number: its label.
    """

    box: tuple[int, int, int, int]
    inside: NDArray[np.bool_]
    around: NDArray[np.bool_]
    size: float
    number: int

    @property
    def cut(self) -> tuple[slice, slice]:
        """The box, as an index of rows and columns."""
        left, top, right, bottom = self.box
        return slice(top, bottom), slice(left, right)

    @property
    def corner(self) -> tuple[int, int]:
        """Left and top of the box."""
        return self.box[0], self.box[1]

    @cached_property
    def outline(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The columns and rows, in the box, of those of its pixels that are beside another."""
        inner = cv2.erode(self.inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
        y, x = np.nonzero(self.inside & ~inner)
        return x, y

    def step(self, values: DepthMap) -> float:
        """How much nearer it is than its surroundings, in disparity: difference of the medians; NaN if unknown."""
        cut = values[self.cut]
        inside, around = cut[self.inside], cut[self.around]
        inside, around = inside[~np.isnan(inside)], around[~np.isnan(around)]
        if 2 * inside.size < self.inside.sum() or 2 * around.size < self.around.sum():
            return float("nan")
        return float(np.median(inside) - np.median(around))


def _measure(scene: Scene) -> Answers | None:
    if min(scene.size) < LEAST_SIDE:
        return None
    if scene.truth is None:
        return _by_models(scene)
    truth, reference = scene.truth, scene.truth.disparity
    extent = robust_range(reference)
    if extent == 0:
        return None
    labels = nearer_blobs(reference, LEAST_STEP * extent) if truth.small is None else truth.small
    steps = [(thing, thing.step(reference)) for thing in things_of(labels)]
    asked = [(thing, true) for thing, true in steps if true >= LEAST_STEP * extent]
    return _answers(Basis.TRUTH, asked, in_true_units(scene, truth), scene.size, "its step")


def _by_models(scene: Scene) -> Answers | None:
    maps = {name: normal for name, values in scene.raw.items() if (normal := _normalised(values)) is not None}
    outlines = _near_edges(scene)
    labels, largest = np.zeros(scene.size, np.int32), [0.0]
    for values in maps.values():
        found = nearer_blobs(values, LEAST_STEP)
        things = things_of(found)
        if not things:
            continue
        shares = np.array([_outlined(thing, outlines, thing.corner) for thing in things], np.float32)
        least = least_shown(shares, _by_chance(things, outlines), _LEAST_OUTLINE)
        for thing, share in zip(things, shares, strict=True):
            step = thing.step(values)
            if not (share >= least and step >= LEAST_STEP):
                continue
            cut = labels[thing.cut]
            same = np.unique(cut[thing.inside])  # what an earlier model shows there as well
            for number in same[same > 0]:
                largest[number] = max(largest[number], step)
            if not same.any():
                cut[thing.inside] = len(largest)
                largest.append(step)
    asked = [(thing, largest[thing.number]) for thing in things_of(labels)]
    constant = {name: values * np.float32(0) for name, values in scene.raw.items() if name not in maps}
    both = {name: maps.get(name, constant.get(name)) for name in scene.raw}
    all_maps = {name: values for name, values in both.items() if values is not None}
    return _answers(Basis.MODELS, asked, all_maps, scene.size, "the models' largest step")


def _answers(
    basis: Basis,
    asked: list[tuple[Thing, float]],
    maps: Mapping[str, DepthMap],
    size: tuple[int, int],
    whose: str,
) -> Answers | None:
    if not asked:
        return None
    return Answers(basis=basis, numbers={name: _number(asked, values, size, whose) for name, values in maps.items()})


def _near_edges(scene: Scene) -> Mask:
    """The pixels within about 2 px (of 1600) of an edge of the picture."""
    edges = cv2.Canny(cv2.GaussianBlur(scene.rgb, (0, 0), 1.0), *CANNY) > 0
    return dilated(edges, round(px(_GAP_PX, scene.size)))


def _outlined(thing: Thing, edges: Mask, corner: tuple[int, int]) -> float:
    """The share of a thing's outline that lies on edges of the picture, with its box at a corner (x, y)."""
    x, y = thing.outline
    return float(edges[y + corner[1], x + corner[0]].mean())


def _by_chance(things: list[Thing], edges: Mask) -> NDArray[np.float32]:
    """The same for the things at random places."""
    rng = np.random.default_rng(0)
    height, width = edges.shape
    times = max(4, 800 // len(things))
    found = []
    for thing in things:
        down, across = thing.inside.shape
        for x, y in zip(
            rng.integers(0, width - across + 1, times), rng.integers(0, height - down + 1, times), strict=True
        ):
            found.append(_outlined(thing, edges, (int(x), int(y))))
    return np.array(found, np.float32)


def _number(asked: list[tuple[Thing, float]], values: DepthMap, size: tuple[int, int], whose: str) -> Number:
    kept = np.array([thing.step(values) / true for thing, true in asked]).clip(0, 1)
    known = ~np.isnan(kept)
    if not known.any():
        return Number(value=None)
    shares = np.array([thing.size for thing, _ in asked]) / max(size)
    details = {"things": float(known.sum()), "shown": float((kept[known] >= SHOWN).mean())}
    for name, least, most in _SIZES:
        these = known & (shares >= least) & (shares < most)
        if these.any():
            details[f"kept_{name}"] = float(kept[these].mean())
    order = [int(number) for number in np.argsort(kept, kind="stable") if known[number]]
    marked = [number for number in order[:3] if kept[number] < SHOWN]
    marked += [number for number in order[::-1][:2] if kept[number] >= SHOWN]
    places = [
        _place(asked[number][0], size, f"small thing, {100 * kept[number]:.0f} % of {whose} kept") for number in marked
    ]
    return Number(value=float(kept[known].mean()), details=details, places=tuple(places))


def _place(thing: Thing, size: tuple[int, int], text: str) -> Place:
    y, x = np.nonzero(thing.inside)
    left, top = thing.box[:2]
    box = left + int(x.min()), top + int(y.min()), left + int(x.max()) + 1, top + int(y.max()) + 1
    return place_around(box, size, text)


def _normalised(values: DepthMap) -> DepthMap | None:
    """A map in shares of its own range; None for a constant one."""
    extent = robust_range(values)
    return values * np.float32(1 / extent) if extent else None


def nearer_blobs(disparity: DepthMap, least: float) -> NDArray[np.int32]:
    """Number what is small, compact and nearer than all around it by at least `least`; 0 is the rest.

    The top-hat by opening with a square of `MOST_SHARE` of the longer side (Soille, Morphological Image Analysis, 2003,
    chapter 4), of parts that are wide enough to be no thin structure.
    """
    width = round(MOST_SHARE * max(disparity.shape))
    known = filled(disparity)
    raised = cv2.morphologyEx(known, cv2.MORPH_TOPHAT, np.ones((width, width), np.uint8)) >= least
    raised &= ~np.isnan(disparity)
    core = cv2.morphologyEx(raised.astype(np.uint8), cv2.MORPH_OPEN, np.ones((_LEAST_PX, _LEAST_PX), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(core, connectivity=4, ltype=cv2.CV_32S)
    left, top, across, down, area = stats.T
    is_thing = np.maximum(across, down) <= width
    is_thing &= 3 * area >= across * down
    is_thing &= (left > 0) & (top > 0) & (left + across < core.shape[1]) & (top + down < core.shape[0])
    is_thing[0] = False
    numbers = np.where(is_thing, np.arange(len(stats)), 0).astype(np.int32)
    return np.asarray(numbers[labels])


def things_of(labels: NDArray[np.int32]) -> list[Thing]:
    """The things with their numbers, and what surrounds each: a ring as wide as half its size, after a gap of 2 px."""
    numbers = np.unique(labels)
    numbers = numbers[numbers > 0]
    y, x = np.nonzero(labels)
    of = np.searchsorted(numbers, labels[y, x])
    order = np.argsort(of, kind="stable")
    y, x, of = y[order], x[order], of[order]
    starts = np.searchsorted(of, np.arange(len(numbers)))
    if not len(numbers):
        return []
    low = np.stack([np.minimum.reduceat(x, starts), np.minimum.reduceat(y, starts)], axis=1)
    high = np.stack([np.maximum.reduceat(x, starts), np.maximum.reduceat(y, starts)], axis=1) + 1
    areas = np.diff(starts, append=len(x))
    things = []
    for number in np.argsort(-areas, kind="stable")[:_MOST_THINGS]:
        size = float(np.sqrt(areas[number]))
        ring = max(4, round(size / 2))
        margin = _GAP_PX + ring
        left, top = (max(0, int(one) - margin) for one in low[number])
        right, bottom = (
            min(side, int(one) + margin) for one, side in zip(high[number], labels.shape[::-1], strict=True)
        )
        cut = labels[top:bottom, left:right]
        inside = cut == numbers[number]
        away = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 3)
        around = (away > _GAP_PX) & (away <= margin) & (cut == 0)
        things.append(
            Thing(box=(left, top, right, bottom), inside=inside, around=around, size=size, number=int(numbers[number]))
        )
    return [thing for thing in things if thing.around.sum() >= thing.inside.sum() / 4]


SMALL = Finding(
    key="small",
    title="Size bias",
    question="Are small near things kept?",
    unit="",
    better="higher",
    definition=(
        "The mean over small things of s / s*, limited to 0 to 1, where s is the median disparity of the thing minus "
        "that of a ring around it, half as wide as the thing and 2 px away. With a truth, s* is the true step, and "
        "the things are those marked as small, else the compact parts of the true depth of at most 8 % of the "
        "picture's longer side that are nearer than all around them (top-hat, Soille 2003, chapter 4). Without, they "
        "are such parts of each model's map whose outlines follow edges of the picture more than at other places, "
        "such that at most a fifth can be chance (decoys, Elias and Gygi 2007), and s* is the largest step of the "
        "models that have such a part there, each in shares of its own range: the number says who keeps what another "
        "model shows, which may be wrong. Steps below 3 % of the range are not asked for. Our own definition."
    ),
    measure=_measure,
    details={
        "things": "number of small things",
        "shown": "share of them with s / s* of at least 0.25",
        "kept_tiny": "mean of s / s* of those below 1.5 % of the longer side in size (square root of the area)",
        "kept_small": "the same from 1.5 % to 3 %",
        "kept_larger": "the same from 3 %",
    },
)
