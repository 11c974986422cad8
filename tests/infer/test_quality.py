"""The choice of inference size and model for a wanted rate, on simulated machines."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from stream.infer.quality import QualityControl, Step, sizes, steps
from stream.models import catalog
from stream.models.registry import find

STARTER = catalog.STARTER.input
OWN = STARTER.size_hw[0]
SWIN = find("dpt_swin2_tiny_256").input


class Machine:
    """Runs a ladder at a cost that may change with time; its clock is the sum of all frames."""

    def __init__(
        self, cost_s: Callable[[Step, float], float], target_fps: float, *, ladder: list[Step] | None = None,
        start: int | None = None, noise: float = 0.0,
    ) -> None:  # fmt: skip
        self.now, self.cost_s, self.chance, self.noise = 0.0, cost_s, Random(5), noise
        self.ladder = ladder or steps([STARTER])
        begin = self.ladder.index(next(s for s in self.ladder if s.input_size == OWN)) if start is None else start
        self.control = QualityControl(self.ladder, target_fps, start=begin, clock=lambda: self.now)
        self.history: list[tuple[float, int]] = []

    def run(self, seconds: float) -> list[int]:
        """Steps in use, one a frame."""
        until, used = self.now + seconds, []
        while self.now < until:
            took = self.cost_s(self.control.step, self.now) * (1 + self.noise * self.chance.gauss(0, 1))
            self.now += took
            used.append(self.control.at)
            if self.control.observe(took):
                self.history.append((self.now, self.control.at))
        return used


def by_pixels(seconds_at_own: float) -> Callable[[Step, float], float]:
    return lambda step, _now: seconds_at_own * step.pixels / OWN**2


def best(machine: Machine, target_fps: float) -> int:
    fits = [n for n, step in enumerate(machine.ladder) if machine.cost_s(step, machine.now) <= 1 / target_fps]
    return max(fits, default=0)


def test_a_ladder_holds_the_models_own_size_in_its_multiples() -> None:
    assert sizes(STARTER) == [96, 128, 160, 224, 288, 320, 448]
    assert sizes(SWIN) == [256]
    assert [s.input_size for s in steps([SWIN])] == [None]


@pytest.mark.parametrize("cost", [0.01, 0.03, 0.06, 0.2])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_rate_is_held_at_nearly_the_best_size_that_can(cost: float, noise: float) -> None:
    machine = Machine(by_pixels(cost), 20, noise=noise)
    machine.run(60)
    used = machine.run(60)
    most = max(set(used), key=used.count)
    assert best(machine, 20) - 1 <= most <= best(machine, 20), "the next step is tried only with room to spare"
    held = sum(machine.cost_s(machine.ladder[n], 0) <= 1.1 / 20 for n in used) / len(used)
    assert held > 0.9 or best(machine, 20) == 0


def test_the_choice_settles() -> None:
    """A step with room, and one above that takes more than its pixels tell: the trap that makes it swing."""
    times = [0.015, 0.02, *[0.06] * 5]
    machine = Machine(lambda step, _now: times[machine.ladder.index(step)], 20, noise=0.05, start=1)
    machine.run(30)
    early = machine.control.changes
    machine.run(600)
    assert machine.control.changes - early <= 2 * 6, "each failure doubles the time until the next try"
    gaps = [late - early for (early, _), (late, _) in pairwise(machine.history)]
    assert max(gaps[-4:]) > 4 * max(gaps[:3])


@pytest.mark.parametrize("times", [2, 3, 4, 8, 16])
def test_it_goes_down_at_once_and_up_again_when_the_machine_is_free(times: int) -> None:
    def busy(step: Step, now: float) -> float:
        return by_pixels(0.035)(step, now) * (times if 60 <= now < 120 else 1)

    machine = Machine(busy, 20)
    before = machine.run(60)[-1]
    during = machine.run(60)
    after = machine.run(120)[-1]
    assert during[-1] < before
    assert during.index(next(n for n in during if n < before)) <= 20, "within twenty frames"
    assert after == before


def test_the_better_model_is_used_where_the_machine_can() -> None:
    big = replace(STARTER, size_hw=(518, 518), multiple_of=14)
    ladder = steps([big, STARTER])
    assert [step.model for step in ladder] == [1] * len(sizes(STARTER)) + [0] * len(sizes(big))

    def cost(speed: float) -> Callable[[Step, float], float]:
        return lambda step, _now: step.pixels / OWN**2 * (0.02 if step.model else 0.06) / speed

    for speed, model in ((0.5, 1), (40, 0)):
        machine = Machine(cost(speed), 20, ladder=ladder, start=3)
        machine.run(120)
        assert machine.control.step.model == model
        assert machine.cost_s(machine.control.step, 0) <= 1 / 20


def test_a_machine_too_slow_for_all_stays_at_the_lowest() -> None:
    machine = Machine(by_pixels(5.0), 20)
    machine.run(300)
    assert machine.control.at == 0
    assert machine.control.changes <= 3
