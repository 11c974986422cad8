"""What a viewer sees is never old: simulated time through the channels that live sources use.

Twenty minutes of it, and in the slow tests an hour.

A discrete-event simulation: one clock, the real channels, and a camera, a model and a display that take their time.
"""

import heapq
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

import pytest

from stream.channel import Channel, WhenFull
from stream.pipeline.threads import channel

LENGTHS_S = [1200.0, pytest.param(3600.0, marks=pytest.mark.slow)]
RENDER_S = 0.004


@dataclass
class Ages:
    """Seconds from capture to display, and counts."""

    worst_s: float = 0.0
    last_s: float = 0.0
    captured: int = 0
    shown: int = 0
    dropped: int = 0


def simulate(
    interval_s: Callable[[], float],
    inference_s: Callable[[], float],
    make: Callable[[], Channel[float]],
    *,
    length_s: float = 1200.0,
) -> Ages:
    """Camera → frames → model → results → display for `length_s`; an item is the time of its capture.

    Each stage yields the seconds that it takes, or None to wait until a channel changes.
    """
    frames, results, ages = make(), make(), Ages()
    events: list[tuple[float, int, Iterator[float | None]]] = []
    waiting: list[Iterator[float | None]] = []
    order = count()

    def changed() -> None:
        while waiting:
            heapq.heappush(events, (now, next(order), waiting.pop()))

    def put(channel: Channel[float], captured: float) -> Iterator[None]:
        while channel.when_full is WhenFull.BLOCK and len(channel) >= channel.capacity:
            yield None
        ages.dropped += channel.put(captured) is not None
        changed()

    def get(channel: Channel[float]) -> Generator[None, None, float]:
        while (captured := channel.get_nowait()) is None:
            yield None
        changed()
        return captured

    def camera() -> Iterator[float | None]:
        while True:
            yield interval_s()
            captured = now
            ages.captured += 1
            yield from put(frames, captured)

    def model() -> Iterator[float | None]:
        while True:
            captured = yield from get(frames)
            yield inference_s()
            yield from put(results, captured)

    def display() -> Iterator[float | None]:
        while True:
            captured = yield from get(results)
            yield RENDER_S
            ages.shown += 1
            ages.last_s = now - captured
            ages.worst_s = max(ages.worst_s, ages.last_s)

    now = 0.0
    for stage in (camera(), model(), display()):
        heapq.heappush(events, (0.0, next(order), stage))
    while events[0][0] < length_s:
        now, _, stage = heapq.heappop(events)
        took_s = next(stage)
        if took_s is None:
            waiting.append(stage)
        else:
            heapq.heappush(events, (now + took_s, next(order), stage))
    return ages


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0, 2.0, 4.0], ids=lambda ratio: f"camera at {ratio}× the model's speed")
@pytest.mark.parametrize("stalls", [False, True], ids=["steady", "jitter and stalls"])
@pytest.mark.parametrize("length_s", LENGTHS_S)
def test_the_age_of_what_is_shown_stays_bounded(length_s: float, ratio: float, stalls: bool) -> None:
    chance, inference, longest = Random(int(ratio * 100)), 0.1, 0.1
    interval = inference / ratio

    def between() -> float:
        jitter = chance.uniform(0.7, 1.3) if stalls else 1.0
        return interval * jitter + (2.0 if stalls and chance.random() < 0.002 else 0)

    def compute() -> float:
        nonlocal longest
        took = inference * (chance.uniform(0.8, 1.5) if stalls else 1.0)
        if stalls and chance.random() < 0.002:
            took += 1.5
        longest = max(longest, took)
        return took

    ages = simulate(between, compute, lambda: channel(is_live=True, queue=4), length_s=length_s)
    bound = interval * (1.3 if stalls else 1.0) + longest + 2 * RENDER_S
    assert ages.shown > 0.5 * min(length_s / interval, length_s / inference) * (0.6 if stalls else 1)
    assert ages.worst_s <= bound
    assert ages.captured - ages.shown - ages.dropped in (0, 1, 2, 3), "every frame is shown, dropped or on its way"


def test_a_blocking_queue_would_be_noticed() -> None:
    ages = simulate(lambda: 0.05, lambda: 0.1, lambda: Channel(100, WhenFull.BLOCK))
    assert ages.worst_s > 5
    lossless = simulate(lambda: 0.05, lambda: 0.1, lambda: channel(is_live=False, queue=4))
    assert lossless.worst_s > 0.05 + 0.1 + 2 * RENDER_S
