"""The contract of every sink.

Life cycle: `open`, any number of `write`, then exactly one of `finish`, `keep_partial` or `abort`, all on one thread.
Invariant: nothing exists under a final name before `finish` has succeeded, and results written before a failure stay
usable as `NAME.partial.EXT`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stream.frames import Depth, Frame, RgbImage, SourceInfo


@dataclass(frozen=True, kw_only=True)
class Unwritten:
    """A result that one sink could not write although it can write others.

    Attributes:
        index: of the frame.
        name: of the input.
    """

    index: int
    name: str
    reason: str


class Sink(ABC):
    """Takes results in order, on one thread. Every method raises `SinkError` on failure.

    Attributes:
        needs_image: `write` uses the rendered image; if no sink does, the pipeline renders none.
        wants_stop: the user asked this sink to end the run, for example by closing its window.
        stopping: whether the run was asked to stop; set by the pipeline, for a sink that waits for a reader.
        notes: messages to report once; may grow while running.
        unwritten: results that were skipped, complete after `finish`; makes the exit code 3.
        warnings: what is wrong with an output, each reported once; makes the exit code 3.
    """

    needs_image: bool = True
    wants_stop: bool = False
    stopping: Callable[[], bool] = staticmethod(lambda: False)
    notes: Sequence[str] = ()
    unwritten: Sequence[Unwritten] = ()
    warnings: Sequence[str] = ()

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

    @property
    def counters(self) -> Mapping[str, int]:
        """Further numbers for the report, by name; complete after `finish`."""
        return {}

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
