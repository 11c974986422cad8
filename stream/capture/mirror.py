"""A source with left and right exchanged, as people expect to see themselves.

Invariant: only the pixels change. What is computed from a frame, saved depth included, belongs to the mirrored image.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stream.capture.base import CaptureLog, Source
from stream.frames import Frame
from stream.media import cv2


class MirroredSource(Source):
    """Mirrors the frames of `source`; interrupts and closes it."""

    def __init__(self, source: Source) -> None:
        self._source, self.info = source, source.info

    @property
    def log(self) -> CaptureLog:
        """See `Source`."""
        return self._source.log

    @property
    def silence_limit_s(self) -> float | None:
        """See `Source`."""
        return self._source.silence_limit_s

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        for frame in self._source:
            yield replace(frame, rgb=np.asarray(cv2.flip(frame.rgb, 1), np.uint8))

    def interrupt(self) -> None:
        """See `Source`."""
        self._source.interrupt()

    def close(self) -> None:
        """See `Source`."""
        self._source.close()
