"""Measures how old frames are when several live sources are shown, and what a batch of them gains.

    python scripts/measure/several.py [--model NAME] [--sources 4] [--rate 10] [--seconds 20] [--size 640x480]
    python scripts/measure/several.py --batches 4 [--model NAME]

Runs test patterns at a camera's pace, alone and together, into a page of `--serve` that nobody watches, and prints a
Markdown table: frames per second and age (from capture to display, 50 % and 95 % below) of the oldest source. With
`--batches`, times the network with 1 to N frames at once: what one forward pass costs for each frame.
"""

import argparse
import os
import time

from stream.bench.suite import parse_size
from stream.capture.pattern import NAMES
from stream.config import Config
from stream.frames import Frame
from stream.jobs.models import load_engine
from stream.jobs.options import from_options
from stream.jobs.report import Report
from stream.jobs.run import run_config
from stream.jobs.several import run_several

MOVING = [name for name in NAMES if name in ("testsrc2", "mandelbrot", "testsrc", "life", "gradients")]

ROUNDS, WARM_UP = 40, 5


def config_of(count: int, given: argparse.Namespace) -> Config:
    """A run of `count` patterns."""
    options = {
        "model": given.model, "serve": "127.0.0.1:0", "camera_fps": given.rate, "camera_size": given.size,
        "max_frames": round(given.rate * given.seconds), "threads": given.threads, "device": given.device,
        "backend": given.backend,
    }  # fmt: skip
    sources = [f"pattern:{MOVING[number % len(MOVING)]}" for number in range(count)]
    if count == 1:
        return from_options(sources[0], options)
    return from_options(None, options, base={"sources": sources})


def reports(config: Config) -> list[Report]:
    """The report of each source."""
    return run_several(config).sources if config.sources else [run_config(config)]


def row(name: str, found: list[Report]) -> str:
    """The source with the oldest frames."""
    oldest = max(found, key=lambda one: one.latency_p95_s or 0.0)
    rates = [one.rates.get("output", 0.0) for one in found]
    ages = f"{1000 * (oldest.latency_p50_s or 0):.0f} ms | {1000 * (oldest.latency_p95_s or 0):.0f} ms"
    dropped = sum(sum(one.dropped.values()) for one in found) / max(1, sum(one.captured for one in found))
    return f"| {name} | {min(rates):.1f} fps | {ages} | {dropped:.1%} | {oldest.backend} |"


def batches(given: argparse.Namespace) -> None:
    """Time the network with several frames at once."""
    import numpy as np

    from stream.capture.pattern import PatternSource

    width, height = parse_size(given.size)[::-1]
    with PatternSource("testsrc2", size_hw=(height, width)) as source:
        frame: Frame = next(iter(source))
    counts = range(1, given.batches + 1)
    options = {"model": given.model, "threads": given.threads, "device": given.device, "backend": given.backend}
    engines = [load_engine(from_options("pattern:testsrc2", {**options, "batch": count})) for count in counts]
    took: list[list[tuple[float, float]]] = [[] for _ in counts]
    try:
        for _ in range(ROUNDS):  # in turn, so that what else the machine does slows all of them
            for count, engine, found in zip(counts, engines, took, strict=True):
                began, used = time.perf_counter(), time.process_time()
                engine.infer([frame] * count)
                found.append(((time.perf_counter() - began) / count, (time.process_time() - used) / count))
    finally:
        for engine in engines:
            engine.close()
    print("| Frames at once | For each frame | Processor time |")
    print("|---:|---:|---:|")
    for count, found in zip(counts, took, strict=True):
        wall, processor = np.median(found[WARM_UP:], axis=0)
        print(f"| {count} | {1000 * wall:.1f} ms | {1000 * processor:.1f} ms |")


def main() -> None:
    """Measure ages, or batches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--batches", type=int, default=0)
    given = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
    if given.batches:
        batches(given)
        return
    print("| Sources | Slowest | Age, 50 % below | 95 % below | Dropped | Backend |")
    print("|---|---:|---:|---:|---:|---|")
    for count in dict.fromkeys([1, given.sources]):
        print(row(f"{count} at {given.rate:g} fps", reports(config_of(count, given))), flush=True)


if __name__ == "__main__":
    main()
