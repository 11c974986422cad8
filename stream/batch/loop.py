"""The loop of a batch: tasks to workers, results to records, an orderly end.

Invariant: a task is given to one worker at a time, and the loop ends only when no task is in progress, or at once after
a second Ctrl-C.
"""

import time
from collections.abc import Callable

from stream.batch.base import Executor, Result
from stream.batch.records import Records
from stream.batch.schedule import MOST_ATTEMPTS, Schedule, Source
from stream.batch.summary import Hooks, Status, Summary
from stream.errors import ModelError, StreamError, UsageError
from stream.notes import note
from stream.pipeline.runner import Interrupts

POLL_S = 0.2
_LONGEST_END_S = 60.0
"""After this a worker that was asked to end is stuck in a driver, a file system or a network call."""


class Loop:
    """Gives the tasks of a schedule to an executor, and takes what comes back.

    Args:
        schedule: says which task is next.
        executor: has the workers.
        summary: of the batch; says in the end why it ended early.
        records: get the failures; None: nothing is done but looking at the videos.
        hooks: of the caller.
        pin: takes what the first worker says of its model, and gives what is decided for all.
        may_choose: the first worker may choose the backend; shards could choose different ones.
    """

    def __init__(
        self,
        schedule: Schedule,
        executor: Executor,
        summary: Summary,
        *,
        records: Records | None,
        hooks: Hooks,
        pin: Callable[[Result], dict[str, str]],
        may_choose: bool = True,
    ) -> None:
        self._schedule, self._executor, self._summary = schedule, executor, summary
        self._records, self._hooks, self._pin, self._may_choose = records, hooks, pin, may_choose
        self._is_ending, self._ending_s, self._interrupts = False, 0.0, Interrupts()
        self._busy: dict[int, str] = {}
        self._loading = 0
        self._loads = 0
        self._is_loaded = False
        self._frames, self._work_done, self._began_s = 0, 0.0, 0.0
        self._failures_of_loading: list[Result] = []

    def to_the_end(self) -> None:
        """Do every task, or as many as there can be done."""
        try:
            with self._interrupts.counted():
                while not self._is_over():
                    self._start_tasks()
                    for result in self._executor.wait(POLL_S):
                        self._take(result)
                    if self._interrupts.count and not self._is_ending:
                        self._end()
                    if self._is_ending and time.monotonic() > self._ending_s + _LONGEST_END_S:
                        names = ", ".join(filter(None, self._busy.values()))
                        note(f"{names}: does not end within {_LONGEST_END_S:g} s, so its worker is killed")
                        self._busy.clear()
                    if not self._executor.slots and not self._busy and not self._is_ending:
                        raise self._no_worker()
                    self._hooks.on_status(self._status())
        finally:
            self._summary.interrupted = self._interrupts.count > 0
            self._summary.hung_up = self._interrupts.hung_up

    def _is_over(self) -> bool:
        if self._is_ending:
            return not self._busy
        return self._schedule.is_over or (self._records is None and not self._schedule.is_planning)

    def _start_tasks(self) -> None:
        while not self._is_ending and len(self._busy) < self._executor.slots:
            if not self._schedule.is_planning and not self._is_loaded:
                if self._records is not None and not self._loading:
                    self._start_loading()
                return
            task = self._schedule.next()
            if task is None:
                return
            self._busy[task["id"]] = task["name"]
            self._executor.submit(task)

    def _start_loading(self) -> None:
        self._loads += 1
        self._loading = -self._loads
        task = {"what": "load", "id": self._loading, "frames": self._schedule.open_frames, "attempt": self._loads}
        size = self._schedule.largest()
        if size is not None and self._may_choose:  # shards could choose different backends
            task["size"] = list(size)
        self._busy[self._loading] = ""
        self._executor.submit(task)

    def _take(self, result: Result) -> None:
        del self._busy[result["id"]]
        if result["what"] == "load":
            self._take_load(result)
            return
        if result["state"] == "interrupted" and self._is_ending:
            self._schedule.give_back(result)
            return
        if result["state"] == "full":
            self._summary.error = self._summary.error or result["reason"]
            self._schedule.give_back(result)
            self._end()
            return
        if result["state"] == "unloaded":
            self._failures_of_loading.append(result)
            if len(self._failures_of_loading) > MOST_ATTEMPTS:
                raise _as_error(result)
        source = self._schedule.take(result)
        if source is not None:
            self._is_finished(source)

    def _take_load(self, result: Result) -> None:
        self._loading = 0
        if result["state"] == "done":
            self._is_loaded, self._began_s = True, time.monotonic()
            self._schedule.begin(self._pin(result))
        elif result["state"] == "interrupted" and self._is_ending:
            pass
        elif not result["retry"] or self._loads >= MOST_ATTEMPTS:
            raise _as_error(result)

    def _is_finished(self, source: Source) -> None:
        name = source.item.name
        if source.state == "failed" and self._records is not None:
            self._records.fail(name, source.result["reason"], source.attempts)
        elif source.state in ("done", "segments"):
            if self._records is not None:
                self._records.unfail(name)
            self._frames += source.frames or 0
            self._work_done += source.work
        self._hooks.on_source(source)

    def _status(self) -> Status:
        now, counts = self._executor.frames(), self._schedule.counts
        by_name = self._schedule.sources
        running = [
            (by_name[name].item.name, now.get(id, 0), by_name[name].frames) for id, name in self._busy.items() if name
        ]
        status = Status(
            total=len(by_name),
            done=counts["done"] + counts["segments"],
            earlier=self._schedule.earlier,
            failed=counts["failed"],
            elsewhere=counts["elsewhere"],
            frames=self._frames + sum(frames for _, frames, _ in running),
            running=running,
        )
        if self._is_ending:
            status.phase = "ending"
        elif self._schedule.is_planning:
            status.phase = "looking at the videos"
        elif not self._is_loaded:
            status.phase = "loading the model"
        elapsed = time.monotonic() - self._began_s
        if self._is_loaded and status.frames and elapsed > 0:
            status.fps = status.frames / elapsed
            under_way = sum(by_name[name].work * min(1.0, frames / total) for name, frames, total in running if total)
            done = self._work_done + under_way
            left = self._schedule.work_left - under_way
            status.left_s = elapsed * left / done if done else None
        return status

    def _end(self) -> None:
        self._is_ending, self._ending_s = True, time.monotonic()
        self._executor.stop()

    def _no_worker(self) -> StreamError:
        if self._failures_of_loading:
            return _as_error(self._failures_of_loading[-1])
        return StreamError("no worker process is left", hint="use fewer with -j, or see --debug")


def _as_error(result: Result) -> StreamError:
    kind = UsageError if result.get("exit_code") == 2 else ModelError
    if result["state"] == "crashed":
        hint = "use fewer processes with -j, or a smaller model"
        return ModelError(f"the model cannot be loaded: {result['reason']}", hint=hint)
    return kind(result["reason"])
