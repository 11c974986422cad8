"""The data types that pass through the pipeline: frames and depth maps; imports numpy only.

Invariant: every instance is validated on creation and its pixels are read-only, so no stage can change data that
another stage still reads.
"""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RgbImage = NDArray[np.uint8]
"""uint8 H×W×3, sRGB."""
DepthMap = NDArray[np.float32]
"""float32 H×W."""


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
    METRIC_DEPTH = "metric_depth"
    """Metres, larger = farther."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Frame:
    """One upright image of a source.

    Attributes:
        index: number of the capture, from 0; a dropped frame leaves a gap.
        pts: presentation time in units of `time_base`, strictly increasing within a source.
        time_base: seconds per unit of `pts`.
        captured_at: time at which the frame became available, on a monotonic clock in seconds.
        rgb: uint8 H×W×3, contiguous, read-only, orientation applied.
        duration: display time in units of `time_base`, None if unknown.
        name: file name of a still with suffix (`a.jpg`, or `sub/a.jpg` in a subfolder of the source), else "".

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

    def __post_init__(self) -> None:
        rgb = self.rgb
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise ValueError(f"rgb must be non-empty uint8 H×W×3, got {rgb.dtype} {rgb.shape}")
        if self.index < 0:
            raise ValueError(f"index must be ≥ 0, got {self.index}")
        if self.time_base <= 0:
            raise ValueError(f"time_base must be positive, got {self.time_base}")
        if not rgb.flags.c_contiguous:
            object.__setattr__(self, "rgb", np.ascontiguousarray(rgb))
        self.rgb.flags.writeable = False

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
        values: float32 H×W, finite, read-only, as the model's official script computes them.
        kind: meaning of the values.
        index: `Frame.index` of its frame.
        model: catalog name of the model, "" if unknown.

    Raises:
        ValueError: the values are not finite float32 H×W.
    """

    values: DepthMap
    kind: DepthKind
    index: int
    model: str = ""

    def __post_init__(self) -> None:
        v = self.values
        if v.dtype != np.float32 or v.ndim != 2 or v.size == 0:
            raise ValueError(f"values must be non-empty float32 H×W, got {v.dtype} {v.shape}")
        if not np.isfinite(v).all():
            raise ValueError("values must be finite")
        v.flags.writeable = False

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

    @property
    def all(self) -> tuple[Depth, ...]:
        """The depth maps of all models, in order."""
        return (self, *self.others)


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Facts about a source that are known before its first frame.

    Attributes:
        name: the source as the user would name it: a path, URL, `cam:0`, `pattern:testsrc2`.
        size: (height, width) of the first frame as delivered; later stills may differ.
        is_live: True if the newest frame matters and others may be dropped, as for a camera; False for files.
        time_base: seconds per pts unit.
        rate: nominal frames per second, None if unknown or meaningless.
        frame_count: an estimate for progress bars, never a loop bound; None if unknown.
        kind: see `SourceKind`.
        audio: path or URL whose first audio stream belongs to these frames, None if there is none.
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
    audio: str | None = None
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
