"""One engine for several live sources: each has its own place in the queue, and frames that wait share a batch.

Invariant: the engine works for one thread at a time, and turns come in the order in which they were asked for. A
source asks for one turn at a time, so none gets a second one before every other that waits has had its own. The frame
is chosen when the turn comes: the newest of its source.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stream.channel import Channel, Closed
from stream.errors import ModelError
from stream.frames import Depth, Frame, Result
from stream.infer.base import Inference
from stream.infer.temporal import Stepper, streaming_bytes
from stream.notes import note

if TYPE_CHECKING:
    from stream.infer.engine import Engine

_WAKE_S = 0.5
"""Longest single wait: a missed notification costs half a second and not a hang."""


class _Turn:
    """One frame of a source, from asking for the engine to the result.

    Args:
        take: gives the frame when the turn comes; None for a turn that has the engine for something else.
    """

    def __init__(self, take: Callable[[], Frame] | None) -> None:
        self._take = take
        self.may_join = take is not None
        """It may be computed together with other turns."""
        self.frame: Frame | None = None
        self.depth: Depth | None = None
        self.refusal = ""
        """Why the model cannot take the frame."""
        self.error: BaseException | None = None
        self.is_done = False

    def take(self) -> Frame | None:
        """The frame to compute; None if its source was ended meanwhile."""
        assert self._take is not None
        try:
            self.frame = self._take()
        except BaseException as error:  # noqa: BLE001  raised again on the thread of its source
            self.error = error
        return self.frame


class SharedEngine:
    """An engine that several sources use; it is closed with the last of its shares.

    Args:
        engine: nobody else may use it.
        batch: most frames in one forward pass, each of another source. Frames of different network input sizes that are
            taken together are computed one group after another.
        remembers: the model takes frames together with those before them (`temporal.Streaming`): each source has a
            memory of its own, and frames are computed one by one.
    """

    def __init__(self, engine: "Engine", *, batch: int, remembers: bool = False) -> None:
        self.engine, self._remembers = engine, remembers
        self._batch = 1 if remembers else batch
        self._changed = threading.Condition()
        self._waiting: deque[_Turn] = deque()
        self._is_busy = False
        self._shares = 0
        self.largest_batch = 0
        """Most frames that were computed together so far."""
        self.fault = ""
        """The note that says why frames are no longer computed together, if a fault has ended that."""

    def share(self) -> "Share":
        """The inference stage of one more source."""
        self._shares += 1
        return Share(self, Stepper(self.engine, is_live=True) if self._remembers else None)

    @contextmanager
    def alone(self) -> Iterator["Engine"]:
        """Waits for the engine and keeps it, to prepare it for frames of another size."""
        turn = _Turn(None)
        self._begin(turn)
        try:
            yield self.engine
        finally:
            self._end([turn])

    def compute(self, take: Callable[[], Frame], stepper: Stepper | None) -> _Turn:
        """Wait for a turn, then compute the frame that `take` gives.

        Whoever's turn it is takes the frames of others that wait into its batch.
        """
        mine = _Turn(take)
        turns = self._begin(mine)
        if turns:
            try:
                self._compute(turns, stepper)
            finally:
                self._end(turns)
        return mine

    def leave(self) -> None:
        """One share fewer; the last one closes the engine."""
        with self._changed:
            self._shares -= 1
            is_last = not self._shares
        if is_last:
            self.engine.close()

    def _begin(self, mine: _Turn) -> list[_Turn]:
        """Wait until it is the turn of `mine`, and return what is computed with it; nothing if another has done it."""
        with self._changed:
            self._waiting.append(mine)
            while not mine.is_done and (self._is_busy or not self._waiting or self._waiting[0] is not mine):
                self._changed.wait(_WAKE_S)
            if mine.is_done:
                return []
            self._is_busy = True
            turns = [self._waiting.popleft()]
            while mine.may_join and len(turns) < self._batch and self._waiting and self._waiting[0].may_join:
                turns.append(self._waiting.popleft())
            return turns

    def _end(self, turns: Sequence[_Turn]) -> None:
        with self._changed:
            self._is_busy = False
            for turn in turns:
                turn.is_done = True
            self._changed.notify_all()

    def _compute(self, turns: Sequence[_Turn], stepper: Stepper | None) -> None:
        groups: dict[tuple[int, ...], list[tuple[_Turn, Frame]]] = {}
        for turn in turns:
            frame = turn.take()
            if frame is None:
                continue
            try:
                groups.setdefault(self.engine.key(frame), []).append((turn, frame))
            except ModelError as error:
                turn.refusal = str(error)
            except BaseException as error:  # noqa: BLE001  raised again on the thread of its source
                turn.error = error
        for group in groups.values():
            self.largest_batch = max(self.largest_batch, len(group))
            if len(group) > 1 and self._computed_together(group):
                continue
            for turn, frame in group:
                try:
                    turn.depth = self.engine.infer([frame])[0] if stepper is None else stepper.infer(frame)
                except BaseException as error:  # noqa: BLE001  raised again on the thread of its source
                    turn.error = error

    def _computed_together(self, group: Sequence[tuple[_Turn, Frame]]) -> bool:
        """False if the batch fails: then each is computed alone, and only the frame that spoils it fails.

        A fault, which may be that of the batch, ends batches.
        """
        try:
            depths = self.engine.infer([frame for _, frame in group])
        except ModelError:
            return False
        except Exception as error:  # noqa: BLE001  said, and raised again on the thread of a source whose frame has it
            self._batch = 1
            self.fault = (
                f"{len(group)} frames together failed ({type(error).__name__}: {error}): each is computed alone"
            )
            note(self.fault)
            return False
        for (turn, _), depth in zip(group, depths, strict=True):
            turn.depth = depth
        return True


class Share(Inference):
    """The inference stage of one of the sources that share an engine.

    Args:
        stepper: what the model knows of the earlier frames of this source; None if it takes each alone.
    """

    def __init__(self, shared: SharedEngine, stepper: Stepper | None) -> None:
        self._shared, self._stepper = shared, stepper
        self._is_open = True

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""
        while True:
            try:
                frames.wait()
            except Closed:
                return
            asked_s = time.monotonic()
            began_s = asked_s

            def newest() -> Frame:
                nonlocal began_s
                began_s = time.monotonic()
                return frames.get()

            turn = self._shared.compute(newest, self._stepper)
            frames.get_wait_s += began_s - asked_s
            if turn.error is not None:
                raise turn.error
            assert turn.frame is not None
            if turn.depth is None:
                on_skip(turn.frame, turn.refusal)
            else:
                yield turn.frame, turn.depth

    def kept_bytes(self, size_hw: tuple[int, int]) -> int:
        """See `Inference`."""
        return 0 if self._stepper is None else streaming_bytes(self._shared.engine, size_hw)

    def close(self) -> None:
        """Leave the engine to the others."""
        if self._is_open:
            self._is_open = False
            self._shared.leave()
