"""What every inference stage offers to the pipeline."""

from collections.abc import Callable, Iterator
from typing import Protocol

from stream.channel import Channel
from stream.frames import Frame, Result


class Inference(Protocol):
    """Turns a channel of frames into results in the same order; `close` releases the model and is idempotent."""

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]: ...

    def close(self) -> None: ...
