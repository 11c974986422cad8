"""Measures what `--sandbox` costs: the same clip decoded, and run through a model, with and without it, in turns.

    python scripts/measure/sandbox.py [--size 1920x1080] [--frames 150] [--rounds 7] [--model starter] [--write FILE]

Prints frames per second (medians) and the ratio, and writes them as JSON: docs/measured/sandbox.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from stream import iter_depth
from stream.bench.clip import write_clip
from stream.bench.suite import parse_size
from stream.capture.open import open_source
from stream.config import CaptureConfig
from stream.machine import processor_name, system_name, usable_cores
from stream.version import __version__


def decoded(clip: Path, *, sandbox: bool) -> float:
    """Frames per second of the source alone, after its first frame."""
    with closing(open_source(str(clip), options=CaptureConfig(sandbox=sandbox))) as source:
        frames = iter(source)
        next(frames)
        began = time.monotonic()
        return sum(1 for _ in frames) / (time.monotonic() - began)


def run(clip: Path, model: str, frames: int, *, sandbox: bool) -> float:
    """Frames per second with a model, after the first two results."""
    results = iter_depth(clip, model=model, sandbox=sandbox, max_frames=frames, backend="torch", device="cpu")
    next(results), next(results)
    began = time.monotonic()
    return sum(1 for _ in results) / (time.monotonic() - began)


def main() -> None:
    """Measure both in turns, the order swapped each time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--run-frames", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    rates: dict[str, dict[bool, list[float]]] = {part: {False: [], True: []} for part in ("decode", "run")}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, parse_size(options.size), options.frames)
        for number in range(options.rounds):
            for sandbox in (False, True) if number % 2 else (True, False):
                rates["decode"][sandbox].append(decoded(clip, sandbox=sandbox))
                rates["run"][sandbox].append(run(clip, options.model, options.run_frames, sandbox=sandbox))
    found: dict[str, object] = {
        "machine": {"processor": processor_name(), "cores": usable_cores(), "system": system_name()},
        "version": __version__,
        "settings": {key: str(value) for key, value in vars(options).items() if key != "write"},
    }
    for part, by_kind in rates.items():
        plain, confined = (statistics.median(by_kind[sandbox]) for sandbox in (False, True))
        ratios = [one / other for one, other in zip(by_kind[True], by_kind[False], strict=True)]
        found[part] = {
            "plain_fps": round(plain, 2),
            "sandbox_fps": round(confined, 2),
            "ratio": round(statistics.median(ratios), 3),
        }
        print(
            f"{part}: {plain:.1f} fps, {confined:.1f} fps in the sandbox, {statistics.median(ratios):.3f}", flush=True
        )
    if options.write is not None:
        options.write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
