"""A batch from its SOURCES to its summary: find, plan, do, record.

Invariant: whatever becomes of one source never stops the others. Only a full disk, a model that cannot be loaded and
Ctrl-C end a batch early, in order: what is done stays, and the same command goes on from there.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from stream.batch.base import Executor, Result
from stream.batch.bucket import records_of
from stream.batch.failures import failure
from stream.batch.loop import Loop
from stream.batch.processes import Processes
from stream.batch.records import Records
from stream.batch.results import Done, is_same
from stream.batch.schedule import Schedule, Shard
from stream.batch.sources import Found, Item, find_sources
from stream.batch.summary import Hooks, Summary
from stream.batch.workers import check_options, checked_folder, gpu_of_each, worker_configs
from stream.config import Config
from stream.errors import OutputError, StreamError, UsageError
from stream.jobs.models import spec_meant
from stream.jobs.segments.rows import SourceState, settings_of, source_state
from stream.notes import Notes, collected, note
from stream.version import __version__

MakeExecutor = Callable[[Sequence[Config]], Executor]


class Batch:
    """Many sources with one config.

    Args:
        config: `output.path` is the folder of the results.
        texts: the SOURCES.
        jobs: processes; default: one for each GPU, or one.
        shard: what of the work is done here.
        executor: makes the workers, of a config for each; default: processes on this machine.
        hooks: see there.

    Raises:
        StreamError: the sources cannot be found, the options do not suit many sources, or the results in the output
            folder were made with others.
    """

    def __init__(
        self,
        config: Config,
        texts: Sequence[str],
        *,
        jobs: int | None = None,
        shard: Shard | None = None,
        executor: MakeExecutor | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.out, self.shard, self.hooks = checked_folder(config), shard or Shard(), hooks or Hooks()
        check_options(config)
        spec_meant(config)  # an unknown model is the command's fault, not that of each source
        if self.shard.count > 1 and config.output.overwrite:
            what = "would remove what other shards have done"
            raise UsageError(what, where="--overwrite with --shard", hint=f"remove {self.out} first")
        self.notes = Notes(self.hooks.on_note)
        self.config = config
        self.records = records_of(config)
        self.records.check()
        with collected(self.notes):
            self.found: Found = find_sources(texts, config, out=self.out)
            for text in self.found.notes:
                note(text)
            self.configs = worker_configs(config, jobs)
        self._make = executor or (lambda configs: self._processes(configs))
        self.settings = settings_of(config, version=__version__)
        self._check_settings(self.settings)

    def run(self) -> Summary:
        """Do it.

        Raises:
            StreamError: the model cannot be loaded, or a record cannot be written.
        """
        started = time.monotonic()
        with collected(self.notes):
            refused = self._begin_again() if self.config.output.overwrite else {}
            if self.shard.count == 1:
                self.records.settle()
            schedule = self._schedule()
            for name, error in refused.items():
                self._refuse(schedule, name, error)
            summary = Summary(sources=list(schedule.sources.values()), out=self.out)
            if not schedule.is_over:
                if self.records.settings() is None or self._changes(self.settings):
                    self.records.save_settings(self.settings)
                self.records.discard_abandoned()
                with closing(self._make(self.configs)) as executor:
                    schedule.slots = max(1, executor.slots)
                    loop = self._loop(schedule, executor, summary, records=self.records)
                    try:
                        loop.to_the_end()
                    except KeyboardInterrupt:
                        if not summary.interrupted:
                            raise  # otherwise the second: the workers are ended at once, and the summary says so
            self.records.discard_abandoned()
        summary.seconds = time.monotonic() - started
        return summary

    def _begin_again(self) -> dict[str, StreamError]:
        """Forget what there is of all sources; those whose segments are not a batch's to remove, and why."""
        refused: dict[str, StreamError] = {}
        for item in self.found.items:
            try:
                self.records.discard_segments(self.records.root / item.output)
                self.records.forget(item.name)
            except OutputError as error:
                refused[item.name] = error
        return refused

    def _refuse(self, schedule: Schedule, name: str, error: StreamError) -> None:
        source = schedule.refuse(name, failure(error))
        if source.state == "failed":
            self.records.fail(name, source.result["reason"], source.attempts)
        self.hooks.on_source(source)

    def look(self) -> Schedule:
        """Look at the videos, and do nothing.

        Raises:
            KeyboardInterrupt: it was interrupted.
        """
        with collected(self.notes):
            schedule = self._schedule()
            if schedule.is_planning:
                summary = Summary(sources=list(schedule.sources.values()), out=self.out)
                with closing(self._make(self.configs)) as executor:
                    self._loop(schedule, executor, summary, records=None).to_the_end()
                if summary.interrupted:
                    raise KeyboardInterrupt
        return schedule

    def _processes(self, configs: Sequence[Config]) -> Processes:
        gpus = gpu_of_each(self.config, len(configs))
        return Processes(configs, gpus=gpus, on_note=self.notes.add)

    def _schedule(self) -> Schedule:
        records = self.records.done_among(item.name for item in self.found.items)
        done = [item.name for item in self.found.items if self._is_done(item, records.get(item.name))]
        out = self.out.absolute() if isinstance(self.out, Path) else self.out  # workers may have another current folder
        return Schedule(self.found.items, out=out, done=done, slots=len(self.configs), shard=self.shard)

    def _loop(self, schedule: Schedule, executor: Executor, summary: Summary, *, records: Records | None) -> Loop:
        may_choose = self.shard.count == 1
        return Loop(
            schedule, executor, summary, records=records, hooks=self.hooks, pin=self._pin, may_choose=may_choose
        )  # fmt: skip

    def _is_done(self, item: Item, record: Done | None) -> bool:
        if record is None:
            return False
        listed = SourceState(uri=item.source, size=item.size, stamp=item.stamp)
        return is_same(record.source, listed if item.stamp else source_state(item.source))

    def _check_settings(self, settings: dict[str, Any]) -> None:
        if not self.records.are_begun or not (changes := self._changes(settings)):
            return
        if not self.config.output.overwrite:
            hint = "choose another folder with -o, or pass --overwrite to make everything again"
            raise OutputError(f"has results of other settings: {'; '.join(changes)}", where=str(self.out), hint=hint)
        if others := self.records.others({item.name for item in self.found.items}):
            what = (
                f"has results of other settings ({'; '.join(changes)}) that are not made again: {len(others)} sources"
            )
            hint = f"name all SOURCES, {others[0]} among them, or choose another folder with -o"
            raise OutputError(what, where=str(self.out), hint=hint)

    def _changes(self, settings: dict[str, Any]) -> list[str]:
        known = self.records.settings() or {}  # the weights are known when they are loaded
        return self.records.changes({key: known[key] for key in ("weights",) if key in known} | settings)

    def _pin(self, facts: Result) -> dict[str, str]:
        """What the first worker has decided for all; refuses other weights than those of the results so far.

        Raises:
            OutputError: they are others.
        """
        weights = {"weights": facts["weights_sha256"]} if facts.get("weights_sha256") else {}
        if "weights" in (self.records.settings() or {}):
            self._check_settings(self.settings | weights)
        self.records.save_settings(self.settings | weights)
        return {key: facts[key] for key in ("backend", "precision") if facts.get(key)}
