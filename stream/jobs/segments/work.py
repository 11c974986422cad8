"""Makes segments: the one function that a plain run, a resumed one, a batch and a cluster all call.

One pipeline runs over consecutive rows, so nothing starts anew at their borders. It reads from the warm-up of the first
row on; what comes before the row is computed, because ranges, `--steady` and video models remember it, and not written.

With two passes, rows are those of the first one, see `twopass`. Otherwise the files of a segment, in its folder
of the store, are its pieces: `video.nut` of a video and `depth.mkv` (`depth.mp4`)
of a depth video (see `stream.sinks.pieces`), and `files.txt`, the list of the files that are in the output folder
already (see `stream.sinks.per_frame`). An unfinished segment that has frames is left with `Store.keep`.
Invariant: `run_segment` gives the same frames, times and numbers for a row, whoever calls it and however often.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import EmptyPartError, UndecodablePartError
from stream.config import Config
from stream.jobs.clip import Job
from stream.jobs.loaded import Model, as_model, configured, engine_of, kept_engine
from stream.jobs.opening import closed_on_error, opened
from stream.jobs.plan import OutputKind
from stream.jobs.ranges import ClipEnds, why_two_passes
from stream.jobs.report import ModelFacts, Report
from stream.jobs.segments.cutting import open_rows
from stream.jobs.segments.rotation import Making, Rotation
from stream.jobs.segments.rows import LAST_DURATION, Plan, Row, SegmentRecord, missing
from stream.jobs.segments.section import Section, Watched
from stream.jobs.segments.store import Store
from stream.jobs.segments.twopass import SpoolPieceSink
from stream.jobs.supervise import OnSkip, StopSign, supervise
from stream.jobs.wiring import sinks_of, wired
from stream.metrics import Outcome
from stream.notes import Notes, OnNote, collected, current
from stream.pipeline.runner import ProgressHook
from stream.sinks.base import Sink
from stream.version import __version__

if TYPE_CHECKING:
    from stream.infer.engine import Engine
    from stream.models.weights.fetch import OnTransfer

OnRecord = Callable[[SegmentRecord], None]
OnReport = Callable[[Report], None]


def run_segment(
    config: Config, plan: Plan, row: Row, store: Store, *, model: Model | None = None, attempt: int = 1
) -> SegmentRecord:
    """Do one row, or return its record if it is done. See `run_rows`.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    records = run_rows(config, plan, [row], store, model=model, attempt=attempt)
    if not records:
        raise KeyboardInterrupt("interrupted")
    return records[0]


def run_rows(
    config: Config,
    plan: Plan,
    rows: Sequence[Row],
    store: Store,
    *,
    model: Model | None = None,
    attempt: int = 1,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
    on_record: OnRecord | None = None,
    on_report: OnReport | None = None,
    on_download: "OnTransfer | None" = None,
    stop: StopSign | None = None,
) -> list[SegmentRecord]:
    """Do the rows that have no record in the store yet.

    Args:
        config: of the whole job, whose source and output it names. That the output is free is the caller's to check.
        rows: of `plan`, in order.
        model: used instead of the one that `config` names, and not closed.
        attempt: for the records.
        on_progress: gets the frames of the whole plan: those of finished rows count as done.
        on_record: called with each record of a row that is done now, on the thread that has finished it.
        on_report: called once for each stretch of consecutive rows, however it ended, with the report of what was done
            now; see `segments.tally`.
        on_note, on_skip, on_download, stop: see `stream.jobs.run.run_config`.

    Returns:
        The records of all rows that are done, in order: fewer than rows if the run was interrupted.

    Raises:
        StreamError: what went wrong. Rows that were finished before have their records.
    """
    done = {row.number: record for row in rows if (record := store.record(row.number)) is not None}
    with collected(Notes(on_note) if on_note else current() or Notes()) as notes, ExitStack() as resources:
        work = _Work(config if model is None else configured(model, config), plan, store, attempt, model, notes)
        work.on_download, work.on_skip, work.on_report, work.stop = on_download, on_skip, on_report, stop
        work.on_progress = on_progress
        resources.callback(work.close)

        def take(record: SegmentRecord) -> None:
            done[record.number] = record
            if on_record is not None:
                on_record(record)

        work.take = take
        stretches = missing(rows, done)
        for stretch in stretches:
            work.earlier = sum(record.frames for record in done.values())
            if not work.do(stretch, is_last=stretch is stretches[-1]):
                break
    return [done[row.number] for row in rows if row.number in done]


