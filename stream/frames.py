"""What travels through the pipeline: pictures in, depth out; numpy only.

Invariant: every instance is validated when made and its pixels are read-only, so no stage can
change what another stage still reads.
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
    """What a source is; decides defaults such as the range policy and the output name."""

    VIDEO = "video"
    STILLS = "stills"
    CAMERA = "camera"
    NETWORK = "network"
    PATTERN = "pattern"


class DepthKind(StrEnum):
    """What the numbers of a `Depth` mean."""

    RELATIVE_DISPARITY = "relative_disparity"
    """Unitless, larger = nearer, known up to scale and shift."""
    METRIC_DEPTH = "metric_depth"
    """Metres, larger = farther."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Frame:
    """One upright picture of a source.

    Attributes:
        index: counts captures from 0; a drop shows as a gap.
        pts: presentation time in units of `time_base`, strictly increasing within a source.
        time_base: seconds per unit of `pts`.
        captured_at: monotonic clock in seconds when the picture became available.
        rgb: uint8 H×W×3, contiguous, read-only, orientation applied.
        duration: display time in units of `time_base` where the container tells it, else None.
        name: file name with suffix for a still (`a.jpg`, or `sub/a.jpg` below the given folder), else "".

    Raises:
        ValueError: if an attribute does not fit its description.
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
        values: float32 H×W, finite, read-only, as the model's official script computes it.
        kind: the meaning of the values.
        index: `Frame.index` of its frame.
        model: catalog name of what computed it, "" where that is not told.

    Raises:
        ValueError: if values are not finite float32 H×W.
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
    """The depth maps that several models gave for one frame; its own values are the first model's.

    Attributes:
        others: of the further models; sizes may differ from the frame's.
    """

    others: tuple[Depth, ...]

    @property
    def all(self) -> tuple[Depth, ...]:
        """Every model's, in order."""
        return (self, *self.others)


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What is known about a source before its first frame.

    Attributes:
        name: what the user would call it: the path, URL, `cam:0`, `pattern:testsrc2`.
        size: (height, width) of the first frame as it will be delivered; stills may differ later.
        is_live: newest frame wins (a camera) rather than every frame counts (a file).
        time_base: seconds per pts unit.
        rate: nominal frames per second, None where unknown or meaningless.
        frame_count: an estimate for progress bars, never a loop bound; None where unknown.
        kind: what sort of source it is.
        audio: path or URL whose first audio stream belongs to these frames, None where there is none.
        start_s, end_s: the part asked for, in seconds of the source's own clock (first frame = 0).
        names: the `Frame.name` of every still there may be, so that sinks can tell clashing stems apart.
        files: the files that are read, where they are known: no output may replace one.
        notes: said once to the user at start (granted camera mode, tone mapping, repairs).
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
            raise ValueError(f"bad size {self.size} or time base {self.time_base}")


Result = tuple[Frame, Depth]
"""A frame and the depth that was computed from it."""
