"""Which model at which inference size holds a wanted rate on this machine, decided from how long each took.

Invariant: a step that turned out too slow is not tried again before a time that doubles with every failure, so the
choice settles instead of swinging.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stream.models.spec import InputPolicy

LADDER = (0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Inference sizes tried, as shares of a model's own."""
SMOOTHING = 0.2
"""Weight of the newest duration in the mean of a step."""
SETTLE = 8
"""Frames at a step before it is judged; the first is not counted, as buffers are made then."""
TOO_SLOW, ROOM = 1.05, 0.75
"""Step down when a frame takes more than this share of the time it may take; up when the next step would take less."""
FORGETTING = 0.5
"""What a step took when it was too slow is taken for so much less when its time is over: a hopeless one stays out."""
FIRST_PATIENCE_S, MAX_PATIENCE_S = 10.0, 320.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A model (by number) at an inference size; `pixels` of the network input, for predictions within a model."""

    model: int
    input_size: int | None
    pixels: float

    def __str__(self) -> str:
        return f"model {self.model}, size {self.input_size}"


def sizes(policy: InputPolicy) -> list[int]:
    """The ladder of a model's inference sizes, small to large; its own alone where it takes no other."""
    own = policy.size_hw[0]
    if policy.fixed_size:
        return [own]
    multiple = policy.multiple_of
    return sorted({max(multiple, round(own * share / multiple) * multiple) for share in LADDER})


def steps(policies: Sequence[InputPolicy]) -> list[Step]:
    """All steps of several models, worst quality first: the models are given best first."""
    found = []
    for model in reversed(range(len(policies))):
        policy = policies[model]
        for size in sizes(policy):
            input_size = None if policy.fixed_size else size
            found.append(Step(model=model, input_size=input_size, pixels=float(size) ** 2))
    return found


class QualityControl:
    """Chooses a step after each frame.

    Args:
        ladder: worst quality first.
        target_fps: what the model is to keep up with.
        start: where to begin.
        clock: monotonic seconds.
    """

    def __init__(self, ladder: Sequence[Step], target_fps: float, *, start: int, clock: Callable[[], float]) -> None:
        self.ladder, self.at = tuple(ladder), start
        self.changes = 0
        self._allowed_s, self._clock = 1 / target_fps, clock
        self._mean_s: dict[int, float] = {}
        self._seen = 0
        self._patience_s: dict[int, float] = {}
        self._not_before_s: dict[int, float] = {}

    @property
    def step(self) -> Step:
        """The one in use."""
        return self.ladder[self.at]

    def observe(self, seconds: float) -> bool:
        """Tell how long a frame took at this step; True if another step is to be used from now on."""
        self._seen += 1
        if self._seen == 1:
            return False
        before = self._mean_s.get(self.at)
        fresh = before is None or self._seen == 2
        self._mean_s[self.at] = seconds if fresh or before is None else before + SMOOTHING * (seconds - before)
        if self._seen <= SETTLE:
            return False
        if self._mean_s[self.at] > TOO_SLOW * self._allowed_s:
            return self._go(self._lower())
        return self._go(self._higher())

    def predicted_s(self, step: int) -> float | None:
        """Seconds a frame takes at a step: measured, or by the pixels from the nearest measured step of that model."""
        if step in self._mean_s:
            return self._mean_s[step]
        wanted = self.ladder[step]
        known = [number for number in self._mean_s if self.ladder[number].model == wanted.model]
        if not known:
            return None
        nearest = min(known, key=lambda number: abs(math.log(self.ladder[number].pixels / wanted.pixels)))
        return self._mean_s[nearest] * wanted.pixels / self.ladder[nearest].pixels

    def _lower(self) -> int:
        """The best step below that should hold the rate, else the lowest; this one is left alone for a while."""
        patience_s = self._patience_s[self.at] = min(
            MAX_PATIENCE_S, 2 * self._patience_s.get(self.at, FIRST_PATIENCE_S / 2)
        )
        for step in range(self.at, len(self.ladder)):
            self._not_before_s[step] = self._clock() + patience_s
        for step in range(self.at - 1, -1, -1):
            seconds = self.predicted_s(step)
            if seconds is None or seconds <= self._allowed_s:
                return step
        return 0

    def _higher(self) -> int:
        """The next step, if it should take little enough and has not failed lately."""
        above = self.at + 1
        if above == len(self.ladder) or self._clock() < self._not_before_s.get(above, -math.inf):
            return self.at
        if above in self._not_before_s:  # the machine may have less to do now
            if above in self._mean_s:
                self._mean_s[above] *= FORGETTING
            del self._not_before_s[above]
        seconds = self.predicted_s(above)
        return above if seconds is None or seconds <= ROOM * self._allowed_s else self.at

    def _go(self, step: int) -> bool:
        if step == self.at:
            return False
        self.at, self._seen = step, 0
        self.changes += 1
        return True
