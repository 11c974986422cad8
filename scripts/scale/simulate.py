"""Simulates a batch job on many workers: how long it takes, and what is done in vain.

    python scripts/scale/simulate.py                                     the tables of docs/scale.md
    python scripts/scale/simulate.py --workers 8 64 --set life_h=1 --set segment_s=60
    python scripts/scale/simulate.py --json docs/measured/scale.json     its numbers, for scripts/docs/generate.py

Events are simulated, not averages: workers of different speeds take the next task, are lost and replaced; a task of a
lost worker is done again, up to the limit of attempts. `Parameters` names the source of every number.
Invariant: the same parameters give the same result; all time of all workers is accounted for, once.
"""

import argparse
import heapq
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

WORKERS = (1, 8, 64, 1024)
LENGTHS_S = (5, 15, 30, 60, 300, 1800)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """A job and its machines. What is marked as an assumption is one; change it with `--set NAME=VALUE`.

    Attributes:
        hours: of video, about. Enough for 1024 workers to have several tasks each.
        median_s: of the lengths of the clips, which are log-normal. Published: a random sample of YouTube (method:
            McGrady and others, "Dialing for Videos", 2023; number: as reported by User Mag, 2025).
        mean_s: of the lengths; an assumption.
        longest_s: longer clips are cut to this. Published: the longest upload that YouTube admits
            (support.google.com/youtube/answer/71673).
        fps: frames a second of video; an assumption.
        frame_ms: of a worker for a frame. Measured here: depth_anything_v2_vits in fp16 on an H200, packet to packet
            (docs/speed.md: 146.6 fps).
        speed_sigma: spread of the workers' speeds, log-normal; an assumption.
        slow_share, slow_factor: this share of the workers takes so many times as long; an assumption (a shared or
            throttled machine).
        load_s: until a worker has loaded the model. Measured here: 1.6 s (`starter`) to 6.2 s (docs/speed.md).
        task_s: for each task, to open, seek and close; an assumption.
        warm_s: of video that a segment computes in addition, for models with memory. 0 for the others.
        segment_s: length of a segment (`--segment-seconds`).
        life_h: mean life of a worker, exponential; 0 for ever. An assumption for spot machines, whose prices and
            warnings are published, but whose lives differ by type and region. Bought machines live longer: 419
            interruptions of 16 384 GPUs in 54 days (Llama 3, 2024) are 50 000 hours for each GPU.
        replace_s: until a lost worker is replaced; an assumption.
        bad_share: of the clips that cannot be decoded at one place; an assumption.
        attempts: the limit of `depthstream batch`.
    """

    hours: float = 1000
    seed: int = 0
    median_s: float = 64
    mean_s: float = 615
    longest_s: float = 12 * 3600
    fps: float = 30
    frame_ms: float = 1000 / 146.6
    speed_sigma: float = 0.05
    slow_share: float = 0.02
    slow_factor: float = 3
    load_s: float = 6.2
    task_s: float = 0.2
    warm_s: float = 0
    segment_s: float = 30
    life_h: float = 4
    replace_s: float = 120
    bad_share: float = 0.005
    attempts: int = 3

    def __post_init__(self) -> None:
        """Raise `ValueError` for numbers that no job has, some of which would never end."""
        for name, (least, most) in _RANGES.items():
            number = getattr(self, name)
            if not least <= number <= most:
                raise ValueError(f"{name}: {number:g} is not from {least:g} to {most:g}")
        if self.life_h and self.life_h < _LEAST_LIFE_H:
            raise ValueError(f"life_h: {self.life_h:g} is neither 0 nor at least {_LEAST_LIFE_H:g}")
        if self.mean_s < self.median_s:
            raise ValueError(f"mean_s: {self.mean_s:g} is less than the median of {self.median_s:g}")


