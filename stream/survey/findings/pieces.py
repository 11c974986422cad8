"""Short pieces of lines and edges, and depth along their normals: what thin structures and edges are measured with.

Invariant: a profile is the mean over a piece, so that noise cancels instead of looking like detail. NaN marks where a
map has no answer, and what is outside of the picture.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stream.depthdata.alignment import alignment
from stream.frames import DepthMap, Mask
from stream.media import cv2
from stream.survey.findings.base import Place
from stream.survey.findings.maps import place, range_of
from stream.survey.scene import WORK_PX, Scene, Truth

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]

SHOWN = 0.25
"""A map shows something if its step is at least this share of the true one: a quarter can still be seen."""
LEAST_STEP = 0.03
"""Smallest step that is asked for, as a share of the range of disparities: eight of 256 levels of a depth picture."""
LEAST_PIECES = 5
"""Fewest pieces that make a number where no truth is known: one or two may be anything."""
LEAST_SIDE = 32
"""Shortest side, in px, of a picture in which thin and small things have surroundings."""
_ROUNDING = 1e-6
"""Differences below this share of the values are what float32 rounds."""
_CELL = 16
"""A piece is what a cell of this many px holds of one line."""
_LEAST_POINTS = 4
_STRAIGHT = 0.5
"""Least coherence of a line: difference of the eigenvalues of the structure tensor over their sum; 1 is straight."""
_CONTROLS = 400
"""Places of chance that are looked at."""
_LEAST_CONTROLS = 60
_CHANCE = 0.2
"""Most of what counts as shown that may be chance: false discovery rate."""
_REMAP_ROWS = 30_000
"""OpenCV's `remap` takes fewer than 32,767 rows."""


def px(of_1600: float, size: tuple[int, int], *, least: float = 1.0) -> float:
    """A length given in px of a picture of 1600 px along the longer side, in px of a picture of `size`."""
    return max(least, of_1600 * max(size) / WORK_PX)


def robust_range(values: DepthMap) -> float:
    """The range of the disparities of a map, as `range_of`; all of it where few pixels differ from the rest, such as
    those of a pole before a wall. 0 for a constant map, and if nothing is known."""
    if extent := range_of(values):
        return extent
    known = values[~np.isnan(values)].astype(np.float64)
    extent = float(np.ptp(known)) if known.size else 0.0
    return extent if extent > _ROUNDING * float(np.abs(known).max(initial=0)) else 0.0


