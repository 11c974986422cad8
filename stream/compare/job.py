"""Several models on the same source: labelled sheets, a contact sheet, and numbers for how well they agree.

Invariant: all panes of a sheet show the same frame.
"""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.capture.base import Source
from stream.compare.agreement import Agreement, agreement
from stream.compare.candidates import candidates_of
from stream.compare.engine import Outputs, open_recorded, run_models
from stream.compare.inference import ModelUse
from stream.compare.outputs import AgreementSink, ContactSheetSink
from stream.compare.sheet import MAX_WIDTH_PX, SheetRenderer
from stream.config import Config
from stream.errors import ConfigError, OutputError, UsageError
from stream.files import check_partial, real
from stream.frames import ComparedDepth, Depth, SourceInfo, SourceKind
from stream.infer.base import DepthChange, Inference
from stream.jobs.build import build_video_sink
from stream.jobs.plan import OutputKind, named_after, output_kind
from stream.jobs.ranges import build_range
from stream.jobs.report import Report
from stream.jobs.source import open_config_source
from stream.notes import Notes, OnNote, collected
from stream.pipeline.runner import Pipeline, ProgressHook
from stream.render.range import displayed
from stream.sinks.base import Sink
from stream.sinks.images import ImageSink
from stream.sinks.naming import FrameNames, check_output

if TYPE_CHECKING:
    from stream.models.weights.fetch import OnTransfer

CONTACT_SHEET, NUMBERS = "contact_sheet.png", "compare.json"
_RESERVED = re.compile(r"contact_sheet(_\d+)?|compare", re.IGNORECASE)


def compare_config(
    config: Config,
    models: Sequence[str],
    *,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_download: "OnTransfer | None" = None,
) -> Report:
    """Compare `models` on `config.source`.

    Images give a folder with a sheet for each image, `contact_sheet.png` and `compare.json`. A video gives a video of
    sheets, and the numbers in NAME.json in the same folder.

    Args:
        config: as for a run; `model.name`, `model.weights`, `output.save` and `render.layout` have no effect.
        models: two or more of `NAME` or `NAME=FILE`; the others are aligned to the first.
        on_progress, on_note, on_download: as for `run_config`.

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """

    started = time.monotonic()
    notes = Notes(on_note)
    with collected(notes):
        candidates = candidates_of(models, config)
    if config.render.range == "clip":
        raise UsageError("does not apply to a comparison", where="--range clip", allowed="frame, ema, LO:HI")
    names = [candidate.spec.name for candidate in candidates]
    opener = partial(open_config_source, config)
    with collected(notes), closing(open_recorded(config, candidates, opener)) as source:
        if isinstance(config.output.path, str):
            raise ConfigError("a comparison cannot be streamed", where="-o", hint="name a video (.mp4) or a folder")
        output = config.output.path or _default_output(source.info)
        kind = _output_kind(output, source.info)
        refined = dict.fromkeys(names, False)
        sinks = _sinks(config, source, output, kind, refined)
        is_video = kind is OutputKind.VIDEO
        renderer = SheetRenderer(
            names,
            colormap=config.render.colormap,
            range_policy=build_range(config, source.info, candidates[0].spec.output),
            max_width=MAX_WIDTH_PX if is_video else None,
        )

        def begun(_pipeline: Pipeline, inference: Inference, _uses: Sequence[ModelUse]) -> None:
            def summary() -> dict[str, Any]:
                changes = _summary(names, inference.depth_changes) if is_video else {}
                return {"refined": refined, "steadied": is_video and config.inference.steady, **changes}

            _numbers_of(sinks).summary = summary

        outputs = Outputs(
            renderer=renderer,
            sinks=sinks,
            kept_size=renderer.pane_size,
            is_video=is_video,
            begun=begun,
            amend=lambda report: replace(report, refined=any(refined.values())),
        )
        return run_models(
            config, candidates, source, outputs, reopen=opener, started=started, notes=notes,
            on_progress=on_progress, on_download=on_download,
        )  # fmt: skip


def _default_output(info: SourceInfo) -> Path:
    if info.kind is SourceKind.STILLS:
        source = Path(info.name)
        if source.is_dir():
            return named_after(real(source).name, "_compare")
        return named_after(source.stem if source.is_file() else "pictures", "_compare")
    return named_after(Path(info.name).stem, "_compare.mp4")


