"""Quality control: the best model and inference size that keep up with a target rate, from measured durations.

Invariant: a step that was too slow is tried again only after a back-off that doubles with every failure, so the choice
settles and does not oscillate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stream.models.spec import InputPolicy

LADDER = (0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Inference sizes to try, as fractions of the model's default size."""
SMOOTHING = 0.2
"""Weight of the newest duration in a step's moving average."""
SETTLE = 8
"""Frames at a step before it is judged: a number of measurements, whatever time they take. The first is not measured,
as buffers are allocated then."""
TOO_SLOW, HEADROOM = 1.05, 0.75
"""Fractions of the time available for a frame. Step down if a frame takes more than `TOO_SLOW` of it; step up if the
next step should take at most `HEADROOM` of it."""
RETRY_DISCOUNT = 0.5
"""Whenever a step's back-off ends, the recorded times of it and of those above are multiplied by this so that it may be
tried again; one that was far too slow has to wait for several."""
FIRST_BACKOFF_S, MAX_BACKOFF_S = 10.0, 320.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A model at an inference size.

    Attributes:
        model: index of the model.
        input_size: None for a model with a fixed size.
        pixels: of the network input; durations of one model are predicted from it.
    """

    model: int
    input_size: int | None
    pixels: float

    def __str__(self) -> str:
        return f"model {self.model}, size {self.input_size}"


def sizes(policy: InputPolicy) -> list[int]:
    """A model's inference sizes, small to large; only its default if the size is fixed."""
    own = policy.size_hw[0]
    if policy.fixed_size:
        return [own]
    multiple = policy.multiple_of
    return sorted({max(multiple, round(own * share / multiple) * multiple) for share in LADDER})


def steps(policies: Sequence[InputPolicy]) -> list[Step]:
    """All steps of several models, worst quality first; `policies` has the best model first."""
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
        ladder: the steps, worst quality first.
        target_fps: frames per second to keep up with.
        start: index of the first step to use.
        clock: monotonic seconds.
    """

    def __init__(self, ladder: Sequence[Step], target_fps: float, *, start: int, clock: Callable[[], float]) -> None:
        self.ladder, self.at = tuple(ladder), start
        self.changes = 0
        self._allowed_s, self._clock = 1 / target_fps, clock
        self._mean_s: dict[int, float] = {}
        self._seen = 0
        self._backoff_s: dict[int, float] = {}
        self._not_before_s: dict[int, float] = {}

    @property
    def step(self) -> Step:
        """The step in use."""
        return self.ladder[self.at]

    def observe(self, seconds: float) -> bool:
        """Record the duration of a frame at the current step; True if the step has changed."""
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
        """Seconds per frame at a step: measured, or scaled by pixels from the model's nearest measured step; None if no
        step of that model was measured."""
        if step in self._mean_s:
            return self._mean_s[step]
        wanted = self.ladder[step]
        known = [number for number in self._mean_s if self.ladder[number].model == wanted.model]
        if not known:
            return None
        nearest = min(known, key=lambda number: abs(math.log(self.ladder[number].pixels / wanted.pixels)))
        return self._mean_s[nearest] * wanted.pixels / self.ladder[nearest].pixels

    def _lower(self) -> int:
        """The best lower step that should reach the rate, else the lowest; starts the current step's back-off."""
        if self.at == 0:  # slow as it is, it says nothing new about those above
            return 0
        backoff_s = self._backoff_s[self.at] = min(MAX_BACKOFF_S, 2 * self._backoff_s.get(self.at, FIRST_BACKOFF_S / 2))
        for step in range(self.at, len(self.ladder)):
            self._not_before_s[step] = self._clock() + backoff_s
        for step in range(self.at - 1, -1, -1):
            seconds = self.predicted_s(step)
            if seconds is None or seconds <= self._allowed_s:
                return step
        return 0

    def _higher(self) -> int:
        """The next step if it should be fast enough and its back-off is over, otherwise the current one."""
        above, now = self.at + 1, self._clock()
        if above == len(self.ladder) or now < self._not_before_s.get(above, -math.inf):
            return self.at
        waited = [step for step, until in self._not_before_s.items() if step >= above and until <= now]
        if waited:  # the machine may be less busy now
            for step in self._mean_s:
                if step >= above:
                    self._mean_s[step] *= RETRY_DISCOUNT
        seconds = self.predicted_s(above)
        if seconds is None or seconds <= HEADROOM * self._allowed_s:
            self._not_before_s.pop(above, None)
            return above
        for step in waited:
            self._not_before_s[step] = now + self._backoff_s.get(step, FIRST_BACKOFF_S)
        return self.at

    def _go(self, step: int) -> bool:
        if step == self.at:
            return False
        self.at, self._seen = step, 0
        self.changes += 1
        return True
