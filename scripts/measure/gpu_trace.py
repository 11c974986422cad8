"""Numbers from a trace of torch's profiler: how much of the copying happens while something computes.

Invariant: each moment counts once, however many streams are busy.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Span = tuple[float, float]
"""Begin and end in µs."""


def measure(work: Callable[[], object]) -> dict[str, float]:
    """The numbers of `summary` for what `work` does on the GPU."""
    activities = [ProfilerActivity.CUDA] if torch.cuda.is_available() else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return summary(json.loads(path.read_text())["traceEvents"])


def summary(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The numbers of a trace in Chrome's format, as torch writes it: categories `kernel` and `gpu_memcpy`.

    Returns:
        `span_ms` from the first to the last event; `compute_ms` and `copy_ms`, when any kernel ran and anything was
        copied between host and device; `hidden`, the share of the copying during which a kernel ran too; `busy`, the
        share of the span in which kernels ran.

    Raises:
        ValueError: nothing ran on a GPU.
    """
    kernels: list[Span] = []
    copies: list[Span] = []
    for event in events:
        span = (float(event.get("ts", 0)), float(event.get("ts", 0)) + float(event.get("dur", 0)))
        if event.get("cat") == "kernel":
            kernels.append(span)
        elif event.get("cat") == "gpu_memcpy" and "DtoD" not in event["name"]:
            copies.append(span)
    if not kernels or not copies:
        raise ValueError("the trace holds no kernels or no copies: nothing ran on a GPU")
    compute, copying = length(kernels), length(copies)
    both = compute + copying - length([*kernels, *copies])
    span = max(end for _, end in (*kernels, *copies)) - min(begin for begin, _ in (*kernels, *copies))
    return {
        "span_ms": span / 1e3, "compute_ms": compute / 1e3, "copy_ms": copying / 1e3,
        "hidden": both / copying, "busy": compute / span,
    }  # fmt: skip


def length(spans: Iterable[Span]) -> float:
    """The time that is in any of the spans."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
