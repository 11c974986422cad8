"""Range policies: which depth values map to the two ends of the colormap.

The range is smoothed over time, never the pixels: blending pixels would leave trails. Policies see depth as it is
displayed (larger = nearer, see `displayed`) and never change it.
Invariant: every range returned is finite with lo <= hi; lo == hi only if the depth was constant.
"""

import math
from abc import ABC, abstractmethod

import numpy as np

from stream.errors import ConfigError
from stream.frames import Depth, DepthKind, DepthMap, RgbImage
from stream.media import cv2

Range = tuple[float, float]
"""(lo, hi) in display units: the values that get the first and the last colour."""

NEAREST_M = 0.05
"""Metric depths below this, zero and negatives included, are displayed as this value. It bounds 1/z, so that a few bad
pixels cannot take up the whole colormap. Cameras do not focus on anything nearer."""

SMOOTHING = 0.1
"""Weight of the newest frame in `EmaRange`: a time constant of ten frames, 0.4 s at 25 fps."""

CUT_SIMILARITY = 0.5
"""A `similarity` below this is a scene cut. Measured on 15 photographs: the 105 pairs of different photographs reach at
most 0.47. A photograph compared with itself panned by 4 % of its width keeps at least 0.82, panned by 6 % 0.66,
brightened by 40 levels 0.99, at half the exposure 0.80. A pan of 12 % per frame may count as a cut; its only effect
is a jump of the range."""

_THUMBNAIL_WH = (16, 12)
"""Small enough that a pan moves the content by a fraction of a pixel; 32×24 separates cuts from pans less well."""

_CONTRAST_FLOOR = (0.03 * 255) ** 2
"""Variance below which an image counts as flat, so that noise on a wall is not a cut (C2 of SSIM, Wang et al. 2004)."""


class RangePolicy(ABC):
    """Decides the range of each frame; called once per frame, in order."""

    cuts: int = 0
    """Scene cuts seen so far; stays 0 in a policy that does not look for them."""

    @abstractmethod
    def range_for(self, depth_display: DepthMap, rgb: RgbImage) -> Range:
        """The range for one frame.

        Args:
            depth_display: float32 H×W, finite, larger = nearer, see `displayed`.
            rgb: uint8 H×W×3, the image that the depth belongs to.
        """

    def restart(self) -> None:  # noqa: B027 - only smoothing needs it
        """Forget earlier frames: the values of another model follow."""


class FrameRange(RangePolicy):
    """Uses each frame's own minimum and maximum, as the official scripts do; flickers on video."""

    def range_for(self, depth_display: DepthMap, rgb: RgbImage) -> Range:  # noqa: ARG002 - the contract's signature
        """See `RangePolicy`."""
        lo, hi, _, _ = cv2.minMaxLoc(depth_display)  # 0.35 ms at 1080p; numpy's min and max 0.6
        return lo, hi


class EmaRange(RangePolicy):
    """Smooths minimum and maximum over time (exponential moving average); starts again at a scene cut.

    Args:
        smoothing: weight of the newest frame, in (0, 1]; 1 gives the same ranges as `FrameRange`.
        cut_similarity: see `CUT_SIMILARITY`.

    Raises:
        ValueError: `smoothing` is outside (0, 1].
    """

    def __init__(self, *, smoothing: float = SMOOTHING, cut_similarity: float = CUT_SIMILARITY) -> None:
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must be in (0, 1], got {smoothing}")
        self.smoothing, self.cut_similarity = smoothing, cut_similarity
        self.cuts = 0
        self._frame = FrameRange()
        self._range: Range | None = None
        self._thumbnail: DepthMap | None = None

    def range_for(self, depth_display: DepthMap, rgb: RgbImage) -> Range:
        """See `RangePolicy`."""
        lo, hi = self._frame.range_for(depth_display, rgb)
        before, self._thumbnail = self._thumbnail, thumbnail(rgb)
        if before is not None and similarity(before, self._thumbnail) < self.cut_similarity:
            self.cuts += 1
            self._range = None
        if self._range is not None:
            old_lo, old_hi = self._range
            keep = 1 - self.smoothing  # a weighted sum keeps lo <= hi under rounding: every step is monotone
            lo, hi = keep * old_lo + self.smoothing * lo, keep * old_hi + self.smoothing * hi
        self._range = lo, hi
        return self._range

    def restart(self) -> None:
        """See `RangePolicy`."""
        self._range = self._thumbnail = None


