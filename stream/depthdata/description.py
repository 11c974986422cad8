"""What stands beside every file of depth numbers, so that they can be read without guessing.

One form for the tag in a depth video, its sidecar `NAME.depth.json` and the `depth.json` of a folder.
Invariant: `from_json` returns what `as_json` was given, or raises a `ValueError` that names the wrong field.
"""

import json
import re
from collections.abc import Mapping as Fields
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import PurePath
from typing import Self

from pydantic import ValidationError

from stream.config import CaptureConfig
from stream.depthdata.mapping import CODES_12, CODES_16, Mapping
from stream.errors import redacted
from stream.files import json_text
from stream.frames import DepthKind
from stream.version import __version__

FORMAT = 1
"""Raised when readers of this version could misread a newer file."""
_FRACTION = re.compile(r"[0-9]{1,18}(?:/[0-9]{1,18})?", re.ASCII)
"""Python would take "1e9999999" as well, and compute all its digits."""
CAPTURE_KEYS = frozenset(
    {"start", "end", "max_frames", "max_seconds", "fps", "multiple_of", "mirror", "deinterlace", "recursive"}
)
"""The options of reading that decide which frames of a source there are, when, and what their pixels show."""
FLOAT32_FORMULA = "the upper half of the picture holds bits 31..16 of each float32, the lower half bits 15..0"


