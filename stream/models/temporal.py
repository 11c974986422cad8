"""What networks that see several frames of a clip at once can do beyond `forward`, which takes each frame alone.

Invariant: a network keeps nothing between calls. What it must know of earlier frames is a value that the caller owns,
passes in and gets back, so that each source has its own and dropping it starts anew.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

WINDOW = 32
"""Frames that Video-Depth-Anything's temporal layers see at most; its position table has as many rows."""

Features = tuple[Tensor, ...]
"""What a network computes of one frame before it looks at others: one value may stand at several places of a window,
and in several windows. It owns its memory."""


class Run(Protocol):
    """How a network has a part of its work done that depends on tensors alone."""

    def __call__(self, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        """`function(*inputs)`, in memory of its own. Functions are told apart by `==`."""
        ...


def directly(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
    """The plain `Run`."""
    return function(*inputs)


class Past(Protocol):
    """What a network keeps of earlier frames of one clip, all of one size. It does not change: `step` makes another
    one, which shares the tensors of the frames that it still needs."""

    @property
    def frames(self) -> int:
        """How many frames it has seen."""
        ...

    @property
    def bytes(self) -> int:
        """Memory that it takes on the device."""
        ...


class TemporalNetwork(Protocol):
    """A network with `ModelSpec.is_temporal`. The methods run under `torch.inference_mode` and in eval mode."""

    def features(self, x: Tensor, run: Run = directly) -> list[Features]:
        """N×3×h×w → the features of each frame alone. Most of the work of a window."""
        ...

    def window(self, frames: Sequence[Features], *, count: int | None = None) -> Tensor:
        """Maps of frames of one clip, T ≤ `WINDOW` of one size in order; each map depends on all of the frames.

        Args:
            count: the maps of so many first frames are wanted; None for all.

        Returns:
            `count`×h×w.
        """
        ...

    def step(self, x: Tensor, past: Past | None, run: Run = directly) -> tuple[Tensor, Past]:
        """The next frame of a clip, 1×3×h×w, and what is known of the earlier ones (None for the first) → its map
        1×h×w, and what is known now."""
        ...

    def feature_bytes(self, size_hw: tuple[int, int]) -> int:
        """Memory of the `Features` of one frame with a network input of this size."""
        ...

    def past_bytes(self, size_hw: tuple[int, int]) -> int:
        """Memory of a `Past` that grows no more."""
        ...
