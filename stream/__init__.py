"""depthstream: a stream of pictures in, a stream of depth out.

    import stream

    report = stream.run("clip.mp4", output="depth.mp4", model="starter")
    for frame, depth in stream.iter_depth("clip.mp4"):
        ...
    for frame, depth in stream.iter_depth([rgb_array, "photo.jpg"]):
        ...
    with stream.load("dav2-small") as model:
        depth = model(rgb_array)

Importing this package loads neither torch nor a codec; the first run does. Names that need numpy or pydantic are
loaded when they are first used, so that `depthstream --help` is instant.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from stream.errors import (
    ConfigError,
    MissingExtraError,
    ModelError,
    OutputError,
    SinkError,
    SourceError,
    SourceNotFoundError,
    StreamError,
    UsageError,
)
from stream.jobs.loaded import Model
from stream.metrics import Outcome
from stream.version import __version__ as __version__

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Event

    from stream.capture.base import Source
    from stream.capture.memory import AnySource, Images
    from stream.config import Config
    from stream.depthdata.points import PointCloud, point_cloud
    from stream.depthdata.video import DepthVideo, open_depth_video
    from stream.frames import Depth, DepthKind, Frame, SourceInfo
    from stream.jobs.iterator import DepthIterator
    from stream.jobs.report import Report
    from stream.pipeline.runner import Progress
    from stream.sinks.depthfiles import read_png16

__all__ = [
    "Config",
    "ConfigError",
    "Depth",
    "DepthIterator",
    "DepthKind",
    "DepthVideo",
    "Frame",
    "MissingExtraError",
    "Model",
    "ModelError",
    "Options",
    "Outcome",
    "OutputError",
    "PointCloud",
    "Progress",
    "Report",
    "SinkError",
    "Source",
    "SourceError",
    "SourceInfo",
    "SourceNotFoundError",
    "StreamError",
    "UsageError",
    "iter_depth",
    "load",
    "open_depth_video",
    "open_source",
    "point_cloud",
    "read_png16",
    "render_depth_video",
    "run",
]


_LOADED_WHEN_USED = {
    "Config": "stream.config",
    "Depth": "stream.frames",
    "DepthIterator": "stream.jobs.iterator",
    "DepthKind": "stream.frames",
    "DepthVideo": "stream.depthdata.video",
    "Frame": "stream.frames",
    "Progress": "stream.pipeline.runner",
    "PointCloud": "stream.depthdata.points",
    "Report": "stream.jobs.report",
    "point_cloud": "stream.depthdata.points",
    "open_depth_video": "stream.depthdata.video",
    "read_png16": "stream.sinks.depthfiles",
    "Source": "stream.capture.base",
    "SourceInfo": "stream.frames",
}


def __getattr__(name: str) -> object:
    if name not in _LOADED_WHEN_USED:
        raise AttributeError(f"module 'stream' has no attribute {name!r}")
    value: object = getattr(import_module(_LOADED_WHEN_USED[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LOADED_WHEN_USED})


class Options(TypedDict, total=False):
    """The options of `run` and `iter_depth`: those of the command line, described in docs/options.md.

    A path is a text or a `pathlib.Path`; a list is a sequence or a text with commas; a time is seconds or
    `[HH:]MM:SS`.
    """

    model: str | Sequence[str] | Model | None
    weights: str | os.PathLike[str] | None
    weights_dir: str | os.PathLike[str] | None
    offline: bool
    commercial_only: bool
    input_size: int | None
    kind: Literal["disparity", "depth", "metric"] | None
    max_depth: float | None
    square: bool
    start: float | str | None
    end: float | str | None
    max_frames: int | None
    fps: float | None
    max_seconds: float | None
    multiple_of: int | None
    recursive: bool
    max_pixels: int
    max_memory: int | str | None
    mirror: bool
    sandbox: bool
    deinterlace: Literal["auto", "on", "off"]
    live: Literal["auto", "live", "file"] | bool
    camera_size: str | tuple[int, int] | None
    camera_fps: float | None
    camera_fourcc: str | None
    open_timeout_s: float
    read_timeout_s: float
    input_option: dict[str, str] | None
    reconnect_for: float
    hwaccel: str
    device: str | int
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"]
    backend: Literal["auto", "torch", "compile", "onnx", "openvino"]
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "directml", "coreml"]
    batch: int
    target_fps: float | None
    skip: int | Literal["auto"] | None
    temporal: Literal["off", "stream", "window"] | None
    steady: bool
    refine: bool
    threads: int | None
    layout: Literal["side", "depth", "overlay"] | None
    colormap: str
    range: str | tuple[float, float] | None
    alpha: float
    output: str | os.PathLike[str] | None
    save: str | Sequence[Literal["npy", "png16", "pfm", "exr", "ply", "video16", "conf"]]
    depth_codec: Literal["ffv1", "hevc12", "float32"] | None
    every: int
    fov: float | None
    png16_unit: float | str
    picture: Literal["png", "jpg", "webp", "none"]
    codec: str | None
    crf: int | None
    preset: str | None
    audio: bool
    report: str | os.PathLike[str] | None
    overwrite: bool
    resume: bool
    segment_seconds: float
    preview: Literal["auto", "window", "off"] | bool
    serve: str | bool | None
    serve_token: str | bool | None
    serve_cert: str | os.PathLike[str] | None
    serve_key: str | os.PathLike[str] | None
    serve_name: str | Sequence[str]
    virtual_camera: bool
    rerun: str | bool | os.PathLike[str] | None
    virtual_camera_device: str | None
    quiet: bool


def run(
    source: "AnySource | None" = None,
    *,
    config: "Config | None" = None,
    on_note: "Callable[[str], None] | None" = None,
    on_progress: "Callable[[Progress], None] | None" = None,
    on_skip: "Callable[[str, str], None] | None" = None,
    stop: "Event | None" = None,
    **options: Unpack[Options],
) -> "Report":
    """Run `source` through a model into files or a preview, as `depthstream run` does.

    Args:
        source: what the command line takes as SOURCE, a path or a camera's number; or images: an array (uint8 H×W×3 in
            RGB order, H×W×4, H×W, or N×H×W×3), a Pillow image, or a list or iterator of arrays, Pillow images and names
            of image files. Arrays in a list are read where they are: do not change them while they wait. An iterator is
            advanced on a thread of the run. Images have no name to name an output after: pass `output`. Or an open
            `Source`, see `open_source`, which the run reads and closes, however it ends.
        config: a whole configuration instead of `source` and `options`.
        on_note: called once with each thing worth knowing: the chosen backend, a fallback, a repaired file. The logger
            `depthstream` gets them too, as INFO, and skipped inputs as WARNING.
        on_progress: called on the calling thread after each result, and every 0.05 s while none arrives; an exception
            that it raises ends the run.
        on_skip: called with the name of each input that was skipped, and the reason.
        stop: set it on any thread to end the run in order: a live recording is completed, any other video is kept as
            NAME.partial.EXT, and the report is returned.
        options: named like the command line's, with underscores: `output=`, `model=`, `save=("npy",)`, …; see
            `Options`. `model` may be a loaded `Model`, which the run uses and does not close.

    Returns:
        What happened, as numbers. Inputs that were skipped are named there; they raise nothing.

    Raises:
        StreamError: what went wrong; see `stream.errors` for the tree. What an iterator of yours raises comes out as it
            is.
        KeyboardInterrupt: Ctrl-C in a file job, after the partial output was kept. A live source just ends.
    """
    from stream.jobs.run import run_config

    made, images, model = _arguments(source, config, options, stop)
    try:
        report = run_config(
            made, images=images, model=model, on_note=on_note, on_progress=on_progress, on_skip=on_skip, stop=stop
        )
    finally:
        if images is not None:
            images.close()
    return _unless_interrupted(report, stop)


def iter_depth(
    source: "AnySource | None" = None,
    *,
    config: "Config | None" = None,
    on_note: "Callable[[str], None] | None" = None,
    on_progress: "Callable[[Progress], None] | None" = None,
    on_skip: "Callable[[str, str], None] | None" = None,
    stop: "Event | None" = None,
    **options: Unpack[Options],
) -> "DepthIterator":
    """Each frame with its depth, in order: an iterator of `(Frame, Depth)`.

        for frame, depth in stream.iter_depth("clip.mp4"):
            ...

    Its `close` ends it and every thread, its `stop` does so from another thread, and `with` closes it.

    The call checks the arguments and that a file exists; the source is opened and the model loaded with the first
    `next`. A model for video takes the frames, also a list of images, for those of one clip.

    Args:
        source, config, options: as for `run`; output options have no effect. Several models and `target_fps` are
            refused: each frame gets the depth of one model at one size.
        on_note, on_progress, on_skip: as for `run`; called while the iterator is advanced. The logger `depthstream`
            gets what was skipped too, as WARNING, which Python prints unless logging is configured.
        stop: set it on any thread to end the iteration before the next result, as the iterator's own `stop` does.

    Raises:
        StreamError: what went wrong; inputs that cannot be read are skipped, as in `run`.
    """
    from stream.jobs.iterator import DepthIterator
    from stream.jobs.models import check_one_model
    from stream.jobs.run import iter_config
    from stream.jobs.source import check_source
    from stream.jobs.supervise import StopSign

    made, images, model = _arguments(source, config, options, stop)
    check_one_model(made)
    if images is None:
        check_source(made)

    def start(sign: StopSign) -> "Generator[tuple[Frame, Depth]]":
        return iter_config(
            made, images=images, model=model, on_note=on_note, on_progress=on_progress, on_skip=on_skip, stop=sign
        )

    return DepthIterator(start, stop)


def load(
    model: str | None = None,
    /,
    *,
    on_note: "Callable[[str], None] | None" = None,
    **options: Unpack[Options],
) -> Model:
    """Load a model once, to call it on images and to use it in any number of runs.

        with stream.load("dav2-small", device="cuda") as model:
            depth = model(rgb_array)
            report = stream.run("clip.mp4", output="depth.mp4", model=model)

    Its weights are downloaded if they are not on this machine. `backend="auto"` is torch here, and `precision="auto"`
    is fp32 on a CPU, as for `iter_depth`: the numbers do not depend on what comes later.

    Args:
        model: its name, or NAME=FILE; the built-in model if left out.
        on_note: called once with each thing worth knowing, then and later.
        options: those of the model: `weights=`, `device=`, `precision=`, `backend=`, `input_size=`, `batch=`, …

    Raises:
        StreamError: the weights are missing or damaged, or an option does not suit the model.
    """
    from stream.jobs.loaded import load as load_model

    given: dict[str, object] = dict(options)
    if model is not None:
        if "model" in given:
            raise UsageError("is given twice", where="model")
        given["model"] = model
    return load_model(given, on_note)


def open_source(
    source: "AnySource",
    *,
    on_note: "Callable[[str], None] | None" = None,
    **options: Unpack[Options],
) -> "Source":
    """Open a source, to look at its `info`, to iterate over its frames, or to pass it to `run` or `iter_depth`.

        with stream.open_source("clip.mp4", start=5) as source:
            print(source.info.size, source.info.rate)
            for frame, depth in stream.iter_depth(source, model=model):
                ...

    It is read once. A run that takes it closes it in the end; who reads it alone closes it with `close` or `with`, and
    closing it again does no harm. A camera's frames wait for nobody: open it when the model is loaded.

    Args:
        source: as for `run`.
        on_note: called once with each thing worth knowing.
        options: those of the source: `start=`, `end=`, `max_frames=`, `fps=`, `camera_size=`, …; a run takes them over.

    Raises:
        StreamError: the source is missing, cannot be opened, or does not take one of the options.
    """
    from stream.jobs.source import opened_source
    from stream.notes import Notes, collected

    with collected(Notes(on_note)):
        return opened_source(source, options)


def render_depth_video(
    source: "str | os.PathLike[str]",
    *,
    clip: "str | os.PathLike[str] | None" = None,
    on_note: "Callable[[str], None] | None" = None,
    on_progress: "Callable[[Progress], None] | None" = None,
    on_skip: "Callable[[str, str], None] | None" = None,
    stop: "Event | None" = None,
    **options: Unpack[Options],
) -> "Report":
    """Make pictures or depth files again from a depth video, without the model, as `depthstream render` does.

    Args:
        source: the depth video, `NAME.depth.mkv` or `NAME.depth.mp4`.
        clip: the video that the depth was made from, for the layouts `side` and `overlay` and for its sound.
        on_note, on_progress, on_skip, stop: as for `run`.
        options: `output=`, `colormap=`, `layout=`, `range=`, `save=`, …: those of `depthstream render --help`.

    Returns:
        What happened, as numbers.

    Raises:
        StreamError: what went wrong; see `stream.errors` for the tree.
        KeyboardInterrupt: Ctrl-C, after the partial output was kept.
    """
    from stream.jobs.options import from_render_options
    from stream.jobs.render import render_config

    report = render_config(
        from_render_options(os.fspath(source), options),
        clip=None if clip is None else os.fspath(clip),
        on_note=on_note,
        on_progress=on_progress,
        on_skip=on_skip,
        stop=stop,
    )
    return _unless_interrupted(report, stop)


def _unless_interrupted(report: "Report", stop: "Event | None") -> "Report":
    """The report, or `KeyboardInterrupt` if it was Ctrl-C that ended the run."""
    if report.outcome is Outcome.INTERRUPTED and not (stop is not None and stop.is_set()):
        raise KeyboardInterrupt
    return report


def _arguments(
    source: object, config: object, options: Mapping[str, object], stop: object
) -> "tuple[Config, Images | None, Model | None]":
    """The config, the images if the source is some, and the model if it is loaded.

    Raises:
        UsageError: an argument is not what it should be.
    """
    from stream.capture.memory import Opened, given
    from stream.config import Config
    from stream.jobs.keys import is_of_model
    from stream.jobs.loaded import configured
    from stream.jobs.options import check_free, from_options
    from stream.jobs.source import of_opened

    if stop is not None and not callable(getattr(stop, "is_set", None)):
        raise UsageError(f"{type(stop).__name__} is no event", where="stop", allowed="a threading.Event")
    if config is not None:
        if source is not None or options:
            raise ConfigError("give either config= or a source with options, not both")
        if not isinstance(config, Config):
            hint = "options are keywords: model=, output=, …"
            raise ConfigError(f"must be a stream.Config, got {type(config).__name__}", where="config", hint=hint)
        return config, None, None
    found = given(source)
    images = None if found is None or isinstance(found, str) else found
    model = options.get("model")
    others = options
    if isinstance(model, Model):
        others = {name: value for name, value in options.items() if name != "model"}
        check_free(others, is_of_model, by="a model that is loaded already", opener="stream.load")
    if isinstance(found, Opened):
        made = of_opened(found.source, others)
    else:
        made = from_options(found if isinstance(found, str) else None, others)
    if not isinstance(model, Model):
        return made, images, None
    return configured(model, made), images, model
