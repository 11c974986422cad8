"""Depth that was computed earlier, in the place of a model."""

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest

from stream.channel import Channel, WhenFull
from stream.errors import SourceError
from stream.frames import Depth, Frame
from stream.infer.replay import Replay
from tests.support.fakes import depth_of, frame


def channel(frames: Iterable[Frame]) -> Channel[Frame]:
    made: Channel[Frame] = Channel(100, WhenFull.BLOCK)
    for one in frames:
        made.put(one)
    made.close()
    return made


def stored(*indices: int) -> list[tuple[Fraction, Depth]]:
    return [(frame(index).pts * frame(index).time_base, depth_of(frame(index))) for index in indices]


def replay(maps: list[tuple[Fraction, Depth]], refused: dict[int, str] | None = None) -> Replay:
    return Replay(stored=maps, refused=refused or {}, name="clip.mp4", what="the source has changed", hint="run again")


def test_each_frame_gets_its_depth_and_a_refused_one_its_reason() -> None:
    skipped: list[tuple[int, str]] = []
    frames = [frame(index) for index in (0, 2, 3, 7)]
    found = replay(stored(0, 2, 7), {3: "too large"}).stream(
        channel(frames), lambda one, why: skipped.append((one.index, why))
    )
    assert [(one.index, depth.index, float(depth.values.max())) for one, depth in found] == [
        (0, 0, 1), (2, 2, 3), (7, 7, 8)
    ]  # fmt: skip
    assert skipped == [(3, "too large")]


def small(index: int) -> Frame:
    return frame(index, (10, 12))


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([frame(0), frame(1), frame(2)], r"the frame at 0\.080 s has no depth"),
        ([frame(0), frame(2)], r"there is a frame at 0\.080 s, and depth at 0\.040 s"),
        ([frame(0)], "it has fewer frames than there are depth maps"),
        ([frame(0), small(1)], "the frame has 12×10 pixels, and its depth 32×24"),
    ],
    ids=["more", "others", "fewer", "smaller"],
)
def test_frames_that_are_not_those_of_the_depth(frames: list[Frame], error: str) -> None:
    with pytest.raises(SourceError, match=rf"^clip\.mp4: the source has changed: {error}; run again$"):
        list(replay(stored(0, 1)).stream(channel(frames), lambda *_: None))


def test_a_run_that_was_cut_short_has_depth_left() -> None:
    made = replay(stored(0, 1))
    made.is_cut_short = lambda: True
    ((_, depth),) = made.stream(channel([frame(0)]), lambda *_: None)
    assert np.array_equal(depth.values, depth_of(frame(0)).values)
