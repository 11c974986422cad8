"""Every option of a run, written once: type, default, limits, help, panel and name.

`stream.jobs.options` reads from these models what the command line, the YAML keys, the keywords of `stream.run` and
the page docs/options.md need to know.

Invariant: no other module holds a default, a limit or a name of an option.
"""

import math
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

DEFAULT_SERVE = "127.0.0.1:8765"
SaveFormat = Literal["npy", "png16", "pfm", "exr"]
PictureFormat = Literal["png", "jpg", "webp", "none"]


class Panel(StrEnum):
    """Groups of options in `--help` and on the reference page, in this order."""

    SOURCE = "Source"
    MODEL = "Model"
    PICTURE = "Picture"
    OUTPUT = "Output"
    LIVE = "Live"
    CAMERA = "Camera and network"
    SPEED = "Speed"
    RUN = "Run"


def option(
    panel: Panel,
    default: object,
    help_text: str,
    *,
    flags: str = "",
    metavar: str = "",
    rest: str = "",
    alone: str = "",
    **limits: Any,
) -> Any:
    """A field that is also an option.

    Args:
        flags: how it is typed, space-separated, `--x/--no-x` for a switch; default: `--` and the field's name.
        metavar: what stands for the value in the help; default: the choices, or a name for the type.
        rest: key that takes the second value on, if the option may be given several times.
        alone: the value that the option has if none is given with it.
        limits: `ge`, `gt`, `le`, `lt`, `min_length` and `max_length`, as for pydantic's `Field`.
    """
    extra: Any = {"panel": panel.value, "flags": flags, "metavar": metavar, "rest": rest, "alone": alone}
    return Field(default, description=help_text, json_schema_extra={"option": extra}, **limits)


def parse_time(text: str) -> float:
    """Seconds from `90`, `1:30`, `01:02:03.5`.

    Raises:
        ValueError: if `text` is none of these.
    """
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or not all(math.isfinite(part) and part >= 0 for part in parts):
        raise ValueError("must be seconds or [HH:]MM:SS")
    return float(sum(part * 60**power for power, part in enumerate(reversed(parts))))


def _words(value: object) -> object:
    """The parts of a comma-separated text; anything else as it is."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _switch(value: object, *, on: str, off: str | None) -> object:
    """True and False by their names; anything else as it is."""
    return (on if value else off) if isinstance(value, bool) else value


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        coerce_numbers_to_str=True,
        defer_build=True,  # `run --help` needs no validators, which take 50 ms to build
    )

    @field_validator("*", mode="before")
    @classmethod
    def _number_as_path(cls, value: object, info: ValidationInfo) -> object:
        """YAML reads the path `2024` as a number."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        is_path = Path in (annotation, *get_args(annotation))
        return str(value) if is_path and isinstance(value, int | float) and not isinstance(value, bool) else value


class ModelConfig(_Section):
    """Which model, and at what inference size."""

    name: str | None = option(
        Panel.MODEL,
        None,
        "Model, see `depthstream models`; several for a preview that switches between them. Default: the built-in "
        "starter.",
        flags="-m --model",
        metavar="MODEL",
        rest="model.also",
    )
    also: tuple[str, ...] = Field((), description="More models (NAME or NAME=FILE) that a preview can switch to.")
    weights: Path | None = option(
        Panel.MODEL, None, "Checkpoint file to use instead of the published one.", metavar="FILE"
    )
    weights_dir: Path | None = option(Panel.MODEL, None, "Look for weights in this folder first.", metavar="FOLDER")
    offline: bool = option(Panel.MODEL, False, "Never download weights.")
    commercial_only: bool = option(Panel.MODEL, False, "Refuse weights whose licence forbids commercial use.")
    input_size: int | None = option(
        Panel.MODEL, None, "Inference size in pixels; default: the model's own.", ge=32, le=8192
    )
    square: bool = option(Panel.MODEL, False, "Resize images to a square network input, ignoring their aspect ratio.")

    @field_validator("also", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        return _words(value)


class CaptureConfig(_Section):
    """What to read from the source, and how. Each option applies only to the kinds of source that its help names."""

    start: float | None = option(
        Panel.SOURCE, None, "Start at this time of a video: seconds or [HH:]MM:SS[.mmm].", metavar="TIME", ge=0
    )
    end: float | None = option(
        Panel.SOURCE, None, "Stop at this time of a video: seconds or [HH:]MM:SS[.mmm].", metavar="TIME", gt=0
    )
    max_frames: int | None = option(Panel.SOURCE, None, "Stop after this many frames.", ge=1)
    fps: float | None = option(
        Panel.SOURCE, None, "Frame rate of a video that is made from still images.", gt=0, le=1000
    )
    recursive: bool = option(Panel.SOURCE, False, "Read the subfolders of a folder as well.")
    max_pixels: int = option(Panel.SOURCE, 250_000_000, "Skip images with more pixels than this.", ge=1)
    mirror: bool = option(Panel.SOURCE, False, "Swap left and right, as in a mirror.")
    live: Literal["auto", "live", "file"] = option(
        Panel.CAMERA,
        "auto",
        "Treat a network source as a live stream, or as a file; default: decided by its protocol and duration.",
        flags="--live/--no-live",
    )
    camera_size: tuple[int, int] | None = option(
        Panel.CAMERA, None, "Resolution to request from the camera.", metavar="WIDTHxHEIGHT"
    )
    camera_fps: float | None = option(Panel.CAMERA, None, "Frame rate to request from the camera.", gt=0)
    camera_fourcc: str | None = option(
        Panel.CAMERA,
        None,
        "Codec to request from the camera, such as MJPG.",
        metavar="CODE",
        min_length=4,
        max_length=4,
    )
    open_timeout_s: float = option(
        Panel.CAMERA, 10.0, "How long opening a network source may take.", metavar="SECONDS", gt=0
    )
    read_timeout_s: float = option(
        Panel.CAMERA, 10.0, "How long to wait for data from a camera or network source.", metavar="SECONDS", gt=0
    )
    reconnect_for_s: float = option(
        Panel.CAMERA,
        30.0,
        "How long to try to reopen a live source that was lost; 0: not at all.",
        flags="--reconnect-for",
        metavar="SECONDS",
        ge=0,
    )
    hwaccel: str = option(
        Panel.SPEED,
        "off",
        "Hardware that decodes videos: off, auto, or a device such as cuda or vaapi.",
        metavar="DEVICE",
    )

    @field_validator("start", "end", mode="before")
    @classmethod
    def _clock_time(cls, value: object) -> object:
        return parse_time(value) if isinstance(value, str) else value

    @field_validator("end")
    @classmethod
    def _after_start(cls, end: float | None, info: ValidationInfo) -> float | None:
        start = info.data.get("start")
        if start is not None and end is not None and end <= start:
            raise ValueError(f"must be after start ({start:g} s)")
        return end

    @field_validator("camera_size", mode="before")
    @classmethod
    def _size_text(cls, value: object) -> object:
        if isinstance(value, str):
            width, sep, height = value.lower().partition("x")
            if not (sep and width.isdigit() and height.isdigit()):
                raise ValueError("must be WIDTHxHEIGHT, such as 1280x720")
            return int(width), int(height)
        return value

    @field_validator("live", mode="before")
    @classmethod
    def _live_or_not(cls, value: object) -> object:
        return _switch(value, on="live", off="file")


class InferenceConfig(_Section):
    """Where and how the model runs."""

    device: str = option(Panel.SPEED, "auto", "Where the model runs.", metavar="auto|cpu|cuda[:N]|mps")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = option(
        Panel.SPEED, "auto", "Number format of the network; int8 is calibrated on images of the source."
    )
    backend: Literal["auto", "torch", "compile", "onnx", "openvino"] = option(
        Panel.SPEED, "auto", "What executes the network; auto measures them if the job is long enough."
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "directml", "coreml"] = option(
        Panel.SPEED, "auto", "ONNX Runtime execution provider."
    )
    batch: int = option(Panel.SPEED, 1, "Frames in one forward pass; live sources always use 1.", ge=1, le=256)
    target_fps: float | None = option(
        Panel.SPEED,
        None,
        "For live sources: adapt the inference size (and with several models, the model) to keep up with this rate.",
        gt=0,
        le=1000,
    )
    threads: int | None = option(
        Panel.SPEED, None, "CPU threads of the model; default: chosen for the processor.", ge=1
    )


class RenderConfig(_Section):
    """How depth is made visible."""

    layout: Literal["side", "depth", "overlay"] | None = option(
        Panel.PICTURE,
        None,
        "Image and depth side by side, depth alone, or depth over the image; default: side for a preview and the "
        "demo, depth for files.",
    )
    colormap: str = option(
        Panel.PICTURE, "inferno", "Colours of the depth: inferno, magma, viridis, turbo, spectral_r, gray, …"
    )
    range: str | None = option(
        Panel.PICTURE,
        None,
        "Depth that the ends of the colormap stand for: of each frame, smoothed over time (ema), or fixed; default: "
        "frame for stills, ema for video.",
        metavar="frame|ema|LO:HI",
    )
    alpha: float = option(Panel.PICTURE, 0.6, "Opacity of the depth in the overlay layout.", ge=0, le=1)

    @field_validator("range")
    @classmethod
    def _known_range(cls, value: str | None) -> str | None:
        if value is None or value in ("frame", "ema"):
            return value
        low, sep, high = value.partition(":")
        try:
            lo, hi = float(low), float(high)
        except ValueError:
            sep = ""
            lo = hi = 0.0
        if not sep:
            raise ValueError("must be frame, ema or LO:HI")
        if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
            raise ValueError("LO:HI must be finite numbers with LO < HI")
        return value


class OutputConfig(_Section):
    """What is written and shown."""

    path: Path | None = option(
        Panel.OUTPUT,
        None,
        "Video, image or folder to write; default: named after the source, nothing for a live one.",
        flags="-o --output",
        metavar="OUT",
    )
    save: tuple[SaveFormat, ...] = option(
        Panel.OUTPUT, (), "Also write depth files, comma-separated.", metavar="npy,png16,pfm,exr"
    )
    picture: PictureFormat = option(
        Panel.OUTPUT, "png", "Format of the images in an output folder; none: only the depth files of --save."
    )
    codec: str | None = option(
        Panel.OUTPUT, None, "Video encoder, such as libx264, libx265 or libsvtav1; default: the container's usual one."
    )
    crf: int | None = option(
        Panel.OUTPUT, None, "Video quality, smaller is better; default: the encoder's.", ge=0, le=63
    )
    preset: str | None = option(Panel.OUTPUT, None, "Encoder preset, such as veryfast or slow; default: the encoder's.")
    audio: bool = option(Panel.OUTPUT, True, "Copy the source's audio into a video.", flags="--audio/--no-audio")
    report: Path | None = option(Panel.OUTPUT, None, "Write the run's numbers to this JSON file.", metavar="FILE")
    overwrite: bool = option(Panel.OUTPUT, False, "Replace existing output.")
    preview: Literal["auto", "window", "off"] = option(
        Panel.LIVE,
        "auto",
        "Show a preview window, or none; default: shown for a live source without --output.",
        flags="--preview/--no-preview",
    )
    serve: str | None = option(
        Panel.LIVE,
        None,
        f"Show the preview in web browsers, at {DEFAULT_SERVE} unless an address is given: --serve HOST:PORT or "
        "--serve=PORT.",
        metavar="[ADDRESS]",
        alone=DEFAULT_SERVE,
    )
    serve_token: str | None = option(
        Panel.LIVE,
        None,
        "Token that viewers on other machines need; default: generated and printed.",
        metavar="TOKEN",
        min_length=8,
    )
    virtual_camera: bool = option(
        Panel.LIVE, False, "Also send the output to a virtual webcam, for video calls and OBS."
    )
    virtual_camera_device: str | None = option(
        Panel.LIVE, None, "Virtual camera to use; default: the first one found.", metavar="NAME"
    )
    quiet: bool = option(Panel.RUN, False, "Print nothing on stderr but errors.", flags="-q --quiet")

    @field_validator("save", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        value = _words(value)
        return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value

    @field_validator("preview", mode="before")
    @classmethod
    def _window_or_not(cls, value: object) -> object:
        return _switch(value, on="window", off="off")

    @field_validator("serve", mode="before")
    @classmethod
    def _served_or_not(cls, value: object) -> object:
        return _switch(value, on=DEFAULT_SERVE, off=None)


class Config(_Section):
    """Everything a run needs; see the sections."""

    source: str | None = Field(
        None,
        description="Camera (0, cam:1), video, image, folder, glob, .txt list, URL (rtsp, http, udp, tcp, hls) or "
        "pattern:NAME.",
    )
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    capture: CaptureConfig = Field(default_factory=lambda: CaptureConfig())
    inference: InferenceConfig = Field(default_factory=lambda: InferenceConfig())
    render: RenderConfig = Field(default_factory=lambda: RenderConfig())
    output: OutputConfig = Field(default_factory=lambda: OutputConfig())


@cache
def defaults() -> Config:
    """The config of a run that sets nothing: the one place that other modules take the default of an option from."""
    return Config()
