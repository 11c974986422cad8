"""From a plan to the renderer, the sinks and the preview, not yet open.

Invariant: everything here was checked by `plan`; nothing here touches the disk.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stream.config import Config
from stream.errors import UsageError
from stream.frames import DepthKind, SourceInfo, SourceKind
from stream.jobs.plan import OutputKind, OutputPlan, suffixes_by_folder
from stream.notes import announce
from stream.sinks.base import Sink

if TYPE_CHECKING:
    from stream.live.actions import Models
    from stream.live.preview import Preview
    from stream.render.range import RangePolicy
    from stream.render.renderer import Renderer
    from stream.sinks.video import VideoSink


def build_renderer(config: Config, plan: OutputPlan, output: DepthKind) -> "Renderer":
    """The renderer for this run.

    Args:
        output: what the model's values mean.

    Raises:
        UsageError: unknown colormap, or a range that is none.
    """
    from stream.render.layout import Layout
    from stream.render.renderer import Renderer

    only_preview = plan.preview and plan.path is None
    return Renderer(
        layout=Layout(config.render.layout or ("side" if only_preview else "depth")),
        colormap=config.render.colormap,
        range_policy=build_range(config, plan.info, output),
        alpha=config.render.alpha,
    )


def build_range(config: Config, info: SourceInfo, output: DepthKind) -> "RangePolicy":
    """The range policy for this run; by default each image has its own range, and a video a smoothed one.

    Raises:
        UsageError: not a range.
    """
    from stream.render.range import parse_range

    default = "frame" if info.kind is SourceKind.STILLS else "ema"
    return parse_range(config.render.range or default, kind=output)


def build_video_sink(config: Config, path: Path) -> "VideoSink":
    """The sink of a video output, not yet open.

    Raises:
        UsageError: the suffix, the encoder or an option is unknown, or they do not fit together.
    """
    from stream.sinks.video import AudioPolicy, VideoSink

    output = config.output
    return VideoSink(
        path,
        codec=output.codec,
        crf=output.crf,
        preset=output.preset,
        audio=AudioPolicy.KEEP if output.audio else AudioPolicy.NONE,
        overwrite=output.overwrite,
        audio_to_source_end=config.capture.max_frames is None,
    )


def build_sinks(config: Config, plan: OutputPlan) -> list[Sink]:
    """The sinks for this run, not yet open.

    Raises:
        StreamError: an option a sink does not take.
    """
    output, sinks = config.output, list[Sink]()
    names = plan.info.names
    suffixes = suffixes_by_folder(config, plan)
    if plan.kind is OutputKind.VIDEO and plan.path is not None:
        sinks.append(build_video_sink(config, plan.path))
    elif plan.path is not None and (plan.kind is OutputKind.PICTURE or output.picture != "none"):
        from stream.sinks.images import ImageSink

        picture = "png" if output.picture == "none" else output.picture
        beside = suffixes.get(plan.path, [])
        sinks.append(ImageSink(plan.path, format=picture, overwrite=output.overwrite, names=names, beside=beside))
    if plan.depth_path is not None:
        from stream.sinks.depthfiles import DepthFileSink, DepthFormat

        for name in output.save:
            sinks.append(
                DepthFileSink(
                    plan.depth_path,
                    format=DepthFormat(name),
                    overwrite=output.overwrite,
                    names=names,
                    beside=suffixes[plan.depth_path],
                )
            )
    if output.virtual_camera:
        from stream.sinks.virtualcam import VirtualCameraSink

        sinks.append(VirtualCameraSink(output.virtual_camera_device))
    return sinks


@dataclass(frozen=True, kw_only=True)
class LiveOutput:
    """A window or a page, and the preview that makes its pictures."""

    sink: Sink
    preview: "Preview"


def build_live_outputs(
    config: Config, plan: OutputPlan, kind: DepthKind, *, models: "Models | None" = None
) -> list[LiveOutput]:
    """The window and the page that show the run live, as far as they are wanted; not yet open.

    Args:
        kind: what the (first) model's values mean.
        models: to switch between.

    Raises:
        StreamError: the address is not one.
    """
    output, outputs = config.output, list[LiveOutput]()
    if plan.preview:
        from stream.live.window import WindowSink

        preview = build_preview(config, plan, kind, models=models)
        outputs.append(LiveOutput(sink=WindowSink(controls=preview), preview=preview))
    if output.serve is not None:
        from stream.live.browser import BrowserSink
        from stream.live.server import parse_address

        address = parse_address(output.serve)
        page = build_preview(config, plan, kind, models=models, writes_text=False)
        sink = BrowserSink(address, controls=page, token=output.serve_token, say=announce)
        outputs.append(LiveOutput(sink=sink, preview=page))
    return outputs


def build_preview(
    config: Config,
    plan: OutputPlan,
    output: DepthKind,
    *,
    models: "Models | None" = None,
    writes_text: bool = True,
) -> "Preview":
    """What the preview shows, with a renderer of its own.

    Args:
        output: what the (first) model's values mean.
        models: to switch between.
        writes_text: into the picture.
    """
    from stream.live.preview import Preview
    from stream.sinks.video import AudioPolicy, VideoSink

    chosen = config.output

    def record(path: Path) -> Sink:
        try:
            return VideoSink(
                path, audio=AudioPolicy.NONE, codec=chosen.codec, crf=chosen.crf, preset=chosen.preset
            )  # fmt: skip
        except UsageError:  # they are for an OUT of another kind
            return VideoSink(path, audio=AudioPolicy.NONE)

    alone = replace(plan, path=None, preview=True)  # a picture beside its depth, whatever layout files get
    return Preview(
        build_renderer(config, alone, output),
        models=models,
        range_text=config.render.range or "ema",
        record=record,
        writes_text=writes_text,
    )
