"""Checks that a run stays below `stream.pipeline.memory.ceiling_bytes`, each setting in its own process (Linux).

    python scripts/measure/memory.py [--sizes 640x480,1920x1080,3840x2160] [--batches 1,4] [--frames 60] [--model NAME]

Prints a Markdown table of the peak memory that a run on a generated clip needs beyond the loaded program.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from stream.bench.clip import write_clip
from stream.bench.pipeline import pipeline_of
from stream.bench.suite import parse_size
from stream.config import Config
from stream.frames import Frame
from stream.infer.batcher import EngineInference
from stream.jobs.models import load_engine
from stream.pipeline.memory import ceiling_bytes
from stream.pipeline.runner import QUEUE


def _status(key: str) -> int:
    """A field of /proc/self/status, in bytes; see proc(5)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def measure(clip: Path, *, model: str, batch: int, frames: int) -> dict[str, int]:
    """Peak bytes of a run beyond those of a process that has loaded and used the model, and the ceiling."""
    options = {"batch": batch, "device": "cpu", "precision": "fp32", "backend": "torch"}
    output = {"path": str(clip.with_name("out.mp4")), "overwrite": True}
    config = Config.model_validate(
        {"source": str(clip), "model": {"name": model}, "inference": options, "output": output,
         "capture": {"max_frames": frames}}
    )  # fmt: skip
    engine = load_engine(config)
    black = np.zeros((48, 64, 3), np.uint8)
    frame = Frame(index=0, pts=0, time_base=Fraction(1, 30), captured_at=0.0, rgb=black)
    engine.infer([frame] * batch)
    queue = max(QUEUE, batch)
    inference = EngineInference(engine, batch=batch, stills=False)
    pipeline = pipeline_of(config, lambda _: inference, kind=engine.spec.output, queue=queue)
    size = pipeline.source.info.size
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, see proc(5)
    pipeline.run()
    ceiling = ceiling_bytes(size, size, batch=batch, in_flight=engine.in_flight, queue=queue)
    return {"taken": _status("VmHWM") - before, "ceiling": ceiling}


def main() -> None:
    """Measure all settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="640x480,1920x1080,3840x2160")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--one", nargs=2, metavar=("CLIP", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        clip, batch = options.one
        print(json.dumps(measure(Path(clip), model=options.model, batch=int(batch), frames=options.frames)))
        return
    print("| Clip | Batch | Ceiling | Measured |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes.split(","):
            clip = Path(temporary) / "clip.mp4"
            write_clip(clip, parse_size(size), options.frames)
            for batch in options.batches.split(","):
                own = ["--model", options.model, "--frames", str(options.frames), "--one", str(clip), batch]
                done = subprocess.run([sys.executable, __file__, *own], check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                print(
                    f"| {size} | {batch} | {found['ceiling'] / 1e6:.0f} MB | {found['taken'] / 1e6:.0f} MB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
