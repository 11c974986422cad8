"""Measures the time from the command to the first depth image, and its parts.

    python scripts/measure/startup.py [NAME...] [--repeat 5]

Prints a Markdown table. Models without weights in the package get the deterministic ones of tests/data/models.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from stream.models import registry
from tests.support.manifests import FILES, checkpoint, reference
from tests.support.reference import image

PARTS = """
import sys, time
from fractions import Fraction
marks = [time.monotonic()]
import stream.jobs.models, stream.infer.engine, stream.media
marks.append(time.monotonic())
from stream.config import Config
from stream.frames import Frame
model = {"name": sys.argv[1]} | ({"weights": sys.argv[2]} if len(sys.argv) > 2 else {})
engine = stream.jobs.models.load_engine(Config.model_validate({"model": model}))
marks.append(time.monotonic())
import numpy as np
rgb = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
for index in range(2):
    engine.infer([Frame(index=index, pts=index, time_base=Fraction(1), captured_at=0.0, rgb=rgb)])
    marks.append(time.monotonic())
print(*marks)
"""
"""What the command does before its first depth image, one part after the other (in the command some overlap)."""


def main() -> None:
    """Measure each model."""
    os.environ["PYTHONPATH"] = sys.path[0]  # measure this checkout
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["starter", "dpt_beit_large_512"])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print("| Model | `depthstream run photo.png` | Imports | Network and weights | First image | Next image |")
    print("|---|---|---|---|---|---|")
    for name in options.names:
        row = [f"{seconds:.2f} s" for seconds in measure(name, options.repeat)]
        print("|", " | ".join((f"`{name}`", *row)), "|", flush=True)


def measure(name: str, repeat: int) -> list[float]:
    """Median seconds of the whole command and of its parts."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        Image.fromarray(image(640, 480)).save(folder / "photo.png")
        weights = []
        if registry.find(name).weights.url is not None:
            expected = next(reference(path) for path in FILES if reference(path)["model"] == registry.find(name).name)
            weights.append(str(folder / "weights.pt"))
            torch.save(checkpoint(expected["state_dict"]), weights[0])
        command = [sys.executable, "-m", "stream", "run", "photo.png", "--quiet", "--overwrite", "-m", name]
        command += ["--weights", *weights] if weights else []
        parts = [sys.executable, "-c", PARTS, name, *weights]
        rows = [(_command(command, folder), *_parts(parts, folder)) for _ in range(repeat + 1)]
    return [statistics.median(column) for column in zip(*rows[1:], strict=True)]  # the first run reads from the disk


def _command(command: list[str], folder: Path) -> float:
    began = time.monotonic()
    subprocess.run(command, cwd=folder, check=True)
    return time.monotonic() - began


def _parts(command: list[str], folder: Path) -> list[float]:
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()
    marks = [float(mark) for mark in done]
    spans = [after - before for before, after in itertools.pairwise(marks)]
    spans[0] += marks[0] - began  # the interpreter itself
    return spans


if __name__ == "__main__":
    main()