def in_true_units(scene: Scene, truth: Truth) -> Mapping[str, DepthMap]:
    """The maps in the units of the truth. One that no positive scale fits, such as an inverted one, is 0 throughout:
    its own units say nothing about true steps."""
    found = {name: alignment(values, truth.disparity) for name, values in scene.raw.items()}
    return {
        name: values * np.float32((fit := found[name]) is not None and fit.scale > 0)
        for name, values in scene.maps.items()
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """Pieces of lines: points with their normals, those of one piece one after the other.

    Attributes:
        x, y: float32 N, px.
        normal: float32 N×2, unit vectors (x, y); within a piece all to the same side.
        half: float32 N, half the width of the line at a point, px; 0 for edges.
        starts: index of the first point of each piece, ascending, from 0.
    """

    x: Floats
    y: Floats
    normal: Floats
    half: Floats
    starts: Ints

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def counts(self) -> Ints:
        """Points of each piece."""
        return np.diff(self.starts, append=len(self.x))

    @cached_property
    def boxes(self) -> Ints:
        """Left, top, right and bottom of each piece in px, right and bottom exclusive: P×4."""
        if not len(self):
            return np.zeros((0, 4), np.intp)
        x, y = self.x.astype(np.intp), self.y.astype(np.intp)
        low, high = np.minimum.reduceat, np.maximum.reduceat
        s = self.starts
        return np.stack([low(x, s), low(y, s), high(x, s) + 1, high(y, s) + 1], axis=1)

    def take(self, which: Ints | Mask) -> "Pieces":
        """Some of the pieces, in their order."""
        kept = np.zeros(len(self), bool)
        kept[which] = True
        points = np.repeat(kept, self.counts)
        counts = self.counts[kept]
        return Pieces(
            x=self.x[points],
            y=self.y[points],
            normal=self.normal[points],
            half=self.half[points],
            starts=np.cumsum(counts) - counts,
        )

    def thinned(self, most: int) -> "Pieces":
        """At most `most` pieces, evenly from all of them."""
        return self if len(self) <= most else self.take(np.linspace(0, len(self) - 1, most).round().astype(np.intp))

    def profiles(self, values: DepthMap, offsets: Floats) -> Floats:
        """The mean disparity at distances along the normals.

        Args:
            values: float32 H×W.
            offsets: float32 T or N×T, px along the normal.

        Returns:
            float32 P×T; NaN where fewer than half of a piece's points have an answer.
        """
        if not len(self):
            return np.zeros((0, offsets.shape[-1]), np.float32)
        x = self.x[:, None] + offsets * self.normal[:, :1]
        y = self.y[:, None] + offsets * self.normal[:, 1:]
        sampled = np.concatenate(
            [
                np.asarray(
                    cv2.remap(
                        values, x[i : i + _REMAP_ROWS], y[i : i + _REMAP_ROWS], cv2.INTER_LINEAR,
                        borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan,
                    )
                )
                for i in range(0, len(x), _REMAP_ROWS)
            ]
        )  # fmt: skip
        known = ~np.isnan(sampled)
        total = np.add.reduceat(np.where(known, sampled, np.float32(0)), self.starts, axis=0)
        count = np.add.reduceat(known, self.starts, axis=0, dtype=np.float32)
        mean = total / np.maximum(count, 1)
        return np.where(2 * count >= self.counts[:, None], mean, np.float32(np.nan)).astype(np.float32)


def places_of_chance(pieces: Pieces, lines: Mask, away: float) -> Pieces:
    """Pieces of the same shapes at other places, where the picture has no line: what a map shows there is what it shows
    anywhere, as noise and checkerboards do.

    Args:
        lines: of the picture.
        away: px from a line. Where a picture has lines nearly everywhere, the places farthest from them are taken.
    """
    if not len(pieces):
        return pieces
    rng = np.random.default_rng(0)
    height, width = lines.shape
    distance = cv2.distanceTransform((~np.pad(lines, 1)).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    some = pieces.take(np.arange(len(pieces)) % -(-len(pieces) // (2 * _CONTROLS)) == 0)
    boxes = some.boxes
    far = np.full(len(some), -1.0)
    shift = np.zeros((len(some), 2), np.float32)
    for _ in range(8):  # the farthest of a few places
        corner = (rng.random((len(some), 2)) * ([width, height] - (boxes[:, 2:] - boxes[:, :2]))).astype(np.intp)
        middle = corner + (boxes[:, 2:] - boxes[:, :2]) // 2
        found = distance[middle[:, 1], middle[:, 0]]
        better = (found > far) & (far < away)
        far, shift = np.where(better, found, far), np.where(better[:, None], corner - boxes[:, :2], shift)
    points = np.repeat(shift, some.counts, axis=0).astype(np.float32)
    moved = replace(some, x=some.x + points[:, 0], y=some.y + points[:, 1])
    order = np.argsort(-far, kind="stable")
    return moved.take(order[: min(_CONTROLS, max(_LEAST_CONTROLS, int((far >= away).sum())))])


def least_shown(responses: Floats, chance: Floats, least: float) -> float:
    """What a response has to reach to count: the lowest value from `least` on at which responses at places of chance
    are so rare that at most a fifth of those that count can be chance. Infinite if there is none, as for noise.

    The false discovery rate as estimated from decoys (Elias and Gygi, Nature Methods 4, 2007).
    """
    known: Floats = np.sort(responses[responses >= least])
    decoys: Floats = np.sort(chance[~np.isnan(chance)])
    if not known.size:
        return math.inf
    if not decoys.size:
        return least
    rate = (known.size - np.arange(known.size)) / float((~np.isnan(responses)).sum())
    by_chance = (1 + decoys.size - np.searchsorted(decoys, known)) / (1 + decoys.size)
    counts = np.flatnonzero(by_chance <= _CHANCE * rate)
    return float(known[counts[0]]) if counts.size else math.inf


def pieces_of(lines: Mask, points: Mask, image: Floats, *, window: int, half: Floats | None = None) -> Pieces:
    """Cut lines into pieces.

    Their normals come from the structure tensor of the image (Bigün and Granlund 1987): the direction in which it
    changes most. Points at which no direction stands out are left out: blobs, corners and crossings.

    Args:
        lines: two that do not touch share no piece.
        points: those of their pixels that are measured.
        image: float32 H×W, finite.
        window: px over which directions are averaged, odd.
        half: half the width of the line at each pixel, float32 H×W.
    """
    gx, gy = (cv2.Sobel(image, cv2.CV_32F, dx, 1 - dx, ksize=3) for dx in (1, 0))
    y, x = np.nonzero(points)
    xx, yy, xy = (cv2.blur(product, (window, window))[y, x] for product in (gx * gx, gy * gy, gx * gy))
    apart, both = xx - yy, xx + yy
    is_straight = apart * apart + 4 * xy * xy > (_STRAIGHT * both) ** 2
    y, x, angle = y[is_straight], x[is_straight], np.arctan2(2 * xy, apart)[is_straight] / 2
    _, labels = cv2.connectedComponents(lines.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    down, across = (-(-side // _CELL) for side in lines.shape)
    key = (labels[y, x].astype(np.int64) * down + y // _CELL) * across + x // _CELL
    order = np.argsort(key, kind="stable")
    _, starts, counts = np.unique(key[order], return_index=True, return_counts=True)
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=1)[order]
    first = np.repeat(starts, counts)
    normal[(normal * normal[first]).sum(axis=1) < 0] *= -1
    found = Pieces(
        x=x[order].astype(np.float32),
        y=y[order].astype(np.float32),
        normal=normal,
        half=np.zeros(len(order), np.float32) if half is None else half[y, x][order],
        starts=starts,
    )
    return found.take(counts >= _LEAST_POINTS)


def filled(values: DepthMap) -> DepthMap:
    """A map without gaps: what is unknown becomes the nearest of what is known, so that nothing stands out from it; 0
    if nothing is known."""
    unknown = np.isnan(values)
    if not unknown.any():
        return values
    return np.where(unknown, np.float32(0 if unknown.all() else np.nanmax(values)), values)


def densest(boxes: Ints, size: tuple[int, int], text: str, most: int = 3) -> list[Place]:
    """The places where most of some boxes lie.

    Args:
        boxes: left, top, right and bottom in px, B×4.
        size: (height, width) of the picture.
        text: of each place.
        most: number of places.

    Returns:
        At most an eighth of the longer side of the picture wide and high each, give or take a piece.
    """
    if not len(boxes):
        return []
    area = max(_CELL, max(size) // 8)
    centres = (boxes[:, :2] + boxes[:, 2:]) // 2 // area
    _, which, counts = np.unique(centres, axis=0, return_inverse=True, return_counts=True)
    places = []
    for number in np.argsort(-counts, kind="stable")[:most]:
        these = boxes[which.ravel() == number]
        places.append(place_around((*these[:, :2].min(axis=0), *these[:, 2:].max(axis=0)), size, text))
    return places


def place_around(box: Sequence[int], size: tuple[int, int], text: str) -> Place:
    """A place with a margin, from its left, top, right and bottom in px."""
    height, width = size
    margin = max(2, max(size) // 200)
    left, top = max(0, int(box[0]) - margin), max(0, int(box[1]) - margin)
    right, bottom = min(width, int(box[2]) + margin), min(height, int(box[3]) + margin)
    return place(left, top, right - left, bottom - top, size, text)
