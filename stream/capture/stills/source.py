"""Still images as a source: a small thread pool decodes ahead, frames are delivered in order.

Invariant: every image is either delivered or logged as skipped with the reason. At most `ahead` images are in memory,
fewer if they are large.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

from stream.capture.base import CaptureLog, Skipped, Source
from stream.capture.limits import Limits
from stream.capture.stills.formats import may_be_animated
from stream.capture.stills.picture import DecodedPicture, Picture, open_picture
from stream.errors import SourceError
from stream.frames import Frame, SourceInfo, SourceKind

_AHEAD_PIXELS = 100_000_000
"""Limit on the pixels of the images decoded ahead: 0.3 GB decoded. What decoding takes is limited by the budget."""
_POLL_S = 0.2
_MAX_NAMED = 5
"""Ignored files that the note names; the log counts all of them."""


@dataclass(kw_only=True)
class _Job:
    index: int
    name: str
    pixels: int
    cost: int
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
        limits: larger images are skipped, and so much is decoded ahead.
        ignored: names of files ignored while `paths` was collected; they are counted in the log and noted.
        ignored_because: why they were ignored, for the note.
        unreadable: names of folders that could not be searched, and why; they are logged as skipped.
        notes: about how `paths` were found.
        first: number of the path to begin with; everything else stays as it is when all are read.
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
        limits: Limits | None = None,
        ignored: Sequence[str] = (),
        ignored_because: str = "",
        unreadable: Sequence[tuple[str, str]] = (),
        notes: Sequence[str] = (),
        first: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths, self._root, self._first = tuple(paths), root, first
        self._frame_of: dict[int, int] = {}
        """By place among the paths: which frame of an animation is read; the first one of any other."""
        self._workers, self._ahead = workers, max(1, ahead)
        self._max_frames, self._limits, self._clock = max_frames, limits or Limits(), clock
        self._stop = threading.Event()
        self._opened: _Job | None = None
        """The next image, if it has to wait until the ones before it need less memory."""
        self._noted: set[str] = set()
        self._log = CaptureLog(ignored=len(ignored))
        self._log.skipped += [Skipped(name=folder, reason=f"cannot be read: {reason}") for folder, reason in unreadable]
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
            notes=(*notes, *((ignored_note(ignored, ignored_because),) if ignored else ())),
        )
        self._duration = 1 if rate else None
        self._end: int | None = None

    def spread_animations(self, most: int) -> None:
        """Deliver up to `most` frames, evenly spread, of each animation instead of its first one. Call before reading.

        A frame is named `NAME#0003`. An animation that cannot be opened is skipped as before.
        """
        paths: list[Path] = []
        spread: list[str] = []
        for path in self._paths:
            first, count = self._animated(path)
            chosen = sorted({first + count * n // most for n in range(most)}) if count else []
            for number in chosen:
                self._frame_of[len(paths)] = number
                paths.append(path)
            if len(chosen) < count:
                spread.append(f"{self._name_of(path)} ({len(chosen)} of {count} frames)")
            if not chosen:
                paths.append(path)
        self._paths, most_frames = tuple(paths), self._max_frames or len(paths)
        names = tuple(self._name_at(place) for place in range(len(paths)))
        notes = (*self.info.notes, *([f"frames evenly spread: {', '.join(spread)}"] if spread else []))
        self.info = replace(self.info, names=names, notes=notes, frame_count=min(len(names), most_frames))

    def _animated(self, path: Path) -> tuple[int, int]:
        """The first frame of an animation and how many there are; no frame of anything else."""
        try:
            if not may_be_animated(path):
                return 0, 0
            with self._open(path) as picture:
                first = picture.first_frame
                return (first, picture.frame_count - first) if picture.is_animation else (0, 0)
        except (OSError, SourceError):
            return 0, 0  # reading it says why

    def end_before(self, number: int) -> None:
        """See `Source`; what is left may have no picture that can be read."""
        self._end = number

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; `interrupt` ends the iteration early."""
        delivered = 0
        jobs: deque[_Job] = deque()
        upcoming = islice(enumerate(self._paths), self._first, self._end)
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
                self._note(job.name, decoded)
                delivered += 1
                yield Frame(
                    index=job.index,
                    pts=job.index if self.info.rate is None else delivered - 1,  # a video has no gaps
                    time_base=self.info.time_base,
                    captured_at=self._clock(),
                    rgb=decoded.rgb,
                    duration=self._duration,
                    name=job.name,
                    intrinsics=decoded.intrinsics,
                )
                del job, decoded  # free the pixels before waiting for the next image
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for job in (*jobs, *([self._opened] if self._opened else [])):
                if job.picture is not None:
                    job.picture.close()
        if not delivered and not self._first and self._end is None and not self._stop.is_set():
            raise nothing_readable(self.info.name, self._paths, self.log.skipped)

    def interrupt(self) -> None:
        """End the iteration before the next image."""
        self._stop.set()

    def close(self) -> None:
        """See `Source`; `__iter__` itself releases the files and threads that it uses."""
        self._stop.set()

    def _fill(self, jobs: deque[_Job], upcoming: Iterator[tuple[int, Path]], pool: ThreadPoolExecutor) -> None:
        """Read headers on this thread and queue decoding on the pool, up to the limits of images and pixels ahead."""
        while len(jobs) < self._ahead and sum(job.pixels for job in jobs) < _AHEAD_PIXELS and not self._stop.is_set():
            if self._opened is None:
                self._opened = self._open_next(upcoming)
            job = self._opened
            if job is None or (jobs and sum(one.cost for one in (*jobs, job)) > self._limits.ahead_bytes):
                return
            self._opened = None
            if job.picture is not None:
                pool.submit(_decode, job.picture, job.result)
            jobs.append(job)

    def _open_next(self, upcoming: Iterator[tuple[int, Path]]) -> _Job | None:
        index, path = next(upcoming, (-1, None))
        if path is None:
            return None
        name = self._name_at(index)
        job = _Job(index=index, name=name, pixels=0, cost=0, picture=None, result=Future())
        try:
            job.picture = self._open(path)
            if index in self._frame_of:
                job.picture.choose(self._frame_of[index])
        except SourceError as error:
            job.result.set_exception(error)
            return job
        job.pixels, job.cost = job.picture.size_hw[0] * job.picture.size_hw[1], job.picture.decoding_bytes
        return job

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
                with self._open(path) as picture:
                    return picture.size_hw
            except SourceError as error:
                failures.append(Skipped(name=self._name_of(path), reason=error.reason))
        raise nothing_readable(name, self._paths, failures)

    def _open(self, path: Path) -> Picture:
        return open_picture(path, limits=self._limits)

    def _name_at(self, place: int) -> str:
        name = self._name_of(self._paths[place])
        return f"{name}#{self._frame_of[place]:04d}" if place in self._frame_of else name

    def _name_of(self, path: Path) -> str:
        return frame_name(path, self._root)

    def _note(self, name: str, decoded: DecodedPicture) -> None:
        """Log each note, and each kind of file of which one image is used, once, with the first image it concerns."""
        notes = {note: note for note in decoded.notes}
        if decoded.count > 1:
            self.log.further_images += decoded.count - 1
            notes[decoded.unit] = f"one {decoded.unit} of {decoded.count} in the file is used"
        for key, note in notes.items():
            if key not in self._noted:
                self._noted.add(key)
                self.log.notes.append(f"{name}: {note}")


