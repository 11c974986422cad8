"""Measures depth videos: size and time a frame, and the largest error of a round trip, on the demo clip with `starter`.

    python scripts/measure/depth_video.py [--frames 60]

Each codec is written and read on this machine's cores; the model's time is not counted. docs/depth-data.md states the
numbers.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import stream
from stream.depthdata.description import DepthCodec, Description
from stream.depthdata.mapping import CODES_12, Mapping
from stream.frames import Depth, Frame
from stream.media import cv2
from stream.sinks.depthvideo import DepthVideoSink
from tests.support.sink_input import info_of

DEMO = Path(stream.__file__).parent / "data" / "demo.mp4"


def scaled(result: tuple[Frame, Depth], size_hw: tuple[int, int]) -> tuple[Frame, Depth]:
    """The result at another size, bilinear as the engine brings a network's output to the frame's size."""
    frame, depth = result
    height, width = size_hw
    values = np.asarray(cv2.resize(depth.values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    rgb = np.asarray(cv2.resize(frame.rgb, (width, height)), np.uint8)
    return replace(frame, rgb=rgb), replace(depth, values=values)


def measure(results: list[tuple[Frame, Depth]], codec: DepthCodec, folder: Path) -> str:
    """One line of the table."""
    lo = min(float(depth.values.min()) for _, depth in results)
    hi = max(float(depth.values.max()) for _, depth in results)
    mapping = Mapping(lo=lo, hi=hi)
    if codec is DepthCodec.HEVC12:
        mapping = replace(mapping, first=0, last=CODES_12)
    first, count = results[0], len(results)
    path = folder / f"x{codec.suffix}"
    about = Description(kind=first[1].kind, mapping=None if codec is DepthCodec.FLOAT32 else mapping)
    sink = DepthVideoSink(path, codec=codec, description=about, overwrite=True)
    sink.open(info_of(tick=first[0].time_base, rate=None, size=first[1].size), first[1].size)
    started = time.perf_counter()
    for frame, depth in results:
        sink.write(frame, depth, frame.rgb)
    sink.finish()
    write_ms = (time.perf_counter() - started) / count * 1e3
    started = time.perf_counter()
    with stream.open_depth_video(path) as video:
        read = list(video)
    read_ms = (time.perf_counter() - started) / count * 1e3
    errors = [np.abs(back.values - depth.values).max() for back, (_, depth) in zip(read, results, strict=True)]
    height, width = first[1].size
    kib = path.stat().st_size / count / 1024
    return (
        f"| {width}×{height} | {codec} | {kib:.0f} | {write_ms:.1f} | {read_ms:.1f} | {max(errors) / (hi - lo):.2e} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=60)
    frames = parser.parse_args().frames
    results = list(stream.iter_depth(str(DEMO), model="starter", max_frames=frames, backend="torch"))
    print("| size | codec | KiB a frame | ms to write | ms to read | largest error, share of the range |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size in ((480, 640), (1080, 1920)):
            shown = [scaled(result, size) for result in results]
            for codec in DepthCodec:
                print(measure(shown, codec, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
