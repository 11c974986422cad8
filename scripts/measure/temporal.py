"""Shows that a video model needs no more memory for a longer clip, in windows and as a stream (Linux).

    python scripts/measure/temporal.py [--model NAME] [--frames 3000] [--size 64x48] [--input-size 42] [--live SECONDS]

Runs a generated clip in both modes with synthetic weights, then a live test pattern for so many seconds if asked for.
The frames are small by default, so that it takes minutes on two cores.
Prints a Markdown table: when the first result came, the time for each frame, and the resident memory after a tenth,
half and all of the frames.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import stream
from stream.bench.clip import write_clip
from stream.bench.suite import parse_size
from stream.bench.synthetic_weights import with_synthetic_weights
from stream.models import registry


def resident_bytes() -> int:
    """See proc(5)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def measure(source: str, *, mode: str, frames: int, seconds: float | None = None, **options: object) -> str:
    """A row of the table.

    Args:
        frames: how many results are expected; of a live source as many as come.
        seconds: duration of a live source.
    """
    start, first_s, done = time.monotonic(), 0.0, 0
    resident: list[tuple[float, int]] = []
    for _ in stream.iter_depth(source, temporal=mode, **options):  # type: ignore[arg-type]
        done += 1
        now = time.monotonic() - start
        first_s = first_s or now
        resident.append((done / frames if seconds is None else now / seconds, resident_bytes()))
        if seconds is not None and now > seconds:
            break
    took_s = time.monotonic() - start
    at = [next(used for share, used in resident if share >= wanted) for wanted in (0.1, 0.5)] + [resident[-1][1]]
    sizes = " | ".join(f"{used / 1e6:.0f} MB" for used in at)
    return f"| {mode} | {done} | {first_s:.1f} s | {1000 * (took_s - first_s) / max(done - 1, 1):.0f} ms | {sizes} |"


def main() -> None:
    """Measure both modes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vda-small")
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--size", default="64x48")
    parser.add_argument("--input-size", type=int, default=42)
    parser.add_argument("--live", type=float, default=0.0)
    given = parser.parse_args()
    spec = registry.find(given.model)
    with tempfile.TemporaryDirectory() as temporary:
        clip, weights = Path(temporary) / "clip.mp4", Path(temporary) / spec.weights.file
        write_clip(clip, parse_size(given.size), given.frames)
        torch.save(with_synthetic_weights(spec, merge_norms=False).network.state_dict(), weights)
        options = {"model": spec.name, "weights": weights, "device": "cpu", "precision": "fp32"}
        options["input_size"] = given.input_size
        print("| Mode | Frames | First result | Each further | Memory at 10 % | at 50 % | at the end |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for mode in ("window", "stream"):
            print(measure(str(clip), mode=mode, frames=given.frames, **options), flush=True)
        if given.live:
            live = {"live": "live", **options}
            print(measure("pattern:testsrc2", mode="stream", frames=0, seconds=given.live, **live), flush=True)


if __name__ == "__main__":
    main()