class DepthCodec(StrEnum):
    """How a depth video stores its numbers."""

    FFV1 = "ffv1"
    """16-bit codes: FFV1 gray16le in Matroska; code 0 stands for no answer."""
    HEVC12 = "hevc12"
    """12-bit codes: lossless HEVC gray12le in MP4, as LeRobot 0.6 reads it; no code stands for no answer."""
    FLOAT32 = "float32"
    """The float32 values bit for bit: FFV1 gray16le of double height in Matroska, high halves over low halves."""

    @property
    def last_code(self) -> int:
        """The largest code; unused by `FLOAT32`."""
        return CODES_12 if self is DepthCodec.HEVC12 else CODES_16

    @property
    def suffix(self) -> str:
        """The end of the file's name."""
        return ".depth.mp4" if self is DepthCodec.HEVC12 else ".depth.mkv"


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the numbers in a file are.

    Attributes:
        kind: meaning of the values; it also says their unit.
        codec: `DepthCodec` of a depth video, or the format of the files, such as `png16`.
        mapping: of values and codes; None if the file holds the values themselves.
        model: catalog name of the model, "" if unknown.
        weights_sha256: hex digest of the model's weights, None if unknown.
        source: what was read: the last part of `SourceInfo.name` if that is a path, since the folders of whoever made
            a file are nobody's concern; of a URL everything but secrets.
        size: (height, width) of the depth maps, None if they differ.
        time_base: seconds per unit of pts, None without times.
        rate: nominal frames per second, None if unknown.
        frame_count: number of depth maps; None where it was not known yet.
        capture: how the source was read, of which `CAPTURE_KEYS` count; None if unknown, as in files of older versions.
        refined: values follow the edges of the images (`--refine`), in at least one of the maps.
        steadied: values were aligned to those of the frame before (`--steady`), in at least one of the maps; the first
            one of a scene keeps the model's own.
        carried: values of some maps were carried from others (`--skip`). False in files of versions that do not state
            these three.
        version: of the program that wrote the file.
    """

    kind: DepthKind
    codec: str = ""
    mapping: Mapping | None = None
    model: str = ""
    weights_sha256: str | None = None
    source: str = ""
    size: tuple[int, int] | None = None
    time_base: Fraction | None = None
    rate: Fraction | None = None
    frame_count: int | None = None
    capture: CaptureConfig | None = None
    refined: bool = False
    steadied: bool = False
    carried: bool = False
    version: str = __version__

    def __post_init__(self) -> None:
        name = redacted(self.source)
        object.__setattr__(self, "source", name if "://" in name else PurePath(name).name)

    @property
    def formula(self) -> str:
        """How the numbers become values, as text for people; "" if they are the values."""
        if self.mapping is not None:
            return self.mapping.formula
        return FLOAT32_FORMULA if self.codec == DepthCodec.FLOAT32 else ""

    def error_at(self, value: float) -> float:
        """The largest error that the file adds to `value`, in its unit; see `Mapping.error_at`."""
        return 0.0 if self.mapping is None else self.mapping.error_at(value)

    def as_fields(self) -> dict[str, object]:
        """Plain values by name, for JSON; `from_fields` reads them."""
        fields: dict[str, object] = {
            "format": FORMAT,
            "version": self.version,
            "kind": self.kind.value,
            "unit": self.kind.unit or None,
            "codec": self.codec,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "source": self.source,
            "width": None if self.size is None else self.size[1],
            "height": None if self.size is None else self.size[0],
            "time_base": None if self.time_base is None else str(self.time_base),
            "rate": None if self.rate is None else str(self.rate),
            "frames": self.frame_count,
            "capture": _stated(self.capture),
            "refined": self.refined,
            "steadied": self.steadied,
            "carried": self.carried,
            "mapping": None if self.mapping is None else self.mapping.as_fields(),
            "formula": self.formula,
        }
        return fields | self.lerobot_fields

    @property
    def lerobot_fields(self) -> dict[str, object]:
        """The numbers as LeRobot 0.6 names them in its `info.json`, empty unless the codec is `hevc12`."""
        if self.codec != DepthCodec.HEVC12 or self.mapping is None:
            return {}
        mapping = self.mapping
        return {
            "is_depth_map": True,
            "video.codec": "hevc",
            "video.pix_fmt": "gray12le",
            "video.depth_min": mapping.lo,
            "video.depth_max": mapping.hi,
            "video.shift": mapping.shift,
            "video.use_log": mapping.use_log,
            "depth_unit": self.kind.unit or None,
        }

    @classmethod
    def from_fields(cls, fields: object) -> Self:
        """The description that `as_fields` gave.

        Raises:
            ValueError: a field is missing or wrong, or two contradict each other.
        """
        if not isinstance(fields, dict):
            raise ValueError("is no JSON object")
        if fields.get("format") != FORMAT or isinstance(fields.get("format"), bool):
            raise ValueError(f"format must be {FORMAT}, got {_shown(fields.get('format'))}")
        try:
            kind = DepthKind(_text(fields, "kind"))
        except ValueError as error:
            raise ValueError(f"kind must be one of {', '.join(DepthKind)}") from error
        made = cls(
            kind=kind,
            codec=_text(fields, "codec"),
            mapping=_mapping(fields),
            model=_text(fields, "model"),
            weights_sha256=None if fields.get("weights_sha256") is None else _digest(fields),
            source=_text(fields, "source"),
            size=_size(fields),
            time_base=_fraction(fields, "time_base"),
            rate=_fraction(fields, "rate"),
            frame_count=None if fields.get("frames") is None else _whole(fields, "frames", least=0),
            capture=_capture(fields),
            refined=_flag(fields, "refined"),
            steadied=_flag(fields, "steadied"),
            carried=_flag(fields, "carried"),
            version=_text(fields, "version"),
        )
        derived = {"unit": made.kind.unit or None, "formula": made.formula} | made.lerobot_fields
        for key, value in derived.items():
            if fields.get(key) != value:
                raise ValueError(f"{key} must be {_shown(value)}, got {_shown(fields.get(key))}")
        return made

    def as_json(self, *, indent: int | None = None) -> str:
        """The fields as JSON."""
        return json_text(self.as_fields(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `as_json` wrote.

        Raises:
            ValueError: see `from_fields`.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError("is no JSON") from error
        return cls.from_fields(fields)

    def difference(self, other: Self) -> str:
        """The first field in which two descriptions of one file differ, "" if they agree.

        A number of frames that only one knows is no difference.
        """
        mine, others = self.as_fields(), other.as_fields()
        if None in (self.frame_count, other.frame_count):
            mine["frames"] = others["frames"] = None
        for key, value in mine.items():
            if value != others.get(key):
                return f"{key} is {_shown(value)} and {_shown(others.get(key))}"
        return ""


def _shown(value: object) -> str:
    try:
        return json.dumps(value)[:200]
    except (TypeError, ValueError):
        return "?"


def _text(fields: Fields[str, object], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a text, got {_shown(value)}")
    return value


def _flag(fields: Fields[str, object], key: str) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false, got {_shown(value)}")
    return value


def _digest(fields: Fields[str, object]) -> str:
    text = _text(fields, "weights_sha256")
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"weights_sha256 must have 64 hex digits, got {_shown(text)}")
    return text


def _whole(fields: Fields[str, object], key: str, *, least: int) -> int:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key} must be a whole number of at least {least}, got {_shown(value)}")
    return value


def _size(fields: Fields[str, object]) -> tuple[int, int] | None:
    if fields.get("width") is None and fields.get("height") is None:
        return None
    return _whole(fields, "height", least=1), _whole(fields, "width", least=1)


def _fraction(fields: Fields[str, object], key: str) -> Fraction | None:
    value = fields.get(key)
    if value is None:
        return None
    try:
        if not isinstance(value, str) or not _FRACTION.fullmatch(value):
            raise ValueError(key)
        fraction = Fraction(value)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f'{key} must be a fraction such as "1/30000", got {_shown(value)}') from error
    if fraction <= 0:
        raise ValueError(f"{key} must be positive, got {_shown(value)}")
    return fraction


def _stated(capture: CaptureConfig | None) -> dict[str, object] | None:
    """The options that change frames, as far as they were given."""
    return None if capture is None else capture.model_dump(include=set(CAPTURE_KEYS), exclude_defaults=True)


def _capture(fields: Fields[str, object]) -> CaptureConfig | None:
    value = fields.get("capture")
    if value is None:
        return None
    if not isinstance(value, dict) or not value.keys() <= CAPTURE_KEYS:
        raise ValueError(f"capture must be an object of {', '.join(sorted(CAPTURE_KEYS))}, got {_shown(value)}")
    try:
        return CaptureConfig(**value)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"capture.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _mapping(fields: Fields[str, object]) -> Mapping | None:
    value = fields.get("mapping")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"mapping must be an object, got {_shown(value)}")
    try:
        return Mapping.from_fields(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"mapping: {error}") from error
