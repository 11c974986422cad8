"""Frames for a sink, without a source or a model."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from stream.frames import Depth, DepthKind, Frame, RgbImage, SourceInfo, SourceKind
from stream.sinks.base import Sink

SIZE = (48, 64)


def moving(index: int, size: tuple[int, int] = SIZE) -> RgbImage:
    """A slow pan over a smooth texture, for which encoders use B-frames."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    waves = [np.sin((x + 2 * index) / 7 + y / (5 + channel)) for channel in range(3)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def info_of(*, tick: Fraction, rate: Fraction | None, size: tuple[int, int] = SIZE, **fields: Any) -> SourceInfo:
    about: dict[str, Any] = {"name": "test", "is_live": False, "frame_count": None, "kind": SourceKind.VIDEO} | fields
    return SourceInfo(size=size, time_base=tick, rate=rate, **about)


def results(pts: Iterable[int], *, tick: Fraction, size: tuple[int, int] = SIZE) -> Iterator[tuple[Frame, Depth]]:
    for index, time in enumerate(pts):
        frame = Frame(index=index, pts=time, time_base=tick, captured_at=0.0, rgb=np.zeros((*size, 3), np.uint8))
        yield frame, Depth(values=np.zeros(size, np.float32), kind=DepthKind.RELATIVE_DISPARITY, index=index)


def fill(sink: Sink, pts: Iterable[int], *, tick: Fraction, rate: Fraction | None = None, **fields: Any) -> None:
    """Open `sink` and write a frame at each of `pts`; does not finish it."""
    info = info_of(tick=tick, rate=rate, **fields)
    sink.open(info, info.size)
    for frame, depth in results(pts, tick=tick, size=info.size):
        sink.write(frame, depth, moving(frame.index, info.size))