def _output_kind(output: Path, info: SourceInfo) -> OutputKind:
    """The kind of output for this source. Raises `ConfigError` if `output` or an input name does not fit."""
    kind = output_kind(output)
    stills = info.kind is SourceKind.STILLS
    if stills and kind is not OutputKind.FOLDER:
        raise ConfigError("a comparison of images is a folder", where=str(output), hint="name a folder with -o")
    if not stills and kind is not OutputKind.VIDEO:
        raise ConfigError("a comparison of videos is a video", where=str(output), hint="name a video (.mp4) with -o")
    names = FrameNames(info.names)
    if taken := sorted(name for name in info.names if _RESERVED.fullmatch(names.stem_of(name, 0))):
        what = f"the output of {taken[0]} would have the name of the contact sheet or the numbers"
        raise ConfigError(what, where=info.name, hint="rename the input")
    return kind


def _sinks(config: Config, source: Source, output: Path, kind: OutputKind, refined: dict[str, bool]) -> list[Sink]:
    """The outputs, not yet open; while they are written, `refined` becomes true for each model whose depth is."""
    overwrite = config.output.overwrite
    info = source.info
    check_output(output, overwrite=overwrite, inputs=[Path(info.name), *info.files])
    numbers = output.with_suffix(".json") if kind is OutputKind.VIDEO else output / NUMBERS
    taken = {real(path) for path in (output, numbers, output / CONTACT_SHEET)}
    if config.output.report is not None and real(config.output.report) in taken:
        raise OutputError(
            "is an output of this run", where=f"--report {config.output.report}", hint="choose another name"
        )
    heading = {"source": info.name, "models": list(refined), "definitions": _DEFINITIONS}
    if kind is OutputKind.VIDEO:
        check_partial(output, overwrite=overwrite)
        video = build_video_sink(config, output)
        check_output(numbers, overwrite=overwrite, inputs=info.files)
        check_partial(numbers, overwrite=overwrite)
        return [video, AgreementSink(numbers, heading=heading, measure=_measure(refined), overwrite=overwrite)]
    image_format = "png" if config.output.picture == "none" else config.output.picture
    return [
        ImageSink(output, format=image_format, overwrite=overwrite, names=info.names),
        ContactSheetSink(output / CONTACT_SHEET, overwrite=overwrite),
        AgreementSink(numbers, heading=heading, measure=_measure(refined), overwrite=overwrite),
    ]


def _numbers_of(sinks: Sequence[Sink]) -> AgreementSink:
    (found,) = (sink for sink in sinks if isinstance(sink, AgreementSink))
    return found


def _summary(names: Sequence[str], changes: Sequence[DepthChange | None]) -> dict[str, Any]:
    measured = zip(names, changes, strict=False)  # no changes if there were no frames
    return {"depth_change": {name: None if one is None else asdict(one) for name, one in measured}}


_DEFINITIONS = {
    "A | B": "B is aligned to A (the reference) by a least-squares scale and shift in disparity",
    "abs_rel": "mean |z_B - z_A| / z_A, z = 1/disparity; 0 is best",
    "delta_1_25": "share of pixels with max(z_A/z_B, z_B/z_A) < 1.25; 1 is best",
    "spearman": "rank correlation of the disparities; 1 is best, negative means opposite polarity",
    "depth_change": "mean change of disparity from frame to frame along optical flow, in shares of the robust range "
    "(2nd to 98th percentile): raw as the model computes it, steadied with --steady; 0 is best",
    "refined": "depth follows the edges of the images (--refine), so it is not the model's own any more",
    "steadied": "depth was aligned to that of the frame before (--steady); depth and numbers are those after it",
    "compared": "share of the pixels for which both have an answer; the other numbers are of these (null: none)",
    "relative references": "their 1st and 99th percentile of disparity are set to 0.1 and 1 (of relative depth, only "
    "the 99th percentile of 1/z to 1), so the numbers compare pairs of models with each other, not with benchmarks",
}


def _measure(refined: dict[str, bool]) -> Callable[[Depth], dict[str, Any]]:
    def measure(depth: Depth) -> dict[str, Any]:
        if not isinstance(depth, ComparedDepth):
            raise TypeError(f"a comparison needs ComparedDepth, not {type(depth).__name__}")
        maps = {name: (displayed(one), one.kind) for name, one in zip(refined, depth.all, strict=True)}
        for name, one in zip(refined, depth.all, strict=True):
            refined[name] |= one.refined
        return {
            f"{a} | {b}": _numbers(agreement(maps[b][0], maps[a][0], kind=maps[a][1]))
            for a, b in combinations(refined, 2)
        }

    return measure


def _numbers(found: Agreement | None) -> dict[str, float | None]:
    """The numbers of a pair for JSON; None where there is nothing to compare."""
    if found is None:
        return {**dict.fromkeys(Agreement.__dataclass_fields__), "compared": 0.0}
    return asdict(found)
