"""Wires the stages: config → source, model, renderer and sinks → results; the only module that imports every stage.

Invariant: each sink gets exactly one of `finish`, `keep_partial` or `abort`, whatever fails, and the first
exception is what `run` raises.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from types import FrameType
from typing import TYPE_CHECKING

from stream.capture.base import Source
from stream.channel import Channel, Closed
from stream.config import Config
from stream.errors import ConfigError, ModelError
from stream.frames import Depth, Frame, SourceKind
from stream.metrics import Metrics, Outcome, Report, StageTime, peak_memory_bytes
from stream.outputs import build_renderer, build_sinks, plan_outputs
from stream.sinks.base import Sink
from stream.stages import Inference, Result, Stages

if TYPE_CHECKING:
    from stream.infer.engine import Engine
    from stream.render.renderer import Renderer

_POLL_S = 0.05
"""How often the caller's thread looks at windows, signals and the progress display while no result arrives."""
_QUEUE = 4
"""Frames waiting before and after the model for lossless sources, a batch if that is more: enough to hide jitter, and
25 MB each at 4K."""


@dataclass(kw_only=True)
class Progress:
    """What a progress display may read; all numbers are live."""

    metrics: Metrics
    stages: Stages
    total: int | None


ProgressHook = Callable[[Progress], None]