def _decode(picture: Picture, result: Future[DecodedPicture]) -> None:
    try:
        result.set_result(picture.decode())
    except BaseException as error:  # noqa: BLE001  the source's thread raises it
        result.set_exception(error)


def frame_name(path: Path, root: Path | None) -> str:
    """Return `Frame.name` of a file: relative to `root`, or its own name if there is none or it lies elsewhere."""
    if root is None:
        return path.name
    inside = str(path).removeprefix(f"{root}/")
    if len(inside) < len(str(path)) and os.sep == "/":  # as nearly always; a list may have millions of lines
        return inside
    absolute, root = path.absolute(), root.absolute()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path.name


def nothing_readable(name: str, paths: Sequence[Path], failures: Sequence[Skipped]) -> SourceError:
    """Return the error of a source `name` that could read none of `paths`."""
    if not failures:
        return SourceError("no images", where=name)
    if len(paths) == 1:
        return SourceError(failures[0].reason, where=str(paths[0]))
    first = failures[0]
    what = f"none of {len(failures)} images can be read; the first error is {first.name}: {first.reason}"
    return SourceError(what, where=name)


def ignored_note(names: Sequence[str], why: str) -> str:
    """Return the note that names the first ignored files."""
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"ignored{why and f' ({why})'}: {', '.join(names[:_MAX_NAMED])}{more}"
