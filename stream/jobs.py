"""From a config to a finished job: open what it names, wire the pipeline, report what happened.

Invariant: whatever fails before the pipeline runs leaves nothing open, and a failed run is reported like any other.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import Source
from stream.channel import Closed
from stream.config import Config
from stream.errors import ConfigError, StreamError, UsageError
from stream.frames import DepthKind, Frame, SourceInfo, SourceKind
from stream.memory import ceiling_bytes
from stream.metrics import Metrics, Outcome, Report, free_memory_bytes, peak_memory_bytes
from stream.outputs import OutputPlan, build_preview, build_renderer, build_sinks, is_report, plan_outputs
from stream.pipeline import POLL_S, QUEUE, EngineInference, Pipeline, ProgressHook, raise_if_all_refused
from stream.stages import Result, Stages

if TYPE_CHECKING:
    from stream.infer.engine import Engine
    from stream.models.fetch import OnTransfer
    from stream.preview import Preview


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
            reconnect_for_s=capture.reconnect_for_s,
            mirror=capture.mirror,
            max_pixels=capture.max_pixels,
            decoder=None if capture.hwaccel == "off" else capture.hwaccel,
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


def find_weights(
    config: Config, *, on_download: "OnTransfer | None" = None, on_note: Callable[[str], None] | None = None
) -> None:
    """See that the model's weights are here, fetching them if they are not.

    Raises:
        StreamError: they are nowhere.
    """
    from stream.models import registry

    model = config.model
    registry.files(
        registry.find(model.name or registry.DEFAULT),
        weights=model.weights,
        weights_dir=model.weights_dir,
        offline=model.offline,
        commercial_only=model.commercial_only,
        on_progress=on_download,
        on_note=on_note,
    )


def load_engine(
    config: Config,
    *,
    exact: bool = False,
    on_download: "OnTransfer | None" = None,
    on_note: Callable[[str], None] | None = None,
) -> "Engine":
    """The model that `config` names, ready to run.

    Args:
        exact: see `infer.device.resolve_precision`.
    """
    from stream.infer.engine import Engine
    from stream.infer.lanes import without_pool
    from stream.models import registry

    spec, asked = registry.find(config.model.name or registry.DEFAULT), config.inference
    runtime, backend = registry.runtime_of(spec), asked.backend
    if runtime != "torch" and backend not in ("auto", runtime):
        raise UsageError(
            f"{spec.name} runs in {runtime} alone", where=f"--backend {backend}", allowed=f"auto, {runtime}"
        )
    if backend == "auto" and asked.precision == "int8":
        backend = "openvino"
    if backend not in ("auto", "torch") and asked.target_fps is not None:
        hint = "--target-fps changes the inference size, which every backend but torch takes long to follow"
        raise UsageError("cannot be combined with --target-fps", where=f"--backend {backend}", hint=hint)
    with without_pool():
        model = registry.load(
            spec,
            weights=config.model.weights,
            weights_dir=config.model.weights_dir,
            offline=config.model.offline,
            commercial_only=config.model.commercial_only,
            on_progress=on_download,
            on_note=on_note,
        )
    if backend == "auto" or runtime != "torch":
        backend = "torch"
    return Engine(
        model,
        device=asked.device,
        precision=asked.precision,
        exact=exact,
        backend=backend,
        provider=asked.provider,
        calibration=lambda: _calibration(config),
        batch=asked.batch,
        input_size=config.model.input_size,
        square=config.model.square,
        threads=asked.threads,
    )


def _calibration(config: Config) -> Sequence[Frame]:
    from stream.infer.backends.int8 import PICTURES
    from stream.samples import sample

    return sample(config, PICTURES)


def _prepare(config: Config, engine: "Engine", info: SourceInfo, say: Callable[[str], None]) -> None:
    """Make ready what executes the network: for `--backend auto` the one that is fastest here, where the job is long
    enough to find out; see `infer.backends.choose`."""
    asked, most = config.inference, config.capture.max_frames or math.inf
    is_free = asked.backend == "auto" and asked.precision != "int8" and asked.target_fps is None
    if is_free and engine.may_change:
        frames = math.inf if info.is_live or info.frame_count is None else min(most, info.frame_count)
        engine.use_fastest(info.size, frames=frames, may_measure=not info.is_live, say=say)
    if engine.backend != "torch" and engine.may_change:
        say(f"{engine.spec.name} runs in {engine.backend}; the first time, converting it takes a while")
    engine.prepare(info.size)


def _tell_of_memory(
    config: Config,
    info: SourceInfo,
    engine: "Engine",
    out_size: tuple[int, int],
    queue: int,
    say: Callable[[str], None],
) -> None:
    """Say so before the system runs out of memory, not after."""
    batch = 1 if info.is_live else config.inference.batch
    ceiling = ceiling_bytes(info.size, out_size, batch=batch, depth=engine.depth, queue=1 if info.is_live else queue)
    free = free_memory_bytes()
    if free is not None and ceiling > free:
        hint = "a smaller --batch takes less" if batch > 1 else "other programs may have to be closed"
        say(f"frames on their way may take {ceiling / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: {hint}")


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
    from stream.multi_inference import Adaptive, Switching

    started, say = time.monotonic(), once(on_note)
    with _reported_if_it_cannot_start(config, started), ExitStack() as unless_running:
        source = open_config_source(config)
        unless_running.callback(source.close)
        outputs = plan_outputs(config, source.info)
        engines: list[Engine] = []
        for wanted in _model_configs(config, outputs):
            engines.append(load_engine(wanted, exact=bool(config.output.save), on_download=on_download, on_note=say))
            unless_running.callback(engines[-1].close)
            _prepare(wanted, engines[-1], source.info, say)
        kind = _common_kind(config, engines)
        renderer, sinks = build_renderer(config, outputs, kind), build_sinks(config, outputs)
        target_fps = config.inference.target_fps
        switching: Switching | None = None
        viewers_choose: Switching | None = None
        if target_fps is not None:
            switching = Adaptive(engines, target_fps=target_fps, say=on_note or say)
        elif len(engines) > 1:
            switching = viewers_choose = Switching(engines)
        inference, queue = switching or _inference(config, source, engines[0]), max(QUEUE, config.inference.batch)
        previews: list[Preview] = []
        if outputs.preview:
            from stream.sinks.window import WindowSink

            previews.append(build_preview(config, outputs, kind, models=viewers_choose, say=say))
            sinks.append(WindowSink(controls=previews[-1]))
        if config.output.serve is not None:
            from stream.sinks.browser import BrowserSink, parse_address

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
        for note in outputs.notes:
            say(note)
        for engine in engines:
            _tell_of_memory(config, source.info, engine, renderer.output_size(source.info.size), queue, say)
        unless_running.pop_all()
    names = " | ".join(engine.spec.name for engine in engines)
    return supervise(pipeline, engines, config, started=started, say=say, model=names)


def _model_configs(config: Config, outputs: OutputPlan) -> list[Config]:
    """One config for each model to load."""
    also, adaptive = config.model.also, config.inference.target_fps is not None
    if adaptive and not outputs.info.is_live:
        raise UsageError(
            "is for live sources", where="--target-fps", hint="a file waits for the model: choose --input-size"
        )
    if adaptive and config.model.input_size is not None:
        raise UsageError("chooses the inference size itself", where="--target-fps", hint="leave --input-size out")
    if also and not outputs.preview and config.output.serve is None and not adaptive:
        hint = "`depthstream compare` puts them side by side"
        raise UsageError("several models are for a preview to switch between", where="-m", hint=hint)
    names = [config.model.name or "", *(text.partition("=")[0] for text in also)]
    if len(set(names)) < len(names):
        raise UsageError("a model is named twice", where="-m")
    configs = [config]
    for text in also:
        name, _, file = text.partition("=")
        model = config.model.model_copy(update={"name": name, "weights": Path(file) if file else None})
        configs.append(config.model_copy(update={"model": model}))
    return configs


def _common_kind(config: Config, engines: Sequence["Engine"]) -> DepthKind:
    """What the models' values mean; a fixed range must mean the same for all."""
    kinds = list(dict.fromkeys(engine.spec.output for engine in engines))
    if len(kinds) > 1 and ":" in (config.render.range or ""):
        raise ConfigError("means metres for one model and disparity for another", where="--range", allowed="frame, ema")
    return kinds[0]


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


