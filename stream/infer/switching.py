"""Inference with one of several loaded models: a viewer chooses it, or the rate that it should reach.

Invariant: the model changes between two frames, never within one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from stream.channel import Channel
from stream.errors import ModelError
from stream.frames import Depth, Frame, Result
from stream.infer.base import Inference
from stream.infer.temporal import Stepper, streaming_bytes
from stream.notes import announce, logger

if TYPE_CHECKING:
    from stream.infer.engine import Engine


class Switching(Inference):
    """Runs one of several loaded models; the choice may change between two frames.

    Args:
        engines: closed with this one.
        is_live: see `temporal.Clips`.
        remembers: for each, whether it takes frames together with those before them, see `temporal.Streaming`; None for
            no. A model that was not in use meanwhile begins a clip.

    Attributes:
        current: index of the model in use; may be set from any thread.
    """

    def __init__(
        self, engines: Sequence["Engine"], *, is_live: bool = True, remembers: Sequence[bool] | None = None
    ) -> None:
        self._engines = tuple(engines)
        flags = remembers or [False] * len(engines)
        self._steppers = [
            Stepper(engine, is_live=is_live) if flag else None for engine, flag in zip(engines, flags, strict=True)
        ]
        self._last: Engine | None = None
        self.current = 0

    @property
    def names(self) -> Sequence[str]:
        """The models' catalog names, in order."""
        return [engine.spec.name for engine in self._engines]

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""
        for frame in frames:
            engine = self._engines[self.current]
            try:
                engine.key(frame)
            except ModelError as error:
                on_skip(frame, str(error))
                continue
            yield frame, self._computed(engine, frame)

    def _computed(self, engine: "Engine", frame: Frame) -> Depth:
        stepper = self._steppers[self._engines.index(engine)]
        if stepper is not None and engine is not self._last:
            stepper.restart()
        self._last = engine
        return engine.infer([frame])[0] if stepper is None else stepper.infer(frame)

    def kept_bytes(self, size_hw: tuple[int, int]) -> int:
        """See `Inference`."""
        return sum(streaming_bytes(stepper.engine, size_hw) for stepper in self._steppers if stepper is not None)

    def close(self) -> None:
        """Release the models."""
        for engine in self._engines:
            engine.close()


class Adaptive(Switching):
    """Chooses model and inference size so that inference keeps up with a target rate; reports each choice.

    Args:
        engines: best quality first.
        target_fps: frames per second to reach.
        remembers: see `Switching`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        engines: Sequence["Engine"],
        *,
        target_fps: float,
        remembers: Sequence[bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(engines, remembers=remembers)
        from stream.infer.quality import QualityControl, sizes, steps

        policies = [engine.spec.input for engine in engines]
        ladder = steps(policies)
        own = sizes(policies[-1]).index(policies[-1].size_hw[0])
        self.control = QualityControl(ladder, target_fps, start=own, clock=clock)
        self._target_fps, self._clock = target_fps, clock
        self._took_s = 0.0
        self._use()

    @property
    def quality_changes(self) -> int:
        """See `Inference`."""
        return self.control.changes

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""
        for result in super().stream(frames, on_skip):
            yield result
            if self.control.observe(self._took_s):
                self._use()

    def _computed(self, engine: "Engine", frame: Frame) -> Depth:
        start = self._clock()
        depth = super()._computed(engine, frame)
        self._took_s = self._clock() - start
        return depth

    def _use(self) -> None:
        step = self.control.step
        self.current = step.model
        engine = self._engines[step.model]
        engine.resize(step.input_size)
        size = step.input_size or engine.spec.input.size_hw[0]
        text = f"--target-fps {self._target_fps:g}: {engine.spec.name} at inference size {size}"
        logger.info(text)
        announce(text)  # each time, not only the first
