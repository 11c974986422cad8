"""A source whose width and height are multiples of a number, as encoders and video generators ask for.

Invariant: pixels are cut off at the edges, as many on either side, and never added. Depth belongs to what is left.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from stream.capture.base import Skipped, Source, WrappedSource
from stream.errors import SourceError, UsageError
from stream.frames import Frame, SourceKind
from stream.notes import note


class CroppedSource(WrappedSource):
    """Crops the frames of `source` centrally.

    Pictures that are smaller than that are skipped like unreadable ones: the first of the others decides the size, and
    a film of pictures has no gaps. So the first picture is decoded here.

    Args:
        multiple: what both sides are multiples of.
        max_frames: stop after delivering this many.

    Raises:
        UsageError: a video or the one picture is smaller than that.
        SourceError: all of several pictures are.
    """

    def __init__(self, source: Source, *, multiple: int, max_frames: int | None = None) -> None:
        super().__init__(source)
        self._multiple, self._max_frames = multiple, max_frames
        self._is_noted = False
        self._is_film = source.info.kind is SourceKind.STILLS and source.info.rate is not None
        self._frames = self._deliver()
        self._first: Frame | None = None
        height, width = self._fitted(source.info.size)
        is_one_size = source.info.kind is not SourceKind.STILLS or len(source.info.names) == 1
        if is_one_size and 0 in (height, width):
            what = f"{_size(source.info.size)} has less than {multiple} pixels on a side"
            raise UsageError(what, where=f"--multiple-of {multiple}", hint="choose a smaller number")
        if not is_one_size:
            self._first = next(self._frames, None)
            if self._first is None:
                what = f"no image has {multiple} pixels on both sides"
                raise SourceError(what, where=f"--multiple-of {multiple}", hint="choose a smaller number")
            height, width = self._first.size
        count = source.info.frame_count
        count = count if count is None or max_frames is None else min(count, max_frames)
        self.info = replace(source.info, size=(height, width), frame_count=count)

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`."""
        first, self._first = self._first, None
        if first is not None:
            yield replace(first, captured_at=time.monotonic())
        del first
        yield from self._frames

    def close(self) -> None:
        """See `Source`."""
        self._first = None
        with suppress(ValueError):  # a thread that hangs in it ends it itself
            self._frames.close()
        super().close()

    def _deliver(self) -> Generator[Frame]:
        delivered = 0
        for frame in self._source:
            height, width = self._fitted(frame.size)
            if 0 in (height, width):
                reason = f"{_size(frame.size)} has less than {self._multiple} pixels on a side"
                name = frame.name or f"frame {frame.index}"
                self.log.skipped.append(Skipped(name=name, reason=reason))
                continue
            frame = self._cropped(frame, height, width)
            yield replace(frame, pts=delivered) if self._is_film else frame
            del frame
            delivered += 1
            if delivered == self._max_frames:
                return

    def _fitted(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        height, width = size_hw
        return height - height % self._multiple, width - width % self._multiple

    def _cropped(self, frame: Frame, height: int, width: int) -> Frame:
        if (height, width) == frame.size:
            return frame
        if not self._is_noted:
            self._is_noted = True
            name = frame.name or self.info.name
            note(f"--multiple-of: {name} is cropped from {_size(frame.size)} to {_size((height, width))}")
        top, left = (frame.size[0] - height) // 2, (frame.size[1] - width) // 2
        camera = frame.intrinsics
        if camera is not None:
            camera = replace(camera, cx=camera.cx - left, cy=camera.cy - top)
        rgb = np.ascontiguousarray(frame.rgb[top : top + height, left : left + width])
        return replace(frame, rgb=rgb, intrinsics=camera)


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}×{size_hw[0]}"