class EngineInference:
    """`stages.Inference` on the real engine."""

    def __init__(self, engine: "Engine", *, batch: int, stills: bool) -> None:
        self.engine, self._batch, self._stills = engine, batch, stills

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `infer.batcher.infer_stream`."""
        from stream.infer.batcher import Grouping, infer_stream

        grouping = Grouping.BY_SHAPE if self._stills else Grouping.NONE
        return infer_stream(frames, self.engine, batch=self._batch, grouping=grouping, on_skip=on_skip)

    def close(self) -> None:
        """Release the model."""
        self.engine.close()


class Pipeline:
    """One run over stages that are already open; see `run` for the usual way in.

    Args:
        source: closed by the pipeline, whatever happens.
        inference: closed by the pipeline, whatever happens.
        renderer: makes the picture of a result.
        sinks: opened, fed and ended by the pipeline.
        on_progress: called on the caller's thread about twenty times a second.
    """

    def __init__(
        self,
        source: Source,
        inference: Inference,
        renderer: "Renderer",
        sinks: list[Sink],
        *,
        on_progress: ProgressHook | None = None,
        metrics: Metrics | None = None,
        queue: int = _QUEUE,
    ) -> None:
        self.metrics = metrics or Metrics()
        self.source, self.renderer, self.sinks = source, renderer, sinks
        self.stages = Stages(source, inference, self.metrics, queue=queue)
        self._accepted = dict.fromkeys(range(len(sinks)), 0)
        self._ended: set[int] = set()
        self._progress = Progress(metrics=self.metrics, stages=self.stages, total=source.info.frame_count)
        self._on_progress = on_progress
        self._interrupts = 0
        self._wants_stop = False
        self.output_time = StageTime(busy_s=0.0, waiting_s=0.0)

    def run(self) -> Outcome:
        """Run to the end of the source, an interruption or the first error.

        Returns:
            How it ended. After an interruption of a file job the partial outputs are kept under NAME.partial.EXT.

        Raises:
            BaseException: the first exception of any stage, unchanged.
        """
        info = self.source.info
        try:
            size = self.renderer.output_size(info.size)
            for sink in self.sinks:
                sink.open(info, size)
            with _signals(self._interrupt):
                self.stages.start()
                self._drain()
                _raise_if_all_refused(self.stages, self.metrics.written)
                outcome = self._end(is_live=info.is_live)
        except BaseException as error:
            with _signals(self._interrupt):
                self.stages.fail(error)
                self._end_after(error)
            raise
        finally:
            self.stages.close()
        log = self.source.log
        if outcome is Outcome.DONE and (log.skipped or log.warnings or self.stages.refused):
            return Outcome.DONE_WITH_SKIPS
        return outcome

    def _drain(self) -> None:
        clock, start, waited_s = self.metrics.clock, self.metrics.clock(), 0.0
        try:
            while True:
                asked = clock()
                try:
                    result = self.stages.get(_POLL_S)
                except TimeoutError:
                    result = None
                except Closed:
                    return
                finally:
                    waited_s += clock() - asked
                if result is not None:
                    self._output(*result)
                for sink in self.sinks:
                    poll = getattr(sink, "poll", None)
                    if poll is not None:
                        poll()
                    self._wants_stop |= getattr(sink, "wants_stop", False)
                if self._wants_stop and not self.stages.stopped_early:
                    self.stages.stop()
                if self._on_progress is not None:
                    self._on_progress(self._progress)
        finally:
            self.output_time = StageTime(busy_s=clock() - start - waited_s, waiting_s=waited_s)

    def _output(self, frame: Frame, depth: Depth) -> None:
        image = self.renderer.render(frame, depth)
        shown = None
        for number, sink in enumerate(self.sinks):
            accepted = sink.write(frame, depth, image)
            self._accepted[number] += 1
            if not sink.is_lossless:
                shown = accepted
        self.metrics.written += 1
        if shown is not None:
            self.metrics.shown += shown
            self.metrics.not_shown += not shown
        self.metrics.output(frame.captured_at)

    def _end(self, *, is_live: bool) -> Outcome:
        """End the sinks after the last result: an unfinished file job stays partial, a live recording is complete."""
        partial = self.stages.stopped_early and not is_live and any(sink.is_lossless for sink in self.sinks)
        for number, sink in enumerate(self.sinks):
            self._ended.add(number)
            if not self._accepted[number]:
                sink.abort(KeyboardInterrupt("nothing was written"))
            elif partial:
                sink.keep_partial("interrupted")
            else:
                sink.finish()
        nothing = self.stages.stopped_early and not self.metrics.written
        seen_in_part = self.stages.stopped_early and self._interrupts and not is_live
        return Outcome.INTERRUPTED if partial or nothing or seen_in_part else Outcome.DONE

    def _end_after(self, error: BaseException) -> None:
        """Keep what was written, drop what was not; a second failure is told with the first, not instead of it."""
        for number, sink in enumerate(self.sinks):
            if number in self._ended:
                continue
            self._ended.add(number)
            try:
                if self._accepted[number]:
                    sink.keep_partial(str(error))
                else:
                    sink.abort(error)
            except BaseException as second:  # noqa: BLE001  the first one wins; this one is attached to it
                error.add_note(f"then {type(sink).__name__} failed too: {second}")

    def _interrupt(self) -> None:
        """First Ctrl-C: stop in order, soon; a handler may interrupt any line, so it takes no lock. Second: now."""
        self._interrupts += 1
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self._wants_stop = True


def _raise_if_all_refused(stages: Stages, results: int) -> None:
    if stages.refused and not results:
        first = stages.refused[0]
        raise ModelError(first.reason, where=first.name)


@contextmanager
def _signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Route Ctrl-C and termination to `interrupt`, on the main thread; elsewhere signals are not ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signum: int, _frame: FrameType | None) -> None:
        interrupt()

    with ExitStack() as restore:
        for number in (signal.SIGINT, signal.SIGTERM):
            restore.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, handle)
        yield


def open_config_source(config: Config) -> Source:
    """The source that `config` names, opened."""
    from stream.capture.open import SourceOptions, open_source

    if config.source is None:
        raise ConfigError("no source given", where="source", hint="name a camera, file, folder or URL")
    capture = config.capture
    size = capture.camera_size
    return open_source(
        config.source,
        options=SourceOptions(
            start_s=capture.start,
            end_s=capture.end,
            max_frames=capture.max_frames,
            recursive=capture.recursive,
            rate=_rate(capture.fps),
            live=capture.live,
            camera_size_hw=None if size is None else (size[1], size[0]),
            camera_rate=_rate(capture.camera_fps),
            camera_fourcc=capture.camera_fourcc,
            open_timeout_s=capture.open_timeout_s,
            read_timeout_s=capture.read_timeout_s,
            max_pixels=capture.max_pixels,
        ),
    )


def _rate(fps: float | None) -> Fraction | None:
    """Exact rate of a decimal: 29.97 and 23.976 mean 30000/1001 and 24000/1001 (SMPTE)."""
    if fps is None:
        return None
    for nominal in (24, 30, 48, 60, 120):
        ntsc = Fraction(nominal * 1000, 1001)
        if abs(fps - float(ntsc)) < 0.005:
            return ntsc
    return Fraction(str(fps))


def _inference(config: Config, source: Source, engine: "Engine") -> EngineInference:
    batch = 1 if source.info.is_live else config.inference.batch
    return EngineInference(engine, batch=batch, stills=source.info.kind is SourceKind.STILLS)


def _load_engine(config: Config) -> "Engine":
    from stream.infer.engine import Engine
    from stream.models import registry

    model = registry.load(config.model.name or registry.DEFAULT, weights=config.model.weights)
    return Engine(
        model,
        device=config.inference.device,
        precision=config.inference.precision,
        batch=config.inference.batch,
        input_size=config.model.input_size,
        square=config.model.square,
        threads=config.inference.threads,
    )


def run_config(
    config: Config, *, on_progress: ProgressHook | None = None, on_note: Callable[[str], None] | None = None
) -> Report:
    """Do what `config` says.

    Args:
        on_progress: see `Pipeline`.
        on_note: told once each thing worth knowing (granted camera mode, fallbacks, clashes).

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """
    started = time.monotonic()
    say = on_note or (lambda _note: None)
    with ExitStack() as unless_running:
        source = open_config_source(config)
        unless_running.callback(source.close)
        outputs = plan_outputs(config, source.info)
        engine = _load_engine(config)
        unless_running.callback(engine.close)
        renderer, sinks = build_renderer(config, outputs, engine.spec.output), build_sinks(config, outputs)
        queue = max(_QUEUE, config.inference.batch)
        inference = _inference(config, source, engine)
        pipeline = Pipeline(source, inference, renderer, sinks, on_progress=on_progress, queue=queue)
        said = [*source.info.notes, *outputs.notes, *engine.notes]
        for note in said:
            say(note)
        unless_running.pop_all()

    def reported(outcome: Outcome, error: str | None = None) -> Report:
        later = [*engine.notes, *source.log.notes, *(note for sink in sinks for note in getattr(sink, "notes", []))]
        notes = list(dict.fromkeys([*said, *later]))
        for note in notes[len(set(said)) :]:
            say(note)
        duration_s = time.monotonic() - started
        report = _report(pipeline, engine, outcome, error=error, notes=notes, duration_s=duration_s)
        if config.output.report is not None:
            report.save(config.output.report)
        return report

    try:
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


def _report(
    pipeline: Pipeline, engine: "Engine", outcome: Outcome, *, error: str | None, notes: list[str], duration_s: float
) -> Report:
    log, metrics, stages = pipeline.source.log, pipeline.metrics, pipeline.stages
    skipped = [*log.skipped, *stages.refused]
    captured = metrics.delivered + len(log.skipped)
    dropped = metrics.dropped + type(metrics.dropped)(log.dropped)
    captured += sum(log.dropped.values())
    left = captured - metrics.written - sum(dropped.values()) - len(skipped)
    if stages.stopped_early and left:
        dropped["stopped"] += left
    cuts = getattr(pipeline.renderer.range_policy, "cuts", 0)
    counters = {
        **engine.counters,
        "repaired_pts": log.repaired_pts,
        "ignored_files": log.ignored,
        "scene_cuts": cuts,
    }
    return Report(
        outcome=outcome,
        error=error,
        source=pipeline.source.info.name,
        model=engine.spec.name,
        weights_sha256=engine.model.weights_sha256,
        device=str(engine.device),
        precision=str(engine.precision),
        captured=captured,
        inferred=metrics.inferred,
        written=metrics.written,
        shown=metrics.shown,
        not_shown=metrics.not_shown,
        dropped=dict(dropped),
        skipped=[{"name": s.name, "reason": s.reason} for s in skipped],
        warnings=list(log.warnings),
        notes=notes,
        counters={name: count for name, count in counters.items() if count},
        fps=metrics.fps,
        latency_p50_s=metrics.latency.percentile(50),
        latency_p95_s=metrics.latency.percentile(95),
        stages={**stages.times(), "output": pipeline.output_time},
        peak_memory_bytes=peak_memory_bytes(),
        duration_s=duration_s,
        outputs=[path for sink in pipeline.sinks for path in sink.outputs],
        abandoned=list(stages.abandoned),
    )


def iter_config(config: Config) -> Iterator[Result]:
    """Yield (frame, depth) in order; closing the generator early stops every thread.

    Raises:
        StreamError: see `stream.errors`.
    """
    source = open_config_source(config)
    try:
        engine = _load_engine(config)
    except BaseException:
        source.close()
        raise
    queue = max(_QUEUE, config.inference.batch)
    stages = Stages(source, _inference(config, source, engine), Metrics(), queue=queue)
    try:
        stages.start()
        results = 0
        while True:
            try:
                result = stages.get(_POLL_S)
            except TimeoutError:
                continue
            except Closed:
                _raise_if_all_refused(stages, results)
                return
            results += 1
            yield result
    finally:
        stages.close()