_LEAST_LIFE_H = 0.001
_RANGES = {
    "hours": (0.001, 1e9),
    "seed": (0, 2**32),
    "median_s": (0.1, 1e9),
    "mean_s": (0.1, 1e9),
    "longest_s": (1, math.inf),
    "fps": (0.001, 1e6),
    "frame_ms": (1e-6, 1e9),
    "speed_sigma": (0, 3),
    "slow_share": (0, 1),
    "slow_factor": (1e-3, 1e6),
    "load_s": (0, 1e9),
    "task_s": (0, 1e9),
    "warm_s": (0, 1e9),
    "segment_s": (1, 1e9),
    "life_h": (0, 1e9),
    "replace_s": (0, 1e9),
    "bad_share": (0, 1),
    "attempts": (1, 1000),
}
"""The least and the greatest value of each parameter."""


@dataclass(frozen=True, slots=True)
class Task:
    """Seconds of video that a worker takes at once.

    Attributes:
        bad_at: seconds from its start to where decoding fails; None if it does not.
        warm: seconds before its start that are computed too.
    """

    length: float
    warm: float = 0.0
    bad_at: float | None = None


@dataclass(slots=True)
class Result:
    """What came out. The seconds are those of all workers together.

    Attributes:
        makespan_s: from the start until nothing is left to do.
        tail_s: the part of it after the first worker found nothing to do.
        useful_s: spent on frames that are in the end result.
        again_s: spent on what was lost with a worker.
        failed_s: spent on bad clips until they failed.
        overhead_s: loading models, opening and closing files.
        warm_s: spent on warm-up frames.
        away_s: machines that were lost and not yet replaced; nobody pays for them.
        idle_s: waiting while others still worked.
        done, failed: tasks. A task fails for good when its attempts are used up.
        lost: those of `failed` that nothing is wrong with.
        losses: workers lost at work.
    """

    makespan_s: float = 0.0
    tail_s: float = 0.0
    useful_s: float = 0.0
    again_s: float = 0.0
    failed_s: float = 0.0
    overhead_s: float = 0.0
    warm_s: float = 0.0
    away_s: float = 0.0
    idle_s: float = 0.0
    done: int = 0
    failed: int = 0
    lost: int = 0
    losses: int = 0


def clips(given: Parameters) -> list[Task]:
    """The clips of the job, in no order: at least one, and until they have the hours."""
    generator = np.random.default_rng(given.seed)
    sigma = math.sqrt(2 * math.log(given.mean_s / given.median_s))
    found: list[Task] = []
    left = given.hours * 3600
    while left > 0:
        length = min(given.longest_s, given.median_s * math.exp(sigma * _normal(generator)))
        is_bad, place = generator.random() < given.bad_share, generator.random()
        found.append(Task(length, bad_at=place * length if is_bad else None))
        left -= length
    return found


def segments(given: Parameters, clips: Sequence[Task]) -> list[Task]:
    """The same clips, cut; the last segment of a clip takes what is left."""
    found = []
    for clip in clips:
        number = max(1, math.ceil(clip.length / given.segment_s))
        for place in range(number):
            start = place * given.segment_s
            length = min(given.segment_s, clip.length - start)
            is_bad = clip.bad_at is not None and start <= clip.bad_at < start + length
            bad_at = clip.bad_at - start if is_bad and clip.bad_at is not None else None
            found.append(Task(length, min(given.warm_s, start), bad_at))
    return found


def speeds(given: Parameters, workers: int) -> list[float]:
    """Seconds of each worker for a second of video."""
    generator = np.random.default_rng((given.seed, 1))
    usual = given.fps * given.frame_ms / 1000
    found = []
    for _ in range(workers):
        spread = math.exp(given.speed_sigma * _normal(generator))
        found.append(usual * spread * (given.slow_factor if generator.random() < given.slow_share else 1))
    return found


