"""Medians and their spread.

Invariant: the first call is never counted, because it sets up what later calls reuse.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds per call: the median and the quartiles of `runs` calls."""

    median_s: float
    low_s: float
    high_s: float
    runs: int


def timed(
    call: Callable[[], object],
    *,
    budget_s: float = 4.0,
    min_runs: int = 3,
    max_runs: int = 50,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Call once to warm up, then until `budget_s` has passed, at least `min_runs` and at most `max_runs` times."""
    call()
    seconds: list[float] = []
    started = clock()
    while len(seconds) < min_runs or (len(seconds) < max_runs and clock() - started < budget_s):
        before = clock()
        call()
        seconds.append(clock() - before)
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return Timing(median_s=float(median), low_s=float(low), high_s=float(high), runs=len(seconds))
