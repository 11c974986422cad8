"""The frames of consecutive rows, out of a source that is read from their warm-up on.

Invariant: a frame's index is the one that it has in a run of the whole source, whichever row the reading began with.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil

from stream.capture.base import Source, WrappedSource
from stream.capture.video.decode import DecodeErrors
from stream.channel import Channel
from stream.errors import SourceError
from stream.frames import Frame, Result, SourceKind
from stream.infer.base import Inference, Wrapped
from stream.jobs.segments.rows import Row

_COUNTED = (
    "repaired_pts",
    "clock_jumps",
    "size_changes",
    "damaged_packets",
    "damaged_frames",
    "decoder_fallbacks",
    "ignored",
    "further_images",
)
"""What `CaptureLog` counts, for the record of the segment in which it happened."""


class Section(WrappedSource):
    """Ends with the last of `rows`, and says of each frame which row it belongs to.

    Args:
        rows: consecutive ones.
        numbers_matter: frames are named by their number, so that no two may have the same.
    """

    def __init__(self, source: Source, rows: Sequence[Row], *, numbers_matter: bool = False) -> None:
        super().__init__(source)
        if rows[0].size is not None:  # where reading began, frames may have another size
            self.info = replace(self.info, size=rows[0].size)
        self._rows, self._numbers_matter = rows, numbers_matter
        tick, unit = Fraction(rows[0].tick), source.info.time_base
        self._starts = [ceil(row.start * tick / unit) for row in rows]
        last = rows[-1].end
        self._end = None if last is None else ceil(last * tick / unit)
        self._warm = ceil(rows[0].warm * tick / unit)
        self._pictures: dict[str, int] = {}
        if source.info.kind is SourceKind.STILLS and source.info.rate is None:
            if self._end is not None:
                source.end_before(self._end)
            self._pictures = {name: number for number, name in enumerate(source.info.names)}
        self.warm_up = 0
        """Frames before the first row."""
        self.warm_up_carried = 0
        """Of these, frames whose depth was carried from others (`--skip`)."""
        self._refused = {row.number: dict[int, str]() for row in rows}
        self._counts = {row.number: Counter[str]() for row in rows}
        self._counted, self._skipped = Counter[str](), 0

    def __iter__(self) -> Iterator[Frame]:
        """See `Source`.

        Raises:
            SourceError: a row has more frames than the container lists, and the numbers matter.
        """
        at, shift, last = -1, 0, -1
        for frame in self._source:
            if frame.pts < self._warm:
                continue
            if self._end is not None and frame.pts >= self._end:
                break
            place = self.place_of(frame)
            if place < 0:
                self.warm_up += 1
                last = frame.index
                self._count(None)
                yield frame
                continue
            if place != at:
                at = place
                first = self._rows[at].first_index
                if first <= last and self._numbers_matter:
                    raise self._too_many(at)
                shift = max(first, last + 1) - frame.index
            last = frame.index + shift
            self._count(self._rows[at].number)
            yield replace(frame, index=last) if shift else frame
        self._count(self._rows[max(0, at)].number)

    def place_of(self, frame: Frame) -> int:
        """The place of its row in `rows`; -1 for a frame before them."""
        return self._place(frame.pts)

    def _place(self, pts: int) -> int:
        return bisect_right(self._starts, pts) - 1

    def is_warm_up(self, frame: Frame) -> bool:
        """Whether it lies before the rows."""
        return frame.pts < self._starts[0]

    def refuse(self, frame: Frame, reason: str) -> None:
        """Count a frame that the model cannot take in the row that it belongs to."""
        if (place := self.place_of(frame)) >= 0:
            number = self._rows[place].number
            self._counts[number]["refused"] += 1
            self._refused[number][frame.index] = reason

    def refused(self, row: Row) -> Mapping[int, str]:
        """Why the model could not take frames of a row, by index."""
        return self._refused[row.number]

    def counts(self, row: Row) -> Mapping[str, int]:
        """What happened in a row: complete once a frame of the next one has been delivered."""
        return self._counts[row.number]

    def warnings(self, row: Row) -> Sequence[str]:
        """What is wrong with a row of the source; for the last one, with all that was read."""
        if row is self._rows[-1] and self._source.log.warnings:
            return self._source.log.warnings
        counts = self._counts[row.number]
        errors = DecodeErrors(packets=counts["damaged_packets"], frames=counts["damaged_frames"])
        return [f"{self.info.name}: {errors} in segment {row.number}"] if errors.packets or errors.frames else []

    def _count(self, number: int | None) -> None:
        """Add what the log has counted since the last call to a row; what happened in the warm-up to none."""
        log = self._source.log
        for item in log.skipped[self._skipped :]:
            self._skipped += 1
            row = number
            if self._pictures:  # a folder that cannot be searched belongs to the first picture
                place = self._place(self._pictures.get(item.name, 0))
                row = self._rows[place].number if place >= 0 else None
            if row is not None:
                self._counts[row]["skipped"] += 1
        now = Counter[str]({name: getattr(log, name) for name in _COUNTED})
        if new := now - self._counted:
            self._counted = now
            if number is not None:
                self._counts[number] += new

    def _too_many(self, at: int) -> SourceError:
        row = self._rows[at - 1]
        what = f"segment {row.number} has more frames than the container lists, so their files would share numbers"
        return SourceError(what, where=self.info.name, hint="run it in one piece: --segment-seconds 0")


class Watched(Wrapped):
    """Counts the frames that `inference` refuses in their rows."""

    def __init__(self, inference: Inference, section: Section) -> None:
        super().__init__(inference)
        self._section = section

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""

        def refuse(frame: Frame, reason: str) -> None:
            self._section.refuse(frame, reason)
            on_skip(frame, reason)

        for frame, depth in self._inference.stream(frames, refuse):
            self._section.warm_up_carried += depth.carried and self._section.is_warm_up(frame)
            yield frame, depth
