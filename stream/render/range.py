"""Range policies: which depth values map to the two ends of the colormap.

The range is smoothed over time, never the pixels: blending pixels would leave trails. Policies see depth as it is
displayed (larger = nearer, see `displayed`), and of that only the pixels with an answer; they never change it.
Invariant: every range returned is finite with lo <= hi; lo == hi only if the depth was constant.
"""

import math
from abc import ABC, abstractmethod

import numpy as np

from stream.errors import ConfigError
from stream.frames import Depth, DepthKind, DepthMap, Mask, RgbImage
from stream.media import cv2
from stream.motion.cuts import CutDetector

Range = tuple[float, float]
"""(lo, hi) in display units: the values that get the first and the last colour."""

NEAREST_M = 0.05
"""Metric depths below this, zero and negatives included, are displayed as this value. It bounds 1/z, so that a few bad
pixels cannot take up the whole colormap. Cameras do not focus on anything nearer."""

NEAREST_SHARE = 0.01
"""The same for relative depth, which has no unit: a share of the median depth of the frame. `NEAREST_M` is this share
of a room's 5 m. Depth Anything 3's own script, too, shows 1/z and bounds it by the frame: at its 2nd and 98th
percentile (`visualize_depth`). A median of `_MEDIAN_SAMPLES` pixels takes 0.05 ms."""
_MEDIAN_SAMPLES = 4096

SMOOTHING = 0.1
"""Weight of the newest frame in `EmaRange` if the one before is `USUAL_STEP_S` older: a time constant of 0.38 s."""
USUAL_STEP_S = 1 / 25


class RangePolicy(ABC):
    """Decides the range of each frame; called once per frame, in order."""

    cuts: int = 0
    """Scene cuts seen so far; stays 0 in a policy that does not look for them."""

    @abstractmethod
    def range_for(
        self, depth_display: DepthMap, rgb: RgbImage, time_s: float | None = None, *, valid: Mask | None = None
    ) -> Range | None:
        """The range for one frame.

        Args:
            depth_display: float32 H×W, finite where `valid`, larger = nearer, see `displayed`.
            rgb: uint8 H×W×3, the image that the depth belongs to.
            time_s: the frame's time; None if it has none: frames then count as `USUAL_STEP_S` apart.
            valid: bool H×W, the pixels with an answer; None: all.

        Returns:
            None if no pixel of this frame, nor of those that the range is made of, has an answer.
        """

    def restart(self) -> None:  # noqa: B027 - only smoothing needs it
        """Forget earlier frames: the values of another model follow."""


class FrameRange(RangePolicy):
    """Uses each frame's own minimum and maximum, as the official scripts do; flickers on video."""

    def range_for(
        self,
        depth_display: DepthMap,
        rgb: RgbImage,  # noqa: ARG002 - the contract's signature
        time_s: float | None = None,  # noqa: ARG002
        *,
        valid: Mask | None = None,
    ) -> Range | None:
        """See `RangePolicy`."""
        if valid is None:
            lo, hi, _, _ = cv2.minMaxLoc(depth_display)  # 0.35 ms at 1080p; numpy's min and max 0.6
            return lo, hi
        lo, hi, at_lo, _ = cv2.minMaxLoc(depth_display, mask=valid.view(np.uint8))
        return None if at_lo == (-1, -1) else (lo, hi)