class _Work:
    """Does stretches of consecutive rows, one after the other, with one model."""

    def __init__(
        self, config: Config, plan: Plan, store: Store, attempt: int, model: Model | None, notes: Notes
    ) -> None:
        self._config, self._plan, self._store, self._attempt = config, plan, store, attempt
        self._digest, self._notes = plan.digest, notes
        self._model, self._own = model, ExitStack()
        self.on_download: OnTransfer | None = None
        self.on_skip: OnSkip | None = None
        self.on_report: OnReport | None = None
        self.on_progress: ProgressHook | None = None
        self.stop: StopSign | None = None
        self.take: OnRecord = lambda _record: None
        self.earlier = 0
        """Frames of rows that are done."""

    def close(self) -> None:
        """Release a model that was loaded for several stretches."""
        self._own.close()

    def do(self, rows: Sequence[Row], *, is_last: bool) -> bool:
        """Do consecutive rows; False if that was interrupted."""
        started, reads = time.monotonic(), partial(open_rows, self._config, rows)
        try:
            job = opened(_of_parts(self._config), None, self._model, on_download=self.on_download, open_source=reads)
        except (EmptyPartError, UndecodablePartError) as error:
            if not rows[0].number:
                raise
            if self._model is None:
                self._keep(kept_engine(self._config, exact=True, on_download=self.on_download))
            assert self._model is not None
            self._put_empty(rows, engine_of(self._model), str(error))
            return True
        engine = job.engines[0]
        if self._model is None and not is_last:
            self._keep(engine)
        with closed_on_error(job):
            names_files = job.plan.kind is OutputKind.FOLDER or job.plan.depth_path is not None
            section = Section(job.source, rows, numbers_matter=names_files)
            job = replace(job, source=section, inference=Watched(job.inference, section))
            why = why_two_passes(self._config, job.kind, max_depth_m=engine.spec.max_depth_m)
            rotation = self._rotation(job, section, rows, is_first_pass=bool(why))
            ends, part = (ClipEnds.unknown(), "pass 1 of 2") if why else (None, "")
            pipeline = wired(_of_parts(self._config), job, ends=ends, part=part, sink=rotation)
        pipeline.is_warm_up = section.is_warm_up
        pipeline.progress.total = self._plan.frames or pipeline.progress.total
        pipeline.progress.earlier = self.earlier
        reports = list[Report]()

        def amend(report: Report) -> Report:
            reports.append(_without_warm_up(report, section))
            return reports[-1]

        try:
            outcome = supervise(
                pipeline,
                job.engines,
                _without_report(self._config),
                started=started,
                notes=self._notes,
                on_progress=self.on_progress,
                on_skip=self.on_skip,
                stop=self.stop,
                amend=amend,
            ).outcome
        finally:
            if self.on_report is not None and reports:
                self.on_report(reports[-1])
        if outcome is Outcome.INTERRUPTED:
            return False
        self._put_empty(rotation.left, engine, f"{job.info.name}: has no frames there", section)
        return True

    def _keep(self, engine: "Engine") -> None:
        self._model = as_model(engine, self._config, self._notes)
        self._own.callback(self._model.close)

    def _rotation(self, job: Job, section: Section, rows: Sequence[Row], *, is_first_pass: bool) -> Rotation:
        """The sink of the pipeline."""
        config, engine, left = _of_parts(self._config), job.engines[0], iter([job.info.frame_count])

        def build(row: Row, folder: Path) -> list[Sink]:
            if not is_first_pass:
                return sinks_of(config, job, ends=None, pieces=folder)
            refused = partial(section.refused, row)
            keeps_confidence = "conf" in config.output.save
            count = next(left, None)  # only the first has to look
            return [SpoolPieceSink(folder, keeps_confidence=keeps_confidence, refused=refused, count=count)]

        def record(made: Making) -> SegmentRecord:
            return replace(
                self._record(made.row, engine),
                frames=made.frames,
                first_pts=made.first_pts,
                last_pts=made.last_pts,
                pieces=made.pieces,
                counts=dict(
                    Counter(section.counts(made.row)) + made.counts + Counter({LAST_DURATION: made.last_duration or 0})
                ),
                warnings=(*section.warnings(made.row), *made.warnings),
                range=next((sink.ends for sink in made.sinks if isinstance(sink, SpoolPieceSink)), None),
                seconds=round(made.seconds, 3),
            )

        needs_image = not is_first_pass and any(
            sink.needs_image for sink in sinks_of(config, job, ends=None, pieces=Path())
        )
        return Rotation(
            section,
            rows,
            needs_image=needs_image,
            base=(job.plan.path or job.plan.depth_path or Path()).parent,
            build=build,
            making=lambda row: self._store.making(row.number),
            put=lambda made: self.take(self._store.put(made.folder, record(made))),
            keep=lambda made: None if is_first_pass else self._store.keep(made.folder, record(made)),
        )

    def _put_empty(self, rows: Sequence[Row], engine: "Engine", why: str, section: Section | None = None) -> None:
        """Put rows that the source has no frames for."""
        for row in rows:
            counts = {} if section is None else dict(section.counts(row))
            warnings = () if counts.get("skipped") else (why,)
            record = replace(self._record(row, engine), counts=counts, warnings=warnings)
            with self._store.making(row.number) as folder:
                self.take(self._store.put(folder, record))

    def _record(self, row: Row, engine: "Engine") -> SegmentRecord:
        """That of a row without frames."""
        facts = ModelFacts.of(engine)
        return SegmentRecord(
            number=row.number,
            plan=self._digest,
            frames=0,
            first_pts=None,
            last_pts=None,
            pieces=(),
            model=facts.name,
            weights_sha256=facts.weights_sha256,
            device=facts.device,
            precision=facts.precision,
            backend="auto" if self._config.inference.backend == "auto" else facts.backend,
            version=__version__,
            attempt=self._attempt,
        )


def pinned(config: Config, record: SegmentRecord) -> Config:
    """The config with what `auto` decided for a finished segment, so that the others are computed in the same way."""
    update = {"backend": record.backend, "precision": record.precision, "device": record.device}
    return config.model_copy(update={"inference": config.inference.model_copy(update=update)})


def _of_parts(config: Config) -> Config:
    """The config with the output settings of segments: whether the output may be replaced was decided before."""
    return config.model_copy(update={"output": config.output.model_copy(update={"overwrite": True})})


def _without_report(config: Config) -> Config:
    return config.model_copy(update={"output": config.output.model_copy(update={"report": None})})


def _without_warm_up(report: Report, section: Section) -> Report:
    """The report of the rows alone: `captured == written + Σ dropped + Σ skipped` holds without the warm-up."""
    frames, carried = section.warm_up, section.warm_up_carried
    captured, dropped = report.captured - frames, dict(report.dropped)
    if left := dropped.pop("stopped", frames) - frames:
        dropped["stopped"] = left
    return replace(
        report,
        captured=captured,
        inferred=max(0, report.inferred - (frames - carried)),
        carried=report.carried - carried,
        dropped=dropped,
    )
