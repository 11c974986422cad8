"""One engine for several sources: whose turn it is, what is computed together, and that nothing is mixed up."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from stream.channel import Channel, WhenFull
from stream.errors import ModelError
from stream.frames import Depth, Frame, Result
from stream.infer.engine import Engine
from stream.infer.sharing import SharedEngine
from stream.infer.temporal import State, Streaming
from stream.models.spec import Fit
from stream.notes import Notes, collected
from tests.support.tiny_model import SPEC, Tiny, frame, loaded
from tests.support.tiny_video import scene, video_engine
from tests.support.waiting import WAIT_S, until


def tiny_engine(network: Tiny | None = None, *, batch: int = 1) -> Engine:
    return Engine(loaded(network), device="cpu", precision="fp32", batch=batch)


class Reader(threading.Thread):
    """A source's inference thread: what it got, what was refused, and what it raised."""

    def __init__(self, shared: SharedEngine, channel: Channel[Frame], order: list[str] | None = None) -> None:
        super().__init__()
        self.channel, self.share, self.order = channel, shared.share(), order
        self.results: list[Result] = []
        self.refused: list[str] = []
        self.error: BaseException | None = None
        self._in_context = copy_context().run

    def run(self) -> None:
        self._in_context(self._read)

    def _read(self) -> None:
        try:
            for result in self.share.stream(self.channel, lambda _frame, reason: self.refused.append(reason)):
                self.results.append(result)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            self.error = error
        finally:
            self.share.close()


def newest() -> Channel[Frame]:
    return Channel(1, WhenFull.DROP_OLDEST)


def lossless(frames: Sequence[Frame]) -> Channel[Frame]:
    channel: Channel[Frame] = Channel(len(frames))
    for one in frames:
        channel.put(one)
    channel.close()
    return channel


@contextmanager
def engine_held(shared: SharedEngine, readers: Sequence[Reader]) -> Iterator[None]:
    """The engine is busy until every reader waits for it, in their order."""
    with shared.alone():
        for count, reader in enumerate(readers, 1):
            reader.start()
            until(lambda count=count: len(shared._waiting) == count, "the source to wait")
        yield


def finished(readers: Sequence[Reader]) -> None:
    for reader in readers:
        reader.channel.close()
        reader.join(WAIT_S)
        assert not reader.is_alive()


def alone(frames: Sequence[Frame]) -> list[Depth]:
    engine = tiny_engine()
    try:
        return [engine.infer([one])[0] for one in frames]
    finally:
        engine.close()


def test_turns_come_in_the_order_in_which_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, turns = tiny_engine(), list[str]()
    real = engine.infer
    monkeypatch.setattr(engine, "infer", lambda frames, state=None: (turns.append(frames[0].name), real(frames))[1])
    shared = SharedEngine(engine, batch=1)
    readers = [Reader(shared, lossless([frame(i, name=name) for i in range(5)])) for name in "abcd"]
    with engine_held(shared, readers):
        pass
    finished(readers)
    assert turns[:4] == ["a", "b", "c", "d"], "a may not have a second turn before d has its first"
    assert sorted(turns) == sorted("abcd" * 5)


def test_the_newest_frame_is_taken_when_the_turn_comes() -> None:
    shared = SharedEngine(tiny_engine(), batch=1)
    reader = Reader(shared, newest())
    reader.channel.put(frame(0))
    with engine_held(shared, [reader]):
        dropped = [reader.channel.put(frame(index)) for index in (1, 2)]
    finished([reader])
    assert [one.index for one, _ in reader.results] == [2]
    assert [one.index for one in dropped if one is not None] == [0, 1], "each is counted by whoever puts it"


def test_frames_that_wait_are_computed_together_and_go_back_to_their_sources() -> None:
    shared = SharedEngine(tiny_engine(batch=4), batch=4)
    sizes = [(64, 48), (128, 96), (64, 48), (48, 64), (64, 48)]
    frames = [[frame(10 * number, *size)] for number, size in enumerate(sizes)]
    readers = [Reader(shared, lossless(own)) for own in frames]
    with engine_held(shared, readers):
        pass
    finished(readers)
    assert shared.largest_batch == 3, "the first four, of which one has another network size"
    for reader, (own,) in zip(readers, frames, strict=True):
        ((got, depth),) = reader.results
        assert got is own
        np.testing.assert_allclose(depth.values, alone([own])[0].values, rtol=1e-5, atol=1e-6)


