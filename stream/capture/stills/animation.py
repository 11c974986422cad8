"""Animated WebP, PNG and AVIF as a video source, through Pillow because FFmpeg cannot read animated WebP.

Invariant: every frame keeps the display time that its file states, in milliseconds.
"""

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

from stream.capture.base import CaptureLog, Source
from stream.capture.limits import Limits
from stream.capture.stills.picture import Picture, open_picture
from stream.errors import SourceError
from stream.frames import Frame, SourceInfo, SourceKind

FORMATS = frozenset(("WEBP", "PNG", "AVIF"))
_MILLISECOND = Fraction(1, 1000)


class AnimatedSource(Source):
    """Yields the frames of an animated image once, regardless of its loop count.

    Args:
        path: the file.
        start_s, end_s: deliver frames with `start_s` ≤ time < `end_s`; their pts still count from the file's start.
        max_frames: stop after this many.
        limits: larger images are refused.
        clock: monotonic seconds.

    Raises:
        SourceError: the file cannot be read, or its first frame cannot be decoded.
    """

    def __init__(
        self,
        path: Path,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        max_frames: int | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._max_frames, self._clock = path, max_frames, clock
        self._start_s, self._end_s = start_s or 0.0, end_s
        self._stop = threading.Event()
        self._picture: Picture | None = open_picture(path, limits=limits)
        self._log = CaptureLog()
        try:
            first_ms = self._picture.decode_frame(self._picture.first_frame).duration_ms
        except SourceError:
            self.close()
            raise
        self.info = SourceInfo(
            name=str(path),
            size=self._picture.size_hw,
            is_live=False,
            time_base=_MILLISECOND,
            rate=Fraction(1000, first_ms),
            frame_count=self._picture.frame_count - self._picture.first_frame,
            kind=SourceKind.VIDEO,
            files=(path,),
            start_s=start_s,
            end_s=end_s,
        )

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; a damaged frame ends the animation with a warning, since later frames build on it.

        Raises:
            SourceError: no frame lies between `start_s` and `end_s`, or none can be decoded.
        """
        picture = self._picture
        if picture is None:
            return
        pts, delivered = 0, 0
        for number in range(picture.first_frame, picture.frame_count):
            if self._stop.is_set() or delivered == self._max_frames:
                return
            if self._end_s is not None and pts >= self._end_s * 1000:
                break
            try:
                decoded = picture.decode_frame(number)
            except SourceError as error:
                if not delivered:
                    raise
                self.log.warnings.append(f"frames from {number} on of {picture.frame_count} are lost: {error.what}")
                return
            self.log.notes += [note for note in decoded.notes if note not in self.log.notes]
            if pts >= self._start_s * 1000:
                yield Frame(
                    index=delivered,
                    pts=pts,
                    time_base=_MILLISECOND,
                    captured_at=self._clock(),
                    rgb=decoded.rgb,
                    duration=decoded.duration_ms,
                    intrinsics=decoded.intrinsics,
                )
                delivered += 1
            pts += decoded.duration_ms
        if not delivered:
            what = f"no frame lies between --start and --end; the animation lasts {pts / 1000:g} s"
            raise SourceError(what, where=str(self._path))

    def interrupt(self) -> None:
        """End the iteration before the next frame."""
        self._stop.set()

    def close(self) -> None:
        """Release the file; idempotent."""
        self._stop.set()
        if self._picture is not None:
            self._picture.close()
            self._picture = None
