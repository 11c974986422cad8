"""Measures what `--skip` costs in accuracy and gains in speed, on three clips: docs/depth-data.md and docs/speed.md.

    python scripts/measure/skip.py [--model starter] [--skip 2 4 8] [--photos A B]
    python scripts/measure/skip.py rates [--model depth_anything_v2_vits] [--sizes 252 308 392 518]

The first compares the depth of frames that were skipped with that of a run in which the model sees every frame, on the
demo clip, a pan and a clip with a cut and a flash, made of photographs (default: scenes that come with the program).
AbsRel and δ1 are those of `scripts/starter/metrics.py`, with the full run in the place of the truth: least squares
of scale and shift, and depths of 1 to 11 from the nearest value to the farthest. Lost edges: the share of the steps at
outlines that is gone. The second prints frames a second and CPU time, of synthetic weights if there are no others.
Invariant: every row of a table is of the same frames.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts/starter"), str(ROOT / "scripts/measure")]

from metrics import Score, mean, score  # noqa: E402
from steadiness import DEMO, cut_and_flash, pan, read, write  # noqa: E402

import stream  # noqa: E402
from stream.bench.clip import write_clip  # noqa: E402
from stream.bench.synthetic_weights import with_synthetic_weights  # noqa: E402
from stream.frames import Depth, Frame  # noqa: E402
from stream.media import cv2  # noqa: E402
from stream.models import registry  # noqa: E402
from stream.motion.carry import Carrier, Seen  # noqa: E402
from stream.motion.steps import Steps  # noqa: E402

SCENES = ROOT / "stream/survey/scenes"
TRUTH = ROOT / "tests/data/demo_depth.npz"
AGES = 1, 2, 4, 8, 16
_SPREAD = 0.1
"""Of the range, the smallest disparity: the farthest point is 11 times as far as the nearest."""


def compared(depth: np.ndarray, full: np.ndarray) -> Score:
    """The score of a map against that of the same model in a run in which it sees every frame."""
    span = float(full.max() - full.min())
    return score(depth.astype(float), full.astype(float) - full.min() + _SPREAD * span, farthest=None)


def line(name: str, scores: list[Score]) -> str:
    """A row of a table."""
    found = mean(scores)
    return f"| {name} | {found.abs_rel:.4f} | {found.delta1:.4f} | {1 - found.sharpness:.3f} |"


def depths(clip: Path, **options: Any) -> tuple[list[Depth], float]:
    """The depth of every frame, and the CPU seconds that it took."""
    start = time.process_time()
    found = [depth for _, depth in stream.iter_depth(clip, device="cpu", **options)]
    return found, time.process_time() - start


def by_age(clip: Path, full: list[Depth]) -> Iterator[tuple[int, list[Score]]]:
    """Scores of depth that a live source takes from a frame so long ago."""
    steps, carrier = Steps(), Carrier()
    seen: dict[int, Seen] = {}
    scores: dict[int, list[Score]] = {age: [] for age in AGES}
    frames: list[Frame] = [frame for frame, _ in stream.iter_depth(clip, model="starter", device="cpu")]
    for frame, depth in zip(frames, full, strict=True):
        step = steps.step(frame)
        if step.begins:
            seen.clear()
        if step.back is not None:
            moved = {at: step.back.after(one.motion) for at, one in seen.items()}
            seen = {at: Seen(depth=one.depth, motion=moved[at], apart_s=1.0) for at, one in seen.items()}
        for age in AGES:
            if (one := seen.get(frame.index - age)) is not None and frame.index % 4 == 0:
                scores[age].append(compared(carrier.carried(frame.index, [one]).values, depth.values))
        seen = {at: one for at, one in seen.items() if at > frame.index - max(AGES)}
        seen[frame.index] = Seen(depth=depth, motion=None, apart_s=1.0)
    yield from scores.items()


def errors(model: str, skips: list[int], photos: list[Path]) -> None:
    """Print the tables of errors."""
    pictures = [read(photo) for photo in photos]
    with tempfile.TemporaryDirectory() as folder:
        clips = {
            "demo": DEMO,
            "pan": write(Path(folder) / "pan.mp4", [*pan(pictures[0], 75)]),
            "cut and flash": write(Path(folder) / "cut.mp4", cut_and_flash(pictures)),
        }
        for name, clip in clips.items():
            full, full_s = depths(clip, model=model)
            print(f"\n{name}: {len(full)} frames, {1000 * full_s / len(full):.0f} ms of CPU a frame")
            print("| | AbsRel | δ1 | Lost edges |\n|---|---:|---:|---:|")
            for skip in skips:
                found, took_s = depths(clip, model=model, skip=skip)
                pairs = [(a, b) for a, b in zip(found, full, strict=True) if a.carried]
                title = f"--skip {skip}: {len(pairs)} carried, {1000 * took_s / len(full):.0f} ms of CPU"
                print(line(title, [compared(a.values, b.values) for a, b in pairs]), flush=True)
                held = [k - k % skip for k in range(len(full))]
                scores = [compared(full[held[b.index]].values, b.values) for _, b in pairs]
                print(line(f"the last depth, {skip} at a time", scores), flush=True)
            for age, scores in by_age(clip, full):
                print(line(f"live, seen {age} frames ago", scores), flush=True)
            if clip == DEMO:
                with np.load(TRUTH) as stored:
                    numbers, metres = stored["frames"], stored["depth_m"].astype(float)
                scores = []
                for number, truth in zip(numbers, metres, strict=True):
                    small = cv2.resize(full[number].values, truth.shape[::-1], interpolation=cv2.INTER_AREA)
                    scores.append(score(small.astype(float), 1 / truth, farthest=10))
                print(line("the model against the truth", scores), flush=True)


def rates(model: str, sizes: list[int], skips: list[int], frames: int) -> None:
    """Print rates and CPU time at 640×480, with the load of the machine."""
    spec = registry.find(model)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        clip, weights = folder / "clip.mp4", folder / (spec.weights.file or "weights.pth")
        write_clip(clip, (640, 480), frames)
        import torch

        torch.save(with_synthetic_weights(spec, merge_norms=False).network.state_dict(), weights)
        print("| --input-size | --skip | Frames a second | CPU ms a frame | Load before |\n|---:|---:|---:|---:|---:|")
        for size in sizes:
            for skip in (1, *skips):
                load, busy = os.getloadavg()[0], time.process_time()
                report = stream.run(
                    clip, model=model, weights=weights, input_size=size, skip=skip, output=folder / "out.mp4",
                    backend="torch", device="cpu", overwrite=True,
                )  # fmt: skip
                rate = 0.0 if report.fps is None else report.fps
                busy = 1000 * (time.process_time() - busy) / frames
                print(f"| {size} | {skip} | {rate:.1f} | {busy:.0f} | {load:.1f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("errors", "rates"), default="errors")
    parser.add_argument("--model", help="default: starter, and depth_anything_v2_vits for rates")
    parser.add_argument("--skip", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--sizes", type=int, nargs="+", default=[252, 308, 392, 518])
    parser.add_argument("--frames", type=int, default=48, help="of the clip for rates")
    parser.add_argument("--photos", type=Path, nargs=2, default=[SCENES / "street.jpg", SCENES / "museum.jpg"])
    given = parser.parse_args()
    if given.what == "rates":
        rates(given.model or "depth_anything_v2_vits", given.sizes, given.skip, given.frames)
    else:
        errors(given.model or "starter", given.skip, given.photos)


if __name__ == "__main__":
    main()
