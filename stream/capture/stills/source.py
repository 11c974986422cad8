"""Still pictures as a source: decoded ahead on a small pool, delivered in order.

Invariant: every picture is either delivered or logged as skipped with its reason, and at most `ahead` pictures
are held, fewer where they are large.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from stream.capture.base import CaptureLog, Skipped
from stream.capture.stills.picture import DEFAULT_MAX_PIXELS, Decoded, Picture, open_picture
from stream.errors import SourceError
from stream.frames import Frame, SourceInfo, SourceKind

_AHEAD_PIXELS = 100_000_000
"""Pixels held ahead of the one being delivered: 0.3 GB decoded, and twice that while decoding."""
_POLL_S = 0.2
_NAMED = 5
"""Files left out that are named; all are counted."""


@dataclass(kw_only=True)
class _Job:
    index: int
    name: str
    pixels: int
    picture: Picture | None
    result: Future[Decoded]


class ImagesSource:
    """Yields the pictures of `paths`.

    `Frame.index` and `pts` count the pictures attempted, so a skipped one shows as a gap; `Frame.name` is the path
    relative to `root`, with suffix and `/`.

    Args:
        paths: files to read, in this order; those that cannot be read are skipped and logged.
        name: what the user typed.
        root: folder that names are relative to; default: the file's own folder.
        workers: threads that decode.
        ahead: pictures decoded before they are asked for.
        rate: pictures per second if they become a video; `time_base` is then 1/rate, else 1.
        max_frames: stop after delivering this many.
        max_pixels: larger pictures are skipped.
        ignored: names of files left out when `paths` were found; counted in the log, and noted.
        clock: monotonic seconds.

    Raises:
        SourceError: not one header can be read; from iteration: not one picture could be decoded.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths, self._root = tuple(paths), root
        self._workers, self._ahead = workers, max(1, ahead)
        self._max_frames, self._max_pixels, self._clock = max_frames, max_pixels, clock
        self._stop = threading.Event()
        self._said: set[str] = set()
        self.log = CaptureLog(ignored=len(ignored))
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
            notes=(_left_out(ignored),) if ignored else (),
        )
        self._duration = 1 if rate else None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures; ends early after `interrupt`."""
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
                    self.log.skipped.append(Skipped(name=job.name, reason=_reason(error)))
                    continue
                self._note(job.name, decoded.notes)
                delivered += 1
                yield Frame(
                    index=job.index,
                    pts=job.index if self.info.rate is None else delivered - 1,  # a film has no gaps
                    time_base=self.info.time_base,
                    captured_at=self._clock(),
                    rgb=decoded.rgb,
                    duration=self._duration,
                    name=job.name,
                )
                del job, decoded  # not kept while the next one is waited for
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for job in jobs:
                if job.picture is not None:
                    job.picture.close()
        if not delivered and not self._stop.is_set():
            raise self._nothing_readable(self.info.name, self.log.skipped)

    def interrupt(self) -> None:
        """Make iteration end before the next picture."""
        self._stop.set()

    def close(self) -> None:
        """Nothing is held between iterations; see the `finally` there."""
        self._stop.set()

    def _fill(self, jobs: deque[_Job], upcoming: Iterator[tuple[int, Path]], pool: ThreadPoolExecutor) -> None:
        """Open headers here and decode on the pool, as far ahead as pictures and pixels allow."""
        while len(jobs) < self._ahead and sum(job.pixels for job in jobs) < _AHEAD_PIXELS and not self._stop.is_set():
            index, path = next(upcoming, (-1, None))
            if path is None:
                return
            name = self._name_of(path)
            try:
                picture = open_picture(path, max_pixels=self._max_pixels)
            except SourceError as error:
                failed: Future[Decoded] = Future()
                failed.set_exception(error)
                jobs.append(_Job(index=index, name=name, pixels=0, picture=None, result=failed))
                continue
            height, width = picture.size_hw
            result = pool.submit(picture.decode)
            jobs.append(_Job(index=index, name=name, pixels=height * width, picture=picture, result=result))

    def _wait_for(self, result: Future[Decoded]) -> bool:
        """False once interrupted."""
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
                failures.append(Skipped(name=self._name_of(path), reason=_reason(error)))
        raise self._nothing_readable(name, failures)

    def _nothing_readable(self, name: str, failures: Sequence[Skipped]) -> SourceError:
        if not failures:
            return SourceError("no pictures", where=name)
        if len(self._paths) == 1:
            return SourceError(failures[0].reason, where=str(self._paths[0]))
        first = failures[0]
        what = f"none of {len(failures)} pictures can be read; the first, {first.name}: {first.reason}"
        return SourceError(what, where=name)

    def _name_of(self, path: Path) -> str:
        if self._root is None:
            return path.name
        absolute, root = path.absolute(), self._root.absolute()
        return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else path.name

    def _note(self, name: str, notes: Sequence[str]) -> None:
        """Each kind of remark once, at the first picture it concerns."""
        for note in notes:
            if note not in self._said:
                self._said.add(note)
                self.log.notes.append(f"{name}: {note}")


def _left_out(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"left out, no picture{'s' * (len(names) > 1)}: {', '.join(names[:_NAMED])}{more}"


def _reason(error: SourceError) -> str:
    return f"{error.what} (allowed: {error.allowed})" if error.allowed else error.what
