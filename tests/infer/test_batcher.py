"""From a channel to ordered results: nothing is lost, reordered or delayed."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.channel import Channel, WhenFull
from stream.errors import ModelError
from stream.frames import Depth, DepthKind, Frame
from stream.infer import batcher
from stream.infer.batcher import LOOKAHEAD_BATCHES, Grouping, infer_stream
from stream.infer.engine import Engine
from tests.support.tiny_model import frame as patterned
from tests.support.tiny_model import loaded

PANORAMA = 99
"""The width that `FakeEngine` refuses."""


def frame(index: int, width: int = 4) -> Frame:
    rgb = np.full((2, width, 3), index % 256, np.uint8)
    return Frame(index=index, pts=index, time_base=Fraction(1, 30), captured_at=0.0, rgb=rgb)


class FakeEngine:
    """Obeys the contract of `Engine`, computes nothing, and records what was submitted."""

    def __init__(self, *, in_flight: int = 1, batch: int = 4) -> None:
        self.in_flight, self.batch = in_flight, batch
        self.submitted: list[list[int]] = []
        self._batches: deque[list[Frame]] = deque()

    @property
    def pending(self) -> int:
        return len(self._batches)

    def key(self, frame: Frame) -> int:
        if frame.size[1] == PANORAMA:
            raise ModelError("too wide")
        return frame.size[1]

    def submit(self, frames: Sequence[Frame]) -> None:
        assert 0 < len(frames) <= self.batch
        assert len({self.key(f) for f in frames}) == 1
        assert self.pending < self.in_flight
        self._batches.append(list(frames))
        self.submitted.append([f.index for f in frames])

    def collect(self) -> list[tuple[Frame, Depth]]:
        kind = DepthKind.RELATIVE_DISPARITY
        return [
            (f, Depth(values=np.full(f.size, f.index, np.float32), kind=kind, index=f.index))
            for f in self._batches.popleft()
        ]


def filled(frames: Sequence[Frame], *, when_full: WhenFull = WhenFull.BLOCK, close: bool = True) -> Channel[Frame]:
    channel: Channel[Frame] = Channel(max(1, len(frames)), when_full)
    for item in frames:
        channel.put(item)
    if close:
        channel.close()
    return channel


def streamed(
    frames: Channel[Frame], engine: FakeEngine, *, grouping: Grouping = Grouping.NONE, skipped: list[int] | None = None
) -> Iterator[tuple[Frame, Depth]]:
    def on_skip(frame: Frame, reason: str) -> None:
        assert reason == "too wide"
        assert skipped is not None
        skipped.append(frame.index)

    return infer_stream(frames, engine, batch=engine.batch, grouping=grouping, on_skip=on_skip)


@given(
    st.lists(st.sampled_from([1, 2, 3, PANORAMA]), max_size=60),
    st.integers(1, 5),
    st.integers(1, 2),
    st.sampled_from(Grouping),
    st.sampled_from(WhenFull),
)
def test_every_frame_comes_out_once_and_in_order(
    widths: list[int], batch: int, in_flight: int, grouping: Grouping, when_full: WhenFull
) -> None:
    engine, skipped = FakeEngine(in_flight=in_flight, batch=batch), list[int]()
    frames = [frame(i, width) for i, width in enumerate(widths)]
    results = list(streamed(filled(frames, when_full=when_full), engine, grouping=grouping, skipped=skipped))
    assert [f.index for f, _ in results] == [i for i, width in enumerate(widths) if width != PANORAMA]
    assert all(f is frames[f.index] and d.index == f.index and (d.values == f.index).all() for f, d in results)
    assert skipped == [i for i, width in enumerate(widths) if width == PANORAMA]
    assert engine.pending == 0


@given(st.lists(st.sampled_from([1, 2, 3]), max_size=60), st.integers(1, 4))
def test_no_frame_waits_for_more_than_four_batches(widths: list[int], batch: int) -> None:
    engine = FakeEngine(batch=batch)
    list(streamed(filled([frame(i, w) for i, w in enumerate(widths)]), engine, grouping=Grouping.BY_SHAPE))
    seen: set[int] = set()
    for group in engine.submitted:
        oldest = min(set(range(len(widths))) - seen)
        assert max(group) - oldest < batch * LOOKAHEAD_BATCHES
        seen |= set(group)


def test_one_odd_picture_does_not_hold_up_the_others_for_ever() -> None:
    engine = FakeEngine(batch=2)
    widths = [7] + [1] * 40
    results = list(streamed(filled([frame(i, w) for i, w in enumerate(widths)]), engine, grouping=Grouping.BY_SHAPE))
    assert len(results) == 41
    assert engine.submitted[:5] == [[1, 2], [3, 4], [5, 6], [0], [7, 8]]


def test_large_pictures_are_not_piled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "LOOKAHEAD_BYTES", 7 * 8 * 3)  # three of these pictures and their depth
    engine = FakeEngine(batch=4)
    frames = [frame(0, 4), *(frame(i, 5 if i % 2 else 4) for i in range(1, 12))]
    assert len(list(streamed(filled(frames), engine, grouping=Grouping.BY_SHAPE))) == 12
    assert max(map(len, engine.submitted)) <= 3


def test_stills_are_grouped_by_shape() -> None:
    engine = FakeEngine(batch=4)
    frames = [frame(i, 3 + i % 2) for i in range(16)]
    assert [f.index for f, _ in streamed(filled(frames), engine, grouping=Grouping.BY_SHAPE)] == list(range(16))
    assert engine.submitted == [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14], [9, 11, 13, 15]]


def test_neighbours_only() -> None:
    engine = FakeEngine(batch=4)
    list(streamed(filled([frame(i, width) for i, width in enumerate([1, 1, 2, 1, 1, 1, 1, 1, 2])]), engine))
    assert engine.submitted == [[0, 1], [2], [3, 4, 5, 6], [7], [8]]


def test_the_tail_is_flushed() -> None:
    engine = FakeEngine(batch=4)
    assert len(list(streamed(filled([frame(i) for i in range(6)]), engine))) == 6
    assert engine.submitted == [[0, 1, 2, 3], [4, 5]]


def test_a_live_source_does_not_wait_for_a_batch_or_for_the_next_frame() -> None:
    channel = filled([frame(0)], when_full=WhenFull.DROP_OLDEST, close=False)
    engine = FakeEngine(in_flight=2, batch=4)
    results = streamed(channel, engine)
    for index in range(3):
        if index:
            channel.put(frame(index))
        assert next(results)[0].index == index  # with nothing queued; it would hang if it waited
    channel.close()
    assert list(results) == []


def test_a_file_fills_its_batches_however_slowly_frames_come() -> None:
    class Slow(Channel[Frame]):
        """Never has more than one frame queued."""

        def get_nowait(self) -> Frame | None:
            return None

    channel = Slow(16)
    for index in range(8):
        channel.put(frame(index))
    channel.close()
    engine = FakeEngine(batch=4, in_flight=2)
    assert len(list(streamed(channel, engine))) == 8
    assert engine.submitted == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_two_batches_are_in_flight_while_frames_are_queued() -> None:
    engine = FakeEngine(in_flight=2, batch=2)
    results = streamed(filled([frame(i) for i in range(8)]), engine)
    next(results)
    assert engine.submitted == [[0, 1], [2, 3]]


def test_an_abort_wakes_the_reader() -> None:
    channel: Channel[Frame] = Channel(1)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            list(streamed(channel, FakeEngine()))
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    fault = OSError("unplugged")
    channel.abort(fault)
    thread.join(5)
    assert not thread.is_alive()
    assert caught == [fault]


def test_what_the_engine_raises_comes_out() -> None:
    class Broken(FakeEngine):
        def collect(self) -> list[tuple[Frame, Depth]]:
            raise ModelError("not finite")

    with pytest.raises(ModelError, match="not finite"):
        list(streamed(filled([frame(0)]), Broken()))


def test_with_the_real_engine() -> None:
    sizes = [(64, 48), (48, 64), (640, 480), (48, 64), (33, 24), (64, 48), (31, 25)]
    frames = [patterned(i, *size) for i, size in enumerate(sizes)]
    engine, alone = Engine(loaded(), device="cpu", batch=4), Engine(loaded(), device="cpu")
    results = infer_stream(
        filled(frames), engine, batch=4, grouping=Grouping.BY_SHAPE, on_skip=lambda _frame, reason: pytest.fail(reason)
    )
    for picture, (got, depth) in zip(frames, results, strict=True):
        assert got is picture
        np.testing.assert_allclose(depth.values, alone.infer([picture])[0].values, atol=1e-5)
