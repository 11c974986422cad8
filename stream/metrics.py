"""Counters, rates and latency percentiles of a run; imports the standard library only, takes the clock as an argument.

Invariant: memory use does not grow with the number of frames. When a run ends without an error,
`captured == written + Σ dropped + Σ skipped`.
"""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

_BUCKETS_PER_DECADE = 116
"""Neighbouring latency buckets differ by a factor of 10^(1/116) ≈ 1.02, so a percentile is accurate within 1 %."""


class LatencyHistogram:
    """Percentiles of durations in bounded memory: counts in logarithmic buckets, 1 µs to 10⁴ s."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def add(self, seconds: float) -> None:
        """Record one duration."""
        bounded = min(max(seconds, 1e-6), 1e4)
        self._counts[round(math.log10(bounded) * _BUCKETS_PER_DECADE)] += 1
        self._total += 1

    def percentile(self, percent: float) -> float | None:
        """Return the seconds that `percent` % of the durations do not exceed (accurate to 1 %), None without any."""
        wanted = max(1, math.ceil(self._total * percent / 100))
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return float(10 ** (bucket / _BUCKETS_PER_DECADE))
        return None


class Rate:
    """Events per second, in the last `window_s` seconds for display and in the whole run; one thread calls `tick`."""

    def __init__(self, clock: Callable[[], float], window_s: float = 2.0) -> None:
        self._clock, self._window_s = clock, window_s
        self._start, self._count = clock(), 0
        self._last = 0.0
        self._total, self._first_s, self._latest_s = 0, 0.0, 0.0

    def tick(self) -> None:
        """Count one event."""
        self._latest_s = self._clock()
        if not self._total:
            self._first_s = self._latest_s
        self._total += 1
        self._count += 1
        elapsed = self._clock() - self._start
        if elapsed >= self._window_s:
            self._last, self._start, self._count = self._count / elapsed, self._clock(), 0

    @property
    def per_s(self) -> float:
        """Rate in the last full window, or in the current one if none is full yet or events have stopped."""
        elapsed = self._clock() - self._start
        if self._last and elapsed < 2 * self._window_s:
            return self._last
        return self._count / elapsed if elapsed > 0 else 0.0

    @property
    def average(self) -> float | None:
        """Rate from the first event to the latest; None before the second event."""
        elapsed = self._latest_s - self._first_s
        return (self._total - 1) / elapsed if elapsed > 0 else None


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "done"
    DONE_WITH_SKIPS = "done_with_skips"
    INTERRUPTED = "interrupted"
    FAILED = "failed"

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 0, 3, 130 or 1."""
        return {Outcome.DONE: 0, Outcome.DONE_WITH_SKIPS: 3, Outcome.INTERRUPTED: 130, Outcome.FAILED: 1}[self]


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Seconds that a stage worked, and seconds that it waited for the stages next to it."""

    busy_s: float
    waiting_s: float


@dataclass(kw_only=True)
class Metrics:
    """Numbers of a run in progress. One thread writes each counter, except `dropped`, which has a lock."""

    clock: Callable[[], float] = time.monotonic
    delivered: int = 0
    """Frames that the source yielded; counted by `count_captured`."""
    inferred: int = 0
    """Frames that the model has processed; counted by `count_inferred`."""
    carried: int = 0
    """Results whose depth was carried from other frames (`--skip`)."""
    written: int = 0
    """Frames that every lossless sink accepted."""
    shown: int = 0
    """Frames that the preview displayed."""
    not_shown: int = 0
    """Frames that the preview skipped because it was busy."""
    first_capture_s: float | None = None
    last_capture_s: float | None = None
    last_output_s: float | None = None
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    dropped: Counter[str] = field(default_factory=Counter)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=120), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.capture_rate, self.model_rate, self.output_rate = (Rate(self.clock) for _ in range(3))

    def count_captured(self) -> None:
        """Count a frame that the source yielded."""
        self.last_capture_s = self.clock()
        if self.first_capture_s is None:
            self.first_capture_s = self.last_capture_s
        self.delivered += 1
        self.capture_rate.tick()

    def count_inferred(self) -> None:
        """Count a frame that the model has processed."""
        self.inferred += 1
        self.model_rate.tick()

    def count_result(self, *, is_carried: bool = False, inferred: int | None = None) -> None:
        """Count a result of the inference.

        Args:
            is_carried: its depth was carried from other frames.
            inferred: frames that have gone through the model so far, where these are not the results.
        """
        self.carried += is_carried
        for _ in range(1 if inferred is None else inferred - self.inferred):
            self.count_inferred()

    def drop(self, cause: str, count: int = 1) -> None:
        """Count frames dropped on purpose; thread-safe."""
        with self._lock:
            self.dropped[cause] += count

    def record_output(self, captured_at: float) -> None:
        """Record that a frame captured at `captured_at` has left the pipeline."""
        now = self.clock()
        self.last_output_s = now
        self.latency.add(now - captured_at)
        self._recent.append(now - captured_at)
        self.output_rate.tick()

    def recent_latency_s(self, percent: float) -> float | None:
        """Return the latency that `percent` % of the last 120 frames did not exceed; None before the first output.

        For display; call it from the thread that calls `record_output`.
        """
        latencies = sorted(self._recent)
        return latencies[max(0, math.ceil(len(latencies) * percent / 100) - 1)] if latencies else None

    @property
    def rates(self) -> dict[str, float]:
        """Average rate of each stage by its name, without those that have no two events."""
        rates = {"capture": self.capture_rate, "model": self.model_rate, "output": self.output_rate}
        return {name: rate.average for name, rate in rates.items() if rate.average is not None}

    @property
    def fps(self) -> float | None:
        """Written frames per second from the first capture to the last output; None before two frames are written."""
        if self.first_capture_s is None or self.last_output_s is None or self.written < 2:
            return None
        elapsed = self.last_output_s - self.first_capture_s
        return self.written / elapsed if elapsed > 0 else None