class FixedRange(RangePolicy):
    """Uses one range for every frame; depth outside it gets the end colours.

    Args:
        lo, hi: in display units, representable in float32.

    Raises:
        ValueError: `lo` or `hi` is not finite, or not lo < hi.
    """

    def __init__(self, lo: float, hi: float) -> None:
        if not (abs(lo) <= _FLOAT32_MAX and abs(hi) <= _FLOAT32_MAX and lo < hi):
            raise ValueError(f"a range needs finite lo < hi, got {lo}, {hi}")
        self._range = lo, hi

    def range_for(self, depth_display: DepthMap, rgb: RgbImage) -> Range:  # noqa: ARG002 - the contract's signature
        """See `RangePolicy`."""
        return self._range


_FLOAT32_MAX = float(np.finfo(np.float32).max)


def displayed(depth: Depth) -> DepthMap:
    """Depth as it is displayed, larger = nearer: disparity unchanged, metres as 1/z (z at least `NEAREST_M`).

    Returns:
        float32 H×W, finite; for disparity the depth's own array.
    """
    if depth.kind is DepthKind.RELATIVE_DISPARITY:
        return depth.values
    shown: DepthMap = np.maximum(depth.values, np.float32(NEAREST_M))
    np.reciprocal(shown, out=shown)
    return shown


def native(shown: Range, kind: DepthKind) -> Range:
    """A display range converted to the model's own units (metres or raw disparity), as `--range` takes it."""
    if kind is DepthKind.RELATIVE_DISPARITY:
        return shown
    lo, hi = shown
    return 1 / hi, 1 / lo


def parse_range(text: str, *, kind: DepthKind) -> RangePolicy:
    """The policy that a `--range` value selects.

    Args:
        text: `frame`, `ema`, or `LO:HI` in metres for metric models, otherwise in raw disparity.
        kind: the meaning of the model's values.

    Raises:
        ConfigError: `text` is none of these, LO:HI is not finite or not LO < HI, or LO is nearer than `NEAREST_M`.
    """
    if text == "frame":
        return FrameRange()
    if text == "ema":
        return EmaRange()
    error = ConfigError(f"{text} is not a range", where="--range", allowed="frame, ema or LO:HI with finite LO < HI")
    low, _, high = text.partition(":")
    try:
        lo, hi = float(low), float(high)
    except ValueError:
        raise error from None
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi and max(abs(lo), abs(hi)) <= _FLOAT32_MAX):
        raise error
    if kind is DepthKind.RELATIVE_DISPARITY:
        return FixedRange(lo, hi)
    if lo < NEAREST_M:
        raise ConfigError(
            f"LO is {low} metres, but metric depth is displayed as 1/z",
            where="--range",
            allowed=f"LO from {NEAREST_M:g} metres",
            hint=f"try {NEAREST_M:g}:{high}" if hi > NEAREST_M else "",
        )
    return FixedRange(1 / hi, 1 / lo)


def thumbnail(rgb: RgbImage) -> DepthMap:
    """A 12×16 float32 grey thumbnail of an image of any size; takes 0.1 ms at 1080p."""
    step = max(1, min(rgb.shape[:2]) // 96)  # leaves enough samples for each pixel of the thumbnail
    gray = cv2.cvtColor(np.ascontiguousarray(rgb[::step, ::step]), cv2.COLOR_RGB2GRAY)
    small: DepthMap = cv2.resize(gray, _THUMBNAIL_WH, interpolation=cv2.INTER_AREA).astype(np.float32)
    return small


def similarity(a: DepthMap, b: DepthMap) -> float:
    """Similarity of two thumbnails, from -1 to 1 (identical), independent of their brightness.

    The structure and contrast terms of SSIM over the whole thumbnail, without its luminance term.
    """
    a, b = a - a.mean(), b - b.mean()
    shared, total = 2 * float((a * b).mean()), float((a * a).mean() + (b * b).mean())
    return (shared + _CONTRAST_FLOOR) / (total + _CONTRAST_FLOOR)
