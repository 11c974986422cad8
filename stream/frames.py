"""The data types that pass through the pipeline: frames, depth maps, sound; imports numpy only.

Invariant: every instance is validated on creation and its pixels are a read-only view, so no stage can change data that
another stage still reads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stream.channel import Broadcast

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.packet import Packet

RgbImage = NDArray[np.uint8]
"""uint8 H×W×3, sRGB."""
DepthMap = NDArray[np.float32]
"""float32 H×W."""
Mask = NDArray[np.bool_]
"""bool H×W."""
_Pixel = TypeVar("_Pixel", bound=np.generic)


class SourceKind(StrEnum):
    """The kind of a source; decides defaults such as the range policy and the output name."""

    VIDEO = "video"
    STILLS = "stills"
    CAMERA = "camera"
    NETWORK = "network"
    PATTERN = "pattern"


class DepthKind(StrEnum):
    """The meaning of the values of a `Depth`."""

    RELATIVE_DISPARITY = "relative_disparity"
    """Unitless, larger = nearer, known up to scale and shift."""
    RELATIVE_DEPTH = "relative_depth"
    """Unitless and positive, larger = farther, known up to scale."""
    METRIC_DEPTH = "metric_depth"
    """Metres, larger = farther."""

    @property
    def is_disparity(self) -> bool:
        """Larger is nearer; of the other kinds, larger is farther."""
        return self is DepthKind.RELATIVE_DISPARITY

    @property
    def quantity(self) -> str:
        """What its numbers are, in a word or two: "metres", "disparity" or "relative depth"."""
        return {"metric_depth": "metres", "relative_disparity": "disparity", "relative_depth": "relative depth"}[self]

    @property
    def unit(self) -> str:
        """ "m" for metres, "" where the unit is unknown."""
        return "m" if self is DepthKind.METRIC_DEPTH else ""


def _read_only(pixels: NDArray[_Pixel]) -> NDArray[_Pixel]:
    """A view that cannot be written to; the array itself stays as its owner has it."""
    view = pixels.view()
    view.flags.writeable = False
    return view


DEFAULT_FOV = 60.0
"""Degrees along the longer side of an image whose camera is unknown; a phone's main camera sees about 65."""


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """The focal lengths and the centre of a pinhole camera, in pixels of the frame.

    A point (x, y, z) appears at column `fx · x / z + cx` and row `fy · y / z + cy`; the centre of the first pixel is
    (0.5, 0.5).

    Raises:
        ValueError: a number is not finite, or a focal length not positive.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.fx, self.fy, self.cx, self.cy))) or min(self.fx, self.fy) <= 0:
            raise ValueError(f"focal lengths must be positive and all numbers finite, got {self}")

    @classmethod
    def seeing(cls, degrees: float, side: int, size_hw: tuple[int, int]) -> Self:
        """A camera with square pixels that looks at the centre of the image and sees `degrees` along `side` pixels."""
        focal = side / 2 / math.tan(math.radians(degrees) / 2)
        return cls(fx=focal, fy=focal, cx=size_hw[1] / 2, cy=size_hw[0] / 2)

    @classmethod
    def assumed(cls, size_hw: tuple[int, int]) -> Self:
        """A camera that sees `DEFAULT_FOV` along the longer side."""
        return cls.seeing(DEFAULT_FOV, max(size_hw), size_hw)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Frame:
    """One upright image of a source.

    Attributes:
        index: number of the capture, from 0; a dropped frame leaves a gap.
        pts: presentation time in units of `time_base`, strictly increasing within a source; a video's first frame is 0.
        time_base: seconds per unit of `pts`.
        captured_at: time at which the frame became available, on a monotonic clock in seconds; of a network stream, the
            time at which it should have arrived by its timestamp.
        rgb: uint8 H×W×3, contiguous, read-only (`.copy()` may be changed), orientation applied.
        duration: display time in units of `time_base`, None if unknown.
        name: file name of a still with suffix (`a.jpg`, or `sub/a.jpg` in a subfolder of the source), else "".
        intrinsics: of the camera that took it, from the file's metadata; None if unknown.

    Raises:
        ValueError: an attribute does not match its description.
    """

    index: int
    pts: int
    time_base: Fraction
    captured_at: float
    rgb: RgbImage
    duration: int | None = None
    name: str = ""
    intrinsics: Intrinsics | None = None

    def __post_init__(self) -> None:
        rgb = self.rgb
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise ValueError(f"rgb must be non-empty uint8 H×W×3, got {rgb.dtype} {rgb.shape}")
        if self.index < 0:
            raise ValueError(f"index must be ≥ 0, got {self.index}")
        if self.time_base <= 0:
            raise ValueError(f"time_base must be positive, got {self.time_base}")
        object.__setattr__(self, "rgb", _read_only(np.ascontiguousarray(rgb)))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """`numpy.asarray(frame)` is `rgb`."""
        return np.array(self.rgb, dtype=dtype, copy=copy)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def __repr__(self) -> str:
        h, w = self.size
        return f"Frame(index={self.index}, {w}×{h}, t={self.time_s:.3f}s{', ' + self.name if self.name else ''})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Depth:
    """A depth map at the size of the frame it was computed from.

    Attributes:
        values: float32 H×W, read-only (`.copy()` may be changed), as the model's official script computes them unless
            `refined`, `steadied` or `carried`; finite where `valid`, NaN elsewhere.
        kind: meaning of the values.
        index: `Frame.index` of its frame.
        model: catalog name of the model, "" if unknown.
        valid: bool H×W, False where there is no answer, such as in the sky; None if every pixel has one.
        intrinsics: the camera that the model estimated; None if it estimates none.
        confidence: float32 H×W, read-only, larger where the model is surer; its scale is the model's. None if it gives
            none.
        refined: the values follow the edges of the frame (`--refine`).
        steadied: the values were aligned to the frame before (`--steady`).
        carried: the values were carried from the frames beside it, which the model has seen (`--skip`).

    Raises:
        ValueError: the values are not float32 H×W, or not finite where they should be.
    """

    values: DepthMap
    kind: DepthKind
    index: int
    model: str = ""
    valid: Mask | None = None
    intrinsics: Intrinsics | None = None
    confidence: DepthMap | None = None
    refined: bool = False
    steadied: bool = False
    carried: bool = False

    def __post_init__(self) -> None:
        v, valid = self.values, self.valid
        if v.dtype != np.float32 or v.ndim != 2 or v.size == 0:
            raise ValueError(f"values must be non-empty float32 H×W, got {v.dtype} {v.shape}")
        if valid is not None and (valid.dtype != np.bool_ or valid.shape != v.shape):
            raise ValueError(f"valid must be bool {v.shape}, got {valid.dtype} {valid.shape}")
        if valid is not None and valid.all():
            valid = None
        if not np.isfinite(v if valid is None else v[valid]).all():
            raise ValueError("values must be finite where they are valid")
        if (confidence := self.confidence) is not None:
            if confidence.dtype != np.float32 or confidence.shape != v.shape:
                raise ValueError(f"confidence must be float32 {v.shape}, got {confidence.dtype} {confidence.shape}")
            object.__setattr__(self, "confidence", _read_only(confidence))
        if valid is not None:  # one form for what has no answer, so that no statistic includes it unnoticed
            v, valid = np.where(valid, v, np.float32(np.nan)), _read_only(valid)
        object.__setattr__(self, "values", _read_only(v))
        object.__setattr__(self, "valid", valid)

    @property
    def answers(self) -> NDArray[np.float32]:
        """The valid values: float32, 1-D if some are not valid, else H×W."""
        return self.values if self.valid is None else self.values[self.valid]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """`numpy.asarray(depth)` is `values`."""
        return np.array(self.values, dtype=dtype, copy=copy)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.values.shape[0], self.values.shape[1]

    def __repr__(self) -> str:
        h, w = self.size
        return f"Depth(index={self.index}, {w}×{h}, {self.kind.value})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ComparedDepth(Depth):
    """The depth maps that several models computed for one frame; the inherited attributes are the first model's.

    Attributes:
        others: depth maps of the other models; their sizes may differ from the frame's.
    """

    others: tuple[Depth, ...]

    @classmethod
    def of(cls, first: Depth, others: Sequence[Depth]) -> Self:
        """The maps of one frame, the first model's first."""
        own = {field.name: getattr(first, field.name) for field in fields(Depth)}
        return cls(**own, others=tuple(others))

    @property
    def all(self) -> tuple[Depth, ...]:
        """The depth maps of all models, in order."""
        return (self, *self.others)


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioPacket:
    """A piece of encoded sound.

    Attributes:
        track: index into `Audio.tracks`.
        packet: its pts and dts are on the frames' clock (first frame = 0) and may be negative. Never changed once put:
            several outputs may write it.
    """

    track: int
    packet: "Packet[Any]"


