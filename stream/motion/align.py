"""A small correction for each depth map of a video, so that values stay steady along the motion of the picture.

A model that sees one frame at a time decides scale and shift anew for each, and its values pump: one scale and one
shift take that out. Small networks also change their mind about parts of the picture. Of the change of `starter` from
frame to frame, one scale and one shift could take out 10 to 19 %, but 90 % of it is the same over an eighth of the
picture; for disparity, a smooth field of few cells is added. No old pixels are blended in, so nothing ghosts, and edges
stay where the model sees them.
Invariant: the correction stays within stated limits, and returns to the model's own values over time.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.frames import Depth, DepthKind, DepthMap
from stream.media import cv2
from stream.motion.flow import LEAST_FOUND, Motion

_Floats = NDArray[np.float32]

LEAK_S = 3.0
"""Time constant in which a correction returns to none. It ends the drift of errors that add up, and what a camera that
moves forward changes in truth; what pumps within a second is steadied."""
MOST_SCALE = {DepthKind.RELATIVE_DISPARITY: 5.0, DepthKind.RELATIVE_DEPTH: 5.0, DepthKind.METRIC_DEPTH: 1.25}
"""The largest scale of a correction, and the inverse of the smallest. Metres are corrected by a quarter at most."""
MOST_SHIFT = 5.0
"""The largest shift of a map's middle, in robust ranges of the map."""
MOST_STEP_SCALE, MOST_STEP_SHIFT = 4.0, 4.0
"""As `MOST_SCALE` and `MOST_SHIFT`, for the change of the correction from one frame to the next."""
FIELD_LEAK_S = 0.5
"""As `LEAK_S`, for the field. Shorter, because things that come nearer change the disparity of parts in truth."""
MOST_FIELD = 0.15
"""The largest value of the field, in robust ranges of the map."""
_BLOCK = 8
"""Pixels of a block at the flow's size. Blocks are compared, not pixels: a motion by parts of a pixel takes noise out
of the map before, and with it some of its spread, so that the scale would shrink from frame to frame."""
_CELL = 2
"""Blocks of a cell of the field: a twentieth of the longer side."""

_LOW, _HIGH = 2, 98
"""Percentiles that bound the robust range; blocks beyond them do not count in the fit."""
_LEAST_SUPPORT = 0.05
"""Cells of which less was found get less of a field, down to none."""
_HALF = 0.5
"""Share of a block that must be found for it to count in the fit."""
_LEAST_BLOCKS = 8
_LEAST_CORRELATION = 0.5
"""Maps that agree less along the motion show different things: a flash, or a frame that is broken."""
_ROUNDS = 5
_OUTLIER = 2.5
"""Blocks count in the next round if they are within this many robust standard deviations: objects that move towards the
camera, and what the model sees differently, do not."""
_LARGE = 1e30
"""Values up to this stay finite in float32 under every correction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Correction:
    """What is done to one map: `scale · value + shift + field` in disparity; depth kinds are divided by `scale`.

    Attributes:
        field: a float32 grid that is enlarged smoothly to the size of the map; None for none.
    """

    scale: float = 1.0
    shift: float = 0.0
    field: _Floats | None = None

    @property
    def is_none(self) -> bool:
        """It changes nothing."""
        return self.scale == 1 and self.shift == 0 and self.field is None

    def apply(self, depth: Depth) -> DepthMap:
        """The corrected values, float32 H×W; without an answer where there was none."""
        if depth.kind.is_disparity:
            return self.of_disparity(depth.values)
        return depth.values * np.float32(1 / self.scale)

    def of_disparity(self, values: DepthMap) -> DepthMap:
        """The corrected disparity, float32 H×W."""
        corrected: DepthMap = values * np.float32(self.scale)
        corrected += np.float32(self.shift)
        if self.field is not None:
            height, width = values.shape
            corrected += cv2.resize(self.field, (width, height), interpolation=cv2.INTER_CUBIC)
        return corrected


@dataclass(frozen=True, kw_only=True, eq=False)
class _Small:
    """A map as disparity at the flow's size, NaN where there is no answer, and its robust range."""

    values: _Floats
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def extent(self) -> float:
        return self.high - self.low


