"""Joins the maps of overlapping windows of a clip into one sequence on one scale, as Video-Depth-Anything's authors do.

Windows of `WINDOW` frames begin `STEP` frames apart. Each window after the first is given frames of the one before
again, at its places 0 (the first frame of the clip, always) and 1 (the frame at the window before's place `KEY`), so
that its scale can be fitted to the maps that these frames have already. Where the two overlap, the maps are blended.
Chen et al. 2025, arXiv:2501.12375; the constants are those of the authors' code.
Invariant: what is kept from window to window are maps of the network's size, however large the frames are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stream.models.resize import to_frame_size
from stream.models.spec import Resample
from stream.models.temporal import WINDOW

STEP = 22
"""Frames from the start of a window to the start of the next one."""
OVERLAP = WINDOW - STEP
"""Places of a window after the first that hold frames of the window before."""
KEY = 12
"""Place of the frame that stands at place 1 of the next window."""
BLENDED = 8
"""Frames that are blended from one window into the next: the last of one, and places 2 to 9 of the next."""

_ROUNDING = 8 * torch.finfo(torch.float32).eps
"""Values that differ by no more than this share of the largest are one value, which upsampling has rounded."""


def carried() -> list[int]:
    """Places of a window whose frames stand at the places 0 to `OVERLAP` − 1 of the next one."""
    return [0, KEY, *range(WINDOW - BLENDED, WINDOW)]


@dataclass(frozen=True)
class Part:
    """A map of a window on the scale of the clip: `max(scale · map + shift, 0)`.

    Attributes:
        map: h×w, as the network gives it.
        scale, shift: 0-D on the device; None for the first window, whose maps stay as they are.
        weight: its share of the sum.
    """

    map: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    weight: float = 1.0

    def at(self, size_hw: tuple[int, int] | None, upsample: Resample) -> Tensor:
        """Float32 H×W at the size of the frame, or of the network for None; without the weight."""
        values = self.map.float() if size_hw is None else to_frame_size(self.map, size_hw, upsample)
        if self.scale is None or self.shift is None:
            return values
        return (values * self.scale + self.shift).clamp_(min=0)


@dataclass(frozen=True)
class Joined:
    """The map of a frame, of one window or blended from two."""

    parts: tuple[Part, ...]

    def at(self, size_hw: tuple[int, int] | None, upsample: Resample) -> Tensor:
        """See `Part.at`."""
        if len(self.parts) == 1:
            return self.parts[0].at(size_hw, upsample)
        old, new = self.parts
        return old.at(size_hw, upsample).mul_(old.weight).add_(new.at(size_hw, upsample), alpha=new.weight)


class Joiner:
    """Joins the windows of one clip, in order.

    Args:
        size_hw: (height, width) of the frames: the authors fit the scale at this size.
        upsample: how maps are brought to it.
        fits: False for metres, whose windows are on one scale already.
    """

    def __init__(self, size_hw: tuple[int, int], upsample: Resample, *, fits: bool) -> None:
        self._size_hw, self._upsample, self._fits = size_hw, upsample, fits
        self._references: tuple[Part, Part] | None = None
        """The maps of the frames that the next window has at its places 0 and 1."""
        self._tail: list[Part] = []
        """The last maps, which the next window is blended into."""

    def join(self, maps: Sequence[Tensor], *, is_last: bool) -> list[Joined]:
        """The frames that are final once this window is known: they continue those of the last call.

        Args:
            maps: `WINDOW` maps h×w; fewer if the clip ends before.
            is_last: no window follows, so that all its frames are final.
        """
        if self._references is None:
            parts, start = [Part(one) for one in maps], 0
            final, first = [Joined((one,)) for one in parts], parts[0]
        else:
            scale, shift = self._fitted(maps)
            parts, start = [Part(one, scale, shift) for one in maps], OVERLAP - BLENDED
            pairs = zip(self._tail, parts[start:OVERLAP], strict=False)  # the last window may be shorter
            final = [_blended(*pair, number / (BLENDED - 1)) for number, pair in enumerate(pairs)]
            final += [Joined((one,)) for one in parts[OVERLAP:]]
            first = self._references[0]
        if is_last:
            return final
        self._references, self._tail = (first, parts[KEY]), parts[WINDOW - BLENDED :]
        return final[: WINDOW - BLENDED - start]

    def _fitted(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scale and shift for the maps of a window: least squares; 1 and 0 for a map of one value."""
        one, nothing = maps[0].new_ones((), dtype=torch.float32), maps[0].new_zeros((), dtype=torch.float32)
        if not self._fits or self._references is None:
            return one, nothing
        x = torch.stack([to_frame_size(one, self._size_hw, self._upsample) for one in maps[:2]])
        y = torch.stack([one.at(self._size_hw, self._upsample) for one in self._references])
        x_mean, x_off = _centred(x)
        y_mean, y_off = _centred(y)
        is_flat = x_off.abs().amax() <= _ROUNDING * x.abs().amax()
        scale = (x_off * y_off).sum() / torch.where(is_flat, one, (x_off * x_off).sum())
        return torch.where(is_flat, one, scale), torch.where(is_flat, nothing, y_mean - scale * x_mean)


def _centred(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and the differences from it: exactly 0 where all values are the same.

    Sums of squares in float32 lose all digits where the mean is large against the spread: in a scene that is far away.
    """
    first = values.reshape(-1)[0]
    apart = values - first
    mean = apart.mean()
    return first + mean, apart - mean


def _blended(old: Part, new: Part, weight: float) -> Joined:
    """From the map of one window to that of the next; `weight` of the new one."""
    if weight in (0, 1):
        return Joined((new if weight else old,))
    return Joined((replace(old, weight=1 - weight), replace(new, weight=weight)))
