"""A run whose source is worked on in segments, so that it can go on where an earlier one was interrupted.

Invariant: nothing is reused that was made from another source, by another model, with other options or by another
version; what differs is named. Outputs are joined from segments that are all done, and only then are these removed.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from threading import Event
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from stream.config import Config
from stream.errors import BusyError, OutputError, SourceError, StreamError, UsageError, reason_of, shown
from stream.frames import SourceInfo, SourceKind
from stream.jobs.clip import Job
from stream.jobs.keys import TO_GO_ON
from stream.jobs.loaded import Model, as_model
from stream.jobs.plan import OutputPlan, plan_outputs
from stream.jobs.report import Report
from stream.jobs.segments.cutting import TooShort, cut, why_in_one_piece
from stream.jobs.segments.join import START_AGAIN, DamagedError, Joined, check_reused, join, join_partial
from stream.jobs.segments.rows import Plan, Row, SegmentRecord, SourceState, settings_of, state_of
from stream.jobs.segments.store import LOCK, LocalStore, Store
from stream.jobs.segments.tally import of_both, tally
from stream.jobs.segments.twopass import has_two_passes, second_pass
from stream.jobs.segments.work import OnReport, pinned, run_rows
from stream.jobs.source import announced_source, open_config_source
from stream.jobs.supervise import OnSkip
from stream.metrics import Outcome
from stream.notes import Notes, note
from stream.pipeline.runner import ProgressHook
from stream.remote.urls import is_remote
from stream.version import __version__

if TYPE_CHECKING:
    from stream.capture.memory import Images

ATTEMPTS = 3
"""Times that segments are done again whose files turn out to be damaged when they are joined."""


def prepared(config: Config, images: "Images | None") -> Config:
    """The config of a run with --resume: what `auto` decided in the interrupted run stays decided.

    Raises:
        OutputError: something is not what it was in the interrupted run.
        UsageError: such a run cannot be resumed.
    """
    if images is not None:
        raise _cannot_be_resumed("images of a program are not read again")
    if announced_source(config) is not None:
        raise _cannot_be_resumed("a live source has no second chance")
    with closing(open_config_source(config)) as source:
        info = source.info
        plan = plan_outputs(config, info)
        if why := why_in_one_piece(config, info, plan):
            if not isinstance(why, TooShort):
                raise _cannot_be_resumed(why)
            return config
        store = store_of(plan)
        earlier = store.plan()
        if earlier is None:
            return config
        kept = {key: value for key, value in earlier.settings.items() if key in ("weights", "version")}
        now = Plan(source=state(info), settings=settings_of(config) | kept, rows=earlier.rows)
        check_unchanged(store, now, earlier)
        records = (store.record(row.number) for row in earlier.rows)
        first = next((record for record in records if record is not None), None)
        return config if first is None else pinned(config, first)


def store_of(plan: OutputPlan) -> LocalStore:
    """Where the segments of a job with this output wait."""
    assert plan.path is not None, "a job in segments writes files"
    return LocalStore.beside(plan.path)


def rows_of(config: Config, job: Job, images: "Images | None") -> tuple[Row, ...] | None:
    """The segments of a job; None if it is done in one piece."""
    if images is not None or job.plan.path is None:
        return None
    if config.output.resume and (earlier := store_of(job.plan).plan()) is not None:
        return earlier.rows
    rows = cut(config, job.info, job.plan, job.engines[0].spec)
    if isinstance(rows, str):
        if config.output.resume and not isinstance(rows, TooShort):
            note(f"{job.info.name} is done in one piece, which cannot be resumed: {rows}")
        return None
    return rows


def begun(config: Config, plan: OutputPlan) -> None:
    """Remove the segments of an interrupted run that is started again. Raises `OutputError`."""
    if config.output.overwrite and not config.output.resume and plan.path is not None:
        store = store_of(plan)
        if store.plan() is not None:
            with locked(store):
                store.discard()


def run_in_segments(
    given: Config,
    config: Config,
    job: Job,
    rows: Sequence[Row],
    *,
    started: float,
    notes: Notes,
    model: Model | None = None,
    on_progress: ProgressHook | None = None,
    on_skip: OnSkip | None = None,
    on_made: OnReport | None = None,
    stop: Event | None = None,
) -> Report:
    """Do all segments that are not done yet, and join them.

    Args:
        given: the config as it was given, which the segments belong to.
        config: the same with what was decided in an interrupted run.
        job: open; it is closed.
        rows: of its source.
        started: when the run began, monotonic seconds.
        notes: those of the run.
        model, on_progress, on_skip, on_made, stop: see `run_config`.

    Raises:
        StreamError: see `run_config`. What is done stays.
    """
    engine, info, store = job.engines[0], job.info, store_of(job.plan)
    with ExitStack() as resources:
        if model is None:
            model = as_model(engine, config, notes)
            resources.callback(model.close)
        job.inference.close()
        job.source.close()
        facts = {"weights": engine.model.weights_sha256, "version": __version__}
        plan = Plan(source=state(info), settings=settings_of(given, **facts), rows=tuple(rows))
        resources.enter_context(locked(store))
        if (earlier := store.plan()) is None:
            store.save_plan(plan)
        else:
            check_unchanged(store, plan, earlier)
        run = _Run(
            given, joinable(config), plan, store, job.plan, started=started, notes=notes, source=info.name, stop=stop
        )
        if on_made is not None:
            run.on_made = on_made

        def do(attempt: int) -> bool:
            done = run_rows(
                config, plan, rows, store, model=model, attempt=attempt, on_progress=on_progress, on_skip=on_skip,
                on_report=run.reports.append, stop=stop,
            )  # fmt: skip
            return len(done) == len(rows)

        def write() -> Report:
            return second_pass(
                _to_write(config), plan, store, model=model, on_progress=on_progress, on_skip=on_skip, stop=stop
            )

        return run.through(do, write if has_two_passes(config, model) else None)


class _Run:
    """What becomes of the segments of a run: outputs, or a partial file, and the report.

    Args:
        given: the config of the run, as for `run_in_segments`.
        config: to join with.
    """

    def __init__(
        self,
        given: Config,
        config: Config,
        plan: Plan,
        store: LocalStore,
        outputs: OutputPlan,
        *,
        started: float,
        notes: Notes,
        source: str,
        stop: Event | None = None,
    ) -> None:
        self._stop = stop
        self._given, self._config, self._plan, self._store, self._outputs = given, config, plan, store, outputs
        self._started, self._notes, self._source = started, notes, source
        self.reports: list[Report] = []
        """Of what was done now."""
        self.on_made: OnReport = lambda _report: None
        self._reused = {record.number: record for record in self._records()}

    def through(self, do: Callable[[int], bool], write: Callable[[], Report] | None) -> Report:
        """Do the segments, make the outputs of them and discard them.

        Args:
            do: does what is missing; False if it was interrupted. It is given the number of the attempt.
            write: makes the outputs; by default, the segments are joined.
        """
        store, is_joining = self._store, False
        if (closed := store.closed()) is not None:
            report = self._reported(Joined(outputs=closed[1]))
            self.on_made(report)
            store.discard()
            return report
        try:
            if not self._checked(is_joined=write is None):
                note(TO_GO_ON)
                return self._reported(Joined(), Outcome.INTERRUPTED)
            for attempt in range(1, ATTEMPTS + 1):
                if not do(attempt):
                    kept = join_partial(self._config, self._plan, store)
                    note(TO_GO_ON)
                    return self._reported(kept, Outcome.INTERRUPTED)
                is_joining = True
                if write is not None:
                    store.begin_results()
                    second = write()
                    report = self._reported(Joined(), second=second)
                    if second.outcome is Outcome.INTERRUPTED:
                        note(TO_GO_ON)
                        return report
                    break
                try:
                    report = self._reported(join(self._config, self._plan, store, reads_files=False))
                    break
                except DamagedError as error:
                    if attempt == ATTEMPTS:
                        raise
                    self._do_again(error)
                is_joining = False
        except BaseException as error:
            if isinstance(error, Exception):
                self._fail(error, keeps=not is_joining)
            elif isinstance(error, KeyboardInterrupt):  # at once
                with noted(error):
                    self._reported(Joined(), Outcome.INTERRUPTED)
            note(TO_GO_ON)
            raise
        store.close(self._records(), report.outputs)
        self.on_made(report)
        store.discard()
        return report

    def _checked(self, *, is_joined: bool) -> bool:
        """Look whether what is there is whole; False if that was interrupted."""
        try:
            reused = list(self._reused.values())
            if not check_reused(reused, self._store, self._outputs, is_joined=is_joined, stop=self._stop):
                return False
        except DamagedError as error:
            self._do_again(error)
        if self._reused:
            note(f"{len(self._reused)} of {len(self._plan.rows)} segments are done already")
        return True

    def _do_again(self, error: DamagedError) -> None:
        note(f"{error.what}: done again")
        for number in error.numbers:
            self._reused.pop(number, None)
            self._store.forget(number)

    def _fail(self, error: Exception, *, keeps: bool) -> None:
        """Keep what there is as a partial file, and write the report; a second failure is added to the first."""
        with noted(error):
            kept = join_partial(self._config, self._plan, self._store) if keeps else Joined()
            if kept.outputs:
                note(f"partial output kept: {', '.join(kept.outputs)}")
            self._reported(kept, Outcome.FAILED, shown(str(error)))

    def _records(self) -> list[SegmentRecord]:
        if (closed := self._store.closed()) is not None:
            return closed[0]
        found = (self._store.record(row.number) for row in self._plan.rows)
        return [record for record in found if record is not None]

    def _reported(
        self,
        joined: Joined,
        outcome: Outcome | None = None,
        error: str | None = None,
        *,
        second: Report | None = None,
    ) -> Report:
        report = tally(
            self._records(),
            self.reports,
            joined,
            reused=list(self._reused.values()),
            source=self._source,
            outcome=outcome,
            error=error,
            notes=self._notes.said,
            duration_s=time.monotonic() - self._started,
        )
        if second is not None:
            report = of_both(report, second)
        if self._given.output.report is not None:
            report.save(self._given.output.report)
        return report


def state(info: SourceInfo) -> SourceState:
    """What a source is now: a file, or all pictures of a folder or list. Raises `SourceError`."""
    if is_remote(info.name):
        from stream.remote.access import shared

        entry = shared(info.name).state(info.name)
        return SourceState(uri=entry.url, size=entry.size, stamp=entry.etag)
    try:
        if info.kind is not SourceKind.STILLS:
            return state_of(os.path.abspath(info.files[0]))
        lines, size = hashlib.sha256(), 0
        for path in info.files:
            status = path.stat()
            size += status.st_size
            lines.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    except OSError as error:
        raise SourceError(f"cannot be read: {reason_of(error)}", where=info.name) from error
    return SourceState(uri=os.path.abspath(info.name), size=size, stamp=lines.hexdigest())


def joinable(config: Config) -> Config:
    """The config for the end of a run, whose outputs are partly there."""
    return config.model_copy(update={"output": config.output.model_copy(update={"resume": True})})


def _to_write(config: Config) -> Config:
    """The config of a second pass, which replaces what an interrupted one has left."""
    return config.model_copy(update={"output": config.output.model_copy(update={"resume": True, "overwrite": True})})


def check_unchanged(store: Store, now: Plan, earlier: Plan, *, to_be: str = "resumed") -> None:
    """Refuse to use segments that were made of something else. Raises `OutputError`, which says what has changed."""
    if changes := list(now.differs_from(earlier)):
        what = f"cannot be {to_be}: {'; '.join(changes)}"
        raise OutputError(what, where=store.where, hint=START_AGAIN)


def _cannot_be_resumed(why: str) -> UsageError:
    return UsageError(f"cannot be resumed: {why}", where="--resume", hint="remove --resume")


@contextmanager
def noted(error: BaseException) -> Iterator[None]:
    """Add a second failure, while the first one is handled, to the first."""
    try:
        yield
    except (StreamError, OSError) as second:
        error.add_note(f"then this failed too: {second}")


@contextmanager
def locked(store: LocalStore) -> Iterator[None]:
    """Keep other runs of this machine away from a job. A run that was killed holds nothing.

    Raises:
        BusyError: another run has it.
        OutputError: the folder cannot be made.
    """
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store.root / LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        hint = "wait for it, or choose another output with -o"
        raise BusyError("another run is working on it", where=store.where, hint=hint) from None
    except OSError as error:
        raise OutputError(f"cannot be created: {reason_of(error)}", where=store.where) from error
    try:
        yield
    finally:
        lock.release()
        if not store.exists:
            with suppress(OSError):
                (store.root / LOCK).unlink(missing_ok=True)
                store.root.rmdir()
