"""The contract of every sink.

Life cycle: `open`, any number of `write`, then exactly one of `finish`, `keep_partial` or `abort`, all on one thread.
Invariant: nothing exists under a final name before `finish` has succeeded, and results written before a failure stay
usable as `NAME.partial.EXT`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from stream.frames import Depth, Frame, RgbImage, SourceInfo


class Sink(ABC):
    """Takes results in order, on one thread. Every method raises `SinkError` on failure.

    Attributes:
        needs_image: `write` uses the rendered image; if no sink does, the pipeline renders none.
        wants_stop: the user asked this sink to end the run, for example by closing its window.
        notes: messages to report once; may grow while running.
    """

    needs_image: bool = True
    wants_stop: bool = False
    notes: Sequence[str] = ()

    @property
    @abstractmethod
    def is_lossless(self) -> bool:
        """True if every written frame is kept (files); False for previews, which may skip."""

    @property
    @abstractmethod
    def outputs(self) -> list[str]:
        """Final paths (or a window's name), for the report; a folder appears once."""

    @property
    def scene_cuts(self) -> int:
        """Scene cuts seen by the sink's own renderer; 0 for a sink without one."""
        return 0

    @abstractmethod
    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Prepare for images of `size` = (height, width). Raises `OutputError` if nothing can be written."""

    @abstractmethod
    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Take one result.

        Args:
            image: the rendered uint8 H×W×3; the frame's own pixels if no sink needs an image.

        Returns:
            False if it was skipped (previews only).
        """

    def poll(self) -> None:  # noqa: B027 - most sinks have no events
        """Process events such as keys; never blocks. The pipeline calls it once after each `write`, and about twenty
        times a second while no result arrives."""

    @abstractmethod
    def finish(self) -> None:
        """Flush and move into place."""

    @abstractmethod
    def keep_partial(self, reason: str) -> None:
        """Close what was written so that it can be used, under NAME.partial.EXT."""

    @abstractmethod
    def abort(self, error: BaseException) -> None:
        """Leave nothing behind: nothing was written."""
