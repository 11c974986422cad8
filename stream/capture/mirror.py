"""A source with left and right exchanged, as people expect to see themselves.

Invariant: only the pixels change, and where the camera's centre lies among them. What is computed from a frame, saved
depth included, belongs to the mirrored image.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stream.capture.base import WrappedSource
from stream.frames import Frame
from stream.media import cv2


class MirroredSource(WrappedSource):
    """Mirrors the frames of `source`."""

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        for frame in self._source:
            camera = frame.intrinsics
            if camera is not None:
                camera = replace(camera, cx=frame.size[1] - camera.cx)
            yield replace(frame, rgb=np.asarray(cv2.flip(frame.rgb, 1), np.uint8), intrinsics=camera)