class Aligner:
    """Corrects the maps of one model, frame by frame, in order.

    Args:
        adjust: False only measures.

    Attributes:
        change_before, change_after: the `change` of the last map from the one before, as the model computed both, and
            as both were corrected; None if it was not measured.
    """

    def __init__(self, *, adjust: bool = True) -> None:
        self._adjust = adjust
        self.change_before: float | None = None
        self.change_after: float | None = None
        self._raw: _Small | None = None
        self._steadied: _Small | None = None
        self._log_scale = self._shift = 0.0  # of the middle, in robust ranges

    def restart(self) -> None:
        """Forget the maps so far: the next one stays as it is."""
        self._raw = self._steadied = None
        self._log_scale = self._shift = 0.0

    def correct(self, depth: Depth, size_hw: tuple[int, int], motion: Motion | None, step_s: float) -> Correction:
        """The correction of a map.

        Args:
            depth: of any size.
            size_hw: the flow's size.
            motion: from the frame of the map before to that of this one; None if it is unknown: the correction stays.
            step_s: seconds between these frames.
        """
        self.change_before = self.change_after = None
        raw = _reduced(depth, size_hw)
        if raw is None or _largest(depth) > _LARGE:
            self.restart()
            return Correction()
        before, steadied_before = self._raw, self._steadied
        if self._adjust and motion is not None and steadied_before is not None:
            blocks = _Blocks.of(raw, along(steadied_before.values, motion))
            field = None
            if blocks is not None:
                self._follow(raw, blocks, depth.kind)
                # From the correction that fits: a field that made up for the leak would end it.
                field = _field(raw, blocks, self._correction(raw, depth.kind), step_s)
            self._leak(step_s)
            correction = self._correction(raw, depth.kind)
            if depth.kind.is_disparity:
                correction = replace(correction, field=field)
        else:
            correction = self._correction(raw, depth.kind)
        steadied = _moved(raw, correction)
        if motion is not None and before is not None and steadied_before is not None:
            self.change_before = _change(raw, before, motion)
            self.change_after = _change(steadied, steadied_before, motion)
        self._raw, self._steadied = raw, steadied
        return correction

    def held(self, depth: Depth, size_hw: tuple[int, int]) -> Correction:
        """The last correction, for a map that shows nothing of the scene; it is not compared with others."""
        self.change_before = self.change_after = None
        raw = _reduced(depth, size_hw)
        return Correction() if raw is None or _largest(depth) > _LARGE else self._correction(raw, depth.kind)

    def _follow(self, raw: _Small, blocks: "_Blocks", kind: DepthKind) -> None:
        """Bring the correction to the one that fits, within its limits."""
        fitted = _fit(raw, blocks, scale_only=not kind.is_disparity)
        if fitted is None:
            return
        log_scale, shift = fitted
        most = math.log(MOST_STEP_SCALE)
        log_scale = _within(log_scale, self._log_scale - most, self._log_scale + most)
        shift = _within(shift, self._shift - MOST_STEP_SHIFT, self._shift + MOST_STEP_SHIFT)
        most = math.log(MOST_SCALE[kind])
        self._log_scale, self._shift = _within(log_scale, -most, most), _within(shift, -MOST_SHIFT, MOST_SHIFT)

    def _leak(self, step_s: float) -> None:
        """Let the correction return a little towards none."""
        keep = math.exp(-step_s / LEAK_S)
        self._log_scale, self._shift = keep * self._log_scale, keep * self._shift

    def _correction(self, raw: _Small, kind: DepthKind) -> Correction:
        if not self._log_scale and not self._shift:
            return Correction()
        scale = math.exp(self._log_scale)
        if not kind.is_disparity:
            return Correction(scale=scale)
        return Correction(scale=scale, shift=raw.middle * (1 - scale) + self._shift * raw.extent)


