"""Test patterns: lossless when asked for, paced to real time otherwise, and always easy to stop."""

import threading
from contextlib import closing
from fractions import Fraction

import numpy as np
import pytest

from stream.capture.pattern import NAMES, Pacing, PatternSource
from stream.errors import SourceNotFoundError
from stream.frames import SourceKind


@pytest.mark.parametrize("name", NAMES)
def test_every_pattern_gives_frames(name: str) -> None:
    with closing(PatternSource(name, size_hw=(48, 64), pacing=Pacing.NONE, max_frames=3)) as source:
        frames = list(source)
        assert (source.info.kind, source.info.size, source.info.is_live) == (SourceKind.PATTERN, (48, 64), False)
    assert [frame.index for frame in frames] == [frame.pts for frame in frames] == [0, 1, 2]
    assert {frame.size for frame in frames} == {(48, 64)}
    assert {frame.time_base for frame in frames} == {Fraction(1, 30)}


def test_an_unknown_pattern_is_refused_with_those_that_exist() -> None:
    with pytest.raises(
        SourceNotFoundError, match=r"pattern:tartan: no pattern 'tartan' \(allowed: testsrc2, .*mandelbrot"
    ):
        PatternSource("tartan")


def test_a_size_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(SourceNotFoundError, match="cannot be generated"):
        PatternSource("testsrc2", size_hw=(0, 0))


def test_the_picture_moves() -> None:
    with closing(PatternSource("testsrc2", size_hw=(48, 64), pacing=Pacing.NONE, max_frames=9)) as source:
        first, *_, last = source
    assert np.abs(first.rgb.astype(int) - last.rgb).mean() > 1


class Clock:
    """Time that passes only while somebody waits for it, and a bit while frames are made."""

    def __init__(self, *, work_s: float) -> None:
        self.now, self.work_s = 0.0, work_s
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def test_pacing_keeps_to_real_time_without_drift() -> None:
    clock = Clock(work_s=0.004)
    source = PatternSource("testsrc2", size_hw=(48, 64), rate=Fraction(25), max_frames=51, clock=clock, wait=clock.wait)
    with closing(source):
        times = []
        for frame in source:
            times.append(frame.captured_at)
            clock.now += clock.work_s
    assert source.info.is_live
    np.testing.assert_allclose(times, np.arange(51) / 25, atol=1e-9)


def test_a_reader_that_falls_behind_is_not_waited_for() -> None:
    clock = Clock(work_s=0.1)
    source = PatternSource("testsrc2", size_hw=(48, 64), rate=Fraction(25), max_frames=10, clock=clock, wait=clock.wait)
    with closing(source):
        for _ in source:
            clock.now += clock.work_s
    assert clock.waits == []


def test_interrupt_ends_a_wait_at_once() -> None:
    seen = threading.Event()
    # One frame in a thousand seconds: only the interrupt can end the wait for the second one.
    with closing(PatternSource("testsrc2", size_hw=(48, 64), rate=Fraction(1, 1000))) as source:

        def read() -> None:
            for _ in source:
                seen.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert seen.wait(5)
        source.interrupt()
        reader.join(5)
        assert not reader.is_alive()


def test_an_interrupted_or_closed_source_gives_nothing_and_close_may_be_repeated() -> None:
    source = PatternSource("testsrc2", size_hw=(48, 64), pacing=Pacing.NONE)
    source.interrupt()
    assert list(source) == []
    source.close()
    source.close()
