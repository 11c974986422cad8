"""Multiplies measured milliseconds and bytes a frame: what a million hours of video take, cost and weigh.

    python scripts/scale/cost.py                                  the tables of docs/scale.md
    python scripts/scale/cost.py --hours 10000 --machines 1,4 --price 2

Speeds are those of docs/measured/speed.json and speed-h200.json, sizes those of docs/measured/bytes.json.
Invariant: every number is a measured one times a count; the price of an hour is the only one that is not ours.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).resolve().parents[2] / "docs" / "measured"
GPUS = (1, 8, 64, 1024)
ROWS = (
    ("speed-h200", "starter", "torch", "fp16"),
    ("speed-h200", "depth_anything_v2_vits", "torch", "fp16"),
    ("speed-h200", "depth_anything_v2_vitl", "torch", "fp16"),
    ("speed", "starter", "openvino", "fp32"),
    ("speed", "depth_anything_v2_vits", "openvino", "bf16"),
)
MACHINES = {"speed-h200": "H200", "speed": "2 cores"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked: hours of video at a rate, and the price of an hour of a machine in dollars."""

    hours: float = 1_000_000
    fps: float = 30
    price: float = 3.0
    machines: tuple[int, ...] = GPUS

    def __post_init__(self) -> None:
        """Raise `ValueError` for numbers that no job has."""
        for name, least in (("hours", 0.001), ("fps", 0.001), ("price", 0)):
            if not least <= getattr(self, name) <= 1e12:  # nan neither
                raise ValueError(f"--{name}: {getattr(self, name):g} is not from {least:g} to 1e12")
        if not self.machines or min(self.machines) < 1:
            raise ValueError("--machines: at least 1")

    @property
    def frames(self) -> float:
        """In all."""
        return self.hours * 3600 * self.fps


def read(name: str) -> dict[str, Any]:
    """The content of a file of `docs/measured`."""
    found: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def time_table(job: Job) -> list[str]:
    """Days on some numbers of machines, without any waste. The price is stated for GPUs alone."""
    heads = [f"{number} machine{'s' * (number > 1)}" for number in job.machines]
    lines = [
        f"| Model | Machine | Frames/s | CPU ms a frame | Cores busy | Machine hours | Cost | {' | '.join(heads)} |",
        "|---|---|---:|---:|---:|---:|---:|" + "---:|" * len(heads),
    ]
    for file, model, backend, precision in ROWS:
        key = (model, backend, precision)
        row = next(row for row in read(file)["pipeline"] if (row["model"], row["backend"], row["precision"]) == key)
        cpu_s = row["model_cpu_s"] + row["other_cpu_s"]
        hours = job.frames / row["fps"] / 3600
        cells = [
            f"`{model}`", f"{MACHINES[file]}, {backend} {precision}", digits(row["fps"]),
            digits(1000 * cpu_s), digits(cpu_s * row["fps"]), digits(hours),
            dollars(job.price * hours) if file == "speed-h200" else "–",
            *(days(hours / 24 / number) for number in job.machines),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def size_table(job: Job) -> list[str]:
    """Bytes of each kind of output."""
    lines = ["| What | Size | KB a frame | In all |", "|---|---|---:|---:|"]
    for row in read("bytes")["rows"]:
        number = row["bytes_a_frame"]
        lines.append(f"| {row['what']} | {row['size']} | {digits(number / 1000)} | {size(number * job.frames)} |")
    return lines


def digits(number: float) -> str:
    """With at least two digits, and blanks between thousands."""
    return f"{number:.1f}" if number < 10 else f"{number:,.0f}".replace(",", " ")


def dollars(number: float) -> str:
    """In millions where there are some."""
    return f"${number / 1e6:.2f} M" if number >= 1e5 else f"${digits(number)}"


def days(number: float) -> str:
    """In years, days or hours."""
    if number >= 730:
        return f"{digits(number / 365)} years"
    return f"{digits(number)} days" if number >= 2 else f"{digits(24 * number)} h"


def size(number: float) -> str:
    """In the largest decimal unit of at least one."""
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number / 1e6:.3g} MB"


def counts(values: str) -> tuple[int, ...]:
    """`1,8,64` as numbers."""
    return tuple(int(value) for value in values.split(","))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=Job.hours, help="of video")
    parser.add_argument("--fps", type=float, default=Job.fps, help="frames a second of video")
    parser.add_argument("--price", type=float, default=Job.price, help="dollars for an hour of a GPU machine")
    parser.add_argument("--machines", type=counts, default=GPUS, help="numbers of machines, such as 1,8,64")
    given = parser.parse_args(arguments)
    try:
        job = Job(hours=given.hours, fps=given.fps, price=given.price, machines=given.machines)
    except ValueError as error:
        parser.error(str(error))
    print(*time_table(job), "", *size_table(job), sep="\n")


if __name__ == "__main__":
    main()
