"""From a plan to the renderer, the sinks and the preview, not yet open.

Invariant: everything here was checked by `plan`; nothing here touches the disk.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stream.config import Config, OutputConfig
from stream.depthdata.mapping import Mapping
from stream.errors import UsageError
from stream.frames import DepthKind
from stream.jobs.plan import OutputKind, OutputPlan, depth_codec, file_formats, rerun_path, suffixes_by_folder
from stream.jobs.ranges import ClipEnds, build_range, disparity_ends
from stream.notes import announce
from stream.sinks.base import Sink

if TYPE_CHECKING:
    from stream.depthdata.description import Description
    from stream.live.actions import Models
    from stream.live.browser import Page
    from stream.live.preview import Preview
    from stream.render.renderer import Renderer
    from stream.sinks.stream import StreamSink
    from stream.sinks.target import StreamTarget
    from stream.sinks.video import VideoSink


def build_renderer(config: Config, plan: OutputPlan, output: DepthKind, ends: ClipEnds | None = None) -> "Renderer":
    """The renderer for this run.

    Args:
        output: what the model's values mean.
        ends: of the whole clip, where they are needed.

    Raises:
        UsageError: unknown colormap, or a range that is none.
    """
    from stream.render.layout import Layout
    from stream.render.renderer import Renderer

    only_preview = plan.preview and plan.path is None and plan.target is None
    return Renderer(
        layout=Layout(config.render.layout or ("side" if only_preview else "depth")),
        colormap=config.render.colormap,
        range_policy=build_range(config, plan.info, output, ends),
        alpha=config.render.alpha,
    )


def build_video_sink(config: Config, path: Path, pieces: Path | None = None) -> "VideoSink":
    """The sink of a video output, not yet open.

    Args:
        pieces: see `build_sinks`.

    Raises:
        UsageError: the suffix, the encoder or an option is unknown, or they do not fit together.
    """
    from stream.sinks.video import AudioPolicy, VideoSink

    output = config.output
    if pieces is not None:
        from stream.sinks.pieces import VideoPieceSink

        return VideoPieceSink(pieces, of=path, codec=output.codec, crf=output.crf, preset=output.preset)
    return VideoSink(
        path,
        codec=output.codec,
        crf=output.crf,
        preset=output.preset,
        audio=AudioPolicy.KEEP if output.audio else AudioPolicy.NONE,
        overwrite=output.overwrite,
        audio_to_source_end=config.capture.max_frames is None,
    )


def build_stream_sink(config: Config, target: "StreamTarget") -> "StreamSink":
    """The sink of a streamed output, not yet open.

    Raises:
        UsageError: the encoder or an option is unknown, or does not fit the kind of stream.
    """
    from stream.sinks.audio import AudioPolicy
    from stream.sinks.stream import StreamSink

    output, capture = config.output, config.capture
    return StreamSink(
        target,
        codec=output.codec,
        crf=output.crf,
        preset=output.preset,
        audio=AudioPolicy.KEEP if output.audio else AudioPolicy.NONE,
        audio_to_source_end=capture.max_frames is None,
        open_limit_s=capture.open_timeout_s,
        send_limit_s=capture.read_timeout_s,
    )


def build_sinks(
    config: Config,
    plan: OutputPlan,
    *,
    ends: ClipEnds | None = None,
    mapping: Mapping | None = None,
    video_mapping: Mapping | None = None,
    description: "Description | None" = None,
    pieces: Path | None = None,
) -> list[Sink]:
    """The sinks for this run, not yet open.

    Args:
        ends: of the whole clip, where they are needed.
        mapping: how png16 files store values without a unit, see `depth_mapping`.
        video_mapping: how the plan's depth video stores values, see `ranges.video_mapping`.
        description: of the depth, for its files and for the plan's depth video, which is not made without one.
        pieces: the folder for the pieces of videos, where the run makes only a part of what is planned.

    Raises:
        StreamError: an option a sink does not take.
    """
    output, sinks = config.output, list[Sink]()
    names = plan.info.names
    suffixes = suffixes_by_folder(config, plan)
    has_images = plan.kind is OutputKind.FOLDER and output.picture != "none"
    if plan.target is not None:
        sinks.append(build_stream_sink(config, plan.target))
    elif plan.kind is OutputKind.VIDEO and plan.path is not None:
        sinks.append(build_video_sink(config, plan.path, pieces))
    elif plan.path is not None and (plan.kind is OutputKind.PICTURE or has_images):
        from stream.sinks.images import ImageSink

        picture = "png" if output.picture == "none" else output.picture
        beside = suffixes.get(plan.path, [])
        sinks.append(ImageSink(plan.path, format=picture, overwrite=output.overwrite, names=names, beside=beside))
    if plan.depth_path is not None:
        from stream.sinks.depthfiles import DepthFileSink, DepthFormat

        for name in file_formats(config):
            if name == "ply":
                from stream.sinks.ply import PointCloudSink

                sinks.append(
                    PointCloudSink(
                        plan.depth_path,
                        fov=output.fov,
                        ends=disparity_ends(config, ends),
                        overwrite=output.overwrite,
                        names=names,
                        beside=suffixes[plan.depth_path],
                        stride=output.every,
                    )
                )
                continue
            sinks.append(
                DepthFileSink(
                    plan.depth_path,
                    format=DepthFormat(name),
                    overwrite=output.overwrite,
                    names=names,
                    beside=suffixes[plan.depth_path],
                    mapping=mapping,
                    unit_m=output.png16_unit,
                    description=description,
                    describes=plan.kind is not OutputKind.PICTURE,  # its folder is not this run's alone
                    stride=output.every,
                )
            )
    if plan.depth_video is not None and description is not None:
        from stream.sinks.depthvideo import DepthVideoSink

        codec, about = depth_codec(config, plan.depth_video), replace(description, mapping=video_mapping)
        if pieces is None:
            sinks.append(DepthVideoSink(plan.depth_video, codec=codec, description=about, overwrite=output.overwrite))
        else:
            from stream.sinks.pieces import DepthPieceSink

            sinks.append(DepthPieceSink(pieces, codec=codec, description=about))
    if output.rerun is not None:
        from stream.sinks.rerun import RerunSink

        shown = plan.preview or output.virtual_camera or output.serve is not None
        sinks.append(
            RerunSink(
                rerun_path(output),
                fov=output.fov,
                ends=disparity_ends(config, ends),
                overwrite=output.overwrite,
                is_only_output=not sinks and not shown,
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
    config: Config,
    plan: OutputPlan,
    kind: DepthKind,
    *,
    models: "Models | None" = None,
    ends: ClipEnds | None = None,
) -> list[LiveOutput]:
    """The window and the page that show the run live, as far as they are wanted; not yet open.

    Args:
        kind: what the (first) model's values mean.
        models: to switch between.
        ends: of the whole clip, where they are needed.

    Raises:
        StreamError: the address is not one.
    """
    output, outputs = config.output, list[LiveOutput]()
    if plan.preview:
        from stream.live.window import WindowSink

        preview = build_preview(config, plan, kind, models=models, ends=ends)
        has_files = any(path is not None for path in (plan.path, plan.depth_path, plan.depth_video))
        is_only_output = not has_files and not plan.shown_elsewhere
        window = WindowSink(controls=preview, is_only_output=is_only_output)
        outputs.append(LiveOutput(sink=window, preview=preview))
    if output.serve is not None:
        from stream.live.browser import BrowserSink

        preview = build_preview(config, plan, kind, models=models, ends=ends, writes_text=False)
        sink = BrowserSink(build_page(output, output.serve), controls=preview)
        outputs.append(LiveOutput(sink=sink, preview=preview))
    return outputs


def build_page(output: OutputConfig, address: str) -> "Page":
    """Where the live page is served, not yet open.

    Args:
        address: the value of `--serve`.

    Raises:
        StreamError: the address is not one, or the certificate cannot be used.
    """
    from stream.live.address import parse_address, tls_context
    from stream.live.browser import Page

    tls = None if output.serve_cert is None else tls_context(output.serve_cert, output.serve_key)
    return Page(parse_address(address), token=output.serve_token, names=output.serve_name, tls=tls, say=announce)


def build_preview(
    config: Config,
    plan: OutputPlan,
    output: DepthKind,
    *,
    models: "Models | None" = None,
    ends: ClipEnds | None = None,
    writes_text: bool = True,
    name: str = "depthstream",
) -> "Preview":
    """What the preview shows, with a renderer of its own.

    Args:
        name: start of the names of a viewer's files.
        output: what the (first) model's values mean.
        models: to switch between.
        ends: of the whole clip, where they are needed.
        writes_text: into the picture.
    """
    from stream.live.preview import Preview
    from stream.render.range import native
    from stream.sinks.video import AudioPolicy, VideoSink

    chosen = config.output
    audio = AudioPolicy.KEEP if chosen.audio else AudioPolicy.NONE

    def record(path: Path) -> Sink:
        try:
            return VideoSink(path, audio=audio, codec=chosen.codec, crf=chosen.crf, preset=chosen.preset)
        except UsageError:  # they are for an OUT of another kind
            return VideoSink(path, audio=audio)

    range_text = config.render.range or "ema"
    if range_text == "clip" and ends is not None:  # in numbers, which a viewer may change
        range_text = "{:.4g}:{:.4g}".format(*native(ends.shown, output))
    alone = replace(plan, path=None, target=None, preview=True)  # a picture beside its depth, whatever layout files get
    return Preview(
        build_renderer(config, alone, output, ends),
        models=models,
        range_text=range_text,
        kind=output,
        record=record,
        writes_text=writes_text,
        name=name,
    )
