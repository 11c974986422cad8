"""From a channel of frames to results in the same order, in batches.

Invariant: results come out in the order in which frames went in, at most four batches late, and a live source never
waits for a batch to fill.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol

from stream.channel import Channel, Closed, Full
from stream.errors import ModelError
from stream.frames import Depth, Frame

LOOKAHEAD_BATCHES = 4
"""Stills are grouped by shape within this many batches."""
LOOKAHEAD_BYTES = 512 * 2**20
"""Beyond this many bytes of waiting pictures nothing more is taken: four 50-megapixel photos."""


class Grouping(StrEnum):
    """Which frames may share a batch."""

    NONE = "none"
    """Neighbours only."""
    BY_SHAPE = "by_shape"
    """Any of the next few with the same network input size."""


class BatchEngine(Protocol):
    """What is needed of an `Engine`."""

    @property
    def depth(self) -> int: ...

    @property
    def pending(self) -> int: ...

    def key(self, frame: Frame) -> Hashable: ...

    def submit(self, frames: Sequence[Frame]) -> None: ...

    def collect(self) -> list[tuple[Frame, Depth]]: ...


def infer_stream(
    frames: Channel[Frame],
    engine: BatchEngine,
    *,
    batch: int,
    grouping: Grouping,
    on_skip: Callable[[Frame, str], None],
) -> Iterator[tuple[Frame, Depth]]:
    """Yield (frame, depth) for every frame of the channel until it is closed.

    A lossless channel (`Full.BLOCK`) is waited for until a batch is full; of a live one, what is queued is taken.

    Args:
        batch: most frames in one forward pass.
        on_skip: told of each frame that the model refuses, and why.

    Raises:
        ModelError: the model failed.
        BaseException: what the channel was aborted with.
    """
    waiting = _Waiting(engine, batch=batch, grouping=grouping, on_skip=on_skip)
    ordered = _Ordered(waiting)
    may_wait_for_more = frames.when_full is Full.BLOCK
    ended = False
    while not ended or waiting or engine.pending:
        while not ended and waiting.wants_more:
            frame = frames.get_nowait()
            if frame is None:
                if engine.pending or (waiting and not may_wait_for_more):
                    break
                try:
                    frame = frames.get()
                except Closed:
                    ended = True
                    break
            waiting.add(frame)
        is_final = ended or not may_wait_for_more
        group = waiting.take() if not waiting.wants_more or is_final else []
        if engine.pending and (not group or engine.pending == engine.depth):
            yield from ordered.release(engine.collect())
        if group:
            engine.submit(group)


class _Waiting:
    """Frames not yet submitted, in order."""

    def __init__(
        self, engine: BatchEngine, *, batch: int, grouping: Grouping, on_skip: Callable[[Frame, str], None]
    ) -> None:
        self._engine, self._batch, self._on_skip = engine, batch, on_skip
        self._most = batch * LOOKAHEAD_BATCHES if grouping is Grouping.BY_SHAPE else batch
        self._by_shape = grouping is Grouping.BY_SHAPE
        self._frames: list[tuple[Hashable, Frame]] = []
        self._bytes = 0
        self.sequence: list[int] = []
        """`Frame.index` of every accepted frame that is not yet released, in order."""

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame) -> None:
        try:
            key = self._engine.key(frame)
        except ModelError as error:
            self._on_skip(frame, str(error))
            return
        self._frames.append((key, frame))
        self._bytes += frame.rgb.nbytes
        self.sequence.append(frame.index)

    @property
    def wants_more(self) -> bool:
        """No batch is full yet, and there is room to look further."""
        return not self._full_key() and len(self._frames) < self._most and self._bytes < LOOKAHEAD_BYTES

    def take(self) -> list[Frame]:
        """The next batch: the first full one, else that of the oldest frame."""
        if not self._frames:
            return []
        full = self._full_key()
        wanted = full[0] if full else self._frames[0][0]
        group: list[Frame] = []
        rest: list[tuple[Hashable, Frame]] = []
        for key, frame in self._frames:
            neighbours = self._by_shape or not rest
            if key == wanted and neighbours and len(group) < self._batch:
                group.append(frame)
            else:
                rest.append((key, frame))
        self._frames = rest
        self._bytes = sum(frame.rgb.nbytes for _, frame in rest)
        return group

    def _full_key(self) -> list[Hashable]:
        """The first key with a whole batch of frames; neighbours from the oldest on, unless grouped by shape."""
        counts: dict[Hashable, int] = {}
        for key, _ in self._frames:
            if not self._by_shape and counts and key not in counts:
                return [self._frames[0][0]]  # a change of shape ends the oldest frame's batch
            counts[key] = counts.get(key, 0) + 1
            if counts[key] >= self._batch:
                return [key]
        return []


class _Ordered:
    """Puts results back into the order of their frames."""

    def __init__(self, waiting: _Waiting) -> None:
        self._sequence = waiting.sequence
        self._ready: dict[int, tuple[Frame, Depth]] = {}

    def release(self, results: Sequence[tuple[Frame, Depth]]) -> Iterator[tuple[Frame, Depth]]:
        """Take results; yield all whose predecessors have been yielded."""
        for frame, depth in results:
            self._ready[frame.index] = (frame, depth)
        while self._sequence and self._sequence[0] in self._ready:
            yield self._ready.pop(self._sequence.pop(0))
