"""Which frames of a clip are looked at like photos: some evenly, some after cuts, some where the models differ.

Invariant: a bounded number of them, however long the clip is, decided as the frames arrive.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from stream.compare.agreement import fit_scale_shift
from stream.frames import DepthMap

EVENLY, AT_CUTS, AT_DIFFERENCES = 8, 2, 2
"""Frames of each sort, at most."""
MOST_FRAMES = EVENLY + AT_CUTS + AT_DIFFERENCES
_LOW, _HIGH = 2, 98
_Item = TypeVar("_Item")


class Evenly(Generic[_Item]):
    """Keeps some of many items, evenly over all of them: every n-th, and twice as far apart whenever they are too many.

    Args:
        most: of them.
        expected: how many there will be, as an estimate; None if unknown.
    """

    def __init__(self, most: int, expected: int | None = None) -> None:
        self.kept: list[_Item] = []
        self._most, self._step = most, max(1, math.ceil((expected or 0) / most))
        self._count = 0

    @property
    def is_due(self) -> bool:
        """Whether the next item would be kept."""
        return self._count % self._step == 0

    def add(self, item: _Item) -> list[_Item]:
        """Take the next item.

        Returns:
            Those that were kept so far, or are this one, and are not kept any more.
        """
        is_due = self.is_due
        self._count += 1
        if not is_due:
            return [item]
        self.kept.append(item)
        if len(self.kept) <= self._most:
            return []
        dropped = self.kept[1::2]
        self.kept, self._step = self.kept[::2], 2 * self._step
        return dropped


@dataclass(frozen=True, kw_only=True)
class Scored(Generic[_Item]):
    """An item and how much it counts."""

    score: float
    item: _Item


class Highest(Generic[_Item]):
    """Keeps the items with the highest scores."""

    def __init__(self, most: int) -> None:
        self.kept: list[Scored[_Item]] = []
        self._most = most

    def would_keep(self, score: float) -> bool:
        """Whether an item with this score would be kept."""
        return len(self.kept) < self._most or score > min(one.score for one in self.kept)

    def add(self, score: float, item: _Item) -> list[_Item]:
        """Take an item. Returns those that are not kept any more."""
        if not self.would_keep(score):
            return [item]
        self.kept.append(Scored(score=score, item=item))
        if len(self.kept) <= self._most:
            return []
        least = min(self.kept, key=lambda one: one.score)
        self.kept.remove(least)
        return [least.item]


def difference(maps: Sequence[DepthMap]) -> float:
    """How far the models' depths of a frame lie apart, in shares of the first one's robust range.

    The mean of |a·d + b − d₁| over the pixels, where a and b fit the disparity d of another model to that of the first,
    d₁; the mean over the other models. 0 if the first is constant.

    Args:
        maps: the disparities of each model, of one size; NaN where there is no answer.
    """
    first = maps[0]
    known = first[np.isfinite(first)]
    low, high = np.percentile(known, (_LOW, _HIGH)) if known.size else (0.0, 0.0)
    if not high > low:
        return 0.0
    found = []
    for other in maps[1:]:
        apart = np.abs(fit_scale_shift(other, first).apply(other) - first)
        if not np.isnan(apart).all():
            found.append(float(np.nanmean(apart)) / float(high - low))
    return float(np.mean(found)) if found else 0.0
