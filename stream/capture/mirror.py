"""A source seen in a mirror, as people expect to see themselves.

Invariant: only the pictures change; everything that follows, saved depth included, belongs to the mirrored picture.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stream.capture.base import CaptureLog, Source
from stream.frames import Frame, SourceInfo
from stream.media import cv2


class MirroredSource:
    """`source` with left and right exchanged; closed and interrupted with it."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def info(self) -> SourceInfo:
        """See `Source`."""
        return self._source.info

    @property
    def log(self) -> CaptureLog:
        """See `Source`."""
        return self._source.log

    @property
    def silence_limit_s(self) -> float | None:
        """See `CameraSource`."""
        return getattr(self._source, "silence_limit_s", None)

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
