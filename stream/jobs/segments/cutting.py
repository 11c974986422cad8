"""Decides whether a job is worked on in segments, and where its source is cut.

A segment of a video begins at a key frame, near `output.segment_seconds` after the one before. Encoders begin a group
of pictures early where a scene is cut, and such a key frame is preferred: what remembers earlier frames starts anew
there.
Invariant: the rows hold every frame of an uninterrupted run once, with the same pts and the same index.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from stream.capture.base import Source
from stream.capture.limits import Limits
from stream.capture.open import exact_rate
from stream.capture.parse import SourceForm, parse_source
from stream.capture.video.scan import OddIndexError, Scan, UncuttableError, scan
from stream.config import Config
from stream.errors import StreamError
from stream.frames import SourceInfo, SourceKind
from stream.jobs.plan import OutputKind, OutputPlan
from stream.jobs.segments.rows import Row
from stream.jobs.source import open_config_source
from stream.remote.urls import is_remote

if TYPE_CHECKING:
    from stream.models.spec import ModelSpec

LEAST = 2
"""A video of up to so many segments is worked on in one piece: with 30 s, one of up to a minute."""
_SHORTEST, _LATEST_SCENE, _LONGEST = 2 / 3, 4 / 3, 2.0
"""Of the length of a segment: the least, the most at which a scene cut is preferred, and the most, key frames
permitting. With 30 s: from 20 s, to 40 s, to 60 s."""
_PICTURE_FORMS = frozenset({SourceForm.FOLDER, SourceForm.GLOB, SourceForm.LIST})
_PICTURES = 256
"""Of a folder, in a segment."""
_TOLERANCE = Fraction(1, 1000)
"""In pts units, for times that are given in seconds; as for `--start` and `--end`."""
_RANGE_REST = 2**-16
"""Weight that frames before the warm-up keep in a smoothed range: 1/256 of a step of 8 bits, if they differ from the
first frame of the warm-up by the whole range."""
_STEADY_CONSTANTS = 4
"""A correction of `--steady` that is missing has decayed to 2 % after so many of its time constants."""
_STREAM_WINDOWS = 2
"""A model that sees one frame after the other attends to the features of the last window of frames, and these to the
window before."""
_WINDOW_STEPS = 2
"""Windows before the first one whose maps are written."""


class TooShort(str):
    """A reason that lies in the length of the source alone."""


def why_in_one_piece(config: Config, info: SourceInfo, plan: OutputPlan) -> str:
    """Why a job is not worked on in segments, as far as that is known without reading the source, as a phrase.

    Returns:
        "" if `cut` decides.
    """
    output, capture = config.output, config.capture
    live_outputs = {
        "a preview is shown": plan.preview,
        "a page is served": output.serve is not None,
        "Rerun shows or records it": output.rerun is not None,
        "a virtual camera shows it": output.virtual_camera,
        "it is streamed": plan.target is not None,
    }
    if output.segment_seconds == 0:
        return "--segment-seconds is 0"
    if info.is_live:
        return "a live source has no second chance"
    in_bucket = is_remote(info.name)
    if in_bucket and info.kind is SourceKind.STILLS:
        return "pictures in a bucket or on a server"
    if not in_bucket and (info.kind not in (SourceKind.VIDEO, SourceKind.STILLS) or not info.files):
        what = {SourceKind.PATTERN: "a pattern", SourceKind.NETWORK: "a network source"}.get(info.kind, "a pipe")
        return f"{what} is no file"
    if (shown := next((why for why, is_so in live_outputs.items() if is_so), None)) is not None:
        return shown
    if plan.kind in (OutputKind.PICTURE, OutputKind.NONE, OutputKind.STREAM):
        return "the output is a single picture" if plan.kind is OutputKind.PICTURE else "no file is written"
    if config.model.also:
        return "several models are compared or switched"
    if capture.sandbox:
        return "with --sandbox, a source is read from its start"
    if info.kind is SourceKind.STILLS:
        return _why_not_pictures(config, info, plan)
    length_s, least_s = _length_s(info), LEAST * output.segment_seconds
    return "" if length_s is None or length_s > least_s else TooShort(f"it is not longer than {least_s:g} s")


def _why_not_pictures(config: Config, info: SourceInfo, plan: OutputPlan) -> str:
    if config.capture.max_frames is not None:
        return "--max-frames counts the pictures that can be read"
    if plan.kind is not OutputKind.FOLDER or plan.depth_video is not None:
        return "pictures become a video"
    return "" if len(info.names) > _PICTURES else TooShort(f"there are no more than {_PICTURES} pictures")


def cut(config: Config, info: SourceInfo, plan: OutputPlan, spec: "ModelSpec | None" = None) -> tuple[Row, ...] | str:
    """The segments of a job's source, at least two; or why it is not cut, as a phrase for messages.

    Args:
        config: with the part of the source that is wanted (`start`, `end`, `max_frames`, …).
        info: of the source that `config` names, open.
        plan: what is written; decides the warm-up with `spec`.
        spec: of the model; None if it takes each frame alone.
    """
    if why := why_in_one_piece(config, info, plan):
        return why
    if info.kind is SourceKind.STILLS:
        return _sized(_of_pictures(len(info.names)), info)
    warm_s = warm_up_s(config, info, plan, spec)
    try:
        found, rows = _scanned(config, info, warm_s)
    except UncuttableError as error:
        return str(error)
    except StreamError as error:
        if is_remote(info.name):  # a connection may be there again when the run itself reads it, in one piece
            raise
        return error.what  # the run itself says it
    least_s = LEAST * config.output.segment_seconds
    if rows and rows[0].seconds(_end_of(rows, found)) - rows[0].seconds(rows[0].start) <= least_s:
        return TooShort(f"it is not longer than {least_s:g} s")
    return _sized(rows, info) if len(rows) > 1 else "it has no key frame at which it could be cut"


def _sized(rows: Sequence[Row], info: SourceInfo) -> tuple[Row, ...]:
    """Rows with the size of the source, which whoever begins to read in its middle may not find there."""
    return tuple(replace(row, size=info.size) for row in rows)


def _scanned(config: Config, info: SourceInfo, warm_s: float) -> tuple[Scan, tuple[Row, ...]]:
    """The times of a video, and its rows. Raises `UncuttableError` or `StreamError`."""
    with ExitStack() as resources:
        if is_remote(info.name):
            from stream.capture.remote import remote_file

            path, file = Path(), resources.enter_context(closing(remote_file(info.name, config.capture)))
        else:
            path, file = Path(info.files[0]), None
        look = partial(scan, path, file=file, limits=Limits.of(config.capture))
        found = look(every_time=_needs_every_time(config))
        try:
            return found, rows_of_scan(found, config, warm_s)
        except OddIndexError:
            found = look()
            return found, rows_of_scan(found, config, warm_s)


def _needs_every_time(config: Config) -> bool:
    """Whether the part that is wanted begins or ends between key frames."""
    capture = config.capture
    return capture.start is not None or capture.until is not None or capture.max_frames is not None


def open_rows(config: Config, rows: Sequence[Row]) -> Source:
    """Open the source of a job where the warm-up of the first of consecutive `rows` begins.

    Its frames have the pts of an uninterrupted run. The caller leaves out those before `rows[0].warm`, and ends at the
    first one that is not before the end of the last row: frames behind it may be needed for those before it.

    Raises:
        StreamError: see `open_config_source`.
    """
    first = rows[0]
    if first.number == 0:
        return open_config_source(config)
    if config.source is not None and parse_source(config.source).form in _PICTURE_FORMS:
        return open_config_source(config, first=first.start)
    # Half a tick is more than the rounding of a float. With --fps, the frame that is nearest to a time may be shown one
    # tick before it.
    begin_s = first.seconds(first.warm) - first.seconds(1) * (0.5 if config.capture.fps is None else 1)
    update = {
        "start": max(0.0, begin_s),
        "end": config.capture.until,
        "max_seconds": None,
        "max_frames": None,
    }
    return open_config_source(config.model_copy(update={"capture": config.capture.model_copy(update=update)}))


def warm_up_s(config: Config, info: SourceInfo, plan: OutputPlan, spec: "ModelSpec | None") -> float:
    """Seconds of the source that are computed before a segment, if the frames before it were not; 0 if nothing
    remembers earlier frames."""
    from stream.jobs.models import TEMPORAL_STREAM, temporal
    from stream.motion.align import LEAK_S
    from stream.render.range import USUAL_STEP_S

    lengths_s, step_s = [0.0], float(1 / info.rate) if info.rate else USUAL_STEP_S
    has_pictures = plan.kind is OutputKind.VIDEO or (plan.kind is OutputKind.FOLDER and config.output.picture != "none")
    if has_pictures and config.render.range in (None, "ema"):
        lengths_s.append(warm_up_of_range_s())
    if config.inference.steady:
        lengths_s.append(_STEADY_CONSTANTS * LEAK_S)
    if isinstance(config.inference.skip, int):  # so that the model sees the same frames
        lengths_s.append(config.inference.skip * step_s)
    how = "off" if spec is None else temporal(config, info, spec)
    if how != "off":
        from stream.infer.joining import STEP
        from stream.models.temporal import WINDOW

        frames = _STREAM_WINDOWS * WINDOW if how == TEMPORAL_STREAM else _WINDOW_STEPS * STEP + WINDOW
        lengths_s.append(frames * step_s)
    return max(lengths_s)


def warm_up_of_range_s() -> float:
    """Seconds after which a smoothed range has forgotten what was before, down to `_RANGE_REST`: 4.2."""
    from stream.render.range import SMOOTHING, USUAL_STEP_S

    return math.log(_RANGE_REST) / math.log(1 - SMOOTHING) * USUAL_STEP_S


def _length_s(info: SourceInfo) -> float | None:
    return None if info.frame_count is None or not info.rate else float(info.frame_count / info.rate)


def _of_pictures(count: int) -> tuple[Row, ...]:
    """By number, since a picture that cannot be read has a number, too. The last segment may be up to twice as long."""
    starts = range(0, count, _PICTURES)[: max(1, count // _PICTURES)]
    ends = [*starts[1:], None]
    return tuple(
        Row(
            number=number, start=start, end=end, tick="1", warm=start, first_index=start,
            frames=(count if end is None else end) - start,
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    )  # fmt: skip


def rows_of_scan(found: Scan, config: Config, warm_s: float) -> tuple[Row, ...]:
    """The segments of a video, in units of the delivered pts; none if no frame is wanted.

    Args:
        warm_s: see `warm_up_s`.
    """
    capture, tick = config.capture, found.time_base
    low = 0 if capture.start is None else math.ceil(Fraction(capture.start) / tick - _TOLERANCE)
    high = None if capture.until is None else math.ceil(Fraction(capture.until) / tick - _TOLERANCE)
    first, after = found.index_of(low), len(found.pts) if high is None else found.index_of(high)
    rate = exact_rate(capture.fps)
    if capture.max_frames is not None and rate is None and first + capture.max_frames < after:
        after = first + capture.max_frames
        high = int(found.pts[after])
    if first >= after:
        return ()
    start, last = int(found.pts[first]), int(found.pts[after - 1])
    if rate is not None and capture.max_frames is not None:
        last = min(last, math.floor(start + capture.max_frames / rate / tick))
    keys = _borders(found, start, last, Fraction(config.output.segment_seconds) / tick)
    begins = [(start, first), *found.settled(keys)]
    ends = [*begins[1:], (high, after)]
    warm = math.ceil(Fraction(warm_s) / tick)
    if rate is not None:
        return _of_resampled([begin for begin, _ in begins], tick, rate, capture.max_frames, warm)
    return tuple(
        Row(
            number=number,
            start=begin,
            end=end,
            tick=str(tick),
            warm=max(start, begin - warm),
            first_index=index - first,
            frames=next_index - index,
        )
        for number, ((begin, index), (end, next_index)) in enumerate(zip(begins, ends, strict=True))
    )


def _of_resampled(
    borders: Sequence[int], tick: Fraction, rate: Fraction, most: int | None, warm: int
) -> tuple[Row, ...]:
    """Rows in units of 1/rate. The first time that is not before a key frame is nearest to it or to a later frame, so
    no earlier frame is needed."""
    starts = [math.ceil(border * tick * rate) for border in borders]
    first = starts[0]
    stop = None if most is None else first + most
    starts = [start for start in dict.fromkeys(starts) if stop is None or start < stop]
    back = math.ceil(warm * tick * rate)
    return tuple(
        Row(
            number=number,
            start=begin,
            end=end,
            tick=str(1 / rate),
            warm=max(first, begin - back),
            first_index=begin - first,
            frames=None if end is None else end - begin,
        )
        for number, (begin, end) in enumerate(pairwise([*starts, stop]))
        if begin is not None
    )


def _borders(found: Scan, start: int, last: int, wanted: Fraction) -> list[int]:
    """The key frames between `start` and `last` at which segments begin, about `wanted` apart."""
    keys = [int(key) for key in found.keys]
    scenes = _scenes(found)
    latest, begin = last - _SHORTEST * wanted, start
    borders: list[int] = []
    while True:
        allowed = keys[bisect_left(keys, begin + _SHORTEST * wanted) : bisect_right(keys, latest)]
        if not allowed:
            return borders
        near = allowed[: bisect_right(allowed, begin + _LONGEST * wanted)] or allowed[:1]
        best = [key for key in near if key in scenes and key - begin <= _LATEST_SCENE * wanted] or near
        begin = min(best, key=lambda key: abs(key - begin - wanted))
        borders.append(begin)


def _scenes(found: Scan) -> frozenset[int]:
    """The key frames that come earlier than the usual number of frames after the one before."""
    places = found.pts.searchsorted(found.keys)
    gaps = [int(b - a) for a, b in pairwise(places)]
    longest = max(gaps, default=0)
    return frozenset(int(key) for key, gap in zip(found.keys[1:], gaps, strict=True) if gap < longest)


def _end_of(rows: Sequence[Row], found: Scan) -> int:
    """The end of the last row in its units."""
    if (end := rows[-1].end) is not None:
        return end
    return int(found.pts[-1] * found.time_base / Fraction(rows[-1].tick))
