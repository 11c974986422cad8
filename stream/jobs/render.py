"""Pictures, and other files of numbers, from a depth video: a run without a model.

Invariant: the depth is that of the file; with a clip, every frame of it has the depth of its own time.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from stream.capture.base import Source
from stream.capture.depthvideo import DepthVideoSource
from stream.config import CaptureConfig, Config, defaults
from stream.depthdata.description import CAPTURE_KEYS
from stream.depthdata.storage import sidecar_path
from stream.depthdata.video import DepthVideo, local_path, open_depth_video
from stream.errors import ConfigError, SourceError, UsageError
from stream.frames import Depth, SourceKind
from stream.infer.replay import Replay
from stream.jobs.clip import EndsOfClip, Job, first_pass
from stream.jobs.keys import RENDER_KEYS
from stream.jobs.opening import closed_on_error
from stream.jobs.options import OPTIONS
from stream.jobs.plan import OutputKind, OutputPlan, named_after, output_kind, plan_outputs
from stream.jobs.ranges import ClipEnds, why_two_passes
from stream.jobs.report import ModelFacts, Report
from stream.jobs.source import announced_source, open_config_source
from stream.jobs.supervise import OnSkip, Said, supervise
from stream.jobs.wiring import wired
from stream.metrics import Outcome
from stream.notes import Notes, OnNote, collected, note
from stream.pipeline.runner import Pipeline, ProgressHook

if TYPE_CHECKING:
    from stream.models.weights.fetch import OnTransfer


def render_config(
    config: Config,
    *,
    clip: str | None = None,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_skip: OnSkip | None = None,
    on_download: "OnTransfer | None" = None,  # noqa: ARG001 - commands hand it to every job
    stop: Event | None = None,
) -> Report:
    """Make what `config` says from the depth video that it names as its source.

    Args:
        clip: the video that the depth was made from, for layouts that show it.
        on_progress, on_note, on_skip, stop: as for `run_config`.

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """
    started, path = time.monotonic(), local_path(config.source or "")
    if config.render.layout in ("side", "overlay") and clip is None:
        hint = "add --with CLIP, the video that the depth was made from"
        raise ConfigError("needs the picture, which a depth video does not hold", where="--layout", hint=hint)
    with collected(Notes(on_note)) as notes, ExitStack() as resources:
        video = open_depth_video(path, max_pixels=config.capture.max_pixels)
        resources.callback(video.close)
        kind, mapping = video.description.kind, video.description.mapping
        given = config
        _note_ignored(given, has_clip=clip is not None)
        capture = given.capture if clip is None else _as_then(given.capture, video, path)
        source, replay = _opened(given, path, video, clip, capture)
        config = _as_run(given, capture, source)
        job = Job(
            source=source,
            plan=_plan(config, source, path, video.frame_count),
            kind=kind,
            engines=[],
            inference=replay,
            description=video.description,
        )
        why = why_two_passes(config, kind, max_depth_m=None)
        if mapping is not None and why != "--range clip":
            why = ""  # the codes have ends already
        ends = None if mapping is None else ClipEnds(shown=(1.0, 1.0), values=(mapping.lo, mapping.hi), kind=kind)
        with closed_on_error(job):
            pipeline = wired(config, job, ends=ends or ClipEnds.unknown())
        said = Said()
        facts = ModelFacts(
            name=video.description.model,
            weights_sha256=video.description.weights_sha256 or "",
            refined=video.description.refined,
        )
        run = partial(
            supervise,
            engines=(),
            config=config,
            started=started,
            notes=notes,
            facts=facts,
            said=said,
            on_progress=on_progress,
            on_skip=on_skip,
            stop=stop,
        )
        if not why:
            replay.is_cut_short = _asks(pipeline, given)
            return run(pipeline)
        with closed_on_error(job):
            gathered = EndsOfClip()
            first = first_pass(config, _alone(config, path, job), gathered)
            report = run(first, is_first_pass=True)
        if report.outcome is Outcome.INTERRUPTED:
            job.source.close()
            return report
        ends = gathered.ends if ends is None else replace(gathered.ends, values=ends.values)
        with closed_on_error(job):
            second = wired(config, job, ends=ends, part="pass 2 of 2")
        replay.is_cut_short = _asks(second, given)
        found = gathered.ends.as_fields()
        return run(second, amend=lambda last: replace(last, clip_range=found))


def _asks(pipeline: Pipeline, config: Config) -> Any:
    """Whether depth may be left over."""
    limit = config.capture.max_frames is not None
    return lambda: limit or pipeline.stages.stopped_early


def _opened(
    config: Config, path: Path, video: DepthVideo, clip: str | None, capture: CaptureConfig
) -> tuple[Source, Replay]:
    """The frames, and the depth that belongs to them.

    Args:
        capture: how to read the clip.
    """
    if clip is None:
        source = DepthVideoSource(video, str(path), max_frames=config.capture.max_frames)
        return source, Replay(stored=source.replayed(), name=str(path), what="the depth video is damaged", hint="")
    beside = config.model_copy(update={"source": clip, "capture": capture})
    announced = announced_source(beside)
    shown = None if announced is not None else open_config_source(beside)
    info = announced or (shown.info if shown is not None else None)
    if shown is None or (info is not None and info.is_live):
        if shown is not None:
            shown.close()
        raise UsageError("is live", where=f"--with {clip}", hint="name the video that the depth was made from")
    if shown.info.size != video.size:
        shown.close()
        (height, width), (rows, columns) = shown.info.size, video.size
        what = f"has {width}×{height} pixels, and the depth video {columns}×{rows}"
        raise SourceError(what, where=clip, hint="name the video that the depth was made from with --with")
    what = f"does not belong to {path}"
    hint = "name the video that the depth was made from with --with"
    return shown, Replay(stored=_times(video), name=clip, what=what, hint=hint, from_first=True)


def _as_then(capture: CaptureConfig, video: DepthVideo, path: Path) -> CaptureConfig:
    """How to read the clip: as the run did that made the depth."""
    then = video.description.capture
    if then is None:
        note(
            f"{path} does not state how its clip was read: if that was with --start, --mirror, --multiple-of or "
            "another option that changes frames, its depth does not belong to these pictures; make it again"
        )
        then = CaptureConfig()
    known = then.model_dump(include=set(CAPTURE_KEYS))
    most = min((most for most in (capture.max_frames, then.max_frames) if most is not None), default=None)
    return capture.model_copy(update=known | {"max_frames": most})


def _as_run(config: Config, capture: CaptureConfig, source: Source) -> Config:
    """What the outputs have to know of how the clip is read: where the sound ends, and that pictures are a film."""
    path, changed = config.output.path, dict[str, object](max_frames=capture.max_frames)
    is_folder = isinstance(path, Path) and output_kind(path) in (OutputKind.FOLDER, OutputKind.PICTURE)
    is_film = source.info.kind is SourceKind.STILLS and not is_folder
    if is_film:
        changed["fps"] = capture.fps
    return config.model_copy(update={"capture": config.capture.model_copy(update=changed)})


def _times(video: DepthVideo) -> Iterator[tuple[Fraction, Depth]]:
    for pts, _, depth in video.timed():
        yield pts * video.time_base, depth


def _alone(config: Config, path: Path, job: Job) -> Job:
    """The job that reads the depth video alone, to find its ends."""
    source = DepthVideoSource(
        open_depth_video(path, max_pixels=config.capture.max_pixels), str(path), max_frames=config.capture.max_frames
    )
    replay = Replay(stored=source.replayed(), name=str(path), what="the depth video is damaged", hint="")
    return replace(job, source=source, inference=replay)


def _note_ignored(config: Config, *, has_clip: bool) -> None:
    """Say which options of a config file or of --set are not for a depth video."""
    for option in OPTIONS.values():
        section, _, name = option.key.partition(".")
        is_read = section in ("render", "output") or option.key in RENDER_KEYS
        is_of_clip = section == "capture" and name not in CAPTURE_KEYS and has_clip
        is_noted = name in ("live", "recursive") or name.startswith("camera_")  # by `plan_outputs`
        if is_read or is_of_clip or is_noted:
            continue
        if getattr(getattr(config, section), name) != getattr(getattr(defaults(), section), name):
            note(f"{option.flag} has no effect on a depth video, whose frames and depth are there already")


def _plan(config: Config, source: Source, path: Path, count: int) -> OutputPlan:
    """What is written; by default a video named after the depth video."""
    beside = sidecar_path(path)
    info = replace(source.info, files=(*source.info.files, path, *([] if beside is None else [beside])))
    if count == 1:  # a picture can hold it
        config = config.model_copy(update={"capture": config.capture.model_copy(update={"max_frames": 1})})
    if config.output.path is None and not info.is_live:
        name = named_after(path.with_suffix("").stem, "_depth.mp4")
        config = config.model_copy(update={"output": config.output.model_copy(update={"path": name})})
    plan = plan_outputs(config, info)
    if plan.depth_video is not None:
        hint = "name a video (.mp4) or a folder for OUT, and --save npy, png16, pfm or exr"
        raise ConfigError("SOURCE is a depth video already", where=str(plan.depth_video), hint=hint)
    return plan
