"""A depth video as a source: its frames show the depth in grey, and its numbers wait beside them.

Invariant: `depths` holds the depth of each frame that was yielded and not yet taken, in the same order.
"""

import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from stream.capture.base import CaptureLog, Source
from stream.depthdata.video import DepthVideo
from stream.errors import SourceError
from stream.frames import Depth, Frame, RgbImage, SourceInfo, SourceKind
from stream.media import cv2


class DepthVideoSource(Source):
    """Yields the frames of an open depth video, and closes it.

    Args:
        name: of the file.
        max_frames: stop after this many.
    """

    def __init__(self, video: DepthVideo, name: str, *, max_frames: int | None = None) -> None:
        self._video, self._max_frames, self._stopped = video, max_frames, False
        self._log = CaptureLog()
        self.depths: deque[tuple[Fraction, Depth]] = deque()
        self._span: tuple[float, float] | None = None
        self.info = SourceInfo(
            name=name,
            size=video.size,
            is_live=False,
            time_base=video.time_base,
            rate=video.rate,
            frame_count=min(video.frame_count, max_frames or video.frame_count),
            kind=SourceKind.VIDEO,
        )

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        base = self._video.time_base
        for count, (pts, duration, depth) in enumerate(self._timed()):
            if self._stopped or count == self._max_frames:
                return
            self.depths.append((pts * base, depth))
            yield Frame(
                index=depth.index,
                pts=pts,
                time_base=base,
                captured_at=time.monotonic(),
                rgb=self._grey(depth),
                duration=duration,
            )

    def _timed(self) -> Iterator[tuple[int, int | None, Depth]]:
        try:
            yield from self._video.timed()
        except SourceError:
            if not self._stopped:  # otherwise it was closed meanwhile
                raise

    def replayed(self) -> Iterator[tuple[Fraction, Depth]]:
        """The time and the depth of each frame, once it was yielded."""
        while self.depths:
            yield self.depths.popleft()

    def interrupt(self) -> None:
        """See `Source`."""
        self._stopped = True

    def close(self) -> None:
        """See `Source`."""
        self._stopped = True
        self._video.close()

    def _grey(self, depth: Depth) -> RgbImage:
        """The depth in grey between the ends of the first frame, for finding scene cuts."""
        if self._span is None and depth.answers.size:
            self._span = float(depth.answers.min()), float(depth.answers.max())
        lo, hi = self._span or (0.0, 1.0)
        scale = 255 / (hi - lo) if hi > lo else 0.0
        grey = np.clip((np.nan_to_num(depth.values, nan=lo) - np.float32(lo)) * np.float32(scale), 0, 255)
        return np.asarray(cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2RGB), np.uint8)
