"""Measures what decoding and encoding take a frame, and how large the results are.

    python scripts/measure/codecs.py [--sizes 640x480,1920x1080,3840x2160] [--frames 60] [--json FILE]

A depth video of a moving scene is decoded by the program's own reader and encoded by its own writer. Prints a Markdown
table: CPU milliseconds of the whole process (all threads), which other work on the machine changes little, and the
frames a second that they allow on this machine's cores. PSNR is of the first images against what was encoded.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from stream.bench.clip import write_clip
from stream.bench.report import machine
from stream.bench.suite import parse_size
from stream.capture.video.file import VideoSource
from stream.frames import Depth, DepthKind, Frame
from stream.machine import usable_cores
from stream.media import cv2
from stream.render.layout import Layout
from stream.render.range import FixedRange
from stream.render.renderer import Renderer
from stream.sinks.video import VideoSink

ENCODINGS = (
    ("libx264", "ultrafast"), ("libx264", "superfast"), ("libx264", "veryfast"), ("libx264", "medium"),
    ("libx265", "ultrafast"), ("libx265", "superfast"), ("libsvtav1", "9"), ("libsvtav1", "12"),
)  # fmt: skip
"""Codec and preset, each at its default quality here."""
MOST_IMAGES = 24
"""Different images; they are encoded forwards and backwards again and again, so that nothing jumps."""


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="640x480,1920x1080,3840x2160")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{machine()['processor']}, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}")
    print("| Size | Step | CPU ms a frame | Wall ms a frame | Limit, fps | kB a frame | PSNR, dB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    rows: list[dict[str, Any]] = []
    for text in options.sizes.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            for row in measured(parse_size(text), options.frames, Path(temporary)):
                rows.append({"size": text, **row})
                limit = usable_cores() / row["cpu_s"]
                times = f"{1000 * row['cpu_s']:.1f} | {1000 * row['wall_s']:.1f} | {limit:.0f}"
                cells = f"{times} | {row['kb']:.1f} | {row['psnr']}"
                print(f"| {text} | {row['step']} | {cells} |", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine(), "load": os.getloadavg(), "rows": rows}, indent=1))


def measured(size_hw: tuple[int, int], count: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of one size: decoding, colouring, then each way to encode."""
    clip = folder / "clip.mp4"
    write_clip(clip, size_hw, count)
    rows = [row("decode H.264", lambda: decoded(clip), count, clip)]
    with closing(VideoSource(clip)) as source:
        frames = [frame for frame, _ in zip(source, range(MOST_IMAGES), strict=False)]
        info = source.info
    renderer = Renderer(layout=Layout.DEPTH, colormap="inferno", range_policy=FixedRange(0.0, 255.0))
    depths = [
        Depth(values=frame.rgb[..., 0].astype("float32"), kind=DepthKind.RELATIVE_DISPARITY, index=frame.index)
        for frame in frames
    ]
    images = []
    rows.append(row("colour", lambda: images.extend(map(renderer.render, frames, depths)), len(frames), clip))
    for codec, preset in ENCODINGS:
        path = folder / f"{codec}-{preset}.mp4"

        def encode(path: Path = path, codec: str = codec, preset: str = preset) -> None:
            sink = VideoSink(path, codec=codec, preset=preset)
            sink.open(info, size_hw)
            for number in range(count):
                place = abs((number + MOST_IMAGES - 1) % (2 * MOST_IMAGES - 2) - MOST_IMAGES + 1) % len(frames)
                frame: Frame = replace(frames[place], index=number, pts=number * frames[1].pts)
                sink.write(frame, depths[place], images[place])
            sink.finish()

        rows.append(row(f"encode {codec} {preset}", encode, count, path) | {"psnr": psnr(path, images)})
    return rows


def decoded(clip: Path) -> None:
    """Decode all frames, as a run does."""
    with closing(VideoSource(clip)) as source:
        for _ in source:
            pass


def psnr(path: Path, images: list[Any]) -> float:
    """Mean PSNR of the first images of a video, dB."""
    with closing(VideoSource(path)) as source:
        found = [cv2.PSNR(frame.rgb, image) for frame, image in zip(source, images, strict=False)]
    return round(sum(found) / len(found), 1)


def row(step: str, work: Callable[[], object], count: int, path: Path) -> dict[str, Any]:
    """CPU and wall seconds a frame of `work`, and the size of its file."""
    cpu_s, wall_s = _cpu_s(), time.perf_counter()
    work()
    cpu_s, wall_s = _cpu_s() - cpu_s, time.perf_counter() - wall_s
    return {
        "step": step,
        "cpu_s": cpu_s / count,
        "wall_s": wall_s / count,
        "kb": path.stat().st_size / count / 1000,
        "psnr": "",
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
