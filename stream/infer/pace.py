"""How many frames lie between two inferences so that a live source keeps its rate, from what was measured.

Invariant: the choice rises as soon as the rate is missed and falls only with room to spare, so it settles.
"""

import math

from stream.frames import Frame
from stream.notes import announce, logger

MOST = 8
"""Frames from one inference to the next at most: a third of a second at 25 frames a second."""
_SMOOTHING = 0.3
"""Weight of the newest measurement in a moving average."""
_SETTLE = 3
"""Inferences before each choice. The first of all is not measured, as buffers are allocated then."""
_ROOM, _ROOM_TO_FALL = 1.1, 1.4
"""Times what was measured that an inference is expected to take; for fewer frames between two more, so as to settle."""


class Pace:
    """Chooses after each inference.

    Args:
        target_fps: frames per second to reach; None for those that the source delivers.
    """

    def __init__(self, *, target_fps: float | None = None) -> None:
        self._target_fps = target_fps
        self.every = 1
        """Every so many frames, one goes through the model."""
        self._step_s: float | None = None
        self._took_s: float | None = None
        self._seen = -1
        self._last: Frame | None = None

    def arrived(self, frame: Frame) -> None:
        """Take the time of a frame into account; frames between may have been dropped."""
        last, self._last = self._last, frame
        if last is None or frame.index <= last.index or frame.time_s <= last.time_s:
            return
        step_s = (frame.time_s - last.time_s) / (frame.index - last.index)
        self._step_s = step_s if self._step_s is None else self._step_s + _SMOOTHING * (step_s - self._step_s)

    def inferred(self, took_s: float) -> None:
        """Take an inference into account."""
        self._seen += 1
        if not self._seen:
            return
        self._took_s = took_s if self._took_s is None else self._took_s + _SMOOTHING * (took_s - self._took_s)
        rate = self._rate
        if self._seen < _SETTLE or rate is None:
            return
        wanted, at_ease = (_frames(room * self._took_s * rate) for room in (_ROOM, _ROOM_TO_FALL))
        every = wanted if wanted > self.every else min(self.every, at_ease)
        if every != self.every:
            self.every, self._seen = every, 0
            text = (
                f"--skip auto: one of {every} frames goes through the model, which takes {1000 * self._took_s:.0f} ms; "
                f"{rate:.3g} frames a second are wanted"
            )
            if self._took_s * rate > MOST:
                text += ", so it sees fewer than that"
            logger.info(text)
            announce(text)  # each time, not only the first

    @property
    def _rate(self) -> float | None:
        """Frames per second to reach; None while it is unknown. A source does not deliver more than it has."""
        delivered = None if self._step_s is None else 1 / self._step_s
        if self._target_fps is None or delivered is None:
            return delivered or self._target_fps
        return min(delivered, self._target_fps)


def _frames(needed: float) -> int:
    return min(MOST, max(1, math.ceil(needed)))
