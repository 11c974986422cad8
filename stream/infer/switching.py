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
from stream.notes import announce, logger

if TYPE_CHECKING:
    from stream.infer.engine import Engine


class Switching(Inference):
    """Runs one of several loaded models; the choice may change between two frames.

    Attributes:
        current: index of the model in use; may be set from any thread.
    """

    def __init__(self, engines: Sequence["Engine"]) -> None:
        self._engines = tuple(engines)
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
        return engine.infer([frame])[0]

    def close(self) -> None:
        """Release the models."""
        for engine in self._engines:
            engine.close()


class Adaptive(Switching):
    """Chooses model and inference size so that inference keeps up with a target rate; reports each choice.

    Args:
        engines: best quality first.
        target_fps: frames per second to reach.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        engines: Sequence["Engine"],
        *,
        target_fps: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(engines)
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
