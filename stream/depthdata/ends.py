"""The ends of the values of a whole clip: the least and the largest, and percentiles, without keeping the values.

Invariant: memory does not grow with the number of values. The least and the largest are exact; a percentile lies within
2^-11 of its own size of the exact one.
"""

import math
from typing import Self

import numpy as np
from numpy.typing import NDArray

_SHIFT = 12
"""Bits of a float32 that are not counted apart: sign, exponent and 11 bits of the fraction remain."""
_BINS = 1 << (32 - _SHIFT)  # 8 MB of counts
_HALF = _BINS // 2


class Ends:
    """Counts values by the upper bits of their float32 form, whose order is that of the values."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] | None = None
        self._lo, self._hi = math.inf, -math.inf

    @property
    def extremes(self) -> tuple[float, float]:
        """The least and the largest value so far; (0, 0) if there was none."""
        return (self._lo, self._hi) if self._lo <= self._hi else (0.0, 0.0)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, of any shape and finite: 0.5 ms for 100 000 on one core."""
        if not values.size:
            return
        self._lo, self._hi = min(self._lo, float(values.min())), max(self._hi, float(values.max()))
        if self._counts is None:
            self._counts = np.zeros(_BINS, np.int64)
        bits = np.ascontiguousarray(values).view(np.int32).ravel()
        bins = ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> _SHIFT) + _HALF  # negative numbers in the order of their values
        first = int(bins.min())
        counted = np.bincount(bins - first)
        self._counts[first : first + len(counted)] += counted

    def merge(self, other: "Ends") -> None:
        """Count the values of another one, too; in any order the result is the same."""
        self._lo, self._hi = min(self._lo, other._lo), max(self._hi, other._hi)
        if other._counts is not None:
            self._counts = other._counts.copy() if self._counts is None else self._counts + other._counts

    def as_arrays(self) -> dict[str, NDArray[np.float64 | np.int64]]:
        """For a file: the bins that are not empty, their counts, and the least and the largest value."""
        counts = np.zeros(0, np.int64) if self._counts is None else self._counts
        bins = np.flatnonzero(counts)
        return {"bins": bins, "counts": counts[bins], "extremes": np.array([self._lo, self._hi])}

    @classmethod
    def of_arrays(cls, bins: NDArray[np.int64], counts: NDArray[np.int64], extremes: NDArray[np.float64]) -> Self:
        """The inverse of `as_arrays`."""
        ends = cls()
        ends._lo, ends._hi = (float(value) for value in extremes)
        if len(bins):
            ends._counts = np.zeros(_BINS, np.int64)
            ends._counts[bins] = counts
        return ends

    def percentiles(self, low: float, high: float) -> tuple[float, float]:
        """The values below which `low` % and `high` % of all lie; (0, 0) without any value."""
        if self._counts is None:
            return 0.0, 0.0
        below = np.cumsum(self._counts)
        return self._percentile(below, low), self._percentile(below, high)

    def _percentile(self, below: NDArray[np.int64], percent: float) -> float:
        """Interpolates within a bin, so that values that differ by less than a bin do not become one."""
        assert self._counts is not None
        rank = percent / 100 * (int(below[-1]) - 1)
        at = int(np.searchsorted(below, rank, side="right"))
        start, end = max(_edge(at), self._lo), min(_edge(at + 1), self._hi)
        share = (rank - float(below[at] - self._counts[at])) / float(self._counts[at])
        return start + (end - start) * min(1.0, share)


def _edge(number: int) -> float:
    """The least value of a bin."""
    key = np.int32(min((number - _HALF) << _SHIFT, 0x7F800000))
    return float((key ^ ((key >> np.int32(31)) & np.int32(0x7FFFFFFF))).view(np.float32))
