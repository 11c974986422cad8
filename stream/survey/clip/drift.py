"""Drift: whether the depth of what stands still in the picture wanders.

Points on a grid are followed along the optical flow for some seconds. To the disparity of each that stays where it is,
a straight line is fitted over time; the slopes are the drift. Flicker leaves slopes as well, by chance; its part is
known from how far the disparities lie from the line, and is taken out.
Invariant: memory does not grow with the length of a clip, but for one number a model for every `STRETCH_S`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap
from stream.motion.flow import LEAST_FOUND, Motion
from stream.survey.clip.points import Points

STRETCH_S = 10.0
"""Points are followed for this long at most, then others begin, so that depth that wanders to and fro shows."""
LEAST_S, LEAST_FRAMES = 1.0, 8
"""A shorter stretch says nothing."""
STILL_SHARE = 0.02
"""A point that moves farther than this share of the longer side does not stand still. A steady hand moves less."""
_SPACING_PX = 8
_LOW, _HIGH = 2, 98
"""Percentiles that bound the robust range, as for `DepthChange`."""
_CHANCE = 2.0
"""Slopes less than this many times as large as flicker alone would make them count as 0."""

_Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The drift of one stretch.

    Attributes:
        per_s: by model, in shares of its robust range; None where its depth is constant or has no answers.
        still: share of the points that stood still.
    """

    per_s: tuple[float | None, ...]
    still: float


class DriftMeter:
    """Measures drift, frame by frame, in order.

    Attributes:
        stretches: those that have ended, as far as they say something.
    """

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self._open: _Sums | None = None

    def add(self, time_s: float, maps: Sequence[DepthMap], onward: Motion | None) -> None:
        """Take the next frame.

        Args:
            maps: the disparities of each model at the flow's size; NaN where there is no answer.
            onward: where the pixels of the frame before are in this one; None if that is unknown, as after a cut.
        """
        if onward is None or onward.share_found < LEAST_FOUND:
            self.end()
        if self._open is None:
            self._open = _Sums(maps[0].shape, time_s)
        elif onward is not None:
            self._open.follow(onward)
        self._open.measure(time_s, maps)
        if self._open.length_s >= STRETCH_S:
            self.end()

    def end(self) -> None:
        """The scene or the clip has ended."""
        if self._open is not None and (found := self._open.result()) is not None:
            self.stretches.append(found)
        self._open = None


class _Sums:
    """What is known of the points of a stretch: sums of their disparities, one row a model, one column a point."""

    def __init__(self, size_hw: tuple[int, ...], start_s: float) -> None:
        self._points, self._start_s = Points(size_hw, _SPACING_PX), start_s
        self._most_px = STILL_SHARE * max(size_hw)
        self._is_still = self._points.is_found
        self._times: list[float] = []
        self._first: _Doubles | None = None
        self._extent = self._sum = self._sum_t = self._squares = np.zeros(1)

    @property
    def length_s(self) -> float:
        return self._times[-1] if self._times else 0.0

    def follow(self, onward: Motion) -> None:
        self._points.follow(onward)
        self._is_still = self._is_still & self._points.is_found & (self._points.moved_px <= self._most_px)

    def measure(self, time_s: float, maps: Sequence[DepthMap]) -> None:
        self._times.append(time_s - self._start_s)
        values = np.stack([self._points.values(one) for one in maps]).astype(np.float64)
        if self._first is None:
            self._first = values
        values = values - self._first  # small numbers, so that nothing cancels in the sums
        self._extent = self._extent + np.array([_extent(one) for one in maps])
        self._sum = self._sum + values
        self._sum_t = self._sum_t + self.length_s * values
        self._squares = self._squares + values * values

    def result(self) -> Stretch | None:
        """None if it is too short, or too little stands still."""
        n, t, kept = len(self._times), np.array(self._times), self._is_still
        if self.length_s < LEAST_S or n < LEAST_FRAMES or kept.mean() < LEAST_FOUND:
            return None
        spread_t = float(((t - t.mean()) ** 2).sum())
        shared = self._sum_t - t.mean() * self._sum
        slopes = shared / spread_t
        left = self._squares - self._sum**2 / n - shared**2 / spread_t
        by_chance = np.maximum(left, 0) / (n - 2) / spread_t  # variance of a slope
        per_s = [
            _drift(*of_model) for of_model in zip(slopes[:, kept], by_chance[:, kept], self._extent / n, strict=True)
        ]
        return Stretch(per_s=tuple(per_s), still=float(kept.mean()))


def _drift(slopes: _Doubles, by_chance: _Doubles, extent: float) -> float | None:
    """The root mean square of the slopes, without what flicker adds; in shares of the range."""
    known = np.isfinite(slopes)
    if not extent > 0 or known.mean() < LEAST_FOUND:
        return None
    found, chance = float((slopes[known] ** 2).mean()), float(by_chance[known].mean())
    return float(np.sqrt(found - chance)) / extent if found > _CHANCE**2 * chance else 0.0


def _extent(values: DepthMap) -> float:
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan")
    low, high = np.percentile(known, (_LOW, _HIGH))
    return float(high - low)
