"""Plans of small videos, and what the pieces of their segments hold, read with PyAV alone."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.config import Config
from stream.depthdata.storage import FrameTime
from stream.jobs.segments.rows import Plan, Row, SegmentRecord, settings_of, state_of
from stream.jobs.segments.store import LocalStore
from stream.media import av

Timed = tuple[Fraction, NDArray[np.uint8]]


def plan_by_frames(config: Config, starts: Sequence[int], *, warm: int = 0) -> Plan:
    """A plan whose rows begin at the frames with these numbers, each with a warm-up of so many frames."""
    source = Path(config.source or "")
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        tick = Fraction(stream.time_base or 1)
    since = [time - times[0] for time in times]
    ends = [*starts[1:], len(since)]
    rows = tuple(
        Row(
            number=number,
            start=since[start],
            end=since[end] if end < len(since) else None,
            tick=str(tick),
            warm=since[max(0, start - warm)],
            first_index=start,
            frames=end - start,
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    )
    return Plan(source=state_of(source), settings=settings_of(config), rows=rows)


def started(store: LocalStore, plan: Plan) -> LocalStore:
    store.save_plan(plan)
    return store


def decoded(path: Path) -> Iterator[Timed]:
    """The exact time in seconds and the RGB pixels of each frame of a video."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None
            yield frame.pts * Fraction(frame.time_base or 0), frame.to_ndarray(format="rgb24")


def depth_codes(path: Path) -> Iterator[tuple[int, NDArray[Any]]]:
    """The exact pts and the codes of each frame."""
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            time = FrameTime.of(packet) if packet.size else None
            for frame in packet.decode():
                assert time is not None
                yield time.pts, frame.to_ndarray()


def in_pieces(store: LocalStore, records: Sequence[SegmentRecord], stem: str = "video") -> list[Timed]:
    """All frames of the pieces of one video, in the order of the records."""
    pieces = [
        store.folder(record.number) / piece.name
        for record in records
        for piece in record.pieces
        if piece.name.startswith(stem)
    ]
    return [frame for piece in pieces for frame in decoded(piece)]


def same(found: Sequence[Timed], wanted: Sequence[Timed]) -> bool:
    """Whether times and pixels are equal."""
    return [time for time, _ in found] == [time for time, _ in wanted] and all(
        np.array_equal(one, other) for (_, one), (_, other) in zip(found, wanted, strict=True)
    )
