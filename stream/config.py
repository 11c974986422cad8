"""Typed configuration: one key for every command-line option, from YAML, `--set` and options.

Invariant: an unknown key is refused by its path with the nearest right one, and `to_yaml` gives back
what `load` reads.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from stream.errors import ConfigError

DEFAULT_SERVE = "127.0.0.1:8765"
SaveFormat = Literal["npy", "png16", "pfm", "exr"]
PictureFormat = Literal["png", "jpg", "webp", "none"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_names_too(cls, value: object, info: ValidationInfo) -> object:
        annotation = cls.model_fields[info.field_name or ""].annotation
        is_path = Path in (annotation, *get_args(annotation))
        return str(value) if is_path and isinstance(value, int | float) and not isinstance(value, bool) else value


class ModelConfig(_Section):
    """Which model, and at what inference size."""

    name: str | None = Field(None, description="Catalog name; default: the built-in starter.")
    also: tuple[str, ...] = Field((), description="More models (NAME or NAME=FILE) that a preview can switch to.")
    weights: Path | None = Field(None, description="Checkpoint file to use instead of the catalog's.")
    weights_dir: Path | None = Field(None, description="Folder to look for the catalog's file in first.")
    offline: bool = Field(False, description="Never download weights.")
    commercial_only: bool = Field(False, description="Refuse weights whose licence forbids commercial use.")
    input_size: int | None = Field(None, ge=32, le=8192, description="Inference size in pixels; default: the model's.")
    square: bool = Field(False, description="Squeeze pictures to a square network input.")

    @field_validator("also", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class CaptureConfig(_Section):
    """What to read of the source."""

    start: float | None = Field(None, ge=0, description="Start at this time of a video, seconds or [HH:]MM:SS[.mmm].")
    end: float | None = Field(None, gt=0, description="Stop at this time of a video, seconds or [HH:]MM:SS[.mmm].")
    max_frames: int | None = Field(None, ge=1, description="Stop after this many frames.")
    fps: float | None = Field(None, gt=0, le=1000, description="Pictures per second when stills become a video.")
    recursive: bool = Field(False, description="Read the folders below a folder too.")
    live: Literal["auto", "live", "file"] = Field("auto", description="Treat a network source as live or as a file.")
    camera_size: tuple[int, int] | None = Field(None, description="Ask the camera for WIDTHxHEIGHT.")
    camera_fps: float | None = Field(None, gt=0, description="Ask the camera for this rate.")
    camera_fourcc: str | None = Field(None, min_length=4, max_length=4, description="Ask the camera for this codec.")
    hwaccel: str = Field("off", description="Decode videos with: off, auto or a device such as cuda.")
    open_timeout_s: float = Field(10.0, gt=0, description="Give up opening a network source after this time.")
    read_timeout_s: float = Field(10.0, gt=0, description="Give up waiting for data after this time.")
    reconnect_for_s: float = Field(30.0, ge=0, description="Try this long to get a broken live stream back; 0: never.")
    mirror: bool = Field(False, description="Exchange left and right, as in a mirror.")
    max_pixels: int = Field(250_000_000, ge=1, description="Refuse pictures with more pixels than this.")

    @field_validator("start", "end", mode="before")
    @classmethod
    def _clock_time(cls, value: object) -> object:
        return parse_time(value) if isinstance(value, str) else value

    @field_validator("camera_size", mode="before")
    @classmethod
    def _size_text(cls, value: object) -> object:
        if isinstance(value, str):
            width, sep, height = value.lower().partition("x")
            if not (sep and width.isdigit() and height.isdigit()):
                raise ValueError("must be WIDTHxHEIGHT, such as 1280x720")
            return int(width), int(height)
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"end ({self.end:g} s) must be after start ({self.start:g} s)")
        return self


class InferenceConfig(_Section):
    """Where and how the model runs."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto", description="Number format of the network; int8 is calibrated on the source's own pictures."
    )
    backend: Literal["auto", "torch", "compile", "onnx", "openvino"] = Field(
        "auto", description="What executes the network; auto measures where the job is long enough."
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt", "directml", "coreml"] = Field(
        "auto", description="ONNX Runtime's execution provider."
    )
    batch: int = Field(1, ge=1, le=256, description="Frames per forward pass; live sources always use 1.")
    target_fps: float | None = Field(
        None, gt=0, le=1000, description="Choose the inference size (and of several models) to keep up with this rate."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of the model; default: chosen for the processor.")


class RenderConfig(_Section):
    """How depth is made visible."""

    layout: Literal["side", "depth", "overlay"] | None = Field(
        None, description="Default: side for a preview and the demo, depth for files."
    )
    colormap: str = Field("inferno", description="Colormap name.")
    range: str | None = Field(None, description="frame, ema or LO:HI; default: frame for stills, ema for video.")
    alpha: float = Field(0.6, ge=0, le=1, description="Strength of the depth colours in the overlay layout.")

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
            raise ValueError(f"LO:HI must be finite numbers with LO < HI, got {value}")
        return value


class OutputConfig(_Section):
    """What is written, and how."""

    path: Path | None = Field(None, description="Video, picture or folder; default: named after the source.")
    save: tuple[SaveFormat, ...] = Field((), description="Depth files to write besides: npy, png16, pfm, exr.")
    picture: PictureFormat = Field("png", description="Format of pictures in a folder; none writes no pictures.")
    preview: Literal["auto", "window", "off"] = Field("auto", description="auto: a live source without OUT.")
    serve: str | None = Field(None, description="Show the run in browsers at HOST:PORT; off this machine with a token.")
    serve_token: str | None = Field(
        None, min_length=8, description="What viewers must know; default: made and printed."
    )
    virtual_camera: bool = Field(False, description="Send the pictures to a virtual camera, for video calls and OBS.")
    virtual_camera_device: str | None = Field(None, description="Which virtual camera; default: the first there is.")
    codec: str | None = Field(None, description="Video encoder; default: the container's usual one (libx264).")
    crf: int | None = Field(None, ge=0, le=63, description="Video quality, smaller is better.")
    preset: str | None = Field(None, description="Encoder preset, such as veryfast.")
    audio: bool = Field(True, description="Keep the source's audio in a video.")
    overwrite: bool = Field(False, description="Replace what exists.")
    report: Path | None = Field(None, description="Write the run's numbers to this JSON file.")
    quiet: bool = Field(False, description="No progress on stderr.")

    @field_validator("save", mode="before")
    @classmethod
    def _comma_list(cls, value: object) -> object:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        return tuple(dict.fromkeys(value)) if isinstance(value, list | tuple) else value


class Config(_Section):
    """Everything a run needs; see the sections."""

    source: str | None = Field(None, description="Camera, video, picture, folder, glob, list, URL or pattern.")
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    capture: CaptureConfig = Field(default_factory=lambda: CaptureConfig())
    inference: InferenceConfig = Field(default_factory=lambda: InferenceConfig())
    render: RenderConfig = Field(default_factory=lambda: RenderConfig())
    output: OutputConfig = Field(default_factory=lambda: OutputConfig())


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
        raise ValueError(f"must be seconds or [HH:]MM:SS, got {text!r}")
    return float(sum(part * 60**power for power, part in enumerate(reversed(parts))))


def all_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every settable key as a dotted path."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += all_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def build(values: Mapping[str, Any], *, where: str) -> Config:
    """Validate nested values. `where` names their origin in errors.

    Raises:
        ConfigError: unknown key (with the nearest right one) or bad value.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        if first["type"] == "extra_forbidden":
            raise unknown_key(path, where=where) from None
        got = first.get("input")
        shown = f", got {got!r}" if isinstance(got, str | int | float) and str(got) not in first["msg"] else ""
        raise ConfigError(first["msg"].removeprefix("Value error, ") + shown, where=f"{where}: {path}") from None


def unknown_key(path: str, *, where: str) -> ConfigError:
    """The error for a key that does not exist, naming the nearest one."""
    keys = all_keys()
    sections = list(Config.model_fields)
    near = difflib.get_close_matches(path, keys + sections, n=1, cutoff=0.5)
    if not near:
        leaf = path.rpartition(".")[2]
        near = [key for key in keys if key.rpartition(".")[2] == leaf][:1]
    hint = f"did you mean {near[0]}?" if near else "`depthstream run --print-config` shows every key"
    return ConfigError(f"unknown key {path}", where=where, hint=hint)


class _Yaml12(yaml.SafeLoader):
    """YAML 1.2's scalars: PyYAML follows 1.1, where `off` is False and `1:30` is 90."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  as the base class declares it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuses a key that stands twice, where PyYAML would take the last."""
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"{twice} stands twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    ("int", r"[-+]?[0-9]+", tuple("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", tuple("-+.0123456789")),
):
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, _Yaml12)


