"""Puts an open job together: renderer, sinks and preview around its source and its model, as one pipeline.

Invariant: nothing here touches the disk; the pipeline opens the sinks.
"""

from collections.abc import Sequence
from pathlib import Path

from stream.config import Config
from stream.jobs.build import LiveOutput, build_live_outputs, build_renderer, build_sinks
from stream.jobs.clip import Job
from stream.jobs.models import most_staged_bytes, warn_of_memory
from stream.jobs.plan import OutputKind
from stream.jobs.ranges import ClipEnds, depth_mapping, describe, video_mapping
from stream.pipeline.runner import QUEUE, Pipeline
from stream.sinks.base import Sink


def sinks_of(config: Config, job: Job, *, ends: ClipEnds | None, pieces: Path | None = None) -> list[Sink]:
    """The sinks of a job that write files or send streams, not yet open.

    Args:
        ends: of the whole clip, where they are needed.
        pieces: see `build_sinks`.
    """
    plan, codes = job.plan, None
    if plan.depth_video is not None:
        codes = video_mapping(config, plan.depth_video, job.engines[0].spec, ends)
    return build_sinks(
        config,
        plan,
        ends=ends,
        mapping=depth_mapping(config, job.kind, ends),
        video_mapping=codes,
        description=describe(config, job.engines[0], job.info.size) if job.engines else job.description,
        pieces=pieces,
    )


def wired(
    config: Config,
    job: Job,
    *,
    ends: ClipEnds | None,
    part: str = "",
    sink: Sink | None = None,
    views: Sequence[LiveOutput] | None = None,
) -> Pipeline:
    """Everything put together.

    Args:
        ends: of the whole clip, where they are needed.
        part: see `Progress`.
        sink: takes the results in the place of all that `config` names.
        views: show the run in the place of a window and a page of its own.
    """
    plan, info, kind = job.plan, job.info, job.kind
    renderer = build_renderer(config, plan, kind, ends)
    if views is None:
        views = [] if sink else build_live_outputs(config, plan, kind, models=job.switching, ends=ends)
    made = [sink] if sink else sinks_of(config, job, ends=ends)
    sinks = [*made, *(view.sink for view in views)]
    encodes = plan.target is not None or plan.kind is OutputKind.VIDEO or plan.depth_video is not None
    out_size, queue = renderer.output_size(info.size), max(QUEUE, config.inference.batch)
    most = most_staged_bytes(config, info, job.inference, out_size, encodes=encodes)
    pipeline = Pipeline(job.source, job.inference, renderer, sinks, queue=queue, most_bytes=most, part=part)
    for view in views:
        view.preview.metrics, view.preview.log = pipeline.metrics, lambda: pipeline.source.log
    for engine in job.engines:
        warn_of_memory(config, info, engine, out_size, queue, job.inference)
    return pipeline