@dataclass(frozen=True, kw_only=True, eq=False)
class Audio:
    """The sound of a source, read along with its frames.

    Attributes:
        tracks: parameters, language and title of each track, independent of the source's own streams; the default one
            first.
        packets: passed on as they are read, by the thread that reads the frames.
        lead_s: seconds for which the sound plays before the first frame, as the source wants it.
        may_decode: False for the sound of a sandboxed source: outputs copy it or leave it out.
    """

    tracks: tuple["AudioStream", ...]
    packets: Broadcast[AudioPacket]
    lead_s: Fraction = Fraction(0)
    may_decode: bool = True


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Facts about a source that are known before its first frame.

    Attributes:
        name: the source as the user would name it: a path, URL, `cam:0`, `pattern:testsrc2`; "" for images in memory.
        size: (height, width) of the first frame as delivered; later stills may differ.
        is_live: True if the newest frame matters and others may be dropped, as for a camera; False for files.
        time_base: seconds per pts unit.
        rate: nominal frames per second, None if unknown or meaningless.
        frame_count: an estimate for progress bars, never a loop bound; None if unknown.
        kind: see `SourceKind`.
        audio: the sound that belongs to these frames, None if there is none.
        not_kept: what else the source holds and no output takes ("2 subtitle tracks, 5 chapters"), "" if nothing.
        start_s, end_s: the requested part, in seconds of the source's own clock (first frame = 0).
        names: `Frame.name` of every still that may be delivered, so that sinks can detect clashing stems.
        files: the files that are read, if known; no output may overwrite them.
        notes: shown to the user once at start (granted camera mode, tone mapping, repairs).
    """

    name: str
    size: tuple[int, int]
    is_live: bool
    time_base: Fraction
    rate: Fraction | None
    frame_count: int | None
    kind: SourceKind
    audio: Audio | None = None
    not_kept: str = ""
    start_s: float | None = None
    end_s: float | None = None
    names: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.time_base <= 0:
            raise ValueError(f"size and time_base must be positive, got {self.size} and {self.time_base}")


Result = tuple[Frame, Depth]
"""A frame and the depth map computed from it."""