def load(path: Path) -> dict[str, Any]:
    """Nested values of a YAML file, checked.

    Raises:
        ConfigError: the file is missing, not YAML, or holds an unknown key or bad value.
    """
    try:
        values = _parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="see configs/ for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"is not valid YAML: {' '.join(str(error).split())}", where=str(path)) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError("must hold sections such as model: and output:", where=str(path))
    build(values, where=str(path))
    return values


def set_key(values: dict[str, Any], key: str, value: object, *, where: str) -> None:
    """Put `value` at the dotted `key` of nested `values`.

    Raises:
        ConfigError: the key does not exist.
    """
    if key not in all_keys():
        raise unknown_key(key, where=where)
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[leaf] = value


def apply_assignments(values: dict[str, Any], assignments: Iterable[str]) -> None:
    """Apply `--set KEY=VALUE` texts; values are read as YAML.

    Raises:
        ConfigError: an assignment without `=`, an unknown key, or a value that is not YAML.
    """
    for assignment in assignments:
        key, sep, text = assignment.partition("=")
        if not sep:
            raise ConfigError("must be KEY=VALUE", where=f"--set {assignment}")
        try:
            value = _parse_yaml(text)
        except yaml.YAMLError:
            value = text
        set_key(values, key.strip(), value, where="--set")


