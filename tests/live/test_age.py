"""What a viewer sees is never old: an hour of simulated time through the channels that live sources use.

A discrete-event simulation: one clock, the real channels, and a camera, a model and a display that take their time.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

import pytest

from stream.channel import Channel, WhenFull
from stream.pipeline.threads import channel

HOUR_S = 3600.0
RENDER_S = 0.004
POLL_S = 0.004
"""The simulated model and display look for work this often; the real ones are woken."""


@dataclass
class Ages:
    """Seconds from capture to display, and counts."""

    worst_s: float = 0.0
    last_s: float = 0.0
    captured: int = 0
    shown: int = 0
    dropped: int = 0


def simulate(
    interval_s: Callable[[], float], inference_s: Callable[[], float], make: Callable[[], Channel[float]]
) -> Ages:
    """Camera → frames → model → results → display; an item is the time of its capture."""
    frames, results, ages = make(), make(), Ages()
    events: list[tuple[float, int, Iterator[float]]] = []
    order = count()

    def camera() -> Iterator[float]:
        while True:
            yield interval_s()
            if frames.when_full is WhenFull.BLOCK:
                while len(frames) >= frames.capacity:
                    yield POLL_S
            ages.captured += 1
            ages.dropped += frames.put(now) is not None

    def model() -> Iterator[float]:
        while True:
            captured = frames.get_nowait()
            if captured is None:
                yield POLL_S
                continue
            yield inference_s()
            while results.when_full is WhenFull.BLOCK and len(results) >= results.capacity:
                yield POLL_S
            ages.dropped += results.put(captured) is not None

    def display() -> Iterator[float]:
        while True:
            captured = results.get_nowait()
            if captured is None:
                yield POLL_S
                continue
            yield RENDER_S
            ages.shown += 1
            ages.last_s = now - captured
            ages.worst_s = max(ages.worst_s, ages.last_s)

    now = 0.0
    for stage in (camera(), model(), display()):
        heapq.heappush(events, (0.0, next(order), stage))
    while events[0][0] < HOUR_S:
        now, _, stage = heapq.heappop(events)
        heapq.heappush(events, (now + next(stage), next(order), stage))
    return ages


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0, 2.0, 4.0], ids=lambda ratio: f"camera at {ratio}× the model's speed")
@pytest.mark.parametrize("stalls", [False, True], ids=["steady", "jitter and stalls"])
def test_the_age_of_what_is_shown_stays_bounded(ratio: float, stalls: bool) -> None:
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

    ages = simulate(between, compute, lambda: channel(is_live=True, queue=4))
    bound = interval * (1.3 if stalls else 1.0) + longest + 2 * RENDER_S + 2 * POLL_S
    assert ages.shown > 0.5 * min(HOUR_S / interval, HOUR_S / inference) * (0.6 if stalls else 1)
    assert ages.worst_s <= bound
    assert ages.captured - ages.shown - ages.dropped in (0, 1, 2, 3), "every frame is shown, dropped or on its way"


def test_a_blocking_queue_would_be_noticed() -> None:
    ages = simulate(lambda: 0.05, lambda: 0.1, lambda: Channel(100, WhenFull.BLOCK))
    assert ages.worst_s > 5
    lossless = simulate(lambda: 0.05, lambda: 0.1, lambda: channel(is_live=False, queue=4))
    assert lossless.worst_s > 0.05 + 0.1 + 2 * RENDER_S + 2 * POLL_S
