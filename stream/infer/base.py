"""The contract of every inference stage of the pipeline.

Invariant: results come out in the order of the frames.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stream.channel import Channel
from stream.frames import Frame, Result


@dataclass(frozen=True, kw_only=True)
class DepthChange:
    """How much depth changes from one frame to the next along the motion of the picture.

    Attributes:
        raw: mean change of disparity over the pairs of frames, in shares of the maps' robust range (2nd to 98th
            percentile), as the model computes them.
        steadied: the same after `--steady`; None without it.
        pairs: frames that were compared with the one before; the first of a scene is not.
    """

    raw: float
    steadied: float | None
    pairs: int


class Inference(ABC):
    """Turns a channel of frames into results."""

    @property
    def quality_changes(self) -> int:
        """How often the model or its inference size was changed to keep up with `--target-fps`."""
        return 0

    @property
    def depth_changes(self) -> tuple[DepthChange | None, ...]:
        """How steady the values of each model were; empty where nothing measures it, None where no pair was found."""
        return ()

    @property
    def inferred(self) -> int | None:
        """Frames that have gone through the model so far; None if that is the number of results."""
        return None

    @property
    def waiting(self) -> str:
        """What the first result waits for ("first window: 12 of 32 frames"); "" once it is there."""
        return ""

    @property
    def holds(self) -> int:
        """Frames that it must hold at once before it can give a result."""
        return 0

    def kept_bytes(self, size_hw: tuple[int, int]) -> int:  # noqa: ARG002 - most inferences keep nothing
        """Host memory for what it keeps of frames of `size_hw` beside the frames themselves."""
        return 0

    @abstractmethod
    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """Yield a result for each frame until the channel ends.

        Args:
            on_skip: called with a frame that the model cannot take, and the reason.

        Raises:
            ModelError: the model failed.
            BaseException: the error that the channel was aborted with.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the model; idempotent."""


class Wrapped(Inference):
    """Stands before another inference, whose facts are its own; what it adds is in `stream`.

    Args:
        inference: closed with this one.
    """

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    @property
    def quality_changes(self) -> int:
        """See `Inference`."""
        return self._inference.quality_changes

    @property
    def depth_changes(self) -> tuple[DepthChange | None, ...]:
        """See `Inference`."""
        return self._inference.depth_changes

    @property
    def inferred(self) -> int | None:
        """See `Inference`."""
        return self._inference.inferred

    @property
    def waiting(self) -> str:
        """See `Inference`."""
        return self._inference.waiting

    @property
    def holds(self) -> int:
        """See `Inference`."""
        return self._inference.holds

    def kept_bytes(self, size_hw: tuple[int, int]) -> int:
        """See `Inference`."""
        return self._inference.kept_bytes(size_hw)

    def close(self) -> None:
        """Release the model."""
        self._inference.close()