def to_yaml(config: Config) -> str:
    """YAML that `load` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


OPTION_KEYS: dict[str, str] = {
    "output": "output.path",
    "model": "model.name",
    "also": "model.also",
    "weights": "model.weights",
    "weights_dir": "model.weights_dir",
    "offline": "model.offline",
    "commercial_only": "model.commercial_only",
    "input_size": "model.input_size",
    "square": "model.square",
    "start": "capture.start",
    "end": "capture.end",
    "max_frames": "capture.max_frames",
    "fps": "capture.fps",
    "recursive": "capture.recursive",
    "live": "capture.live",
    "camera_size": "capture.camera_size",
    "camera_fps": "capture.camera_fps",
    "camera_fourcc": "capture.camera_fourcc",
    "hwaccel": "capture.hwaccel",
    "open_timeout_s": "capture.open_timeout_s",
    "read_timeout_s": "capture.read_timeout_s",
    "reconnect_for": "capture.reconnect_for_s",
    "mirror": "capture.mirror",
    "max_pixels": "capture.max_pixels",
    "device": "inference.device",
    "precision": "inference.precision",
    "backend": "inference.backend",
    "provider": "inference.provider",
    "batch": "inference.batch",
    "target_fps": "inference.target_fps",
    "threads": "inference.threads",
    "layout": "render.layout",
    "colormap": "render.colormap",
    "range": "render.range",
    "alpha": "render.alpha",
    "save": "output.save",
    "picture": "output.picture",
    "preview": "output.preview",
    "serve": "output.serve",
    "serve_token": "output.serve_token",
    "virtual_camera": "output.virtual_camera",
    "virtual_camera_device": "output.virtual_camera_device",
    "codec": "output.codec",
    "crf": "output.crf",
    "preset": "output.preset",
    "audio": "output.audio",
    "overwrite": "output.overwrite",
    "report": "output.report",
    "quiet": "output.quiet",
}
"""Command-line option (and keyword of `stream.run`) → config key: one for each key but `source`."""


def from_options(source: str | None, options: Mapping[str, object], *, base: dict[str, Any] | None = None) -> Config:
    """Config of a source and options named as in `OPTION_KEYS`, on top of nested `base` values; None means not given.

    Raises:
        ConfigError: an unknown option or a bad value.
    """
    values = base if base is not None else {}
    if source is not None:
        values["source"] = source
    for name, value in options.items():
        if name not in OPTION_KEYS:
            near = difflib.get_close_matches(name, OPTION_KEYS, n=1)
            raise ConfigError(f"unknown option {name}", hint=f"did you mean {near[0]}?" if near else "")
        if value is not None:
            set_key(values, OPTION_KEYS[name], value, where=name)
    return build(values, where="config")