def simulate(
    given: Parameters,
    tasks: Sequence[Task],
    speeds: Sequence[float],
    *,
    longest_first: bool = False,
    shards: bool = False,
    life: Callable[[], float] | None = None,
) -> Result:
    """Run the tasks on workers of these speeds.

    Args:
        longest_first: else in the given order.
        shards: each worker does every Nth task, as with `--shard I/N`, instead of the next that is left.
        life: seconds that the next new worker lives; by default drawn as the parameters say.
    """
    order = sorted(range(len(tasks)), key=lambda number: -tasks[number].length) if longest_first else range(len(tasks))
    # Waiting tasks: (place in the order, number, attempt). A task that failed goes back to its place.
    waiting: list[list[tuple[int, int, int]]] = [[] for _ in speeds] if shards else [[]]
    for place, number in enumerate(order):
        waiting[place % len(waiting)].append((place, number, 1))
    queues = [waiting[worker % len(waiting)] for worker in range(len(speeds))]
    life = life or _lives(given)
    ends = [life() for _ in speeds]
    is_cold = [True] * len(speeds)
    back_at = [0.0] * len(speeds)
    result, ties = Result(), count()
    now, first_idle = 0.0, math.inf
    running: list[tuple[float, int, int, int, int, int, bool]] = []  # end, tie, worker, place, number, attempt, is lost
    idle = list(range(len(speeds)))
    coming: list[tuple[float, int]] = []  # workers that replace lost ones

    def start(worker: int) -> bool:
        nonlocal first_idle
        if not queues[worker]:
            first_idle = min(first_idle, now)
            return False
        place, number, attempt = heapq.heappop(queues[worker])
        task, speed = tasks[number], speeds[worker]
        overhead = given.task_s + (given.load_s if is_cold[worker] else 0)
        is_cold[worker] = False
        worked = task.length if task.bad_at is None else task.bad_at
        end = now + overhead + (task.warm + worked) * speed
        while ends[worker] <= now:  # lost and replaced while it had nothing to do
            ends[worker] += life()
        is_lost = ends[worker] < end
        if is_lost:
            end = ends[worker]
            result.again_s += end - now
        elif task.bad_at is not None:
            result.failed_s += end - now
        else:
            result.overhead_s += overhead
            result.warm_s += task.warm * speed
            result.useful_s += task.length * speed
        heapq.heappush(running, (end, next(ties), worker, place, number, attempt, is_lost))
        return True

    while True:
        idle = [worker for worker in idle if not start(worker)]
        if not running:
            if not coming or not any(queues):
                break
            now, worker = heapq.heappop(coming)
            idle.append(worker)
            continue
        if coming and coming[0][0] <= running[0][0]:
            now, worker = heapq.heappop(coming)
            idle.append(worker)
            continue
        now, _, worker, place, number, attempt, is_lost = heapq.heappop(running)
        if not is_lost and tasks[number].bad_at is None:
            result.done += 1
        elif attempt < given.attempts:
            heapq.heappush(queues[worker], (place, number, attempt + 1))
        else:
            result.failed += 1
            result.lost += tasks[number].bad_at is None
        if is_lost:
            result.losses += 1
            is_cold[worker] = True
            back_at[worker] = now + given.replace_s
            ends[worker] = back_at[worker] + life()
            result.away_s += given.replace_s
            heapq.heappush(coming, (back_at[worker], worker))
        else:
            idle.append(worker)

    result.makespan_s = now
    result.tail_s = now - min(first_idle, now)
    result.away_s -= sum(max(0.0, at - now) for at in back_at)
    spent = result.useful_s + result.again_s + result.failed_s + result.overhead_s + result.warm_s + result.away_s
    result.idle_s = len(speeds) * now - spent
    return result


def rows(given: Parameters, workers: Sequence[int]) -> list[dict[str, Any]]:
    """One for each number of workers and way to share the work, as plain values."""
    whole = clips(given)
    cut = segments(given, whole)
    ways = (
        ("clips", "as listed", whole, False, False),
        ("clips", "longest first", whole, True, False),
        ("segments", "as listed", cut, False, False),
        ("segments", "longest first", cut, True, False),
        ("segments", "fixed shards", cut, True, True),
    )
    found = []
    for number in workers:
        pace = speeds(given, number)
        for unit, order, tasks, longest_first, shards in ways:
            result = simulate(given, tasks, pace, longest_first=longest_first, shards=shards)
            usable = sum(1 / speed for speed in pace)
            ideal = sum(task.length for task in tasks if task.bad_at is None) / usable
            found.append({"workers": number, "unit": unit, "order": order, "ideal_s": ideal} | asdict(result))
    return found


