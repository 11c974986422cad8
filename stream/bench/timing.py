"""Medians and their spread.

Invariant: the first call is never counted: it builds what later ones find.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one call: the median of `runs`, and the quartiles."""

    median_s: float
    low_s: float
    high_s: float
    runs: int


def timed(
    call: Callable[[], object],
    *,
    budget_s: float = 4.0,
    fewest: int = 3,
    most: int = 50,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Call until `budget_s` is spent, but at least `fewest` and at most `most` times after a first one."""
    call()
    seconds: list[float] = []
    started = clock()
    while len(seconds) < fewest or (len(seconds) < most and clock() - started < budget_s):
        before = clock()
        call()
        seconds.append(clock() - before)
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return Timing(median_s=float(median), low_s=float(low), high_s=float(high), runs=len(seconds))
