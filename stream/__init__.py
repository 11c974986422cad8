"""depthstream: a stream of pictures in, a stream of depth out.

    import stream

    report = stream.run("clip.mp4", output="depth.mp4", model="starter")
    for frame, depth in stream.iter_depth("clip.mp4"):
        ...

Importing this package loads neither torch nor a codec; the first run does. Names that need numpy or pydantic are
loaded when they are first used, so that `depthstream --help` is instant.
"""

import os
from collections.abc import Callable, Iterator, Sequence
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
from stream.metrics import Outcome
from stream.version import __version__ as __version__

if TYPE_CHECKING:
    from stream.config import Config
    from stream.frames import Depth, DepthKind, Frame, SourceInfo
    from stream.jobs.report import Report
    from stream.pipeline.runner import Progress
    from stream.sinks.depthfiles import read_png16

__all__ = [
    "Config",
    "ConfigError",
    "Depth",
    "DepthKind",
    "Frame",
    "MissingExtraError",
    "ModelError",
    "Options",
    "Outcome",
    "OutputError",
    "Progress",
    "Report",
    "SinkError",
    "SourceError",
    "SourceInfo",
    "SourceNotFoundError",
    "StreamError",
    "UsageError",
    "iter_depth",
    "read_png16",
    "run",
]


_LOADED_WHEN_USED = {
    "Config": "stream.config",
    "Depth": "stream.frames",
    "DepthKind": "stream.frames",
    "Frame": "stream.frames",
    "Progress": "stream.pipeline.runner",
    "Report": "stream.jobs.report",
    "read_png16": "stream.sinks.depthfiles",
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

    model: str | Sequence[str] | None
    weights: str | os.PathLike[str] | None
    weights_dir: str | os.PathLike[str] | None
    offline: bool
    commercial_only: bool
    input_size: int | None
    square: bool
    start: float | str | None
    end: float | str | None
    max_frames: int | None
    fps: float | None
    recursive: bool
    max_pixels: int
    mirror: bool
    live: Literal["auto", "live", "file"] | bool
    camera_size: str | tuple[int, int] | None
    camera_fps: float | None
    camera_fourcc: str | None
    open_timeout_s: float
    read_timeout_s: float
    reconnect_for: float
    hwaccel: str
    device: str
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"]
    backend: Literal["auto", "torch", "compile", "onnx", "openvino"]
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "directml", "coreml"]
    batch: int
    target_fps: float | None
    threads: int | None
    layout: Literal["side", "depth", "overlay"] | None
    colormap: str
    range: str | None
    alpha: float
    output: str | os.PathLike[str] | None
    save: str | Sequence[Literal["npy", "png16", "pfm", "exr"]]
    picture: Literal["png", "jpg", "webp", "none"]
    codec: str | None
    crf: int | None
    preset: str | None
    audio: bool
    report: str | os.PathLike[str] | None
    overwrite: bool
    preview: Literal["auto", "window", "off"] | bool
    serve: str | bool | None
    serve_token: str | None
    virtual_camera: bool
    virtual_camera_device: str | None
    quiet: bool


def run(
    source: str | os.PathLike[str] | None = None,
    *,
    config: "Config | None" = None,
    on_note: "Callable[[str], None] | None" = None,
    on_progress: "Callable[[Progress], None] | None" = None,
    **options: Unpack[Options],
) -> "Report":
    """Run `source` through a model into files or a preview, as `depthstream run` does.

    Args:
        source: what the command line takes as SOURCE.
        config: a whole configuration instead of `source` and `options`.
        on_note: called once with each thing worth knowing: the chosen backend, a fallback, a repaired file. The logger
            `depthstream` gets them too, as INFO, and skipped inputs as WARNING.
        on_progress: called on the calling thread after each result, and every 0.05 s while none arrives; an exception
            that it raises ends the run.
        options: named like the command line's, with underscores: `output=`, `model=`, `save=("npy",)`, …; see
            `Options`.

    Returns:
        What happened, as numbers. Inputs that were skipped are named there; they raise nothing.

    Raises:
        StreamError: what went wrong; see `stream.errors` for the tree.
        KeyboardInterrupt: Ctrl-C in a file job, after the partial output was kept. A live source just ends.
    """
    from stream.jobs.run import run_config

    report = run_config(_config(source, config, options), on_note=on_note, on_progress=on_progress)
    if report.outcome is Outcome.INTERRUPTED:
        raise KeyboardInterrupt
    return report


def iter_depth(
    source: str | os.PathLike[str] | None = None,
    *,
    config: "Config | None" = None,
    on_note: "Callable[[str], None] | None" = None,
    on_progress: "Callable[[Progress], None] | None" = None,
    on_skip: "Callable[[str, str], None] | None" = None,
    **options: Unpack[Options],
) -> "Iterator[tuple[Frame, Depth]]":
    """Yield each frame with its depth, in order; closing the generator stops every thread.

    Args:
        source, config, options: as for `run`; output options have no effect.
        on_note, on_progress: as for `run`; called while the generator is advanced.
        on_skip: called with the name of each input that was skipped, and the reason. The logger `depthstream` gets it
            too, as WARNING, which Python prints unless logging is configured.

    Raises:
        StreamError: what went wrong; inputs that cannot be read are skipped, as in `run`.
    """
    from stream.jobs.run import iter_config

    return iter_config(_config(source, config, options), on_note=on_note, on_progress=on_progress, on_skip=on_skip)


def _config(source: str | os.PathLike[str] | None, config: "Config | None", options: Options) -> "Config":
    from stream.jobs.options import from_options

    source = source if source is None else os.fspath(source)
    if config is not None:
        if source is not None or options:
            raise ConfigError("give either config= or a source with options, not both")
        return config
    return from_options(source, options)
