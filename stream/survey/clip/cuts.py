"""Cuts: whether depth changes with the picture, or keeps something of the old scene for some frames.

After a cut, each map is taken as a mixture of the last map of the old scene and of a map of the new one some frames
later, at points that are followed along the optical flow. What a model with a memory mixes in by a share is found as
that share.
Invariant: memory does not grow with the length of a clip, but for a few numbers for each cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.frames import DepthMap
from stream.motion.flow import LEAST_FOUND, Motion
from stream.survey.clip.points import Points

WATCHED = 6
"""Frames after a cut, the first of the new scene included; the last of them stands for the new scene. On 30 cuts
between pans over photographs, `starter`, which has no memory, seems to keep 0.02 (1 of 320 pixels a frame) and 0.05 (3
pixels); with 12 frames, 0.03 and 0.11."""
_LEAST = 3
_SPACING_PX = 4
LATE = 0.5
"""A frame is late if this share of its depth is of the old scene: it has not jumped yet."""
_MOST_ALIKE = 0.95
"""Two scenes whose depths correlate more than this cannot be told apart."""

_Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What depth did at a cut.

    Attributes:
        frame, time_s: the first of the new scene.
        leftover: by model, the share of the old scene in the depth of that frame, 0 to 1; None if it is unknown.
        late: by model, how many frames after the cut hold a share of `LATE` or more.
    """

    frame: int
    time_s: float
    leftover: tuple[float | None, ...]
    late: tuple[int | None, ...]


class CutMeter:
    """Measures cuts, frame by frame, in order.

    Attributes:
        cuts: those whose new scene has been watched, in order.
    """

    def __init__(self) -> None:
        self.cuts: list[Cut] = []
        self._last: Sequence[DepthMap] | None = None
        self._open: _Watched | None = None

    def add(self, frame: int, time_s: float, maps: Sequence[DepthMap], onward: Motion | None, *, is_cut: bool) -> None:
        """Take the next frame.

        Args:
            maps: the disparities of each model at the flow's size; NaN where there is no answer.
            onward: where the pixels of the frame before are in this one; None if that is unknown.
            is_cut: it is the first of a new scene.
        """
        last, self._last = self._last, maps
        if is_cut or onward is None:
            self.end()
        if is_cut and last is not None and last[0].shape == maps[0].shape:
            self._open = _Watched(frame, time_s, last)
        elif self._open is not None and onward is not None:
            self._open.points.follow(onward)
        if self._open is not None:
            self._open.measure(maps)
            if len(self._open.seen) == WATCHED:
                self.end()

    def end(self) -> None:
        """The new scene or the clip has ended."""
        if self._open is not None and (found := self._open.result()) is not None:
            self.cuts.append(found)
        self._open = None


class _Watched:
    """The first frames of a new scene at points that are followed, so that what moves is compared with itself."""

    def __init__(self, frame: int, time_s: float, old: Sequence[DepthMap]) -> None:
        self._frame, self._time_s, self._old = frame, time_s, old
        self.points = Points(old[0].shape, _SPACING_PX)
        self.seen: list[_Doubles] = []
        """Of each frame: the old map where the points are now, and the new one there: model × 2 × point."""

    def measure(self, maps: Sequence[DepthMap]) -> None:
        pairs = [[self.points.values(x) for x in both] for both in zip(self._old, maps, strict=True)]
        self.seen.append(np.array(pairs, np.float64))

    def result(self) -> Cut | None:
        """None if too few frames were seen."""
        if len(self.seen) < _LEAST:
            return None
        shares = [self._shares(model) for model in range(len(self._old))]
        return Cut(
            frame=self._frame,
            time_s=self._time_s,
            leftover=tuple(None if one is None else one[0] for one in shares),
            late=tuple(None if one is None else sum(share >= LATE for share in one) for one in shares),
        )

    def _shares(self, model: int) -> list[float] | None:
        """The share of the old scene in each map but the last; None if the two scenes' depths are alike or constant."""
        seen = np.stack([one[model] for one in self.seen])
        kept = self.points.is_found & np.isfinite(seen).all(axis=(0, 1))
        if kept.mean() < LEAST_FOUND:
            return None
        *before, (_, new) = seen[..., kept]
        shares = [_share(new, old, now) for old, now in before]
        known = [one for one in shares if one is not None]
        return known if len(known) == len(shares) else None


def _share(new: _Doubles, old: _Doubles, now: _Doubles) -> float | None:
    """How much of `old` is in `now`, as a mixture of both by least squares; None if they cannot be told apart."""
    if min(old.std(), new.std()) <= 0 or abs(float(np.corrcoef(old, new)[0, 1])) > _MOST_ALIKE:
        return None
    both = np.stack([new - new.mean(), old - old.mean()], axis=1)
    of_new, of_old = (max(float(part), 0.0) for part in np.linalg.lstsq(both, now - now.mean(), rcond=None)[0])
    return of_old / (of_old + of_new) if of_old + of_new > 0 else 0.0
