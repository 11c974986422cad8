"""What every sink offers.

Life cycle: `open`, any number of `write`, then exactly one of `finish`, `keep_partial` or `abort`.
Invariant: nothing exists under a final name before `finish` has succeeded, and what was written before a
failure stays usable as `NAME.partial.EXT`.
"""

from typing import Protocol

from stream.frames import Depth, Frame, RgbImage, SourceInfo


class Sink(Protocol):
    """Takes results in order, on one thread. All methods raise `SinkError` on failure."""

    @property
    def is_lossless(self) -> bool:
        """True if every written frame is kept (files); False for previews, which may skip."""
        ...

    @property
    def outputs(self) -> list[str]:
        """Final paths (or a window's name), for the report; folders are named once."""
        ...

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Prepare for images of `size` = (height, width). Raises `OutputError` where nothing can be written."""
        ...

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """Take one result; `image` is the rendered uint8 H×W×3. False if it was skipped (previews only)."""
        ...

    def finish(self) -> None:
        """Flush and move into place."""
        ...

    def keep_partial(self, reason: str) -> None:
        """Close what was written so that it can be used, under NAME.partial.EXT."""
        ...

    def abort(self, error: BaseException) -> None:
        """Nothing was written: leave nothing behind."""
        ...