class Spoilt(Tiny):
    """No finite answer for a picture that is white."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.mean((1, 2, 3)) > 1.5, torch.inf, 1.0)[:, None, None] * super().forward(x)


def white() -> Frame:
    blank = frame(0)
    return type(blank)(
        index=0, pts=0, time_base=blank.time_base, captured_at=0.0, rgb=np.full_like(blank.rgb, 255), name="white"
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_a_frame_without_an_answer_ends_its_source_alone(batch: int) -> None:
    shared = SharedEngine(tiny_engine(Spoilt(), batch=batch), batch=batch)
    readers = [Reader(shared, lossless(own)) for own in ([frame(1)], [white()], [frame(2), frame(3)])]
    with engine_held(shared, readers):
        pass
    finished(readers)
    assert isinstance(readers[1].error, ModelError)
    assert "white" in str(readers[1].error)
    assert [len(reader.results) for reader in readers] == [1, 0, 2]
    assert [readers[0].error, readers[2].error] == [None, None]


@pytest.mark.parametrize("spoils", ["nobody", "b"])
def test_a_fault_of_a_batch_is_said_and_only_the_source_that_has_it_fails(
    spoils: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, said = tiny_engine(batch=3), list[str]()
    real = engine.infer

    def infer(frames: Sequence[Frame], state: State | None = None) -> list[Depth]:
        if len(frames) > 1 or frames[0].name == spoils:
            raise RuntimeError("kernel")
        return real(frames, state)

    monkeypatch.setattr(engine, "infer", infer)
    shared = SharedEngine(engine, batch=3)
    with collected(Notes(said.append)):
        readers = [Reader(shared, lossless([frame(i, name=name) for i in range(3)])) for name in "abc"]
        with engine_held(shared, readers):
            pass
        finished(readers)
    for reader, name in zip(readers, "abc", strict=True):
        assert [str(reader.error), len(reader.results)] == (["kernel", 0] if name == spoils else ["None", 3])
        assert reader.refused == []
    assert said == ["3 frames together failed (RuntimeError: kernel): each is computed alone"]


def test_a_fault_over_one_frame_ends_its_source_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, fault = tiny_engine(batch=3), RuntimeError("no key")
    real = engine.key

    def key(one: Frame) -> tuple[int, ...]:
        if one.name == "b":
            raise fault
        return real(one)

    monkeypatch.setattr(engine, "key", key)
    shared = SharedEngine(engine, batch=3)
    readers = [Reader(shared, lossless([frame(0, name=name)])) for name in "abc"]
    with engine_held(shared, readers):
        pass
    finished(readers)
    assert [reader.error for reader in readers] == [None, fault, None]
    assert [len(reader.results) for reader in readers] == [1, 0, 1]


def test_a_source_that_fails_while_it_waits_does_not_disturb_the_others() -> None:
    shared = SharedEngine(tiny_engine(batch=3), batch=3)
    readers = [Reader(shared, lossless([frame(n)])) for n in range(3)]
    fault = RuntimeError("the camera is gone")
    with engine_held(shared, readers):
        readers[1].channel.abort(fault)
    finished(readers)
    assert readers[1].error is fault
    assert [len(reader.results) for reader in readers] == [1, 0, 1]


def test_a_frame_that_is_too_large_is_refused_and_the_next_one_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream.infer.geometry.MAX_INPUT_PIXELS", 200_000)
    fitted = loaded(input=replace(SPEC.input, fit=Fit.LOWER_BOUND))
    shared = SharedEngine(Engine(fitted, device="cpu", precision="fp32", batch=2), batch=2)
    wide = frame(0, 40_000, 2)
    readers = [Reader(shared, lossless([wide, frame(1)])), Reader(shared, lossless([frame(2)]))]
    with engine_held(shared, readers):
        pass
    finished(readers)
    assert (len(readers[0].refused), [one.index for one, _ in readers[0].results]) == (1, [1])
    assert (readers[1].refused, len(readers[1].results)) == ([], 1)


def test_each_source_has_a_memory_of_its_own() -> None:
    clips = [scene(9), scene(9, first=3, negative=True)]
    expected = []
    for own in clips:
        inference = Streaming(video_engine(), is_live=True)
        expected.append([depth.values for _, depth in inference.stream(lossless(own), lambda *_: None)])
        inference.close()
    shared = SharedEngine(video_engine(), batch=2, remembers=True)
    readers = [Reader(shared, lossless(own)) for own in clips]
    with engine_held(shared, readers):
        pass
    finished(readers)
    for reader, values in zip(readers, expected, strict=True):
        assert [reader.error, len(reader.results)] == [None, 9]
        np.testing.assert_array_equal([depth.values for _, depth in reader.results], values)
    assert not np.array_equal(expected[0][-1], expected[1][-1])


def test_the_last_source_closes_the_engine() -> None:
    engine = tiny_engine()
    shared = SharedEngine(engine, batch=1)
    first, second = shared.share(), shared.share()
    first.close()
    first.close()
    assert engine.infer([frame(0)])
    second.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.infer([frame(0)])
