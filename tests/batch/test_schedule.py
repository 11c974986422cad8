"""The bookkeeping of a batch: counts that hold at every moment, and a cost that does not grow with the sources."""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stream.batch.base import Result, Task, packed, unpacked
from stream.batch.loop import Loop
from stream.batch.schedule import Schedule, Shard, Source
from stream.batch.sources import Item
from stream.batch.summary import Hooks, Status, Summary

ROWS = 6
"""Of the long videos here; they take the size of 6 short ones."""


class Answers:
    """Workers that answer at once: videos are long, damaged, or poison that kills them, by their names."""

    slots = 2

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self, timeout_s: float) -> list[Result]:
        tasks, self.tasks = self.tasks, []
        return [self._answer(task) for task in tasks]

    def frames(self) -> dict[int, int]:
        return {}

    def stop(self) -> None:
        """Nothing is in progress."""

    def close(self) -> None:
        """Nothing is open."""

    def _answer(self, task: Task) -> Result:
        name, about = task.get("name", ""), {key: task.get(key) for key in ("id", "what", "name", "attempt")}
        failed = {**about, "state": "failed", "reason": "damaged", "retry": False, "seconds": 0.5}
        done: Result = {**about, "state": "done", "seconds": 0.5}
        if task["what"] == "plan":
            rows = {"rows": ROWS, "missing": packed(range(ROWS))} if "long" in name else {}
            plan = {"frames": 10 * (ROWS if rows else 1), "size": [4, 6], "needs": 100, **rows}
            return failed if "damaged" in name else done | plan
        if "busy" in name:
            return {**failed, "state": "busy", "reason": "another run is working on it"}
        if "poison" in name:
            return {**failed, "retry": True}
        return done | {"frames": 9}


class Counting(dict[str, Source]):
    """Counts how many sources are gone through."""

    seen = 0

    def values(self) -> Any:
        self.seen += len(self)
        return super().values()

    def items(self) -> Any:
        self.seen += len(self)
        return super().items()

    def __iter__(self) -> Iterator[str]:
        self.seen += len(self)
        return super().__iter__()


def schedule_of(count: int, **options: Any) -> Schedule:
    kinds = ("a.mp4", "long.mp4", "p.png", "damaged.mp4", "poison.mp4", "poison.long.mp4", "b.mkv")
    names = [f"{number}.{kinds[number % len(kinds)]}" for number in range(count)]
    items = [
        Item(name=name, source=f"/in/{name}", output=f"{name}.mp4", is_picture=".png" in name, size=10 + len(name))
        for name in names
    ]
    return Schedule(items, out=Path("/out"), done=names[6::14], slots=2, **options)


def run(schedule: Schedule, on_status: Any = lambda status: None) -> Summary:
    sources = list(dict.values(schedule.sources))
    summary = Summary(sources=sources, out=Path("/out"))
    hooks = Hooks(on_status=on_status)
    loop = Loop(schedule, Answers(), summary, records=NoRecords(), hooks=hooks, pin=lambda _: {})  # type: ignore[arg-type]
    loop.to_the_end()
    return summary


class NoRecords:
    """Of nothing on the disk."""

    def fail(self, name: str, reason: str, attempts: int) -> None:
        """Nothing is written."""

    def unfail(self, name: str) -> None:
        """Nothing is written."""


@pytest.mark.parametrize(
    "missing",
    [
        range(3600),
        range(0, 3600, 2),
        [row for row in range(3600) if row % 8 != 3],
        random.Random(1).sample(range(3600), 1800),
        [],
    ],
    ids=["all", "every second", "after a shard", "at random", "none"],
)  # fmt: skip
@pytest.mark.parametrize("shard", [None, Shard(number=2, count=3)])
def test_tasks_and_results_of_a_very_long_video_are_small(missing: Sequence[int], shard: Shard | None) -> None:
    name = "holiday/" + 142 * "x"
    item = Item(name=name, source=f"/{name}", output=name, is_picture=False)
    schedule, sent = Schedule([item], out=Path("/"), slots=1 + (shard is None), shard=shard), list[Task]()
    plan = {"state": "done", "what": "plan", "name": name, "attempt": 1, "frames": 3_600_000, "size": [2160, 3840]}
    plan |= {"needs": 10**12, "rows": 3600, "missing": packed(missing), "seconds": 1000.123}
    assert unpacked(packed(missing)) == sorted(missing)
    task = schedule.next()
    assert task is not None
    schedule.take(plan | {"id": task["id"]})
    schedule.begin({"backend": "openvino", "precision": "fp16"})
    while (task := schedule.next()) is not None and task["what"] == "rows":
        sent.append(task)
    assert max(len(json.dumps(message)) for message in (plan, *sent)) < 1000
    rows = [row for task in sent for row in range(task["rows"][0], task["rows"][1] + 1)]
    assert sorted(rows) == [row for row in sorted(missing) if shard is None or shard.has(name, row)]


@pytest.mark.parametrize("shard", [None, Shard(number=2, count=3)])
def test_the_counts_hold_after_every_task(shard: Shard | None) -> None:
    schedule, seen = schedule_of(56, shard=shard), list[Status]()

    def check(status: Status) -> None:
        seen.append(status)
        sources = schedule.sources.values()
        states = Counter(source.state for source in sources)
        assert +schedule.counts == states
        assert schedule.work_left == sum(source.work for source in sources if not source.is_over)
        assert schedule.is_over == all(source.is_over for source in sources)
        assert (status.done, status.failed) == (states["done"] + states["segments"], states["failed"])
        assert (status.earlier, status.elsewhere) == (sum(s.earlier for s in sources), states["elsewhere"])

    summary = run(schedule, check)
    assert len(seen) > 50
    assert schedule.is_over
    assert schedule.work_left == 0
    assert seen[-1].done + seen[-1].failed + seen[-1].elsewhere == seen[-1].total == 56
    poison = [source for source in summary.sources if "poison" in source.item.name and source.state == "failed"]
    assert poison
    assert {source.attempts for source in poison} == {3}


def test_a_task_costs_the_same_however_many_sources_there_are() -> None:
    costs = []
    for count in (70, 700):
        schedule = schedule_of(count)
        schedule.sources = counting = Counting(schedule.sources)
        run(schedule)
        costs.append(counting.seen / count)
    assert costs[0] == costs[1], "sources gone through, for each source"
    assert costs[0] <= 4


def test_what_another_run_is_working_on_has_not_failed() -> None:
    items = [Item(name="busy.mp4", source="/busy.mp4", output="busy.mp4", is_picture=False)]
    summary = run(Schedule(items, out=Path("/out"), slots=2))
    assert [source.state for source in summary.sources] == ["elsewhere"]
    assert summary.exit_code == 0
