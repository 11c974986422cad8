"""An inference on a thread of its own, for who has other work to do meanwhile.

Invariant: an error of the inference is raised where its answers are taken; after `close` the model is free.
"""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass

from stream.channel import Channel, Closed, WhenFull
from stream.frames import Depth, Frame
from stream.infer.base import Inference


class _Left(Exception):
    """Whoever wanted the answers has gone."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Of the model to a frame: its depth, or why it cannot take the frame; and when it came, in monotonic seconds."""

    frame: Frame
    depth: Depth | None
    refusal: str
    at_s: float


class Worker:
    """Runs an inference on a thread of its own.

    Args:
        most: frames that may wait for it.
    """

    def __init__(self, inference: Inference, *, is_live: bool, most: int, count: Callable[[], None]) -> None:
        self._inference, self._count = inference, count
        self.frames: Channel[Frame] = Channel(1, WhenFull.DROP_OLDEST) if is_live else Channel(most)
        self.answers: Channel[Answer] = Channel(most + 1)
        work = copy_context().run
        self._thread = threading.Thread(target=work, args=(self._work,), name="depthstream-model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, and wait until the model is free."""
        self.frames.abort(_Left())
        self.answers.close()
        self._thread.join()

    def _work(self) -> None:
        try:
            for frame, depth in self._inference.stream(self.frames, self._refuse):
                self._count()
                self.answers.put(Answer(frame=frame, depth=depth, refusal="", at_s=time.monotonic()))
        except (_Left, Closed):
            pass
        except BaseException as error:  # noqa: BLE001  raised again where the answers are taken
            self.answers.abort(error)
        self.answers.close()

    def _refuse(self, frame: Frame, reason: str) -> None:
        self.answers.put(Answer(frame=frame, depth=None, refusal=reason, at_s=time.monotonic()))