class EmaRange(RangePolicy):
    """Smooths minimum and maximum over time (exponential moving average); starts again at a scene cut.

    It counts seconds, not frames, so a slow model forgets no earlier than a fast one; and a camera that moves is no
    cut, however far it has moved between two frames of a slow model.

    Args:
        smoothing: weight of the newest frame after `USUAL_STEP_S`, in (0, 1]; 1 gives the same ranges as `FrameRange`.

    Raises:
        ValueError: `smoothing` is outside (0, 1].
    """

    def __init__(self, *, smoothing: float = SMOOTHING) -> None:
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must be in (0, 1], got {smoothing}")
        self.smoothing = smoothing
        self.cuts = 0
        self._frame, self._detector = FrameRange(), CutDetector()
        self._range: Range | None = None
        self._time_s: float | None = None

    def range_for(
        self, depth_display: DepthMap, rgb: RgbImage, time_s: float | None = None, *, valid: Mask | None = None
    ) -> Range | None:
        """See `RangePolicy`. A frame without any answer keeps the range."""
        newest = self._frame.range_for(depth_display, rgb, valid=valid)
        if self._detector.is_cut(rgb):
            self.cuts += 1
            self._range = None
        if newest is None:
            return self._range
        lo, hi = newest
        if self._range is not None:
            old_lo, old_hi = self._range
            keep = (1 - self.smoothing) ** (self._step_s(time_s) / USUAL_STEP_S)
            new = 1 - keep  # a weighted sum keeps lo <= hi under rounding: every step is monotone
            lo, hi = keep * old_lo + new * lo, keep * old_hi + new * hi
        self._range, self._time_s = (lo, hi), time_s
        return self._range

    def restart(self) -> None:
        """See `RangePolicy`."""
        self._range = None
        self._detector.restart()

    def _step_s(self, time_s: float | None) -> float:
        """Seconds since the last frame; `USUAL_STEP_S` if they are unknown or the clock was set back."""
        if time_s is None or self._time_s is None or time_s <= self._time_s:
            return USUAL_STEP_S
        return time_s - self._time_s


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

    def range_for(
        self,
        depth_display: DepthMap,  # noqa: ARG002 - the contract's signature
        rgb: RgbImage,  # noqa: ARG002
        time_s: float | None = None,  # noqa: ARG002
        *,
        valid: Mask | None = None,  # noqa: ARG002
    ) -> Range | None:
        """See `RangePolicy`."""
        return self._range


class ClipRange(FixedRange):
    """Uses the ends of a whole clip for every frame; depth beyond them gets the end colours.

    Args:
        lo, hi: in display units, finite with lo <= hi; equal if the depth of the clip is constant.
    """

    def __init__(self, lo: float, hi: float) -> None:  # the base class's own refuses a range without a width
        self._range = lo, hi


_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SMALLEST = np.finfo(np.float32).tiny
"""Its reciprocal is finite."""


def displayed(depth: Depth) -> DepthMap:
    """Depth as it is displayed, larger = nearer: disparity unchanged, else 1/z with z at least `_nearest`.

    Returns:
        float32 H×W, finite, NaN where there is no answer; for disparity the depth's own array.
    """
    if depth.kind.is_disparity:
        return depth.values
    shown: DepthMap = np.maximum(depth.values, _nearest(depth))
    np.reciprocal(shown, out=shown)
    return shown


def _nearest(depth: Depth) -> np.float32:
    """The smallest depth that is displayed as it is: `NEAREST_M` for metres, else `NEAREST_SHARE` of the median."""
    if depth.kind is DepthKind.METRIC_DEPTH:
        return np.float32(NEAREST_M)
    step = max(1, math.isqrt(depth.values.size // _MEDIAN_SAMPLES))
    for samples in (depth.values[::step, ::step], depth.values):  # the few answers may lie between the samples
        positive = samples[samples > 0]  # NaN is not
        if positive.size:
            median = float(np.median(positive.astype(np.float64)))  # the mean of two float32 may overflow
            return max(np.float32(NEAREST_SHARE * median), _SMALLEST)
    return np.float32(1)  # no depth is one


def native(shown: Range, kind: DepthKind) -> Range:
    """A display range converted to the model's own units (metres, or what it gives), as `--range` takes it."""
    if kind.is_disparity:
        return shown
    lo, hi = shown
    return 1 / hi, 1 / lo


def parse_range(text: str, *, kind: DepthKind) -> RangePolicy:
    """The policy that a `--range` value selects.

    Args:
        text: `frame`, `ema`, or `LO:HI` in metres for metric models, otherwise in the model's own numbers.
        kind: the meaning of the model's values.

    Raises:
        ConfigError: `text` is none of these, LO:HI is not finite or not LO < HI, or LO is nearer than what is
            displayed: `NEAREST_M`, and 0 for relative depth.
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
    most = max(abs(lo), abs(hi))
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi and most <= _FLOAT32_MAX):
        raise error
    if hi - lo < np.spacing(np.float32(most)):
        raise error  # one number in float32
    if kind.is_disparity:
        return FixedRange(lo, hi)
    if kind is not DepthKind.METRIC_DEPTH and lo < _SMALLEST:
        what = f"LO is {low}, but relative depth is displayed as 1/z"
        raise ConfigError(what, where="--range", allowed="LO above 0")
    if kind is DepthKind.METRIC_DEPTH and lo < NEAREST_M:
        raise ConfigError(
            f"LO is {low} metres, but metric depth is displayed as 1/z",
            where="--range",
            allowed=f"LO from {NEAREST_M:g} metres",
            hint=f"try {NEAREST_M:g}:{high}" if hi > NEAREST_M else "",
        )
    return FixedRange(1 / hi, 1 / lo)