def once(on_note: Callable[[str], None] | None) -> "Notes":
    """`on_note`, made to say each note once and to remember them all."""
    return Notes(on_note or (lambda _note: None))


class Notes:
    """Says each note once; `said` holds all, in order."""

    def __init__(self, on_note: Callable[[str], None]) -> None:
        self.said: dict[str, None] = {}
        self._on_note = on_note

    def __call__(self, note: str) -> None:
        """Say `note` unless it was said."""
        if note not in self.said:
            self.said[note] = None
            self._on_note(note)


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
        report = _report(pipeline, engines[0], outcome, error=error, notes=list(say.said), duration_s=seconds)
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
    control = getattr(stages.inference, "control", None)
    counters = {
        **engine.counters,
        "quality_changes": control.changes if control is not None else 0,
        "decoder_fallbacks": log.decoder_fallbacks,
        "repaired_pts": log.repaired_pts,
        "ignored_files": log.ignored,
        "reconnects": log.reconnects,
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
        backend=engine.backend,
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
        rates={name: round(rate, 3) for name, rate in metrics.rates.items()},
        latency_p50_s=metrics.latency.percentile(50),
        latency_p95_s=metrics.latency.percentile(95),
        stages={**stages.times(), "output": pipeline.output_time},
        peak_memory_bytes=peak_memory_bytes(),
        duration_s=duration_s,
        outputs=list(dict.fromkeys(path for sink in pipeline.sinks for path in sink.outputs)),
        abandoned=list(stages.abandoned),
    )


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
        _prepare(config, engine, source.info, lambda _note: None)
        unless_running.pop_all()
    queue = max(QUEUE, config.inference.batch)
    stages = Stages(source, _inference(config, source, engine), Metrics(), queue=queue)
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
