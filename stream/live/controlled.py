"""What the live views have in common whose images are made by their controls, and not by the run.

Invariant: such a view ends once, for the first reason given, and its controls end with it.
"""

from abc import abstractmethod
from typing import Generic, Protocol, TypeVar

from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.sinks.base import Sink


class Controls(Protocol):
    """Makes the images of a view; see `stream.live.preview.Preview`."""

    @property
    def scene_cuts(self) -> int: ...
    def open(self, info: SourceInfo) -> None: ...
    def show(self, frame: Frame, depth: Depth) -> RgbImage | None: ...
    def refresh(self) -> RgbImage | None: ...
    def close(self) -> None: ...


C = TypeVar("C", bound=Controls)


class ControlledSink(Sink, Generic[C]):
    """Shows one source as its controls draw it.

    Args:
        controls: makes the images, and receives what viewers ask for.
    """

    needs_image = False

    def __init__(self, controls: C) -> None:
        self._controls = controls

    @property
    def is_lossless(self) -> bool:
        """False: a view may skip."""
        return False

    @property
    def outputs(self) -> list[str]:
        """None: the view is part of one that is the run's."""
        return []

    @property
    def scene_cuts(self) -> int:
        """Scene cuts that the controls' renderer has seen."""
        return self._controls.scene_cuts

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:  # noqa: ARG002 - the controls have another
        """Prepare the controls."""
        self._controls.open(info)

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:  # noqa: ARG002 - the controls render
        """Show the image; False if it is frozen."""
        shown = self._controls.show(frame, depth)
        if shown is not None:
            self._show(shown)
        return shown is not None

    def finish(self) -> None:
        """Show viewers that the source has ended, and complete their recording."""
        self._end("the source has ended")

    def keep_partial(self, reason: str) -> None:
        """Show viewers the reason."""
        self._end(reason)

    def abort(self, error: BaseException) -> None:
        """Show viewers the error."""
        self._end(str(error))

    @abstractmethod
    def _show(self, image: RgbImage) -> None:
        """Bring an image to the viewers; never waits."""

    @abstractmethod
    def _end(self, reason: str) -> None:
        """End the view and its controls, unless it has ended."""
