"""Counters and percentiles; the report's file."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.jobs.report import Report
from stream.metrics import LatencyHistogram, Metrics, Outcome, Rate, StageTime


@given(st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=300), st.floats(0, 100))
def test_percentiles_are_right_to_one_percent(durations: list[float], percent: float) -> None:
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(duration)
    exact = np.percentile(durations, percent, method="inverted_cdf")
    found = histogram.percentile(percent)
    assert found is not None
    assert found == pytest.approx(exact, rel=0.0101)


def test_percentile_of_nothing_is_none_and_memory_is_bounded() -> None:
    histogram = LatencyHistogram()
    assert histogram.percentile(50) is None
    for i in range(100_000):
        histogram.add((i % 1000) * 1e-4)
    assert len(histogram._counts) < 600


def test_rate_over_a_window() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0], window_s=1.0)
    for i in range(1, 101):
        now[0] = i / 50
        rate.tick()
    assert rate.per_s == pytest.approx(50, rel=0.05)


def test_fps_counts_from_first_capture_to_last_output() -> None:
    now = [10.0]
    metrics = Metrics(clock=lambda: now[0])
    assert metrics.fps is None
    metrics.first_capture_s = 10.0
    for _ in range(20):
        now[0] += 0.1
        metrics.written += 1
        metrics.record_output(now[0] - 0.05)
    assert metrics.fps == pytest.approx(10)
    assert metrics.latency.percentile(95) == pytest.approx(0.05, rel=0.01)


def report(outcome: Outcome) -> Report:
    return Report(
        outcome=outcome, source="a.mp4", model="starter", weights_sha256="0" * 64, device="cpu", precision="fp32",
        backend="torch",
        captured=3, inferred=2, written=2, shown=0, not_shown=0, dropped={}, skipped=[{"name": "x", "reason": "y"}],
        warnings=[], notes=[], counters={}, fps=None, rates={}, latency_p50_s=None, latency_p95_s=None,
        stages={"capture": StageTime(busy_s=1.0, waiting_s=2.0)}, peak_memory_bytes=1, duration_s=3.0,
        outputs=["out.mp4"], abandoned=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.DONE, 0), (Outcome.DONE_WITH_SKIPS, 3), (Outcome.INTERRUPTED, 130)]
)
def test_report_is_written_whole_as_json(tmp_path: Path, outcome: Outcome, code: int) -> None:
    report(outcome).save(tmp_path / "deep" / "run.json")
    read = json.loads((tmp_path / "deep" / "run.json").read_text())
    assert read["exit_code"] == code
    assert read["outcome"] == outcome.value
    assert read["stages"]["capture"] == {"busy_s": 1.0, "waiting_s": 2.0}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["run.json"]
