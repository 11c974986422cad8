"""From a config to a finished job: open what it names, wire the pipeline, report what happened.

Invariant: whatever fails before the pipeline runs leaves nothing open, and a failed run is reported like any other.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from stream.channel import Closed
from stream.config import Config
from stream.errors import ConfigError, StreamError
from stream.frames import Result
from stream.jobs.build import build_preview, build_renderer, build_sinks
from stream.jobs.models import common_kind, engine_inference, load_engine, model_configs, prepare, warn_of_memory
from stream.jobs.plan import plan_outputs
from stream.jobs.report import Report, is_report, make_report
from stream.jobs.source import open_config_source
from stream.metrics import Metrics, Outcome
from stream.notes import Notes, once
from stream.pipeline.runner import POLL_S, QUEUE, Pipeline, ProgressHook, raise_if_all_refused
from stream.pipeline.threads import Stages

if TYPE_CHECKING:
    from stream.infer.engine import Engine
    from stream.live.preview import Preview
    from stream.models.weights.fetch import OnTransfer


def run_config(
    config: Config,
    *,
    on_progress: ProgressHook | None = None,
    on_note: Callable[[str], None] | None = None,
    on_download: "OnTransfer | None" = None,
) -> Report:
    """Do what `config` says.

    Args:
        on_progress: see `Pipeline`.
        on_note: told once each thing worth knowing (granted camera mode, fallbacks, clashes).
        on_download: told how far the download of the weights is, if there is one.

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """
    from stream.infer.switching import Adaptive, Switching

    started, say = time.monotonic(), once(on_note)
    with _reported_if_it_cannot_start(config, started), ExitStack() as unless_running:
        source = open_config_source(config)
        unless_running.callback(source.close)
        outputs = plan_outputs(config, source.info)
        engines: list[Engine] = []
        for wanted in model_configs(config, outputs):
            engines.append(load_engine(wanted, exact=bool(config.output.save), on_download=on_download, on_note=say))
            unless_running.callback(engines[-1].close)
            prepare(wanted, engines[-1], source.info, say)
        kind = common_kind(config, engines)
        renderer, sinks = build_renderer(config, outputs, kind), build_sinks(config, outputs)
        target_fps = config.inference.target_fps
        switching: Switching | None = None
        viewers_choose: Switching | None = None
        if target_fps is not None:
            switching = Adaptive(engines, target_fps=target_fps, say=on_note or say)
        elif len(engines) > 1:
            switching = viewers_choose = Switching(engines)
        inference, queue = switching or engine_inference(config, source, engines[0]), max(QUEUE, config.inference.batch)
        previews: list[Preview] = []
        if outputs.preview:
            from stream.live.window import WindowSink

            previews.append(build_preview(config, outputs, kind, models=viewers_choose, say=say))
            sinks.append(WindowSink(controls=previews[-1]))
        if config.output.serve is not None:
            from stream.live.browser import BrowserSink
            from stream.live.server import parse_address

            address, announce = parse_address(config.output.serve), on_note or (lambda _note: None)
            if config.output.quiet and not address.is_loopback and config.output.serve_token is None:
                hint = "add --serve-token, or leave --quiet out"
                raise ConfigError("nobody would be told the token", where="--serve", hint=hint)
            page = build_preview(config, outputs, kind, models=viewers_choose, say=say, writes_text=False)
            previews.append(page)
            sinks.append(BrowserSink(address, controls=page, token=config.output.serve_token, say=announce))
        pipeline = Pipeline(source, inference, renderer, sinks, on_progress=on_progress, queue=queue)
        for preview in previews:
            preview.metrics, preview.log = pipeline.metrics, lambda: source.log
        for engine in engines:
            warn_of_memory(config, source.info, engine, renderer.output_size(source.info.size), queue, say)
        unless_running.pop_all()
    names = " | ".join(engine.spec.name for engine in engines)
    return supervise(pipeline, engines, config, started=started, say=say, model=names)


@contextmanager
def _reported_if_it_cannot_start(config: Config, started: float) -> Iterator[None]:
    """Writes the report of a job whose source or model cannot be opened; bad usage does nothing at all."""
    try:
        yield
    except StreamError as error:
        path = config.output.report
        if error.exit_code == 1 and path is not None and (not path.exists() or is_report(path)):
            with suppress(OSError):  # the error itself is what must be told
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
    say: Notes,
    model: str | None = None,
) -> Report:
    """Run a pipeline to its end, whatever that is, and report it; `config.output.report` is written of a failure too.

    Args:
        engines: those that the pipeline runs; the first one stands in the report.
        started: when the job began, monotonic seconds.
        model: what the report calls it, instead of the first engine's.

    Raises:
        BaseException: what the pipeline failed with.
    """
    source, sinks = pipeline.source, pipeline.sinks

    def tell() -> None:
        from_sinks = [note for sink in sinks for note in getattr(sink, "notes", [])]
        from_engines = [note for engine in engines for note in engine.notes]
        for note in (*source.info.notes, *from_engines, *source.log.notes, *from_sinks):
            say(note)

    def reported(outcome: Outcome, error: str | None = None) -> Report:
        tell()
        seconds = time.monotonic() - started
        report = make_report(pipeline, engines[0], outcome, error=error, notes=list(say.said), duration_s=seconds)
        if model is not None:
            report = replace(report, model=model)
        if config.output.report is not None:
            report.save(config.output.report)
        return report

    try:
        tell()
        outcome = pipeline.run()
    except Exception as error:
        try:
            reported(Outcome.FAILED, str(error))
        except OSError as second:
            error.add_note(f"then the report could not be written: {second}")
        if kept := [path for sink in sinks if sink.is_lossless for path in sink.outputs]:
            say(f"what was done is kept: {', '.join(kept)}")
        raise
    return reported(outcome)


def iter_config(config: Config) -> Iterator[Result]:
    """Yield (frame, depth) in order; closing the generator early stops every thread.

    Raises:
        StreamError: see `stream.errors`.
    """
    with ExitStack() as unless_running:
        source = open_config_source(config)
        unless_running.callback(source.close)
        engine = load_engine(config, exact=True)
        unless_running.callback(engine.close)
        prepare(config, engine, source.info, lambda _note: None)
        unless_running.pop_all()
    queue = max(QUEUE, config.inference.batch)
    stages = Stages(source, engine_inference(config, source, engine), Metrics(), queue=queue)
    try:
        stages.start()
        results = 0
        while True:
            try:
                result = stages.get(POLL_S)
            except TimeoutError:
                continue
            except Closed:
                raise_if_all_refused(stages, results)
                return
            results += 1
            yield result
    finally:
        stages.close()
