"""Measures how long a survey takes, and that its memory does not grow with the number of photos.

    python scripts/measure/survey.py FOLDER [--counts 10,100] [--sides 1600,1024,3000,640,4032] [--models …]

The photos are copies of the folder's at several sizes, as often as needed. Models other than
the built-in one get synthetic weights, whose depth means nothing. Each survey runs in its own process; prints a
Markdown table from its report: seconds in all and for each photo, how busy model and output were, peak memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import cycle
from pathlib import Path

import cv2
import torch

from stream.bench.synthetic_weights import with_synthetic_weights
from stream.models import registry

SUFFIXES = (".jpg", ".jpeg", ".png")


def make_photos(folder: Path, count: int, originals: Path, sides: list[int]) -> None:
    """Write so many photos, with these longest sides in turn."""
    folder.mkdir()
    found = sorted(path for path in originals.iterdir() if path.suffix in SUFFIXES)
    read = [image for image in map(cv2.imread, map(str, found)) if image is not None and min(image.shape[:2]) > 200]
    for number, image, side in zip(range(count), cycle(read), cycle(sides), strict=False):
        scale = side / max(image.shape[:2])
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), resized)


def with_file(name: str, folder: Path) -> str:
    """A model as `-m` takes it: NAME=FILE of synthetic weights, unless its own come with the program."""
    spec = registry.find(name)
    if spec.weights.packaged:
        return name
    path = folder / f"{spec.name}.pt"
    if not path.exists():
        torch.save(with_synthetic_weights(spec, merge_norms=False).network.state_dict(), path)
    return f"{name}={path}"


def survey(photos: Path, models: list[str], out: Path) -> dict[str, object]:
    """Run one, and return its report."""
    report = out.with_suffix(".json")
    named = [word for model in models for word in ("-m", model)]
    command = [sys.executable, "-m", "stream", "survey", str(photos), *named, "-o", str(out), "--report", str(report)]
    subprocess.run([*command, "-q", "--device", "cpu"], check=True)
    found: dict[str, object] = json.loads(report.read_text())
    return found


def main() -> None:
    """Measure all numbers of photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="10,100")
    parser.add_argument("--sides", default="1600,1024,3000,640,4032")
    parser.add_argument("--models", default="starter,midas-small")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    sides = [int(side) for side in given.sides.split(",")]
    print("| Photos | Seconds | for each | Model busy | Output busy | Peak memory | Report |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = [with_file(name, folder) for name in given.models.split(",")]
        for count in map(int, given.counts.split(",")):
            make_photos(folder / f"photos{count}", count, given.folder, sides)
            found = survey(folder / f"photos{count}", models, folder / f"out{count}")
            size = sum(path.stat().st_size for path in (folder / f"out{count}").rglob("*") if path.is_file())
            seconds, stages = float(str(found["duration_s"])), json.loads(json.dumps(found["stages"]))
            busy = " | ".join(f"{stages[name]['busy_s'] / seconds:.0%}" for name in ("inference", "output"))
            peak = float(str(found["peak_memory_bytes"])) / 1e6
            print(
                f"| {count} | {seconds:.1f} | {seconds / count:.2f} s | {busy} | {peak:.0f} MB | {size / 1e6:.1f} MB |"
            )


if __name__ == "__main__":
    main()
