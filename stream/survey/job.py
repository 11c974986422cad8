"""A survey: what several models see in the same photos, as numbers, pictures and one page.

Invariant: it is a comparison with other outputs; both run the same engine, and no map is computed twice.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import Source
from stream.capture.limits import Limits
from stream.compare.candidates import Candidate, candidates_of
from stream.compare.engine import Outputs, check_recorded, open_recorded, run_models
from stream.compare.inference import ModelUse
from stream.compare.sheet import MAX_WIDTH_PX, SheetRenderer
from stream.config import Config
from stream.errors import ConfigError, OutputError, UsageError
from stream.files import check_free_space, partial_path, real
from stream.frames import SourceInfo, SourceKind
from stream.infer.base import Inference
from stream.jobs.build import build_video_sink
from stream.jobs.plan import OutputKind, output_kind
from stream.jobs.report import Report
from stream.notes import Notes, OnNote, collected
from stream.pipeline.runner import Pipeline, ProgressHook
from stream.render.range import EmaRange, FrameRange
from stream.sinks.naming import check_output
from stream.survey.builtin import open_scenes, truth_of_scene
from stream.survey.clip.sink import VIDEO, ClipSink
from stream.survey.clip.strip import MOST_FRAMES
from stream.survey.findings.every import FINDINGS
from stream.survey.photos import default_folder, open_photos, short_name
from stream.survey.record import SkippedRow
from stream.survey.scene import work_size
from stream.survey.sink import FILES, SurveySink, TruthOf, is_unfinished, nothing_known, report_bytes
from stream.survey.styled import is_of_style, open_styled
from stream.survey.styles import parse_styles
from stream.survey.truth import TruthFolder

if TYPE_CHECKING:
    from stream.models.weights.fetch import OnTransfer


_SUFFIXES = frozenset(Path(name).suffix for name in FILES)
_BYTES_PER_PIXEL = 0.15, 0.3, 0.4
"""Of the photo, a map and a difference, in the pictures of eleven photographs."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is surveyed.

    Attributes:
        name: how the report names it: nothing of where it lies on this machine.
        opener: opens it, more than once if need be.
        truth_of: from what was opened to what is known to be true of a photo.
        folder: the default for the report.
    """

    name: str
    opener: Callable[[], Source]
    truth_of: Callable[[SourceInfo], TruthOf]
    folder: Callable[[SourceInfo], Path]


def survey_config(
    config: Config,
    photos: Sequence[str],
    models: Sequence[str],
    *,
    truth: Path | None = None,
    builtin: bool = False,
    styles: str | None = None,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_download: "OnTransfer | None" = None,
) -> Report:
    """Survey `photos` with `models`, into the folder `output.path` (default: PHOTOS_survey).

    Args:
        config: as for a comparison; its source is surveyed if no `photos` are named.
        photos: see `open_photos`.
        models: two or more of `NAME` or `NAME=FILE`.
        truth: folder of the depth that was measured for photos, see `TruthFolder`.
        builtin: survey the built-in scenes instead of photos, into builtin_survey.
        styles: in which each photo is drawn as well, see `parse_styles`.
        on_progress, on_note, on_download: as for `run_config`.

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """
    started, drawn = time.monotonic(), parse_styles(styles)
    notes = Notes(on_note)
    output = config.output.path
    if isinstance(output, str):
        raise ConfigError("a survey cannot be streamed", where="-o", hint="name a folder with -o")
    photos = photos or ([config.source] if config.source else config.sources)
    with collected(notes):
        subject = _of_scenes(photos, truth, config) if builtin else _of_photos(photos, truth, config)
        candidates = candidates_of(models, config, what="a survey")
    names = [candidate.spec.name for candidate in candidates]
    opener = partial(open_styled, subject.opener, drawn)
    # Read like the source of any other run where there is only one.
    config = config.model_copy(update={"source": photos[0] if len(photos) == 1 else None, "sources": ()})
    with collected(notes), closing(open_recorded(config, candidates, opener, done="surveyed")) as source:
        info = source.info
        is_clip = info.kind is not SourceKind.STILLS
        if is_clip and truth is not None:
            raise UsageError("is for photos, and this is a video", where="--truth", hint="leave it out")
        folder = output or subject.folder(info)
        _check_folder(config, folder, info, len(names))
        sink = SurveySink(
            folder,
            names,
            FINDINGS,
            truth_of=subject.truth_of(info),
            source=subject.name,
            colormap=config.render.colormap,
            styles=drawn,
            overwrite=config.output.overwrite,
        )

        clip = _clip_sink(config, sink, candidates) if is_clip else None

        def begun(pipeline: Pipeline, inference: Inference, uses: Sequence[ModelUse]) -> None:
            sink.uses = uses
            if clip is not None:
                clip.changes = lambda: inference.depth_changes
            sink.skipped = lambda: [
                SkippedRow(name=one.name, reason=one.reason)
                for one in (*pipeline.source.log.skipped, *pipeline.stages.refused)
                if not is_of_style(one.name, drawn)
            ]

        outputs = Outputs(
            renderer=SheetRenderer(
                names,
                colormap=config.render.colormap,
                range_policy=EmaRange() if is_clip else FrameRange(),
                max_width=MAX_WIDTH_PX if is_clip else None,
            ),
            sinks=[clip or sink],
            kept_size=work_size,
            is_video=is_clip,
            reduces=True,
            begun=begun,
        )
        return run_models(
            config, candidates, source, outputs, reopen=opener, started=started, notes=notes,
            on_progress=on_progress, on_download=on_download,
        )  # fmt: skip


def _of_photos(photos: Sequence[str], truth: Path | None, config: Config) -> Subject:
    if not photos:
        hint = "name images, folders, globs, .txt lists or a video, or take the built-in scenes with --builtin"
        raise UsageError("no PHOTOS given", hint=hint)
    for text in photos:
        check_recorded(text, "surveyed")
    known = None if truth is None else TruthFolder(truth, Limits.of(config.capture), option="--truth")
    return Subject(
        name=short_name(photos),
        opener=partial(open_photos, photos, config, known),
        truth_of=nothing_known if known is None else known.truth_of,
        folder=default_folder,
    )


def _of_scenes(photos: Sequence[str], truth: Path | None, config: Config) -> Subject:
    if photos or truth is not None:
        named = f"PHOTOS ({photos[0]})" if photos else "--truth"
        raise UsageError(f"cannot be combined with {named}", where="--builtin", hint="remove one of the two")
    return Subject(
        name="built-in scenes",
        opener=partial(open_scenes, config),
        truth_of=lambda _info: truth_of_scene,
        folder=lambda _info: Path("builtin_survey"),
    )


def _clip_sink(config: Config, report: SurveySink, candidates: Sequence[Candidate]) -> ClipSink:
    video = build_video_sink(config, report.folder / VIDEO)
    alone = [candidate.spec.name for candidate in candidates if candidate.spec.is_temporal]
    notes = [f"{name} is a model for video, and a survey gives it each frame alone." for name in alone]
    return ClipSink(report, video, [candidate.spec.name for candidate in candidates], notes=notes)


def _check_folder(config: Config, folder: Path, info: SourceInfo, models: int) -> None:
    """Refuse a folder that may not be used, before any work. Raises `UsageError`."""
    if output_kind(folder) is not OutputKind.FOLDER or (folder.suffix in _SUFFIXES and not folder.is_dir()):
        raise ConfigError("a survey is a folder", where=str(folder), hint="name a folder with -o")
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, not a folder", where=str(folder), hint="choose another folder with -o")
    if is_unfinished(folder) and not config.output.overwrite:
        hint = "replace it with --overwrite, or choose another folder with -o"
        raise OutputError("holds a survey that is not complete", where=str(folder), hint=hint)
    check_output(folder, overwrite=config.output.overwrite, inputs=[Path(info.name), *info.files])
    report = config.output.report
    outputs = [path for name in (*FILES, VIDEO) for path in (folder / name, partial_path(folder / name))]
    if report is not None and real(report) in {real(path) for path in (folder, *outputs)}:
        raise OutputError("is an output of this run", where=f"--report {report}", hint="choose another name")
    amount, what = info.frame_count or 0, "photos"
    if info.kind is not SourceKind.STILLS:
        amount, what = min(amount, MOST_FRAMES), "frames"
    pixels = math.prod(work_size(info.size)) * amount
    shares = (1, models, models * (models - 1) // 2)
    needed = round(pixels * sum(count * size for count, size in zip(shares, _BYTES_PER_PIXEL, strict=True)))
    try:
        check_free_space(folder, needed + report_bytes(amount), f"the report on {amount} {what}")
    except OutputError as error:
        hint = "choose another disk with -o, or fewer photos (--max-frames)"
        raise OutputError(error.what, where=error.where, hint=hint) from None
