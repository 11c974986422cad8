"""From a config to a finished job: open what it names, wire the pipeline, report what happened.

Invariant: whatever fails before the pipeline runs leaves nothing open, and a failed run is reported like any other.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from stream.capture.base import Source
from stream.channel import Closed
from stream.config import Config
from stream.errors import StreamError
from stream.frames import Result
from stream.jobs.build import build_live_outputs, build_renderer, build_sinks
from stream.jobs.models import (
    common_kind,
    engine_inference,
    load_engine,
    model_configs,
    preload,
    prepare,
    warn_of_memory,
)
from stream.jobs.plan import plan_outputs
from stream.jobs.report import Report, is_report, make_report
from stream.jobs.source import open_config_source
from stream.metrics import Metrics, Outcome
from stream.notes import Notes, OnNote, collected, logger, note
from stream.pipeline.runner import POLL_S, QUEUE, Pipeline, Progress, ProgressHook, raise_if_all_refused
from stream.pipeline.threads import Stages
from stream.sinks.base import Sink

if TYPE_CHECKING:
    from stream.infer.engine import Engine
    from stream.models.weights.fetch import OnTransfer

OnSkip = Callable[[str, str], None]
"""Called with the name of an input that was skipped, and why."""


def run_config(
    config: Config,
    *,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_download: "OnTransfer | None" = None,
) -> Report:
    """Do what `config` says.

    Args:
        on_progress: see `Pipeline`.
        on_note: called once with each thing worth knowing (granted camera mode, fallbacks, clashes), see `notes`.
        on_download: called with the progress of the download of the weights, if there is one.

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """
    started = time.monotonic()
    with collected(Notes(on_note)) as notes:
        with _reported_if_it_cannot_start(config, started):
            pipeline, engines = _wired(config, on_download=on_download)
        names = " | ".join(engine.spec.name for engine in engines)
        return supervise(pipeline, engines, config, started=started, notes=notes, on_progress=on_progress, model=names)


def _wired(config: Config, *, on_download: "OnTransfer | None") -> tuple[Pipeline, "list[Engine]"]:
    """Everything that `config` names, opened and put together."""
    from stream.infer.switching import Adaptive, Switching
    from stream.models import registry

    with ExitStack() as unless_running:
        preload(config)
        source = open_config_source(config)
        unless_running.callback(source.close)
        info, plan = source.info, plan_outputs(config, source.info)
        configs = model_configs(config, plan)
        kind = common_kind(config, [registry.find(one.model.name or registry.DEFAULT) for one in configs])
        renderer = build_renderer(config, plan, kind)
        engines: list[Engine] = []
        for wanted in configs:
            engines.append(load_engine(wanted, exact=bool(config.output.save), on_download=on_download))
            unless_running.callback(engines[-1].close)
            prepare(wanted, engines[-1], info)
        adaptive = switching = None
        if config.inference.target_fps is not None:
            adaptive = Adaptive(engines, target_fps=config.inference.target_fps)
        elif len(engines) > 1:
            switching = Switching(engines)  # a viewer chooses
        live_outputs = build_live_outputs(config, plan, kind, models=switching)
        inference = adaptive or switching or engine_inference(config, source, engines[0])
        queue = max(QUEUE, config.inference.batch)
        sinks = [*build_sinks(config, plan), *(live.sink for live in live_outputs)]
        pipeline = Pipeline(source, inference, renderer, sinks, queue=queue)
        for live in live_outputs:
            live.preview.metrics, live.preview.log = pipeline.metrics, lambda: source.log
        for engine in engines:
            warn_of_memory(config, info, engine, renderer.output_size(info.size), queue)
        unless_running.pop_all()
    return pipeline, engines


@contextmanager
def _reported_if_it_cannot_start(config: Config, started: float) -> Iterator[None]:
    """Writes the report of a job whose source or model cannot be opened; bad usage does nothing at all."""
    try:
        yield
    except StreamError as error:
        path = config.output.report
        if error.exit_code == 1 and path is not None and (not path.exists() or is_report(path)):
            with suppress(OSError):  # the error itself matters more
                Report.of_failure(
                    str(error),
                    source=config.source or "",
                    model=config.model.name or "",
                    duration_s=time.monotonic() - started,
                ).save(path)
        raise


def supervise(
    pipeline: Pipeline,
    engines: Sequence["Engine"],
    config: Config,
    *,
    started: float,
    notes: Notes,
    on_progress: ProgressHook | None = None,
    model: str | None = None,
) -> Report:
    """Run a pipeline to its end, whatever that is, and report it; a failure writes `config.output.report` too.

    Args:
        engines: those that the pipeline runs; the report describes the first one.
        started: when the job began, monotonic seconds.
        notes: those of the run.
        on_progress: see `Pipeline`.
        model: what the report calls the model, instead of the first engine's name.

    Raises:
        BaseException: what the pipeline failed with.
    """
    relay = _Relay(pipeline.source, pipeline.stages, engines, pipeline.sinks)

    def reported(outcome: Outcome, error: str | None = None) -> Report:
        relay()
        seconds = time.monotonic() - started
        report = make_report(pipeline, engines[0], outcome, error=error, notes=notes.said, duration_s=seconds)
        if model is not None:
            report = replace(report, model=model)
        if config.output.report is not None:
            report.save(config.output.report)
        return report

    def tick(progress: Progress) -> None:
        relay()
        if on_progress is not None:
            on_progress(progress)

    pipeline.on_progress = tick
    try:
        relay()
        outcome = pipeline.run()
    except Exception as error:
        try:
            reported(Outcome.FAILED, str(error))
        except OSError as second:
            error.add_note(f"then the report could not be written: {second}")
        if kept := [path for sink in pipeline.sinks if sink.is_lossless for path in sink.outputs]:
            note(f"partial output kept: {', '.join(kept)}")
        raise
    return reported(outcome)


class _Relay:
    """Passes on what source, engines and sinks have noted, and the inputs that were skipped, since the last call."""

    def __init__(
        self,
        source: Source,
        stages: Stages,
        engines: Sequence["Engine"],
        sinks: Sequence[Sink] = (),
        *,
        on_skip: OnSkip | None = None,
    ) -> None:
        self._source, self._stages, self._engines, self._sinks = source, stages, engines, sinks
        self._on_skip = on_skip
        self._skipped = self._refused = self._warned = 0

    def __call__(self) -> None:
        log = self._source.log
        from_engines = [text for engine in self._engines for text in engine.notes]
        from_sinks = [text for sink in self._sinks for text in sink.notes]
        for text in (*self._source.info.notes, *from_engines, *log.notes, *from_sinks):
            note(text)
        skipped, refused = log.skipped[self._skipped :], self._stages.refused[self._refused :]
        self._skipped, self._refused = self._skipped + len(skipped), self._refused + len(refused)
        for item in (*skipped, *refused):
            logger.warning("skipped %s: %s", item.name, item.reason)
            if self._on_skip is not None:
                self._on_skip(item.name, item.reason)
        for warning in log.warnings[self._warned :]:
            self._warned += 1
            logger.warning(warning)


def iter_config(
    config: Config,
    *,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
) -> Iterator[Result]:
    """Yield (frame, depth) in order; closing the generator early stops every thread.

    Args:
        on_progress, on_note: as for `run_config`, called on the thread that iterates.
        on_skip: called with name and reason of each input that cannot be read or does not suit the model.

    Raises:
        StreamError: see `stream.errors`.
    """
    notes = Notes(on_note)
    # No yield inside of `collected`: the caller's own code would run in this context.
    with collected(notes), ExitStack() as unless_running:
        preload(config)
        source = open_config_source(config)
        unless_running.callback(source.close)
        engine = load_engine(config, exact=True)
        unless_running.callback(engine.close)
        prepare(config, engine, source.info)
        metrics, queue = Metrics(), max(QUEUE, config.inference.batch)
        stages = Stages(source, engine_inference(config, source, engine), metrics, queue=queue)
        unless_running.pop_all()
    relay = _Relay(source, stages, [engine], on_skip=on_skip)
    progress = Progress(metrics=metrics, stages=stages, total=source.info.frame_count)

    def look() -> None:
        with collected(notes):
            relay()
        if on_progress is not None:
            on_progress(progress)

    try:
        stages.start()
        results = 0
        while True:
            look()
            try:
                result = stages.get(POLL_S)
            except TimeoutError:
                continue
            except Closed:
                look()
                raise_if_all_refused(stages, results)
                return
            except BaseException:
                look()  # what was skipped before it failed
                raise
            results += 1
            metrics.written += 1
            metrics.record_output(result[0].captured_at)
            yield result
    finally:
        stages.close()
