"""Measures what a second process gains a batch, and what Ray costs it, on the same clips.

    python scripts/measure/batch.py [--models starter,depth_anything_v2_vits] [--rounds 5] [--clips 8] [--frames 120]
    python scripts/measure/batch.py --write docs/measured/batch.json

Runs `depthstream batch` with `-j 1`, `-j 2` and `--ray local -j 2` in turns, the order reversed each time, and prints
the medians of the whole commands. "start" is the same command on clips of two frames: processes, cluster and model.
Models other than `starter` get synthetic weights, which take as long. The first pictures are compared with those of
`-j 1`: other numbers of threads may add in another order. Needs `depthstream[ray]`, unless --without-ray. Use an idle
machine: the load before each command is written too.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from segments import write_clip

from stream.bench.synthetic_weights import with_synthetic_weights
from stream.machine import processor_name, system_name, usable_cores
from stream.media import av, file_url
from stream.models import registry
from stream.version import __version__

WAYS = {"-j 1": ("-j", "1"), "-j 2": ("-j", "2"), "--ray local -j 2": ("--ray", "local", "-j", "2")}
START_FRAMES = 2
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that would decide what depthstream decides for itself."""


def sources(folder: Path, clips: int, frames: int, size_wh: tuple[int, int]) -> Path:
    """Clips that are all alike, so that their order does not matter."""
    folder.mkdir()
    first = write_clip(folder / "clip0.mp4", frames, size_wh)
    for number in range(1, clips):
        os.link(first, folder / f"clip{number}.mp4")
    return folder


def timed(clips: Path, out: Path, arguments: Sequence[str]) -> float:
    """Seconds of a whole command, which must do all."""
    command = [sys.executable, "-m", "stream", "batch", str(clips), "-o", str(out), "--quiet", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    began = time.monotonic()
    subprocess.run(command, check=True, env={**environment, "PYTHONPATH": sys.path[0]})
    return time.monotonic() - began


def pictures(out: Path) -> list[np.ndarray[Any, Any]]:
    """The decoded frames of the first result."""
    path = next(iter(sorted(out.rglob("*.mp4"))))
    with av.open(file_url(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def measured(model: str, given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row for each way."""
    common = ["-m", model, "--device", "cpu", "--backend", given.backend]
    if model != "starter":
        spec = registry.find(model)
        weights = folder / spec.weights.file
        torch.save(with_synthetic_weights(spec, merge_norms=False).network.state_dict(), weights)
        common += ["--weights", str(weights)]
    size_wh = (given.width, given.height)
    jobs = {
        "seconds": sources(folder / "clips", given.clips, given.frames, size_wh),
        "start_s": sources(folder / "starts", given.clips, START_FRAMES, size_wh),
    }
    ways = [way for way in WAYS if not (given.without_ray and "ray" in way)]
    times: dict[str, dict[str, list[float]]] = {way: {what: [] for what in (*jobs, "load")} for way in ways}
    made: dict[str, list[np.ndarray[Any, Any]]] = {}
    for number in range(given.rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            times[way]["load"].append(os.getloadavg()[0])
            for what, clips in jobs.items():
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    times[way][what].append(timed(clips, Path(out), [*common, *WAYS[way]]))
                    if what == "seconds" and way not in made:
                        made[way] = pictures(Path(out))
            print(f"  {model} {way}: {times[way]['seconds'][-1]:.1f} s", file=sys.stderr, flush=True)
    return [
        {
            "model": model,
            "way": way,
            **{what: [round(value, 2) for value in values] for what, values in times[way].items()},
            "largest_difference": max(
                int(np.abs(one.astype(int) - other).max()) for one, other in zip(made[way], made[ways[0]], strict=True)
            ),
        }
        for way in ways
    ]


def table(rows: Sequence[dict[str, Any]], frames: int) -> list[str]:
    """Medians, and how they compare with the first way of the same model."""
    lines = ["| Model | | Seconds | of `-j 1` | Start | Without the start, of `-j 1` | Frames/s |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        first = next(one for one in rows if one["model"] == row["model"])
        (whole, start), (whole_1, start_1) = (
            (statistics.median(one["seconds"]), statistics.median(one["start_s"])) for one in (row, first)
        )
        work, work_1 = max(whole - start, 1e-3), max(whole_1 - start_1, 1e-3)
        lines.append(
            f"| `{row['model']}` | `{row['way']}` | {whole:.1f} | {whole / whole_1:.2f} | {start:.1f} "
            f"| {work / work_1:.2f} | {frames / work:.1f} |"
        )
    return lines


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="starter,depth_anything_v2_vits")
    parser.add_argument("--backend", default="torch", help="the same for all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=120, help="of each clip")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--write", type=Path, help="write all numbers to this file, such as docs/measured/batch.json")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model in given.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(model, given, Path(folder))
    print(*table(rows, given.clips * (given.frames - START_FRAMES)), sep="\n")
    if given.write is not None:
        found = {
            "machine": {"processor": processor_name(), "cores": usable_cores(), "system": system_name()},
            "versions": {"depthstream": __version__, "python": platform.python_version(), "torch": torch.__version__},
            "settings": {key: value for key, value in vars(given).items() if key != "write"},
            "rows": rows,
        }
        given.write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
