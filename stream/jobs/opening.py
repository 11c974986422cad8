"""Opens what a config names: its source, its models and the plan of its output.

Invariant: what fails leaves nothing open.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from stream.capture.base import Source
from stream.config import Config
from stream.errors import StreamError, redacted
from stream.frames import SourceInfo
from stream.infer.base import Inference
from stream.jobs.build import build_renderer
from stream.jobs.clip import Job
from stream.jobs.loaded import Model, borrowed, spec_of
from stream.jobs.models import (
    TEMPORAL_WINDOW,
    check_temporal,
    common_kind,
    engine_inference,
    load_engine,
    model_configs,
    preload,
    prepare,
    resizes,
    spec_meant,
    steadied,
    temporal,
)
from stream.jobs.plan import plan_outputs, stream_target
from stream.jobs.ranges import ClipEnds, check_has_end, check_readable_twice, video_mapping, why_two_passes
from stream.jobs.report import Report, is_report
from stream.jobs.skip import check_skip, model_fps, skipping
from stream.jobs.source import announced_source, open_config_source, open_given
from stream.notes import note

if TYPE_CHECKING:
    from stream.capture.memory import Images
    from stream.infer.engine import Engine
    from stream.models.spec import ModelSpec
    from stream.models.weights.fetch import OnTransfer


def opened(
    config: Config,
    images: "Images | None",
    loaded: "Model | None",
    *,
    on_download: "OnTransfer | None",
    open_source: Callable[[], Source] | None = None,
) -> Job:
    """Open everything that `config` names.

    Args:
        images: instead of its source.
        loaded: instead of its model.
        open_source: opens the part of its source that is read.
    """
    from stream.infer.switching import Adaptive, Switching

    with ExitStack() as unless_running:
        stream_target(config)  # a URL that cannot work is refused before a camera is opened
        named = spec_named(config, loaded)
        if why := why_two_passes(config, named.output, max_depth_m=named.max_depth_m):
            check_readable_twice(config, images, why)
        if loaded is None:
            preload(config)
        source, info = opened_unless_live(config, images, unless_running, open_source)
        plan = plan_outputs(config, info, is_open=source is not None)
        configs = model_configs(config, plan)
        specs = [spec_named(one, loaded) for one in configs]
        check_temporal(config, specs, info)
        check_skip(config, specs, info)
        kind = common_kind(config, specs)
        if why := why_two_passes(config, kind, max_depth_m=specs[0].max_depth_m):
            check_has_end(info, why)
        build_renderer(config, plan, kind, ClipEnds.unknown())  # checks its options
        if plan.depth_video is not None:  # checked before weights are loaded
            video_mapping(config, plan.depth_video, specs[0], ClipEnds.unknown() if why else None)
        exact = bool(config.output.save) or plan.depth_video is not None
        engines: list[Engine] = []
        for wanted in configs:
            engines.append(
                borrowed(loaded)
                if loaded is not None
                else load_engine(wanted, exact=exact, on_download=on_download, images=images)
            )
            unless_running.callback(engines[-1].close)
        if source is None:
            source = open_config_source(config)
            unless_running.callback(source.close)
            info = source.info
            plan = plan_outputs(config, info)
        for wanted, engine in zip(configs, engines, strict=True):
            prepare(wanted, engine, info)
        adaptive = switching = None
        remembers = [temporal(config, info, engine.spec) != "off" for engine in engines]
        if resizes(config) and (fps := model_fps(config)) is not None:
            adaptive = Adaptive(engines, target_fps=fps, remembers=remembers)
        elif len(engines) > 1:
            switching = Switching(engines, is_live=info.is_live, remembers=remembers)  # a viewer chooses
            if TEMPORAL_WINDOW in (temporal(config, info, engine.spec) for engine in engines):
                note("several models in a preview take one frame at a time: as with --temporal stream, not in windows")
        model = adaptive or switching or engine_inference(config, source, engines[0])
        steady = steadied(config, info, model, [engine.spec.output for engine in engines])
        inference = skipping(config, info, steady)  # --steady aligns what the model computes
        unless_running.pop_all()
    return Job(source=source, plan=plan, kind=kind, engines=engines, inference=inference, switching=switching)


def again(config: Config, images: "Images | None", job: Job, inference: Inference) -> Job:
    """The same job for a second pass, with depth that is there already."""
    source = open_config_source(config) if images is None else open_given(config, images)
    return replace(job, source=source, plan=replace(job.plan, info=source.info), inference=inference)


def spec_named(config: Config, loaded: "Model | None" = None) -> "ModelSpec":
    """The facts of the model that `config` names, or of `loaded` in its place."""
    return spec_meant(config) if loaded is None else spec_of(loaded)


@contextmanager
def closed_on_error(job: Job) -> Iterator[None]:
    """Closes what no pipeline will close."""
    try:
        yield
    except BaseException:
        job.inference.close()
        job.source.close()
        raise


def opened_unless_live(
    config: Config,
    images: "Images | None",
    unless_running: ExitStack,
    open_source: Callable[[], Source] | None = None,
) -> tuple[Source | None, SourceInfo]:
    """The open source; or None and what is known of a live one.

    That is opened when the models are ready: what it sends before would be old when it is shown or recorded.
    """
    if open_source is None and images is None and (announced := announced_source(config)) is not None:
        return None, announced
    if open_source is not None:
        source = open_source()
    else:
        source = open_config_source(config) if images is None else open_given(config, images)
    unless_running.callback(source.close)
    return source, source.info


@contextmanager
def reported_if_it_cannot_start(config: Config, started: float) -> Iterator[None]:
    """Writes the report of a job whose source or model cannot be opened; bad usage does nothing at all."""
    try:
        yield
    except StreamError as error:
        path = config.output.report
        if error.exit_code == 1 and path is not None and (not path.exists() or is_report(path)):
            with suppress(OSError):  # the error itself matters more
                Report.of_failure(
                    str(error),
                    source=redacted(config.source or ""),
                    model=config.model.name or "",
                    duration_s=time.monotonic() - started,
                ).save(path)
        raise
