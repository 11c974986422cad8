"""Which task of a batch is next, and what has become of each source.

Every video is first looked at ("plan"), so that the longest begin first. Then each source is one task ("run"); a long
video whose rows are spread over several workers ("rows") is put together by its "run" task in the end.
Invariant: no task is tried more than `MOST_ATTEMPTS` times, and what becomes of one source changes no other. What a
task costs here does not depend on the number of sources: a batch may have very many.
"""

import hashlib
import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream.batch.base import Result, Task, unpacked
from stream.batch.sources import Item

MOST_ATTEMPTS = 3
_PICTURE_PIXELS_PER_BYTE = 4
"""Of a JPEG of a camera; only for the order of pictures, which are not looked at beforehand."""
_TASKS_PER_SLOT = 4
"""A long video is spread so that each worker has about this many tasks in all: few borders, and all end together."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A share of the tasks: `number` of `count`, from 1. Which task falls to which depends on its name alone."""

    number: int = 1
    count: int = 1

    def has(self, name: str, row: int = 0) -> bool:
        """Whether a source, or the row of one, falls to this shard; the rows of one video fall to all in turn."""
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
        return (int.from_bytes(digest[:8], "big") + row) % self.count == self.number - 1


@dataclass(kw_only=True, eq=False)
class Source:
    """A source of a batch, and what has become of it.

    Attributes:
        state: "waiting", "planned", "done", "failed", "elsewhere" (it falls to another shard, or another run is at it),
            or "segments" (its segments of this shard are done).
        earlier: it was done by an earlier run.
        frames, size, needs: as far as known, see "plan" in `Worker`.
        rows: segments, 0 for one piece.
        missing: rows that are not done.
        pending: tasks that are waiting or in progress.
        attempts: the most that one of its tasks has taken.
        seconds: of work.
        result: that of its last task.
    """

    item: Item
    state: str = "waiting"
    earlier: bool = False
    frames: int | None = None
    size: tuple[int, int] | None = None
    needs: int = 0
    rows: int = 0
    missing: tuple[int, ...] = ()
    pending: int = 0
    attempts: int = 0
    seconds: float = 0.0
    result: Result = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be done for it."""
        return self.state not in ("waiting", "planned")

    @property
    def work(self) -> int:
        """Estimated work, in pixels. An integer, so that sums of it are exact."""
        if self.size is None or self.item.is_picture:
            return self.item.size * _PICTURE_PIXELS_PER_BYTE
        return (self.frames or 1) * self.size[0] * self.size[1]


class Schedule:
    """See the module.

    Args:
        items: in their order.
        out: the output folder, or its URL.
        done: names of those that an earlier run has finished.
        slots: workers that share the work.
        shard: what of the work is done here.
    """

    def __init__(
        self,
        items: Iterable[Item],
        *,
        out: Path | str,
        done: Iterable[str] = (),
        slots: int = 1,
        shard: Shard | None = None,
    ) -> None:
        finished = set(done)
        self._out, self.slots, self._shard = out, slots, shard or Shard()
        self.sources = {item.name: Source(item=item) for item in items}
        self._queue: list[tuple[float, int, dict[str, Any]]] = []
        self._numbers = itertools.count()
        self._tasks: dict[int, dict[str, Any]] = {}
        self._again: deque[dict[str, Any]] = deque()
        self.pinned: dict[str, str] = {}
        """What the first worker has decided for all, added to each task."""
        self._waits_for_model = True
        self.counts = Counter(source.state for source in self.sources.values())
        """Sources in each state."""
        self.work_left = sum(source.work for source in self.sources.values())
        """Of the sources that are not over."""
        for source in self.sources.values():
            if source.item.name in finished:
                source.earlier = True
                self._becomes(source, "done")
            elif not source.item.is_picture:
                self._add(source, "plan", work=source.item.size)
            elif self._shard.has(source.item.name):
                self._becomes(source, "planned")
            else:
                self._becomes(source, "elsewhere")
        self.earlier = self.counts["done"]
        """Sources that an earlier run has finished."""
        self._is_planning = True
        self._planned()

    @property
    def is_over(self) -> bool:
        """Whether every source is done, has failed or falls to another shard."""
        return not self.counts["waiting"] and not self.counts["planned"]

    @property
    def is_planning(self) -> bool:
        """Whether videos are still looked at."""
        return self._is_planning

    @property
    def open_frames(self) -> int:
        """Frames of all sources that are still to be done, pictures included; those of unknown number count as one."""
        return sum(source.frames or 1 for source in self.sources.values() if not source.is_over)

    def largest(self) -> tuple[int, int] | None:
        """The size of most frames that are still to be done."""
        known = [source for source in self.sources.values() if not source.is_over and source.size is not None]
        return max(known, key=lambda source: source.frames or 1).size if known else None

    def next(self) -> Task | None:
        """The next task; None while there is none to be started now."""
        if not self._is_planning and self._waits_for_model:
            return None
        while self._queue or self._again:
            task = heapq.heappop(self._queue)[2] if self._queue else self._again.popleft()
            if self.sources[task["name"]].is_over:  # another of its tasks has failed for good
                self._drop(task)
                continue
            self._tasks[task["id"]] = task
            return {**task, **(self.pinned if task["what"] != "plan" else {})}
        return None

    def begin(self, pinned: dict[str, str]) -> None:
        """The model is loaded: start the work itself."""
        self.pinned, self._waits_for_model = pinned, False

    def take(self, result: Result) -> Source | None:
        """Take the result of a task.

        Returns:
            The source, if it is over now.
        """
        task = self._tasks.pop(result["id"])
        source = self.sources[task["name"]]
        source.seconds += float(result.get("seconds", 0.0))
        source.attempts = max(source.attempts, task["attempt"])
        if source.is_over:
            return None
        if result["state"] == "unloaded":  # its worker cannot have the model: another one does it
            self._again.append(task)
            return None
        if result["state"] == "done":
            over = self._take_done(source, task, result)
        elif result["state"] == "busy":
            source.result = result
            self._becomes(source, "elsewhere")
            over = True
        elif not result["retry"] or task["attempt"] >= MOST_ATTEMPTS:
            source.result = result
            self._becomes(source, "failed")
            over = True
        else:
            self._retry(source, task)
            over = False
        self._planned()
        return source if over else None

    def refuse(self, name: str, result: Result) -> Source:
        """Do nothing for a source that cannot be made again."""
        source = self.sources[name]
        source.result, source.attempts = result, 1
        self._becomes(source, "elsewhere" if result["state"] == "busy" else "failed")
        self._planned()
        return source

    def give_back(self, result: Result) -> None:
        """A task was interrupted, because the batch ends."""
        self._tasks.pop(result["id"], None)

    def _take_done(self, source: Source, task: dict[str, Any], result: Result) -> bool:
        source.pending -= 1
        if task["what"] == "plan":
            self._take_plan(source, result)
        elif task["what"] == "run":
            source.result = result
            self._becomes(source, "done")
            source.frames = result.get("frames", source.frames)
        elif not source.pending:
            if self._shard.count > 1:
                self._becomes(source, "segments")
            else:
                self._add(source, "run", work=math.inf)
        return source.is_over

    def _becomes(self, source: Source, state: str) -> None:
        """The one place where a source changes its state, and the counts with it."""
        was_over = source.is_over
        self.counts[source.state] -= 1
        source.state = state
        self.counts[state] += 1
        if source.is_over and not was_over:
            self.work_left -= source.work

    def _take_plan(self, source: Source, result: Result) -> None:
        self.work_left -= source.work
        source.frames, source.rows = result.get("frames"), result.get("rows", 0)
        source.size = tuple(result["size"])
        source.needs = result.get("needs", 0)
        self.work_left += source.work
        missing = unpacked(result["missing"]) if source.rows else []
        rows = [row for row in missing if self._shard.has(source.item.name, row)]
        source.missing = tuple(rows)
        is_ours = bool(rows) or self._shard.count == 1 or (not source.rows and self._shard.has(source.item.name))
        self._becomes(source, "planned" if is_ours else "elsewhere")

    def _planned(self) -> None:
        """Once every video was looked at, make the tasks of all sources."""
        if not self._is_planning or self.counts["waiting"]:
            return
        self._is_planning = False
        waiting = [source for source in self.sources.values() if source.state == "planned"]
        most = sum(source.work for source in waiting) / (_TASKS_PER_SLOT * self.slots)
        for source in waiting:
            if source.missing and (self.slots > 1 or self._shard.count > 1):
                of_a_row = source.work / source.rows
                for rows in _chunks(source.missing, max(1, int(most / of_a_row) if of_a_row else 1)):
                    self._add(source, "rows", work=of_a_row * len(rows), rows=rows)
            else:
                self._add(source, "run", work=source.work)

    def _retry(self, source: Source, task: dict[str, Any]) -> None:
        """Try again after everything else. Rows are tried each alone: one of them may be the poison."""
        parts = [[row, row] for row in range(task["rows"][0], task["rows"][1] + 1)] if "rows" in task else [None]
        source.pending += len(parts) - 1
        for rows in parts:
            again = {**task, "id": next(self._numbers), "attempt": task["attempt"] + 1}
            if rows is not None:
                again["rows"] = rows
            self._again.append(again)

    def _add(self, source: Source, what: str, *, work: float = 0.0, rows: Sequence[int] | None = None) -> None:
        source.pending += 1
        item, number = source.item, next(self._numbers)
        task: dict[str, Any] = {
            "id": number,
            "what": what,
            "name": item.name,
            "source": item.source,
            "output": str(self._out / item.output) if isinstance(self._out, Path) else f"{self._out}/{item.output}",
            "attempt": 1,
        }
        if item.is_picture:
            task["is_picture"] = True
        if source.rows:
            task["is_long"] = True
        if rows is not None:
            task["rows"] = [rows[0], rows[-1]]
        heapq.heappush(self._queue, (-work, number, task))

    def _drop(self, task: dict[str, Any]) -> None:
        self.sources[task["name"]].pending -= 1


def _chunks(rows: Sequence[int], most: int) -> Iterator[list[int]]:
    """Consecutive rows together, up to `most` of them."""
    chunk: list[int] = []
    for row in rows:
        if chunk and (row != chunk[-1] + 1 or len(chunk) == most):
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk
