"""Every option of a run, written once: type, default, limits, help, panel and name.

`stream.jobs.options` reads from these models what the command line, the YAML keys, the keywords of `stream.run` and
the page docs/options.md need to know.

Invariant: no other module holds a default, a limit or a name of an option.
"""

import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.functional_validators import ModelWrapValidatorHandler

from stream.errors import ConfigError
from stream.files import expanded, path_of_url

DEFAULT_SERVE = "127.0.0.1:8765"
GENERATED_TOKEN = "<generated>"
"""The token that stands for one that is made up when the page starts: a config holds no secret that was not given."""
RERUN_VIEWER = "viewer"
"""Stands for a viewer that is started, where `rerun` could name a file."""
SaveFormat = Literal["npy", "png16", "pfm", "exr", "ply", "video16", "conf"]
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # one letter is a drive
_BYTES = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) *(?:([KMGT])(i)?)?B?", re.IGNORECASE | re.ASCII)
_LENGTH = re.compile(r"([0-9]{0,9}\.?[0-9]{1,24}(?:[eE]-?[0-9]{1,2})?)? *(m|cm|mm|um|µm)?", re.ASCII)
_PER_METRE = {"m": 1, "cm": 100, "mm": 1000, "um": 1_000_000, "µm": 1_000_000}
MOST_SKIP = 16
"""The most for `--skip`: two thirds of a second at 25 frames a second."""
LEAST_MEMORY = 10**9
"""The least `--max-memory`: the program with torch and the starter takes 0.5 GB, and a 640×480 video 0.2 GB."""
PictureFormat = Literal["png", "jpg", "webp", "none"]


REACH, PRIVATE, FOLDER = "reach", "private", "folder"
_HTTP = ("http", "https", "hls", "hls+http", "hls+https")
_RTSP = ("rtsp", "rtsps")
INPUT_OPTIONS: dict[str, tuple[str, ...]] = {
    "rtsp_transport": _RTSP,
    "user_agent": (*_HTTP, *_RTSP),
    "headers": _HTTP,
    "referer": _HTTP,
    "cookies": _HTTP,
    REACH: _HTTP,
    "buffer_size": ("udp", "rtp", *_RTSP),
    "reorder_queue_size": ("rtp", *_RTSP),
    "probesize": (),
    "analyzeduration": (),
}
"""FFmpeg's options that may be given for a network source, and the URL schemes that take them; () for all.

None opens a file or another address, and the timeouts are not among them because they have options of their own.
`reach` is ours: with `private`, redirects and playlists of the source may lead to private addresses; with `folder`, a
local playlist is read, and the files that it names in its own folder."""
_NUMBERS = frozenset({"buffer_size", "reorder_queue_size", "probesize", "analyzeduration"})
_WORDS = {"rtsp_transport": ("tcp", "udp", "udp_multicast", "http"), REACH: (PRIVATE, FOLDER)}


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
        limits: `ge`, `gt`, `le`, `lt`, `min_length`, `max_length` and `allow_inf_nan`, as for pydantic's `Field`.
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


def parse_bytes(text: str) -> int:
    """Bytes from `4G`, `1.5GB`, `512MiB`, `4000000000`; K, M, G and T are powers of 1000, with an i powers of 1024.

    Raises:
        ValueError: if `text` is none of these.
    """
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        raise ValueError("must be a size such as 4G, 1.5GB or 512MiB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index((unit or " ").upper()))


def parse_length(text: str) -> float:
    """Metres from `0.001`, `mm`, `0.25 mm`, `cm`, `um`, `1m`.

    Raises:
        ValueError: if `text` is none of these.
    """
    found = _LENGTH.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        raise ValueError("must be a length such as mm, 0.25mm, cm or 0.0002 (metres)")
    number, unit = found.groups()
    return float(number or 1) / _PER_METRE[unit or "m"]  # a division: 2 / 1000 is 0.002, 2 * 0.001 may not be


def _words(value: object) -> object:
    """The parts of a comma-separated text, or of several; anything else as it is."""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        value = ",".join(value)
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _without_arrays(value: object) -> object:
    """NumPy's arrays and scalars in nested values as lists and numbers."""
    if isinstance(value, dict):
        return {key: _without_arrays(one) for key, one in value.items()}
    return value.tolist() if hasattr(value, "tolist") and hasattr(value, "shape") else value


def _with_nul(value: object, key: str = "") -> str | None:
    """The key of a text or path with a NUL in nested values, None if there is none."""
    if isinstance(value, dict):
        found = (_with_nul(one, f"{key}.{name}" if key else str(name)) for name, one in value.items())
        return next((one for one in found if one is not None), None)
    return key if isinstance(value, str | os.PathLike) and "\0" in os.fsdecode(value) else None


def _switch(value: object, *, on: str, off: str | None) -> object:
    """True and False by their names; anything else as it is."""
    return (on if value else off) if isinstance(value, bool) else value


def _host_name(name: object) -> str:
    """A host name or IP address as browsers send it: lower-case, other alphabets than ASCII in IDNA.

    Raises:
        ValueError: it has a scheme, a port or a path, or is none.
    """
    try:
        sent = str(name).strip().removesuffix(".").encode("idna").decode().lower()
    except UnicodeError:
        sent = ""
    if not re.fullmatch(r"[a-z0-9_.-]+|\[?[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:.]*\]?", sent):
        raise ValueError("must be a host name such as depth.example.org, without https://, port and path")
    return sent.strip("[]")


_MOST_SECONDS = 1e9
"""Thirty years: microseconds of it fit into the 64 bits of FFmpeg."""


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
        defer_build=True,  # `run --help` needs no validators, which take 50 ms to build
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: object, info: ValidationInfo) -> object:
        """The value of a NumPy scalar, and a path with its `~` replaced: no shell does that for YAML, Python and
        `--output=~/x`. YAML reads the path `2024` as a number."""
        if getattr(value, "shape", None) == () and hasattr(value, "item"):
            value = value.item()
        if info.field_name is None:  # of a default in pydantic 2.12.0
            return value
        annotation = cls.model_fields[info.field_name].annotation
        kinds = (annotation, *get_args(annotation))
        if isinstance(value, bool) and bool not in kinds and (int in kinds or float in kinds):
            raise ValueError("must be a number")
        if Path in kinds and isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and not value and (Path in kinds or str in kinds):
            raise ValueError("is empty")
        if Path in kinds and isinstance(value, str | os.PathLike):
            return expanded(value) if isinstance(value, str) else Path(expanded(value))
        return value


class ModelConfig(_Section):
    """Which model, and at what inference size."""

    name: str | None = option(
        Panel.MODEL,
        None,
        "Model, see `depthstream models`; or fast, balanced, best, video or metric. Several for a preview that "
        "switches between them. Default: the built-in starter.",
        flags="-m --model",
        metavar="MODEL",
        rest="model.also",
    )
    also: tuple[str, ...] = Field((), description="More models (NAME or NAME=FILE) that a preview can switch to.")
    weights: Path | None = option(
        Panel.MODEL,
        None,
        "Checkpoint file to use instead of the published one, or a folder that holds the model's file.",
        metavar="FILE",
    )
    weights_dir: Path | None = option(Panel.MODEL, None, "Look for weights in this folder first.", metavar="FOLDER")
    offline: bool = option(Panel.MODEL, False, "Never download weights.")
    commercial_only: bool = option(Panel.MODEL, False, "Refuse weights whose licence forbids commercial use.")
    input_size: int | None = option(
        Panel.MODEL, None, "Inference size in pixels; default: the model's own.", ge=32, le=8192
    )
    kind: Literal["disparity", "depth", "metric"] | None = option(
        Panel.MODEL,
        None,
        "What the values of a checkpoint of your own mean: disparity (larger is nearer), depth without a unit, or "
        "metres; default: what its file says, else as the model's.",
    )
    max_depth: float | None = option(
        Panel.MODEL,
        None,
        "Largest depth of a metric checkpoint of your own, as it was trained with; default: the model's.",
        metavar="METRES",
        gt=0,
        le=100_000,
    )
    square: bool = option(Panel.MODEL, False, "Resize images to a square network input, ignoring their aspect ratio.")

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, values: object) -> object:
        """Names alone, and a name with its file: `NAME=FILE` means the same for the first model as for the others."""
        if isinstance(values, str | list | tuple):
            values = {"name": values}
        if not isinstance(values, dict):
            return values
        values = dict(values)
        name = values.get("name")
        if isinstance(name, list | tuple) and not name:
            raise ValueError("names no model")
        if isinstance(name, list | tuple):
            also = _words(values.get("also") or [])
            values["also"] = [*name[1:], *also] if isinstance(also, list | tuple) else also  # which is refused below
            name = values["name"] = name[0]
        if isinstance(name, str) and "=" in name:
            values["name"], _, file = name.partition("=")
            if values.get("weights") is not None:
                raise ValueError(f"the weights are given twice: {file} and {values['weights']}")
            values["weights"] = file
        return values

    @field_validator("also", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        words = _words(value)
        if value and not words:
            raise ValueError("names no model")
        return words


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
        Panel.SOURCE,
        None,
        "Frame rate of a video that is made from still images. Resample a video file to this rate, taking the nearest "
        "frame.",
        gt=0,
        le=1000,
    )
    max_seconds: float | None = option(
        Panel.SOURCE, None, "Stop after this much of a video, counted from --start.", metavar="SECONDS", gt=0
    )
    multiple_of: int | None = option(
        Panel.SOURCE,
        None,
        "Crop the frames centrally until both sides are multiples of this, as video generators need.",
        ge=2,
        le=4096,
    )
    recursive: bool = option(Panel.SOURCE, False, "Read the subfolders of a folder as well.")
    max_pixels: int = option(
        Panel.SOURCE,
        178_956_970,
        "Skip images with more pixels than this, and end a video whose frames have more.",
        ge=1,
    )
    max_memory: int | None = option(
        Panel.SOURCE,
        None,
        "Most memory that the run may take, such as 4G; larger images are skipped, and larger videos refused. Default: "
        "three quarters of what is free.",
        metavar="SIZE",
    )
    mirror: bool = option(Panel.SOURCE, False, "Swap left and right, as in a mirror.")
    sandbox: bool = option(
        Panel.SOURCE, False, "Decode files, folders and pipes in a confined process: for media from strangers (Linux)."
    )
    deinterlace: Literal["auto", "on", "off"] = option(
        Panel.SOURCE, "auto", "Deinterlace the frames of a video that are marked as interlaced (auto), all, or none."
    )
    live: Literal["auto", "live", "file"] = option(
        Panel.CAMERA,
        "auto",
        "Treat a network source as a live stream, or as a file; default: decided by its protocol and duration.",
        flags="--live/--no-live",
    )
    camera_size: tuple[int, int] | None = option(
        Panel.CAMERA, None, "Resolution to request from the camera, or of a test pattern.", metavar="WIDTHxHEIGHT"
    )
    camera_fps: float | None = option(
        Panel.CAMERA, None, "Frame rate to request from the camera, or of a test pattern.", gt=0
    )
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
    input_options: dict[str, str] | None = option(
        Panel.CAMERA,
        None,
        f"Option of FFmpeg for a network source: {', '.join(INPUT_OPTIONS)}.",
        flags="--input-option",
        metavar="KEY=VALUE",
    )
    reconnect_for_s: float = option(
        Panel.CAMERA,
        30.0,
        "How long to try to reopen a live source that was lost; 0: not at all.",
        flags="--reconnect-for",
        metavar="SECONDS",
        ge=0,
        allow_inf_nan=True,
    )
    hwaccel: str = option(
        Panel.SPEED,
        "off",
        "Hardware that decodes videos: off, auto, or a device such as cuda or vaapi.",
        metavar="DEVICE",
    )

    _sharers: int = PrivateAttr(default=1)

    @property
    def sharers(self) -> int:
        """How many sources of the run share `max_memory`, each with an equal part."""
        return self._sharers

    def shared_by(self, count: int) -> Self:
        """The same options for one of `count` sources of a run."""
        capture = self.model_copy()
        capture._sharers = count
        return capture

    @field_validator("max_memory", mode="before")
    @classmethod
    def _bytes(cls, value: object) -> object:
        return parse_bytes(value) if isinstance(value, str) else value

    @field_validator("max_memory")
    @classmethod
    def _holds_the_program(cls, value: int | None) -> int | None:
        if value is not None and value < LEAST_MEMORY:
            raise ValueError(f"must be {LEAST_MEMORY / 1e9:g}G or more, because the program itself takes memory")
        return value

    @field_validator("start", "end", mode="before")
    @classmethod
    def _clock_time(cls, value: object) -> object:
        return parse_time(value) if isinstance(value, str) else value

    @field_validator("start", "end", "max_seconds", "open_timeout_s", "read_timeout_s")
    @classmethod
    def _counts_in_ticks(cls, value: float | None) -> float | None:
        if value is not None and value > _MOST_SECONDS:
            raise ValueError(f"must be {_MOST_SECONDS:g} seconds or less")
        return value

    @field_validator("fps", "camera_fps")
    @classmethod
    def _is_a_rate(cls, value: float | None) -> float | None:
        if value is not None and not 1 / _MOST_SECONDS <= value <= _MOST_SECONDS:
            raise ValueError(f"must be {1 / _MOST_SECONDS:g} to {_MOST_SECONDS:g}")
        return value

    @field_validator("end")
    @classmethod
    def _after_start(cls, end: float | None, info: ValidationInfo) -> float | None:
        start = info.data.get("start")
        if start is not None and end is not None and end <= start:
            raise ValueError(f"must be after start ({start:g} s)")
        return end

    @property
    def until(self) -> float | None:
        """Where a video ends by `end` and `max_seconds`, in seconds; None: at its own end."""
        if self.max_seconds is None:
            return self.end
        until = (self.start or 0.0) + self.max_seconds
        return until if self.end is None else min(until, self.end)

    @field_validator("camera_size", mode="before")
    @classmethod
    def _size_text(cls, value: object) -> object:
        if isinstance(value, str):
            width, sep, height = value.lower().partition("x")
            if not (sep and width.isdigit() and height.isdigit()):
                raise ValueError("must be WIDTHxHEIGHT, such as 1280x720")
            return int(width), int(height)
        return value

    @field_validator("input_options", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """Texts KEY=VALUE as a dict; several headers become one value, as FFmpeg takes them."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple):
            return value
        pairs: dict[str, str] = {}
        for text in texts:
            key, separator, rest = str(text).partition("=")
            if not separator:
                raise ValueError("must be KEY=VALUE")  # the text may be a secret
            pairs[key] = f"{pairs[key]}\r\n{rest}" if key == "headers" and key in pairs else rest
        return pairs

    @field_validator("input_options")
    @classmethod
    def _allowed_and_valid(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for key, text in (value or {}).items():
            if key not in INPUT_OPTIONS:
                raise ValueError(f"unknown input option {key!r} (allowed: {', '.join(INPUT_OPTIONS)})")
            if key in _NUMBERS and not text.isdecimal():
                raise ValueError(f"{key} must be a whole number")
            if key in _WORDS and text not in _WORDS[key]:
                raise ValueError(f"unknown {key} (allowed: {', '.join(_WORDS[key])})")
        return value

    @field_validator("deinterlace", mode="before")
    @classmethod
    def _on_or_off(cls, value: object) -> object:
        return _switch(value, on="on", off="off")  # YAML reads on and off as true and false

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
        Panel.SPEED, "auto", "What executes the network; auto begins in torch and changes to what is faster."
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "directml", "coreml"] = option(
        Panel.SPEED, "auto", "ONNX Runtime execution provider."
    )
    batch: int = option(
        Panel.SPEED,
        1,
        "Most frames in one forward pass. One live source uses 1; several on a CUDA device use their number, unless "
        "this is given.",
        ge=1,
        le=256,
    )
    target_fps: float | None = option(
        Panel.SPEED,
        None,
        "For live sources: adapt the inference size (and with several models, the model) to keep up with this rate.",
        gt=0,
        le=1000,
    )
    skip: int | Literal["auto"] | None = option(
        Panel.SPEED,
        None,
        "Let the model see one of N frames of a video, 1 to 16, and carry depth to the others along the motion of the "
        "picture; auto: as few frames as a live source needs to keep its rate.",
        metavar="N|auto",
    )
    temporal: Literal["off", "stream", "window"] | None = option(
        Panel.SPEED,
        None,
        "How a video model sees time: each frame alone (off), with the frames before it (stream), or in overlapping "
        "windows (window, the steadiest). Default: window, stream for live sources.",
    )
    steady: bool = option(
        Panel.PICTURE,
        False,
        "Keep the values of a video steady: align each depth map to the one before, along the motion of the picture.",
    )
    refine: bool = option(
        Panel.PICTURE,
        False,
        "Let the depth follow the edges of the image where the network's map is softer; changes the values of --save.",
    )
    threads: int | None = option(
        Panel.SPEED, None, "CPU threads of the model; default: chosen for the processor.", ge=1
    )

    @field_validator("skip", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        if value is None or value == "auto":
            return value
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_SKIP:
            raise ValueError(f"must be 1 to {MOST_SKIP}, or auto")
        return number

    @field_validator("device", mode="before")
    @classmethod
    def _as_torch_does(cls, value: object) -> object:
        """A number is that of a GPU; a `torch.device` is what it prints."""
        if isinstance(value, bool):
            return value
        if isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdecimal()):
            return f"cuda:{int(value)}"
        return str(value) if type(value).__module__ == "torch" and type(value).__name__ == "device" else value


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
        "Depth that the ends of the colormap stand for: of each frame, smoothed over time (ema), of the whole clip in "
        "two passes, or fixed; default: frame for stills, ema for video.",
        metavar="frame|ema|clip|LO:HI",
    )
    alpha: float = option(Panel.PICTURE, 0.6, "Opacity of the depth in the overlay layout.", ge=0, le=1)

    @field_validator("range", mode="before")
    @classmethod
    def _two_numbers(cls, value: object) -> object:
        is_pair = isinstance(value, list | tuple) and len(value) == 2
        return ":".join(map(str, value)) if is_pair and isinstance(value, list | tuple) else value

    @field_validator("range")
    @classmethod
    def _known_range(cls, value: str | None) -> str | None:
        if value is None or value in ("frame", "ema", "clip"):
            return value
        low, sep, high = value.partition(":")
        try:
            lo, hi = float(low), float(high)
        except ValueError:
            sep = ""
            lo = hi = 0.0
        if not sep:
            raise ValueError("must be frame, ema, clip or LO:HI")
        if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
            raise ValueError("LO:HI must be finite numbers with LO < HI")
        return value


class OutputConfig(_Section):
    """What is written and shown."""

    path: Path | str | None = option(
        Panel.OUTPUT,
        None,
        "Video, image or folder to write, URL to stream to (rtmp, rtsp, udp, tcp, srt, rtp), or - for Matroska on "
        "stdout; default: named after the source, nothing for a live one.",
        flags="-o --output",
        metavar="OUT",
    )
    save: tuple[SaveFormat, ...] = option(
        Panel.OUTPUT,
        (),
        "Also write depth files, comma-separated; ply: coloured points; video16: one depth video, NAME.depth.mkv; "
        "conf: confidence, NAME.conf.npy, of models that give it.",
        metavar="npy,png16,pfm,exr,ply,video16,conf",
    )
    depth_codec: Literal["ffv1", "hevc12", "float32"] | None = option(
        Panel.OUTPUT,
        None,
        "How a depth video stores numbers: ffv1 (16 bits), hevc12 (12 bits, as LeRobot reads it), float32 (exact).",
    )
    every: int = option(Panel.OUTPUT, 1, "Write the --save files of every Nth frame only.", ge=1)
    fov: float | None = option(
        Panel.OUTPUT,
        None,
        "Horizontal field of view, for points in space, and for depth that follows from it (da3metric_large, MoGe-2); "
        "default: the model's own, else by the photo's EXIF data, else 60 along the longer side.",
        metavar="DEGREES",
        ge=1,
        le=170,
    )
    png16_unit: float = option(
        Panel.OUTPUT,
        0.001,
        "What one step of png16 is for a model in metres: mm, cm, 0.2mm, or metres; codes end at 65535 steps.",
        metavar="LENGTH",
        ge=1e-6,
        le=1000,
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
    resume: bool = option(
        Panel.RUN, False, "Go on where an earlier run of the same command was interrupted; what is done is kept."
    )
    segment_seconds: float = option(
        Panel.RUN,
        30.0,
        "A video of more than a minute is worked on in segments of about this many seconds, so that an interrupted "
        "run can be resumed; 0: in one piece.",
        flags="--segment-seconds",
        metavar="SECONDS",
        ge=0,
        le=3600,
    )
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
        "Token that viewers need: --serve-token=TOKEN, generated and printed if none is given with it; default: none "
        "for viewers on this machine, generated for others.",
        metavar="[=TOKEN]",
        alone=GENERATED_TOKEN,
        min_length=8,
    )
    serve_cert: Path | None = option(
        Panel.LIVE,
        None,
        "Serve the page by TLS (https) under this certificate, a PEM file with those that sign it.",
        metavar="FILE",
    )
    serve_key: Path | None = option(
        Panel.LIVE,
        None,
        "Private key of --serve-cert, a PEM file without a password; default: the certificate's file holds it.",
        metavar="FILE",
    )
    serve_name: tuple[str, ...] = option(
        Panel.LIVE,
        (),
        "Host names, comma-separated, under which a reverse proxy shows the page; it decides who may watch.",
        metavar="NAME",
    )
    virtual_camera: bool = option(
        Panel.LIVE, False, "Also send the output to a virtual webcam, for video calls and OBS."
    )
    rerun: str | None = option(
        Panel.LIVE,
        None,
        "Show image, depth and camera in space in a Rerun viewer, or record them: --rerun=FILE.rrd.",
        metavar="[=FILE.rrd]",
        alone=RERUN_VIEWER,
    )
    virtual_camera_device: str | None = option(
        Panel.LIVE, None, "Virtual camera to use; default: the first one found.", metavar="NAME"
    )
    quiet: bool = option(Panel.RUN, False, "Print nothing on stderr but errors.", flags="-q --quiet")

    @field_validator("path")
    @classmethod
    def _path_or_stream(cls, value: Path | str | None) -> Path | str | None:
        """A URL and `-` stay text; anything else is a path."""
        if not isinstance(value, str) or value == "-":
            return value
        if value.lower().startswith("file://"):
            return Path(path_of_url(value))
        return value if _URL.match(value) else Path(value)

    @field_validator("report", mode="before")
    @classmethod
    def _local_file(cls, value: object) -> object:
        if not isinstance(value, str) or not _URL.match(value):
            return value
        if value.lower().startswith("file://"):
            return Path(path_of_url(value))
        raise ValueError("must be a file on this machine, not a URL")

    @field_validator("save", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        words = _words(value)
        if (value and not words) or value == "":
            raise ValueError("names no format")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return words  # which is refused
        return tuple(dict.fromkeys(words))

    @field_validator("png16_unit", mode="before")
    @classmethod
    def _length(cls, value: object) -> object:
        return parse_length(value) if isinstance(value, str) else value

    @field_validator("preview", mode="before")
    @classmethod
    def _window_or_not(cls, value: object) -> object:
        return _switch(value, on="window", off="off")

    @field_validator("serve_name", mode="before")
    @classmethod
    def _host_names(cls, value: object) -> object:
        value = _words(value)
        return tuple(_host_name(name) for name in value) if isinstance(value, list | tuple) else value

    @field_validator("serve_token", mode="before")
    @classmethod
    def _token_or_not(cls, value: object) -> object:
        return _switch(value, on=GENERATED_TOKEN, off=None)

    @field_validator("rerun", mode="before")
    @classmethod
    def _viewer_or_file(cls, value: object) -> object:
        value = _switch(value, on=RERUN_VIEWER, off=None)
        if value is None or value == RERUN_VIEWER or not isinstance(value, str | os.PathLike):
            return value
        if not (path := expanded(os.fspath(value))).lower().endswith(".rrd"):
            raise ValueError("must be a file whose name ends in .rrd")
        return path

    @field_validator("serve", mode="before")
    @classmethod
    def _served_or_not(cls, value: object) -> object:
        return _switch(value, on=DEFAULT_SERVE, off=None)


class Config(_Section):
    """Everything a run needs; see the sections."""

    source: str | None = Field(
        None,
        description="Camera (0, cam:1), video, image, folder, glob, .txt list, URL (rtsp, http, udp, tcp, hls), pipe "
        "(- is standard input) or pattern:NAME.",
    )
    sources: tuple[str, ...] = Field(
        (),
        description="Several live sources (cameras, network streams, test patterns) in the place of `source`; each has "
        "its own outputs. `depthstream run` takes them as further arguments.",
    )
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    capture: CaptureConfig = Field(default_factory=lambda: CaptureConfig())
    inference: InferenceConfig = Field(default_factory=lambda: InferenceConfig())
    render: RenderConfig = Field(default_factory=lambda: RenderConfig())
    output: OutputConfig = Field(default_factory=lambda: OutputConfig())

    @field_validator("source", mode="before")
    @classmethod
    def _text_of_path(cls, source: object) -> object:
        return os.fsdecode(source) if isinstance(source, os.PathLike) else source

    @field_validator("sources", mode="before")
    @classmethod
    def _one_or_several(cls, sources: object) -> object:
        return [sources] if isinstance(sources, str) else sources

    @field_validator("sources")
    @classmethod
    def _in_place_of_source(cls, sources: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if sources and info.data.get("source") is not None:
            raise ValueError("cannot be given together with source: put all of them into sources")
        if any(not source.strip() for source in sources):
            raise ValueError("holds an empty source")
        return sources

    @model_validator(mode="wrap")
    @classmethod
    def _refused_in_our_words(
        cls, values: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        """Raises `ConfigError` where pydantic would raise an error of its own.

        The context may hold `where` and `labels`, see `refusal`.
        """
        if (key := _with_nul(values)) is not None:
            context = info.context or {}
            label = (context.get("labels") or {}).get(key) or ": ".join(filter(None, (context.get("where"), key)))
            raise ConfigError("holds a NUL, which no name and no option may", where=label)
        try:
            return handler(_without_arrays(values))
        except ValidationError as error:
            raise refusal(error, **(info.context or {"where": "Config"})) from None


@cache
def defaults() -> Config:
    """The config of a run that sets nothing: the one place that other modules take the default of an option from."""
    return Config()


def fields(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key as a dotted path, with its field."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def all_keys() -> list[str]:
    """Every settable key as a dotted path."""
    return [key for key, _ in fields()]


_SECRETS = ("capture.input_options", "output.serve_token")
"""Keys whose values (headers, cookies, tokens) no error shows."""


def refusal(error: ValidationError, *, where: str, labels: Mapping[str, str] | None = None) -> ConfigError:
    """What pydantic has found, in our words.

    Args:
        where: where the values come from; "" if the key says enough.
        labels: what an error calls a key instead of `where: key`: the option as it was typed, say.
    """
    first: Any = error.errors(include_url=False)[0]
    parts = [str(part) for part in first["loc"] if not isinstance(part, int)]
    if first["type"] == "extra_forbidden":
        return unknown_key(".".join(parts), where=where)
    keys = {*all_keys(), *Config.model_fields}
    while parts and ".".join(parts) not in keys:  # pydantic's name for one of several types, or a key inside of a value
        parts.pop()
    path = ".".join(parts)
    known = labels or {}
    below = (label for key, label in known.items() if key.startswith(f"{path}."))
    label = known.get(path) or next(below, f"{where}: {path}" if where else path)
    got = first.get("input")
    if is_secret := path.startswith(_SECRETS):
        label = re.split("[ =]", label)[0] if known else label
    is_shown = is_secret or not isinstance(got, str | int | float) or str(got) in label
    what, allowed = _explained(first)
    return ConfigError(what + ("" if is_shown else f", got {got!r}"), where=label, allowed=allowed)


_REASONS = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "finite_number": "must be a finite number",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "path": "must be a path",
    "tuple": "must be a list",
    "model": "must hold keys of its own",
}
"""pydantic's error types, whole or up to the first underscore, in our words."""


def _explained(error: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong, and what is allowed."""
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind == "literal_error":
        return "unknown value", str(context["expected"]).replace("'", "").replace(" or ", ", ")
    reason = _REASONS.get(kind) or _REASONS.get(kind.partition("_")[0])
    return (reason.format(**context) if reason else str(error["msg"]).removeprefix("Value error, ")), ""


def unknown_key(path: str, *, where: str) -> ConfigError:
    """The error for a key that does not exist, naming the nearest one."""
    keys, leaf = all_keys(), path.rpartition(".")[2]
    if inside := [key for key in keys if key.startswith(f"{path}.")]:
        what = f"{path} is a section; it has the keys {', '.join(inside)}"
        return ConfigError(what, where=where)
    near = [key for key in keys if key.rpartition(".")[2] == leaf]
    near = near or difflib.get_close_matches(path, keys + list(Config.model_fields), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`depthstream run --print-config` shows every key"
    return ConfigError(f"unknown key {path}", where=where, hint=hint)
