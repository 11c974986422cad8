"""From a config to a finished job: open what it names, wire the pipeline, report what happened.

Invariant: whatever fails before the pipeline runs leaves nothing open, and a failed run is reported like any other.
"""

import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from stream.channel import Closed
from stream.config import Config
from stream.frames import Result
from stream.jobs.clip import Clip, first_pass
from stream.jobs.loaded import Model, borrowed
from stream.jobs.models import (
    check_one_model,
    check_temporal,
    engine_inference,
    load_engine,
    most_staged_bytes,
    preload,
    prepare,
    steadied,
)
from stream.jobs.opening import (
    again,
    closed_on_error,
    opened,
    opened_unless_live,
    reported_if_it_cannot_start,
    spec_named,
)
from stream.jobs.ranges import ClipEnds, why_two_passes
from stream.jobs.remote import is_remote_output, run_and_upload
from stream.jobs.report import Report
from stream.jobs.segments.resume import begun, prepared, rows_of, run_in_segments
from stream.jobs.segments.work import OnReport
from stream.jobs.skip import check_skip, skipping
from stream.jobs.source import open_config_source
from stream.jobs.supervise import OnSkip, Relay, Said, StopSign, supervise
from stream.jobs.wiring import wired
from stream.metrics import Metrics, Outcome
from stream.notes import Notes, OnNote, collected
from stream.pipeline.runner import POLL_S, QUEUE, Progress, ProgressHook, raise_if_all_refused
from stream.pipeline.threads import Stages

if TYPE_CHECKING:
    from stream.capture.memory import Images
    from stream.models.weights.fetch import OnTransfer


def run_config(
    config: Config,
    *,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
    on_download: "OnTransfer | None" = None,
    images: "Images | None" = None,
    model: "Model | None" = None,
    on_made: OnReport | None = None,
    stop: Event | None = None,
) -> Report:
    """Do what `config` says.

    Args:
        images: read instead of the source that `config` names.
        model: used instead of the model that `config` names, and not closed.
        stop: ends the run in order when it is set, as Ctrl-C does.
        on_progress: see `Pipeline`.
        on_note: called once with each thing worth knowing (granted camera mode, fallbacks, clashes), see `notes`.
        on_skip: called with name and reason of each input that cannot be read or does not suit the model.
        on_download: called with the progress of the download of the weights, if there is one.
        on_made: called with the report of a run in segments when the outputs are in their places, before the segments
            are removed. If the program is killed in between, the next run with --resume calls it again.

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """
    if is_remote_output(config):
        local = partial(
            run_config,
            on_progress=on_progress,
            on_note=on_note,
            on_skip=on_skip,
            on_download=on_download,
            images=images,
            model=model,
            stop=stop,
        )
        return run_and_upload(config, local, on_note=on_note)
    started = time.monotonic()
    with collected(Notes(on_note)) as notes, ExitStack() as resources:
        with reported_if_it_cannot_start(config, started):
            given = config
            if config.output.resume:
                config = prepared(config, images)
            job = opened(config, images, model, on_download=on_download)
            with closed_on_error(job):
                begun(config, job.plan)
                rows = rows_of(config, job, images)
        if rows is not None:
            return run_in_segments(
                given,
                config,
                job,
                rows,
                started=started,
                notes=notes,
                model=model,
                on_progress=on_progress,
                on_skip=on_skip,
                on_made=on_made,
                stop=stop,
            )
        with reported_if_it_cannot_start(config, started), closed_on_error(job):
            why = why_two_passes(config, job.kind, max_depth_m=job.engines[0].spec.max_depth_m)
            pipeline = wired(config, job, ends=ClipEnds.unknown() if why else None)
            clip = resources.enter_context(Clip(config, job.source.info, job.plan)) if why else None
        said = Said()
        run = partial(
            supervise,
            engines=job.engines,
            config=config,
            started=started,
            notes=notes,
            on_progress=on_progress,
            on_skip=on_skip,
            stop=stop,
            model=" | ".join(engine.spec.name for engine in job.engines),
        )
        if clip is None:
            return run(pipeline)
        first = first_pass(config, replace(job, inference=clip.watched(job.inference)), clip.ends_so_far, clip.spool)
        report = run(first, said=said, is_first_pass=True)
        if report.outcome is Outcome.INTERRUPTED:
            return report
        replay = clip.replay()
        with reported_if_it_cannot_start(config, started):
            job = again(config, images, job, replay)
            with closed_on_error(job):
                second = wired(config, job, ends=clip.ends, part="pass 2 of 2")
        replay.is_cut_short = lambda: second.stages.stopped_early
        return run(
            second,
            said=said.again(),
            amend=lambda last: _of_both(last, report, clip.ends, first.metrics, second.metrics),
        )


def _of_both(last: Report, first: Report, ends: ClipEnds, before: Metrics, after: Metrics) -> Report:
    """The report of two passes: what is said of the model comes from the first one."""
    rates = last.rates | {name: rate for name, rate in first.rates.items() if name == "model"}
    start, end = before.first_capture_s, after.last_output_s
    fps = after.written / (end - start) if start is not None and end is not None and after.written > 1 else None
    stages = {**last.stages, "inference": first.stages["inference"]}
    clip_range = ends.as_fields()
    return replace(
        last,
        inferred=first.inferred,
        carried=first.carried,
        rates=rates,
        stages=stages,
        fps=fps,
        depth_change=first.depth_change,
        clip_range=clip_range,
    )


def iter_config(
    config: Config,
    *,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
    images: "Images | None" = None,
    model: "Model | None" = None,
    stop: StopSign | None = None,
) -> Generator[Result]:
    """Yield (frame, depth) in order; closing the generator early stops every thread.

    Args:
        images, model: as for `run_config`.
        stop: ends the iteration before the next result when it is set.
        on_progress, on_note: as for `run_config`, called on the thread that iterates.
        on_skip: called with name and reason of each input that cannot be read or does not suit the model.

    Raises:
        StreamError: see `stream.errors`.
    """
    check_one_model(config)
    if stop is not None and stop.is_set():
        return
    notes = Notes(on_note)
    # No yield inside of `collected`: the caller's own code would run in this context.
    with collected(notes), ExitStack() as unless_running:
        if model is None:
            preload(config)
        source, info = opened_unless_live(config, images, unless_running)
        spec = spec_named(config, model)
        check_temporal(config, [spec], info)
        check_skip(config, [spec], info)
        engine = load_engine(config, exact=True, images=images) if model is None else borrowed(model)
        unless_running.callback(engine.close)
        if source is None:
            source = open_config_source(config)
            unless_running.callback(source.close)
        prepare(config, engine, source.info)
        metrics, queue = Metrics(), max(QUEUE, config.inference.batch)
        inference = steadied(config, source.info, engine_inference(config, source, engine), [engine.spec.output])
        inference = skipping(config, source.info, inference)
        most = most_staged_bytes(config, source.info, inference)
        stages = Stages(source, inference, metrics, queue=queue, most_bytes=most)
        unless_running.pop_all()
    relay = Relay(source, stages, [engine], on_skip=on_skip)
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
            if stop is not None and stop.is_set():
                return
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
