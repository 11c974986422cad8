"""The numbers that a viewer sees, in the window and on the page: rates, latency, dropped frames.

Invariant: window and page take them from here, so both show the same numbers.
"""

from dataclasses import dataclass, field
from typing import Self

from stream.capture.base import CaptureLog
from stream.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A run's numbers at one moment.

    Attributes:
        rates_fps: frames per second that the camera delivers, the model computes and viewers are shown.
        latencies_ms: from capture to display of the latest frames: median and 95th percentile; empty before the first.
        dropped: frames lost, by cause.
        frames: results so far, None before the pipeline runs.
        reconnects: how often the source was reopened.
        waiting: what the source is waiting for, "" while frames arrive.
    """

    rates_fps: dict[str, float] = field(default_factory=dict)
    latencies_ms: tuple[float, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    frames: int | None = None
    reconnects: int = 0
    waiting: str = ""

    @classmethod
    def of(cls, metrics: Metrics | None, log: CaptureLog) -> Self:
        """The numbers of now; `metrics` is None before the pipeline runs."""
        if metrics is None:
            return cls(reconnects=log.reconnects, waiting=log.waiting)
        latencies_s = (metrics.recent_latency_s(50), metrics.recent_latency_s(95))
        return cls(
            rates_fps={
                "camera": metrics.capture_rate.per_s,
                "model": metrics.model_rate.per_s,
                "shown": metrics.output_rate.per_s,
            },
            latencies_ms=tuple(1000 * latency_s for latency_s in latencies_s if latency_s is not None),
            dropped={cause.replace("_", " "): count for cause, count in {**log.dropped, **metrics.dropped}.items()},
            frames=metrics.written,
            reconnects=log.reconnects,
            waiting=log.waiting,
        )

    def lines(self) -> list[str]:
        """Lines to draw over the image."""
        lines: list[str] = []
        if self.rates_fps:
            lines.append("  ".join(f"{name} {rate:.1f} fps" for name, rate in self.rates_fps.items()))
        if self.latencies_ms:
            lines.append("latency {:.0f} ms, 95% below {:.0f} ms".format(*self.latencies_ms))
        if self.dropped:
            lines.append("dropped " + ", ".join(f"{count} {cause}" for cause, count in self.dropped.items()))
        if self.waiting or self.reconnects:
            lines.append(self.waiting or f"reconnected {self.reconnects} times")
        return lines

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for the page."""
        rows = [(name, f"{rate:.1f} fps") for name, rate in self.rates_fps.items()]
        names = ("latency", "latency, 95 % below")
        rows += [(name, f"{ms:.0f} ms") for name, ms in zip(names, self.latencies_ms, strict=False)]
        rows += [(cause, f"{count} dropped") for cause, count in self.dropped.items()]
        if self.frames is not None:
            rows.append(("frames", str(self.frames)))
        if self.reconnects:
            rows.append(("reconnected", f"{self.reconnects} times"))
        return rows
