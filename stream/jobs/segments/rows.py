"""The plan of a job as a table, one row for each segment of its source, and the record of a finished one.

A row says everything that decides what its segment contains, so that any process on any machine computes the same.
Invariant: `from_fields` returns what `as_fields` was given, or raises a `ValueError` that names the wrong field.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, field
from fractions import Fraction
from typing import Any, Self, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from stream.config import Config
from stream.errors import StreamError
from stream.files import json_text
from stream.jobs.keys import NOT_OF_THE_RESULT
from stream.jobs.options import OPTIONS
from stream.remote.urls import is_remote

T = TypeVar("T")
FORMAT = 1
"""Raised when this version could misread what a newer one has written."""
LAST_DURATION = "last_duration"
"""Count of a record: how long its last frame is shown, in ticks of the row; missing if unknown."""
_STRICT = ConfigDict(extra="forbid", strict=True)


@checked(frozen=True, kw_only=True, config=_STRICT)
class SourceState:
    """What a source was when it was planned.

    Attributes:
        uri: its name or URL, without secrets.
        size: bytes; None if unknown.
        stamp: time of the last change in ns as text, or an ETag; "" if unknown.
    """

    uri: str
    size: int | None = None
    stamp: str = ""


@checked(frozen=True, kw_only=True, config=_STRICT)
class Row:
    """One segment: the frames with `start` ≤ pts < `end`, counted in `tick` seconds from the first frame of the source.

    A folder of pictures is counted in pictures, with a tick of 1.

    Attributes:
        number: within its source, from 0.
        start: first pts.
        end: pts after the last; None for the end of the source.
        tick: seconds per pts, as a fraction.
        warm: pts from which frames are computed but not written, for what has memory; at most `start`.
        first_index: frames of the source before `start`, counted like `Frame.index`.
        frames: in this segment, as far as the container tells; None if unknown.
        size: (height, width) of the first frame of the job, whose size the output has; None if unknown.
    """

    number: int
    start: int
    end: int | None
    tick: str
    warm: int
    first_index: int
    frames: int | None = None
    size: tuple[int, int] | None = None

    def seconds(self, pts: int) -> float:
        """A pts of this row in seconds."""
        return float(pts * Fraction(self.tick))

    @property
    def length_s(self) -> float | None:
        """Seconds of source; None if it ends with the source."""
        return None if self.end is None else self.seconds(self.end - self.start)


@checked(frozen=True, kw_only=True, config=_STRICT)
class Plan:
    """The segments of one source, and what they are made with.

    Attributes:
        settings: the options that decide the result, by key, with the weights' digest and the version; two plans with
            equal settings and an equal source give equal segments.
    """

    source: SourceState
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Hex SHA-256 of everything that decides the result, the cuts included."""
        return hashlib.sha256(json_text(asdict(self)).encode()).hexdigest()

    @property
    def frames(self) -> int | None:
        """In all rows; None if unknown."""
        counts = [row.frames for row in self.rows]
        return None if None in counts else sum(count for count in counts if count is not None)

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: object) -> Self:
        """The inverse of `as_fields`. Raises `ValueError`."""
        return _parsed(cls, fields)

    def differs_from(self, earlier: "Plan") -> Iterator[str]:
        """What has changed since `earlier`, one line each: `source: its size was 1200, is 1300`."""
        for what in ("uri", "size", "stamp"):
            was, now = getattr(earlier.source, what), getattr(self.source, what)
            if was != now:
                named = "ETag" if is_remote(self.source.uri) else "time of change"
                yield f"source: its {named if what == 'stamp' else what} was {was}, is {now}"
        flags = {option.key: option.flag for option in OPTIONS.values()}
        for key in dict.fromkeys((*earlier.settings, *self.settings)):
            was, now = earlier.settings.get(key), self.settings.get(key)
            if was != now:
                yield f"{flags.get(key, key)}: was {_told(was)}, is {_told(now)}"
        if self.settings == earlier.settings and self.source == earlier.source and self.rows != earlier.rows:
            yield "the source is cut at other places"


@checked(frozen=True, kw_only=True, config=_STRICT)
class Piece:
    """One file of a finished segment.

    Attributes:
        name: relative to the segment's folder; for files that are in place already, to the output folder.
        size: bytes.
        sha256: hex.
    """

    name: str
    size: int
    sha256: str


@checked(frozen=True, kw_only=True, config=_STRICT)
class SegmentRecord:
    """What a finished segment is. Done means: this is there and matches the files, whatever a scheduler thinks.

    Attributes:
        number: that of its row.
        plan: `Plan.digest`.
        frames: written.
        first_pts, last_pts: of the frames written, in ticks of the row; None without a frame.
        pieces: its files.
        counts: further numbers, such as `skipped` and `damaged_frames`.
        warnings: what is wrong with the input, each once.
        range: the ends of the values, where the run needs or knows them.
        attempt: 1 for the first.
        seconds: wall time.
    """

    number: int
    plan: str
    frames: int
    first_pts: int | None
    last_pts: int | None
    pieces: tuple[Piece, ...]
    model: str
    weights_sha256: str
    device: str
    precision: str
    backend: str
    version: str
    counts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    attempt: int = 1
    seconds: float = 0.0
    format: int = FORMAT

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: object) -> Self:
        """The inverse of `as_fields`. Raises `ValueError`."""
        return _parsed(cls, fields)


def settings_of(config: Config, **facts: str) -> dict[str, Any]:
    """The options that decide the result, by key, as plain values; only those that are not at their defaults.

    Args:
        facts: further ones, such as `weights` and `version`.
    """
    chosen = config.model_dump(mode="json", exclude_defaults=True)
    flat = {
        f"{section}.{name}": value
        for section, values in chosen.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
    }
    return {key: value for key, value in sorted(flat.items()) if key not in NOT_OF_THE_RESULT} | facts


def missing(rows: Sequence[Row], done: Mapping[int, SegmentRecord]) -> list[list[Row]]:
    """Runs of consecutive rows that have no record yet."""
    runs: list[list[Row]] = []
    for row in rows:
        if row.number in done:
            continue
        if runs and runs[-1][-1].number == row.number - 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def state_of(path: str | os.PathLike[str]) -> SourceState:
    """The state of a local file or folder. Raises `OSError`."""
    status = os.stat(path)
    return SourceState(uri=os.fspath(path), size=status.st_size, stamp=str(status.st_mtime_ns))


def source_state(source: str) -> SourceState:
    """The state of a source; of a URL only its name is known, except in a bucket or on a file server."""
    if is_remote(source):
        from stream.remote.access import shared

        try:
            entry = shared(source).state(source)
        except StreamError:  # opening it says what is wrong
            return SourceState(uri=source)
        return SourceState(uri=entry.url, size=entry.size, stamp=entry.etag)
    if "://" in source:
        return SourceState(uri=source)
    try:
        return state_of(source)
    except (OSError, ValueError):  # opening it says what is wrong
        return SourceState(uri=source)


def _told(value: object) -> str:
    """An option for a message; one that was not given is at its default."""
    return "the default" if value is None else f"{value}"


def _parsed(kind: type[T], fields: object) -> T:
    try:
        found = TypeAdapter(kind).validate_json(json_text(fields))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return found
