"""Which depth maps to which end of the colormap; smoothing happens here so that pixels never need it.

Policies see depth as it is displayed (near = large, see `displayed`), and never change it.
Invariant: every range returned is finite with lo <= hi; lo == hi only where the depth was constant.
"""

import math
from typing import Protocol

import numpy as np

from stream.errors import ConfigError
from stream.frames import Depth, DepthKind, DepthMap, RgbImage
from stream.media import cv2

Range = tuple[float, float]
"""(lo, hi) in display units: what becomes the first and the last colour."""

NEAREST_M = 0.05
"""Metric depths below this, zero and negatives included, are shown as this: 1/z stays bounded, so a few bad pixels
cannot take the whole colormap. Nothing a camera focuses on is nearer."""

SMOOTHING = 0.1
"""Weight of the newest frame in `EmaRange`: a time constant of ten frames, 0.4 s of film."""

CUT_SIMILARITY = 0.5
"""`similarity` below this is a scene cut. Measured on 15 photographs: the 105 pairs of different ones reach at most
0.47; the same one panned by 4 % of its width keeps 0.82 or more, by 6 % 0.66, brightened by 40 levels 0.99, at half
the exposure 0.80. A pan of 12 % a frame may count as a cut, which only costs a jump of the range."""

_THUMBNAIL_WH = (16, 12)
"""Small enough that a pan moves it by a fraction of a pixel; 32×24 separates cuts from pans less well."""

_CONTRAST_FLOOR = (0.03 * 255) ** 2
"""Variance below which a picture counts as flat, so that noise on a wall is no cut (C2 of SSIM, Wang et al. 2004)."""


class RangePolicy(Protocol):
    """Decides the range of each frame; called once a frame, in order."""

    def range_for(self, depth_display: DepthMap, rgb: RgbImage) -> Range:
        """The range for one frame.

        Args:
            depth_display: float32 H×W, finite, larger = nearer, see `displayed`.
            rgb: uint8 H×W×3, the picture it belongs to.
        """
        ...

    def restart(self) -> None:
        """Forget what was seen: another model's values follow."""
        ...


class FrameRange:
    """Each frame's own minimum and maximum, as the official scripts do; flickers on moving pictures."""

    def range_for(self, depth_display: DepthMap, rgb: RgbImage) -> Range:  # noqa: ARG002 - the protocol's signature
        """See `RangePolicy`."""
        lo, hi, _, _ = cv2.minMaxLoc(depth_display)  # 0.35 ms at 1080p; numpy's min and max 0.6
        return lo, hi

    def restart(self) -> None:
        """See `RangePolicy`."""


class EmaRange:
    """Minimum and maximum smoothed over time (exponential moving average); starts afresh at a scene cut.

    Args:
        smoothing: weight of the newest frame, in (0, 1]; 1 is `FrameRange`.
        cut_similarity: see `CUT_SIMILARITY`.

    Raises:
        ValueError: smoothing outside (0, 1].
    """

    def __init__(self, *, smoothing: float = SMOOTHING, cut_similarity: float = CUT_SIMILARITY) -> None:
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must be in (0, 1], got {smoothing}")
        self.smoothing, self.cut_similarity = smoothing, cut_similarity
        self.cuts = 0
        """Scene cuts seen so far."""
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
            keep = 1 - self.smoothing  # a weighted sum stays in order under rounding: every step is monotone
            lo, hi = keep * old_lo + self.smoothing * lo, keep * old_hi + self.smoothing * hi
        self._range = lo, hi
        return self._range

    def restart(self) -> None:
        """See `RangePolicy`."""
        self._range = self._thumbnail = None


class FixedRange:
    """The same range always; depth outside it takes the end colours.

    Args:
        lo, hi: in display units, representable in float32.

    Raises:
        ValueError: not finite, or not lo < hi.
    """

    def __init__(self, lo: float, hi: float) -> None:
        if not (abs(lo) <= _FLOAT32_MAX and abs(hi) <= _FLOAT32_MAX and lo < hi):
            raise ValueError(f"a range needs finite lo < hi, got {lo}, {hi}")
        self._range = lo, hi

    def range_for(self, depth_display: DepthMap, rgb: RgbImage) -> Range:  # noqa: ARG002 - the protocol's signature
        """See `RangePolicy`."""
        return self._range

    def restart(self) -> None:
        """See `RangePolicy`."""


_FLOAT32_MAX = float(np.finfo(np.float32).max)


def displayed(depth: Depth) -> DepthMap:
    """Depth as it is coloured: disparity as it is, metres as 1/z (z at least `NEAREST_M`), so near is always large.

    Returns:
        float32 H×W, finite; the depth's own array where nothing changes.
    """
    if depth.kind is DepthKind.RELATIVE_DISPARITY:
        return depth.values
    shown: DepthMap = np.maximum(depth.values, np.float32(NEAREST_M))
    np.reciprocal(shown, out=shown)
    return shown


def native(shown: Range, kind: DepthKind) -> Range:
    """A display range in the model's own units (metres, or disparity as it is), as it can be typed after `--range`."""
    if kind is DepthKind.RELATIVE_DISPARITY:
        return shown
    lo, hi = shown
    return 1 / hi, 1 / lo


def parse_range(text: str, *, kind: DepthKind) -> RangePolicy:
    """The policy that `--range` names.

    Args:
        text: `frame`, `ema`, or `LO:HI` in metres for metric models, else in raw disparity.
        kind: the meaning of the model's values.

    Raises:
        ConfigError: none of these, LO:HI not finite or not LO < HI, or LO nearer than `NEAREST_M`.
    """
    if text == "frame":
        return FrameRange()
    if text == "ema":
        return EmaRange()
    error = ConfigError(f"{text} is no range", where="--range", allowed="frame, ema or LO:HI with finite LO < HI")
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
            f"LO is {low} metres, but metric depth is shown as 1/z",
            where="--range",
            allowed=f"LO from {NEAREST_M:g} metres",
            hint=f"try {NEAREST_M:g}:{high}" if hi > NEAREST_M else "",
        )
    return FixedRange(1 / hi, 1 / lo)


def thumbnail(rgb: RgbImage) -> DepthMap:
    """A 12×16 float32 gray thumbnail of any picture, 0.1 ms at 1080p."""
    step = max(1, min(rgb.shape[:2]) // 96)  # plenty of samples for each of its pixels
    gray = cv2.cvtColor(np.ascontiguousarray(rgb[::step, ::step]), cv2.COLOR_RGB2GRAY)
    small: DepthMap = cv2.resize(gray, _THUMBNAIL_WH, interpolation=cv2.INTER_AREA).astype(np.float32)
    return small


def similarity(a: DepthMap, b: DepthMap) -> float:
    """How alike two thumbnails are, from -1 to 1 (the same), whatever their brightness.

    The structure and contrast terms of SSIM over the whole thumbnail, without its luminance term.
    """
    a, b = a - a.mean(), b - b.mean()
    shared, total = 2 * float((a * b).mean()), float((a * a).mean() + (b * b).mean())
    return (shared + _CONTRAST_FLOOR) / (total + _CONTRAST_FLOOR)