def along(values: _Floats, motion: Motion) -> _Floats:
    """The values of the map before at the places where this frame's pixels were; NaN where they were not found."""
    moved = cv2.remap(values, motion.x, motion.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    moved[~motion.is_found] = np.nan
    return np.asarray(moved, np.float32)


def change(now: Depth, before: Depth, motion: Motion) -> float | None:
    """The change of disparity from one map to the next along the motion of the picture.

    The mean of |now − before| over the pixels that were found, in shares of the maps' robust range (the mean of both),
    so that models with different units compare. Depth kinds are taken as 1/z.

    Returns:
        None if too few pixels were found, or the maps are constant.
    """
    size_hw = motion.x.shape[0], motion.x.shape[1]
    pair = _reduced(now, size_hw), _reduced(before, size_hw)
    return None if pair[0] is None or pair[1] is None else _change(pair[0], pair[1], motion)


def _change(now: _Small, before: _Small, motion: Motion) -> float | None:
    extent = (now.extent + before.extent) / 2
    if extent <= 0 or motion.share_found < LEAST_FOUND:
        return None
    apart = np.abs(now.values - along(before.values, motion))
    known = apart[np.isfinite(apart)]
    return float(known.mean() / extent) if len(known) >= LEAST_FOUND * apart.size else None


def _moved(raw: _Small, correction: Correction) -> _Small:
    """`raw` after the correction; where depths are divided by the scale, disparities are multiplied."""
    scale, shift = correction.scale, correction.shift
    values = correction.of_disparity(raw.values)
    return _Small(values=values, low=scale * raw.low + shift, high=scale * raw.high + shift)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Blocks:
    """Means over blocks: float32 grids.

    Attributes:
        raw: of the map, over the pixels that were found in the frame before.
        aligned: of the steadied map before, over the same pixels.
        support: share of the pixels that were found.
    """

    raw: _Floats
    aligned: _Floats
    support: _Floats

    @classmethod
    def of(cls, raw: _Small, aligned: _Floats) -> "_Blocks | None":
        """None if too little was found."""
        found = np.isfinite(aligned) & np.isfinite(raw.values)
        if np.count_nonzero(found) < LEAST_FOUND * found.size:
            return None
        height, width = found.shape
        grid_wh = -(-width // _BLOCK), -(-height // _BLOCK)
        zero = np.float32(0)
        x, y, support = (
            np.asarray(cv2.resize(each, grid_wh, interpolation=cv2.INTER_AREA), np.float32)
            for each in (np.where(found, raw.values, zero), np.where(found, aligned, zero), found.astype(np.float32))
        )
        share: _Floats = np.maximum(support, np.float32(1e-6))
        return cls(raw=np.divide(x, share), aligned=np.divide(y, share), support=support)


def _field(raw: _Small, blocks: _Blocks, correction: Correction, step_s: float) -> _Floats | None:
    """What is left between the corrected map and the one before: a mean over each cell and its neighbours."""
    if raw.extent <= 0:
        return None
    left = blocks.aligned - correction.of_disparity(blocks.raw)
    middle = float(np.median(np.abs(left[blocks.support > _HALF])))
    counts = np.where(np.abs(left) <= _OUTLIER * 1.4826 * middle, blocks.support, np.float32(0))
    height, width = left.shape
    cells_wh = -(-width // _CELL), -(-height // _CELL)
    total, support = (
        cv2.GaussianBlur(cv2.resize(each, cells_wh, interpolation=cv2.INTER_AREA), (3, 3), 0)
        for each in (left * counts, counts)
    )
    most = MOST_FIELD * raw.extent
    field = np.clip(total / np.maximum(support, _LEAST_SUPPORT), -most, most)
    return np.asarray(field * np.float32(math.exp(-step_s / FIELD_LEAK_S)), np.float32)


def _reduced(depth: Depth, size_hw: tuple[int, int]) -> _Small | None:
    """A map as disparity at the flow's size; None if it is constant or has no answers there."""
    height, width = size_hw
    # Averages over a pixel with NaN are NaN; a map with a mask is sampled instead.
    how = cv2.INTER_AREA if depth.valid is None else cv2.INTER_NEAREST
    values = np.array(cv2.resize(depth.values, (width, height), interpolation=how), np.float32)
    if not depth.kind.is_disparity:
        values[~(values > 1 / _LARGE)] = np.nan
        np.reciprocal(values, out=values)
    known = values[np.isfinite(values)]
    if len(known) < LEAST_FOUND * values.size:
        return None
    low, high = _percentiles(known)
    return _Small(values=values, low=low, high=high)


def _percentiles(known: _Floats) -> tuple[float, float]:
    """The ends of the robust range."""
    at = [int(share / 100 * (len(known) - 1)) for share in (_LOW, _HIGH)]
    ordered = np.partition(known, at)
    return float(ordered[at[0]]), float(ordered[at[1]])


def _largest(depth: Depth) -> float:
    mask = None if depth.valid is None else depth.valid.astype(np.uint8)
    lo, hi, _, _ = cv2.minMaxLoc(depth.values, mask)
    return max(abs(lo), abs(hi))


def _fit(raw: _Small, blocks: _Blocks, *, scale_only: bool) -> tuple[float, float] | None:
    """The correction that brings a map onto the one before: the logarithm of its scale, and its shift of the middle.

    Least squares would make every scale too small by the noise of the map, and the error of each frame would add to
    that of the one before until the map collapses. The ratio of the two maps' spreads has no such bias.
    """
    counts = (blocks.support > _HALF) & (blocks.raw >= raw.low) & (blocks.raw <= raw.high)
    x, y = blocks.raw[counts].astype(np.float64), blocks.aligned[counts].astype(np.float64)
    if raw.extent <= 0 or len(x) < _LEAST_BLOCKS or x.std() <= 0 or y.std() <= 0:
        return None
    if np.corrcoef(x, y)[0, 1] < _LEAST_CORRELATION:
        return None
    if scale_only:
        both = (x > 0) & (y > 0)
        return (float(np.median(np.log(y[both] / x[both]))), 0.0) if both.any() else None
    kept = np.ones(len(x), bool)
    scale = shift = 0.0
    for _ in range(_ROUNDS):
        spread = x[kept].std()
        if spread <= 0 or np.count_nonzero(kept) < _LEAST_BLOCKS:
            return None
        scale = float(y[kept].std() / spread)
        shift = float(y[kept].mean() - scale * x[kept].mean())
        apart = np.abs(y - scale * x - shift)
        limit = _OUTLIER * 1.4826 * float(np.median(apart))
        if scale <= 0:
            return None
        if limit <= 0:
            break
        kept = apart <= limit
    return math.log(scale), (scale * raw.middle + shift - raw.middle) / raw.extent


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
