"""The contract of every inference stage of the pipeline.

Invariant: results come out in the order of the frames.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from stream.channel import Channel
from stream.frames import Frame, Result


class Inference(ABC):
    """Turns a channel of frames into results."""

    @property
    def quality_changes(self) -> int:
        """How often the model or its inference size was changed to keep up with `--target-fps`."""
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
