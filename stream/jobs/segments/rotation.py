"""A sink that writes consecutive segments: at each border it ends the sinks of one row and begins those of the next.

The pipeline in front of it goes on. What ends a segment (the encoder's last frames, the sums, the record) happens on a
thread of its own, while the next one is written.
Invariant: a segment is put into the store once its files are complete, and nothing else is.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from stream.errors import SinkError, StreamError
from stream.files import as_sink_error, write_file
from stream.frames import Depth, Frame, RgbImage, SourceInfo
from stream.jobs.segments.rows import Piece, Row
from stream.jobs.segments.section import Section
from stream.jobs.segments.store import piece_of
from stream.sinks.background import BackgroundWriter
from stream.sinks.base import Sink, Unwritten
from stream.sinks.per_frame import PerFrameSink
from stream.sinks.record import PartOfFolder

FILES = "files.txt"
"""The piece that lists the files in the output folder, see `PartOfFolder`."""
_WHILE_FINISHING = 0
"""Bytes that a waiting end of a segment holds, for the queue: the encoder's, which nobody knows."""


@dataclass(kw_only=True)
class Making:
    """A segment that is being written.

    Attributes:
        sinks: open ones that write into `folder`.
        files: those that are written into the output folder.
        frames: written so far.
        first_pts, last_pts: of these, in ticks of the source.
        last_duration: how long the last one is shown, likewise; None if unknown.
    """

    row: Row
    folder: Path
    files: PartOfFolder
    sinks: list[Sink]
    resources: ExitStack
    started_s: float
    frames: int = 0
    first_pts: int | None = None
    last_pts: int | None = None
    last_duration: int | None = None
    pieces: tuple[Piece, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.tick = Fraction(self.row.tick)

    @property
    def seconds(self) -> float:
        """Since it was begun."""
        return time.monotonic() - self.started_s


class Rotation(Sink):
    """Writes rows one after the other.

    Args:
        section: the source of the frames.
        rows: its rows.
        build: makes the sinks of a row, which write into a folder.
        base: the names of files in the output folder are relative to it.
        needs_image: see `Sink`.
        making: a new folder for a row, which is removed afterwards.
        put: takes a finished segment. Called on another thread.
        keep: takes an unfinished segment that has frames.
    """

    def __init__(
        self,
        section: Section,
        rows: Sequence[Row],
        *,
        build: Callable[[Row, Path], list[Sink]],
        base: Path,
        needs_image: bool,
        making: Callable[[Row], AbstractContextManager[Path]],
        put: Callable[[Making], None],
        keep: Callable[[Making], None],
    ) -> None:
        self._section, self._rows = section, rows
        self._build, self._making, self._put, self._keep = build, making, put, keep
        self._base = base
        self._waiting = deque(rows)
        self._now: Making | None = None
        self._finisher: BackgroundWriter | None = None
        self._counters = Counter[str]()
        self._outputs: dict[str, None] = {}
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.unwritten: list[Unwritten] = []
        self.needs_image = needs_image
        self._done = set[int]()

    @property
    def is_lossless(self) -> bool:
        """True: every frame is kept."""
        return True

    @property
    def outputs(self) -> list[str]:
        """What is in place already: folders of files."""
        return list(self._outputs)

    @property
    def counters(self) -> Mapping[str, int]:
        """The sums of those of the sinks."""
        return self._counters

    @property
    def scene_cuts(self) -> int:
        """None of its own."""
        return 0

    @property
    def left(self) -> list[Row]:
        """Rows that were not put, at the end."""
        return [row for row in self._rows if row.number not in self._done]

    def open(self, info: SourceInfo, size: tuple[int, int]) -> None:
        """Open the sinks of the first row, so that what cannot work fails before any work."""
        self._info, self._size = replace(info, audio=None, not_kept="", start_s=None, end_s=None), size
        self._finisher = BackgroundWriter()
        self._begin()

    def write(self, frame: Frame, depth: Depth, image: RgbImage) -> bool:
        """See `Sink`.

        Raises:
            SinkError: this or an earlier segment cannot be written.
        """
        row = self._rows[self._section.place_of(frame)]
        while self._now is None or self._now.row is not row:
            self._end()
            self._begin()
        now = self._now
        for sink in now.sinks:
            sink.write(frame, depth, image)
        ticks = round(frame.pts * frame.time_base / now.tick)
        now.frames, now.last_pts = now.frames + 1, ticks
        now.last_duration = frame.duration and round(frame.duration * frame.time_base / now.tick)
        if now.first_pts is None:
            now.first_pts = ticks
        return True

    def poll(self) -> None:
        """See `Sink`."""
        if self._now is not None:
            for sink in self._now.sinks:
                sink.poll()

    def finish(self) -> None:
        """End the last row that has frames; rows that the source has no frames for are empty.

        Raises:
            SinkError: a segment cannot be written.
        """
        self._end()
        while self._waiting:
            self._begin()
            self._end()
        if self._finisher is not None:
            self._finisher.finish()

    def keep_partial(self, reason: str) -> None:
        """Finish what is complete, and keep the frames of the row that is not.

        Raises:
            SinkError: an earlier segment cannot be finished, or the partial files cannot be written.
        """
        self._waiting.clear()
        now, self._now = self._now, None
        try:
            if self._finisher is not None:
                self._finisher.finish()
        finally:
            if now is not None:
                with now.resources:
                    if now.frames:
                        for sink in now.sinks:
                            sink.keep_partial(reason)
                        self._collect(now)
                        self._keep(now)
                    else:
                        _abort(now, SinkError(reason))

    def abort(self, error: BaseException) -> None:
        """Leave nothing: no frame was written."""
        self._waiting.clear()
        now, self._now = self._now, None
        if self._finisher is not None:
            self._finisher.cancel()
        if now is not None:
            with now.resources:
                _abort(now, error)

    def _begin(self) -> None:
        row = self._waiting.popleft()
        with ExitStack() as unless_open:
            folder = unless_open.enter_context(self._making(row))
            files = PartOfFolder(self._base, row.first_index, folder)
            sinks = self._build(row, folder)
            for sink in sinks:
                if isinstance(sink, PerFrameSink):
                    sink.part = files
            opened = list[Sink]()
            try:
                for sink in sinks:
                    sink.stopping = self.stopping
                    sink.open(self._info, self._size)
                    opened.append(sink)
            except BaseException as error:
                for sink in opened:
                    sink.abort(error)
                raise
            started_s = time.monotonic()
            self._now = Making(
                row=row, folder=folder, files=files, sinks=sinks, resources=unless_open.pop_all(), started_s=started_s
            )

    def _end(self) -> None:
        """Let the row that is being written be finished on the other thread."""
        now, self._now = self._now, None
        if now is not None and self._finisher is not None:
            self._finisher.submit(lambda: self._finish(now), _WHILE_FINISHING)

    def _finish(self, made: Making) -> None:
        with made.resources:
            try:
                if made.frames:
                    for sink in made.sinks:
                        sink.finish()
                else:
                    _abort(made, SinkError("nothing was written"))
                self._collect(made)
                self._put(made)
                self._done.add(made.row.number)
            except StreamError:
                with suppress(StreamError, OSError):  # the first error matters more
                    self._collect(made)
                    self._keep(made)
                raise

    def _collect(self, made: Making) -> None:
        """Take over what ended sinks say, and list their files."""
        for sink in made.sinks:
            self.notes += [text for text in sink.notes if text not in self.notes]
            self.warnings += sink.warnings
            self.unwritten += sink.unwritten
            made.warnings += tuple(sink.warnings)
            made.counts.update({name: count for name, count in sink.counters.items() if count})
            made.counts.update({"unwritten": len(sink.unwritten)} if sink.unwritten else {})
            for path in sink.outputs:
                if made.folder not in Path(path).parents:
                    self._outputs[path] = None
        self._counters.update(made.counts)
        with as_sink_error(made.folder):
            if listed := made.files.text:
                write_file(made.folder / FILES, listed.encode())
            made.pieces = tuple(piece_of(path, path.name) for path in sorted(made.folder.iterdir()))


def _abort(making: Making, error: BaseException) -> None:
    for sink in making.sinks:
        sink.abort(error)
