"""Still images as a source: a small thread pool decodes ahead, frames are delivered in order.

Invariant: every image is either delivered or logged as skipped with the reason. At most `ahead` images are in memory,
fewer if they are large.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from stream.capture.base import CaptureLog, Skipped, Source
from stream.capture.stills.picture import DEFAULT_MAX_PIXELS, DecodedPicture, Picture, open_picture
from stream.errors import SourceError
from stream.frames import Frame, SourceInfo, SourceKind

_AHEAD_PIXELS = 100_000_000
"""Limit on the pixels of the images decoded ahead: 0.3 GB decoded, twice that while decoding."""
_POLL_S = 0.2
_MAX_NAMED = 5
"""Ignored files that the note names; the log counts all of them."""


@dataclass(kw_only=True)
class _Job:
    index: int
    name: str
    pixels: int
    picture: Picture | None
    result: Future[DecodedPicture]


class ImagesSource(Source):
    """Yields the images at `paths`.

    `Frame.index` and `pts` count the images attempted, so a skipped one leaves a gap. `Frame.name` is the path relative
    to `root`, with suffix, and with `/` on every system.

    Args:
        paths: files to read, in this order; unreadable ones are skipped and logged.
        name: the source as the user typed it.
        root: folder that frame names are relative to; default: each file's own folder.
        workers: decoding threads.
        ahead: images to decode before they are requested.
        rate: frames per second if the images become a video; `time_base` is then 1/rate, else 1.
        max_frames: stop after delivering this many.
        max_pixels: larger images are skipped.
        ignored: names of files ignored while `paths` was collected; they are counted in the log and noted.
        ignored_because: why they were ignored, for the note.
        clock: monotonic seconds.

    Raises:
        SourceError: no header can be read; during iteration: no image can be decoded.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        name: str,
        root: Path | None = None,
        workers: int = 2,
        ahead: int = 4,
        rate: Fraction | None = None,
        max_frames: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        ignored: Sequence[str] = (),
        ignored_because: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths, self._root = tuple(paths), root
        self._workers, self._ahead = workers, max(1, ahead)
        self._max_frames, self._max_pixels, self._clock = max_frames, max_pixels, clock
        self._stop = threading.Event()
        self._noted: set[str] = set()
        self._log = CaptureLog(ignored=len(ignored))
        names = tuple(self._name_of(path) for path in self._paths)
        self.info = SourceInfo(
            name=name,
            size=self._first_size(name),
            is_live=False,
            time_base=1 / rate if rate else Fraction(1),
            rate=rate,
            frame_count=min(len(names), max_frames or len(names)),
            kind=SourceKind.STILLS,
            names=names,
            files=self._paths,
            notes=(_ignored_note(ignored, ignored_because),) if ignored else (),
        )
        self._duration = 1 if rate else None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; `interrupt` ends the iteration early."""
        delivered = 0
        jobs: deque[_Job] = deque()
        upcoming = iter(enumerate(self._paths))
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="depthstream-picture")
        try:
            while self._max_frames is None or delivered < self._max_frames:
                self._fill(jobs, upcoming, pool)
                if not jobs or not self._wait_for(jobs[0].result):
                    break
                job = jobs.popleft()
                try:
                    decoded = job.result.result()
                except SourceError as error:
                    self.log.skipped.append(Skipped(name=job.name, reason=error.reason))
                    continue
                self._note(job.name, decoded.notes)
                delivered += 1
                yield Frame(
                    index=job.index,
                    pts=job.index if self.info.rate is None else delivered - 1,  # a video has no gaps
                    time_base=self.info.time_base,
                    captured_at=self._clock(),
                    rgb=decoded.rgb,
                    duration=self._duration,
                    name=job.name,
                )
                del job, decoded  # free the pixels before waiting for the next image
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for job in jobs:
                if job.picture is not None:
                    job.picture.close()
        if not delivered and not self._stop.is_set():
            raise self._nothing_readable(self.info.name, self.log.skipped)

    def interrupt(self) -> None:
        """End the iteration before the next image."""
        self._stop.set()

    def close(self) -> None:
        """See `Source`; `__iter__` itself releases the files and threads that it uses."""
        self._stop.set()

    def _fill(self, jobs: deque[_Job], upcoming: Iterator[tuple[int, Path]], pool: ThreadPoolExecutor) -> None:
        """Read headers on this thread and queue decoding on the pool, up to the limits of images and pixels ahead."""
        while len(jobs) < self._ahead and sum(job.pixels for job in jobs) < _AHEAD_PIXELS and not self._stop.is_set():
            index, path = next(upcoming, (-1, None))
            if path is None:
                return
            name = self._name_of(path)
            try:
                picture = open_picture(path, max_pixels=self._max_pixels)
            except SourceError as error:
                failed: Future[DecodedPicture] = Future()
                failed.set_exception(error)
                jobs.append(_Job(index=index, name=name, pixels=0, picture=None, result=failed))
                continue
            height, width = picture.size_hw
            result = pool.submit(picture.decode)
            jobs.append(_Job(index=index, name=name, pixels=height * width, picture=picture, result=result))

    def _wait_for(self, result: Future[DecodedPicture]) -> bool:
        """Wait for a result; return False if interrupted."""
        while not self._stop.is_set():
            if wait([result], timeout=_POLL_S).done:
                return True
        return False

    def _first_size(self, name: str) -> tuple[int, int]:
        failures: list[Skipped] = []
        for path in self._paths:
            try:
                with open_picture(path, max_pixels=self._max_pixels) as picture:
                    return picture.size_hw
            except SourceError as error:
                failures.append(Skipped(name=self._name_of(path), reason=error.reason))
        raise self._nothing_readable(name, failures)

    def _nothing_readable(self, name: str, failures: Sequence[Skipped]) -> SourceError:
        if not failures:
            return SourceError("no images", where=name)
        if len(self._paths) == 1:
            return SourceError(failures[0].reason, where=str(self._paths[0]))
        first = failures[0]
        what = f"none of {len(failures)} images can be read; the first error is {first.name}: {first.reason}"
        return SourceError(what, where=name)

    def _name_of(self, path: Path) -> str:
        if self._root is None:
            return path.name
        absolute, root = path.absolute(), self._root.absolute()
        return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path.name

    def _note(self, name: str, notes: Sequence[str]) -> None:
        """Log each note once, with the first image it concerns."""
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                self.log.notes.append(f"{name}: {note}")


def _ignored_note(names: Sequence[str], why: str) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"ignored{why and f' ({why})'}: {', '.join(names[:_MAX_NAMED])}{more}"
