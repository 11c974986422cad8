"""Measures what segments cost, and what a segment differs in that is made without the ones before it.

    python scripts/measure/segments.py cost [--seconds 240] [--repeat 5] [--segment-seconds 30] [--model starter]
    python scripts/measure/segments.py equal [--frames 700] [--video-model]

`cost` runs `depthstream run` on a generated 640×480 clip in one piece and in segments, alternately, and prints the
median of each, of the whole command and of its processor time, and their ratio. `equal` makes the second half of a clip
once after the first half and once alone, with the warm-up that a plan gives it, and prints the largest difference of
the pictures, in levels of 255, and of the depth, in shares of its range (2nd to 98th percentile). Both print Markdown.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))

import stream
from stream.bench.synthetic_weights import with_synthetic_weights
from stream.depthdata.storage import join_halves
from stream.jobs.loaded import Model, load
from stream.jobs.options import from_options
from stream.jobs.plan import plan_outputs
from stream.jobs.segments.cutting import warm_up_s
from stream.jobs.segments.rows import Plan, Row, settings_of, state_of
from stream.jobs.segments.store import LocalStore
from stream.jobs.segments.work import run_rows
from stream.jobs.source import open_config_source
from stream.media import av, file_url
from stream.models import registry

RATE = 25
DEMO = Path(stream.__file__).parent / "data" / "demo.mp4"


def demo(frames: int, size_wh: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """The demo clip there and back again, darker and brighter by turns, so that ranges and views keep changing."""
    with av.open(file_url(DEMO)) as container:
        views = [frame.reformat(*size_wh, "rgb24").to_ndarray() for frame in container.decode(video=0)]
    order = [*range(len(views)), *range(len(views) - 1, -1, -1)]
    for number in range(frames):
        light = 0.8 + 0.2 * np.sin(number / 40)
        yield (views[order[number % len(order)]] * light).astype(np.uint8)


def write_clip(path: Path, frames: int, size_wh: tuple[int, int]) -> Path:
    """H.264 with a key frame every second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        video.width, video.height = size_wh
        video.pix_fmt, video.codec_context.gop_size = "yuv420p", RATE
        for view in demo(frames, size_wh):
            container.mux(video.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(video.encode(None))
    return path


def cost(given: argparse.Namespace) -> None:
    """Time the command with and without segments."""
    ways = {"one piece": "0", f"segments of {given.segment_seconds:g} s": str(given.segment_seconds)}
    walls: dict[str, list[float]] = {way: [] for way in ways}
    works: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clip = write_clip(folder / "clip.mp4", RATE * given.seconds, (640, 480))
        for number in range(given.repeat + 1):
            for way, seconds in ways.items():
                wall_s, work_s = _timed(folder, clip, given.model, seconds)
                if number:  # the first run of each reads from the disk
                    walls[way].append(wall_s)
                    works[way].append(work_s)
    print("| | Seconds | Processor seconds |\n|---|---:|---:|")
    for way in ways:
        print(f"| {way} | {statistics.median(walls[way]):.2f} | {statistics.median(works[way]):.2f} |")
    first, last = ways
    wall, work = (statistics.median(kind[last]) / statistics.median(kind[first]) for kind in (walls, works))
    print(f"| ratio | {wall:.3f} | {work:.3f} |")


def _timed(folder: Path, clip: Path, model: str, segment_seconds: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "stream", "run", str(clip), "-o", str(folder / "out.mp4"), "-m", model]
    command += ["--segment-seconds", segment_seconds, "--overwrite", "--quiet"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": sys.path[0]})
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def equal(given: argparse.Namespace) -> None:
    """Compare a half that was made after the other one with one that was made alone."""
    print("| | Warm-up | Pictures: largest | mean | Depth: largest | mean |\n|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clip = write_clip(folder / "clip.mp4", given.frames, (128, 96))
        with load({"model": "starter", "input_size": 64, "device": "cpu"}) as model:
            _compare(folder, clip, model, "`--range frame`", range="frame")
            _compare(folder, clip, model, "`--range ema`")
            _compare(folder, clip, model, "`--range ema --steady`", steady=True)
        if not given.video_model:
            return
        spec = registry.find("vda-small")
        weights = folder / spec.weights.file
        torch.save(with_synthetic_weights(spec, merge_norms=False).network.state_dict(), weights)
        small = write_clip(folder / "small.mp4", min(given.frames, 300), (64, 48))
        with load({"model": spec.name, "weights": weights, "input_size": 42, "device": "cpu"}) as model:
            for how in ("stream", "window"):
                _compare(
                    folder, small, model, f"video model, `--temporal {how}`, `--range 0:1`", temporal=how, range="0:1"
                )


def _compare(folder: Path, clip: Path, model: Model, what: str, **options: Any) -> None:
    output = folder / "out.mkv"
    wanted = {"output": output, "codec": "ffv1", "save": ["video16"], "depth_codec": "float32", "overwrite": True}
    config = from_options(str(clip), wanted | options)
    with open_config_source(config) as source:
        info = source.info
        warm_s = warm_up_s(config, info, plan_outputs(config, info), registry.find(model.name))
    count = info.frame_count or 0
    half, tick = count // 2 // RATE * RATE, info.time_base
    step = int(Fraction(1, RATE) / tick)
    warm = max(0, half * step - int(Fraction(warm_s) / tick))
    first = Row(number=0, start=0, end=half * step, tick=str(tick), warm=0, first_index=0, frames=half)
    last = Row(number=1, start=half * step, end=None, tick=str(tick), warm=warm, first_index=half, frames=count - half)
    plan = Plan(source=state_of(clip), settings=settings_of(config), rows=(first, last))
    pieces = []
    for name, rows in {"after": [first, last], "alone": [last]}.items():
        store = LocalStore(folder / name)
        store.save_plan(plan)
        run_rows(config, plan, rows, store, model=model)
        pieces.append(store.folder(1))
    pictures = _differences(*(_frames(piece / "video.nut", "rgb24") for piece in pieces))
    maps = [np.stack([join_halves(halves) for halves in _frames(piece / "depth.mkv", "gray16le")]) for piece in pieces]
    low, high = np.percentile(maps[0], (2, 98))
    depth = _differences(*(values / (high - low) for values in maps))
    for name in ("after", "alone"):
        LocalStore(folder / name).discard()
    print(
        f"| {what} | {warm_s:.1f} s | {pictures[0]:.0f} | {pictures[1]:.4f} | {depth[0]:.5f} | {depth[1]:.6f} |",
        flush=True,
    )


def _frames(path: Path, pixels: str) -> NDArray[Any]:
    with av.open(file_url(path)) as container:
        return np.stack([frame.to_ndarray(format=pixels) for frame in container.decode(video=0)])


def _differences(one: Sequence[Any] | NDArray[Any], other: Sequence[Any] | NDArray[Any]) -> tuple[float, float]:
    away = np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32))
    return float(away.max()), float(away.mean())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("cost")
    one.add_argument("--seconds", type=int, default=240)
    one.add_argument("--repeat", type=int, default=5)
    one.add_argument("--segment-seconds", type=float, default=30.0)
    one.add_argument("--model", default="starter")
    one.set_defaults(run=cost)
    two = commands.add_parser("equal")
    two.add_argument("--frames", type=int, default=700)
    two.add_argument("--video-model", action="store_true", help="also vda-small with synthetic weights: long")
    two.set_defaults(run=equal)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
