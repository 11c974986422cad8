"""How much of the model's own speed the whole pipeline reaches, measured in one process.

    python scripts/benchmark.py [--size 640x480] [--frames 300] [--model starter] [--precision fp32] [--threads N]

Makes a clip, runs the bare model on its decoded frames, then the whole pipeline on the file (side layout, H.264), and
prints both rates, their ratio, each stage's busy seconds and the peak memory. The limit is the smaller of the bare
model's rate and what the cores allow: cores ÷ the pipeline's CPU seconds a frame.
Invariant: both runs use the same frames, threads and precision.
"""

import argparse
import os
import platform
import tempfile
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

import stream
from stream.capture.video import VideoSource
from stream.infer.engine import Engine
from stream.media import av
from stream.models import registry

RATE = 30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        clip, out = Path(folder) / "clip.mp4", Path(folder) / "out.mp4"
        write_clip(clip, (height, width), options.frames)
        stream.run(str(clip), output=out, max_frames=10, model=options.model)  # warm-up: imports, kernels, disk cache
        bare = bare_fps(clip, options)
        cpu, report = time.process_time(), None
        report = stream.run(
            str(clip),
            output=out,
            layout="side",
            model=options.model,
            precision=options.precision,
            threads=options.threads,
            overwrite=True,
        )
        cpu_s = (time.process_time() - cpu) / report.written
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = min(bare, cores / cpu_s)
    fps = report.fps or 0.0
    print(f"{options.model} {report.precision}, {width}×{height}, {cores} cores, {platform.machine()}")
    print(f"bare model      {bare:6.1f} fps")
    print(f"whole pipeline  {fps:6.1f} fps = {fps / bare:.2f} of the bare model, {fps / limit:.2f} of the limit")
    print(f"CPU a frame     {cpu_s * 1e3:6.1f} ms, so {cores} cores allow {cores / cpu_s:.1f} fps")
    for name, stage in report.stages.items():
        print(f"{name:<15} {stage.busy_s:6.1f} s busy, {stage.waiting_s:.1f} s waiting")
    if report.peak_memory_bytes is not None:
        print(f"peak memory     {report.peak_memory_bytes / 2**20:6.0f} MiB")


def bare_fps(clip: Path, options: argparse.Namespace) -> float:
    """Frames a second of the engine alone, on frames already decoded."""
    source = VideoSource(clip)
    frames = list(islice(source, 60))
    source.close()
    engine = Engine(registry.load(options.model), precision=options.precision, threads=options.threads)
    engine.infer(frames[:1])
    start = time.perf_counter()
    for frame in frames:
        engine.infer([frame])
    elapsed_s = time.perf_counter() - start
    engine.close()
    return len(frames) / elapsed_s


def write_clip(path: Path, size_hw: tuple[int, int], frames: int) -> None:
    """A moving scene of gradients and blocks, as hard to encode as a calm film."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            blocks = ((x + 3 * i) // 40 + y // 40) % 2 * 60
            rgb = np.stack([(x + 4 * i) % 256, (y + 2 * i) % 256, blocks + 60], axis=-1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


if __name__ == "__main__":
    main()