def lengths(given: Parameters, workers: int, lengths_s: Sequence[float]) -> list[dict[str, Any]]:
    """One row for each length of the segments, taken as listed."""
    whole, pace = clips(given), speeds(given, workers)
    found = []
    for length_s in lengths_s:
        tasks = segments(replace(given, segment_s=length_s), whole)
        result = simulate(given, tasks, pace, longest_first=False)
        bound_s = given.load_s + given.task_s + (length_s + given.warm_s) * max(pace)
        found.append({"segment_s": length_s, "workers": workers, "bound_s": bound_s} | asdict(result))
    return found


def length_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """In Markdown."""
    lines = [
        "| Segments of | Makespan | Tail | Longest task | Idle | Done again | Overhead and warm-up | Good tasks lost |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        paid = row["workers"] * row["makespan_s"] - row["away_s"]
        shares = (row["idle_s"], row["again_s"], row["overhead_s"] + row["warm_s"])
        times = (duration(row[name]) for name in ("segment_s", "makespan_s", "tail_s", "bound_s"))
        lines.append(f"| {' | '.join((*times, *(percent(share / paid) for share in shares), str(row['lost'])))} |")
    return lines


def percent(share: float) -> str:
    """With one digit after the point; never -0.0."""
    return f"{abs(round(100 * share, 1)):.1f} %"


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """In Markdown. Shares are of the workers' time that somebody pays for."""
    lines = [
        "| Workers | Unit | Order | Makespan | × ideal | Tail | Idle | Done again | Failing | Good tasks lost |",
        "|---:|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        paid = row["workers"] * row["makespan_s"] - row["away_s"]
        shares = (percent(row[name] / paid) for name in ("idle_s", "again_s", "failed_s"))
        cells = [
            str(row["workers"]), row["unit"], row["order"], duration(row["makespan_s"]),
            f"{row['makespan_s'] / row['ideal_s']:.2f}", duration(row["tail_s"]), *shares, str(row["lost"]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def duration(seconds: float) -> str:
    """With two or three digits: 5.8 s, 14 min, 3.3 h, 8.7 days."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{1 if seconds < 10 * size else 0}f} {unit}"
    return f"{seconds:.{1 if seconds < 10 else 0}f} s"


def _normal(generator: np.random.Generator) -> float:
    """From two uniform numbers (Box and Muller), so that no release of numpy changes it."""
    return math.sqrt(-2 * math.log(1 - generator.random())) * math.cos(2 * math.pi * generator.random())


def _lives(given: Parameters) -> Callable[[], float]:
    """Draws how many seconds a worker lives."""
    generator = np.random.default_rng((given.seed, 2))
    return lambda: -3600 * given.life_h * math.log(1 - generator.random()) if given.life_h else math.inf


def changed(given: Parameters, settings: Sequence[str]) -> Parameters:
    """With `NAME=VALUE` applied. Raises `ValueError`."""
    kinds = {field.name: field.type for field in fields(Parameters)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in kinds:
            raise ValueError(f"no parameter {name!r} (there are: {', '.join(kinds)})")
        values[name] = int(value) if kinds[name] in ("int", int) else float(value)
    return replace(given, **values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a parameter")
    parser.add_argument("--json", type=Path, help="write the parameters and the numbers to this file")
    options = parser.parse_args()
    try:
        given = changed(Parameters(), options.set)
    except ValueError as error:
        parser.error(str(error))
    if min(options.workers) < 1:
        parser.error("--workers: at least 1")
    found, by_length = rows(given, options.workers), lengths(given, max(options.workers), LENGTHS_S)
    if options.json:
        content = {"parameters": asdict(given), "rows": found, "lengths": by_length}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(*table(found), "", *length_table(by_length), sep="\n")


if __name__ == "__main__":
    main()
