"""Runs a pipeline to its end, passes on what it says, and reports it.

Invariant: a failed run is reported like any other.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from stream.capture.base import Skipped, Source
from stream.config import Config
from stream.errors import shown
from stream.jobs.report import ModelFacts, Report, make_report
from stream.metrics import Outcome
from stream.notes import Notes, logger, note
from stream.pipeline.runner import Pipeline, Progress, ProgressHook
from stream.pipeline.threads import Stages
from stream.sinks.base import Sink

if TYPE_CHECKING:
    from stream.infer.engine import Engine


T = TypeVar("T")
OnSkip = Callable[[str, str], None]
"""Called with the name of an input that was skipped, and why."""


class StopSign(Protocol):
    """Says whether to stop: a `threading.Event`, say."""

    def is_set(self) -> bool: ...


def supervise(
    pipeline: Pipeline,
    engines: Sequence["Engine"],
    config: Config,
    *,
    started: float,
    notes: Notes,
    on_progress: ProgressHook | None = None,
    on_skip: OnSkip | None = None,
    stop: StopSign | None = None,
    model: str | None = None,
    facts: ModelFacts | None = None,
    said: "Said | None" = None,
    is_first_pass: bool = False,
    amend: Callable[[Report], Report] = lambda report: report,
) -> Report:
    """Run a pipeline to its end, whatever that is, and report it; a failure writes `config.output.report` too.

    Args:
        engines: those that the pipeline runs; the report describes the first one.
        started: when the job began, monotonic seconds.
        notes: those of the run.
        on_progress: see `Pipeline`.
        on_skip, stop: see `run_config`.
        model: what the report calls the model, instead of the first engine's name.
        facts: what the report states of the model where no engine runs.
        said: what an earlier pass over the same source has said.
        is_first_pass: the results are no output yet, so a report is written only if there will be no second pass.
        amend: makes the report complete.

    Raises:
        BaseException: what the pipeline failed with.
    """
    relay = Relay(pipeline.source, pipeline.stages, engines, pipeline.sinks, on_skip=on_skip, said=said)

    def reported(outcome: Outcome, error: str | None = None) -> Report:
        relay()
        seconds = time.monotonic() - started
        made_by = facts or ModelFacts.of(*engines)
        report = make_report(pipeline, made_by, outcome, error=error, notes=notes.said, duration_s=seconds)
        if model is not None:
            report = replace(report, model=model)
        report = _nothing_written(report) if is_first_pass else amend(report)
        is_last = not is_first_pass or outcome in (Outcome.INTERRUPTED, Outcome.FAILED)
        if config.output.report is not None and is_last:
            report.save(config.output.report)
        return report

    def tick(progress: Progress) -> None:
        relay()
        if on_progress is not None:
            on_progress(progress)

    pipeline.on_progress = tick
    if stop is not None:
        pipeline.stop_if = stop.is_set
    try:
        relay()
        outcome = pipeline.run()
        if is_first_pass and outcome is Outcome.INTERRUPTED:
            note("interrupted in pass 1 of 2: nothing is written")
    except KeyboardInterrupt as error:  # a second one
        try:
            reported(Outcome.INTERRUPTED)
        except OSError as second:
            error.add_note(f"then the report could not be written: {second}")
        raise
    except Exception as error:
        try:
            reported(Outcome.FAILED, shown(str(error)))
        except OSError as second:
            error.add_note(f"then the report could not be written: {second}")
        if kept := [path for sink in pipeline.sinks if sink.is_lossless for path in sink.outputs]:
            note(f"partial output kept: {', '.join(kept)}")
        raise
    return reported(outcome)


def _nothing_written(report: Report) -> Report:
    """The report of a first pass, whose results are no output."""
    dropped = Counter(report.dropped) + Counter(stopped=report.written)
    return replace(report, written=0, fps=None, dropped=dict(dropped))


class Said:
    """The skipped inputs and the warnings of one pass over a source, and those of an earlier one, which are the same.

    Args:
        earlier: skipped inputs, by name and reason, that the caller knows already.
    """

    def __init__(self, earlier: Counter[tuple[str, str]] | None = None, warnings: set[str] | None = None) -> None:
        self._earlier = earlier or Counter()
        self._skipped = Counter[tuple[str, str]]()
        self.warnings = warnings or set()

    def is_new(self, item: Skipped) -> bool:
        """Whether the caller does not know yet that this input was skipped."""
        key = item.name, item.reason
        self._skipped[key] += 1
        return self._skipped[key] > self._earlier[key]

    def again(self) -> "Said":
        """For a second pass over the same source."""
        return Said(self._skipped, self.warnings)


class Relay:
    """Passes on what source, engines and sinks have noted, and the inputs that were skipped, since the last call."""

    def __init__(
        self,
        source: Source,
        stages: Stages,
        engines: Sequence["Engine"],
        sinks: Sequence[Sink] = (),
        *,
        on_skip: OnSkip | None = None,
        said: Said | None = None,
    ) -> None:
        self._source, self._stages, self._engines, self._sinks = source, stages, engines, sinks
        self._on_skip = on_skip
        self._passed = Counter[tuple[str, int]]()
        self._said = said or Said()
        self._unwritten: set[int] = set()

    def __call__(self) -> None:
        log = self._source.log
        from_engines = [text for engine in self._engines for text in engine.notes]  # few, and not in a fixed order
        from_sinks = [text for at, sink in enumerate(self._sinks) for text in self._new("notes", sink.notes, at)]
        for text in (*self._source.info.notes, *from_engines, *self._new("log", log.notes), *from_sinks):
            note(text)
        skipped: list[Skipped] = [*self._new("skipped", log.skipped), *self._new("refused", self._stages.refused)]
        for at, sink in enumerate(self._sinks):
            for lost in self._new("unwritten", sink.unwritten, at):
                if lost.index not in self._unwritten:  # by another sink
                    self._unwritten.add(lost.index)
                    skipped.append(Skipped(name=lost.name, reason=lost.reason))
        for item in filter(self._said.is_new, skipped):
            logger.warning("skipped %s: %s", shown(item.name), shown(item.reason))
            if self._on_skip is not None:
                self._on_skip(item.name, item.reason)
        from_sinks = [text for at, sink in enumerate(self._sinks) for text in self._new("warnings", sink.warnings, at)]
        for warning in (*self._new("damage", log.warnings), *from_sinks):
            if warning not in self._said.warnings:
                self._said.warnings.add(warning)
                logger.warning(shown(warning))

    def _new(self, name: str, items: Sequence[T], at: int = 0) -> Sequence[T]:
        """What was added to a list that only grows since it was last looked at: all of it at every tick is too much."""
        new = items[self._passed[name, at] :]
        self._passed[name, at] += len(new)
        return new
