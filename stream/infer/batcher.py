"""Collects frames from a channel into batches and puts the results back into order.

Invariant: results come out in the order in which frames went in, at most four batches late, and a live source never
waits for a batch to fill.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from stream.channel import Channel, Closed, HeldBack, WhenFull
from stream.errors import ModelError
from stream.frames import Depth, Frame, Result
from stream.infer.base import Inference

if TYPE_CHECKING:
    from stream.infer.engine import Engine

LOOKAHEAD_BATCHES = 4
"""Still images are grouped by shape within this many batches."""
LOOKAHEAD_BYTES = 2**30
"""No more frames are taken while images and depth maps of this many bytes are held: 153 megapixels, 6 large photos."""
_BYTES_PER_PIXEL = 3 + 4  # uint8 RGB and float32 depth


class Grouping(StrEnum):
    """Which frames may share a batch."""

    NONE = "none"
    """Neighbours only."""
    BY_SHAPE = "by_shape"
    """Any of the next frames that have the same network input size."""


class BatchEngine(Protocol):
    """The part of `Engine` that batching uses."""

    @property
    def in_flight(self) -> int: ...

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

    With a lossless channel (`WhenFull.BLOCK`) it waits until a batch is full, or no more frames fit into memory; from a
    live one it takes what is queued.

    Args:
        batch: most frames in one forward pass.
        on_skip: called with each frame that the model refuses, and the reason.

    Raises:
        ModelError: the model failed.
        BaseException: the exception that the channel was aborted with.
    """
    waiting = _Waiting(engine, batch=batch, grouping=grouping, on_skip=on_skip)
    ordered = _Ordered(waiting.unreleased)
    may_wait_for_more = frames.when_full is WhenFull.BLOCK
    most_pending = engine.in_flight if may_wait_for_more else 1  # a live frame must not queue behind another
    ended = False
    while not ended or waiting or engine.pending:
        held_back = False
        while not ended and waiting.wants_more:
            frame = frames.get_nowait()
            if frame is None:
                if engine.pending or (waiting and not may_wait_for_more):
                    break
                try:
                    frame = frames.get_unless_held_back() if waiting else frames.get()
                except HeldBack:
                    held_back = True
                    break
                except Closed:
                    ended = True
                    break
            waiting.add(frame)
        is_final = ended or held_back or not may_wait_for_more
        group = waiting.take() if is_final or not waiting.wants_more else []
        if engine.pending and (not group or engine.pending >= most_pending):
            yield from ordered.release(engine.collect())
        if group:
            engine.submit(group)


@dataclass(frozen=True, kw_only=True)
class _Arrival:
    frame: Frame
    key: Hashable
    number: int
    """Counts accepted frames from 0."""


class _Waiting:
    """Frames that are not yet submitted, in order."""

    def __init__(
        self, engine: BatchEngine, *, batch: int, grouping: Grouping, on_skip: Callable[[Frame, str], None]
    ) -> None:
        self._engine, self._batch, self._on_skip = engine, batch, on_skip
        self._by_shape = grouping is Grouping.BY_SHAPE
        self._span = batch * LOOKAHEAD_BATCHES if self._by_shape else batch
        self._arrivals: list[_Arrival] = []
        self._accepted = 0
        self.unreleased: deque[Frame] = deque()
        """Accepted frames whose results have not been released, in order."""

    def __len__(self) -> int:
        return len(self._arrivals)

    def add(self, frame: Frame) -> None:
        try:
            key = self._engine.key(frame)
        except ModelError as error:
            self._on_skip(frame, str(error))
            return
        self._arrivals.append(_Arrival(frame=frame, key=key, number=self._accepted))
        self._accepted += 1
        self.unreleased.append(frame)

    @property
    def wants_more(self) -> bool:
        """True if no batch is full yet and the limits allow looking further ahead."""
        return self._full_key() is None and not self._is_overdue

    def take(self) -> list[Frame]:
        """Remove and return the next batch: the oldest frame's if that is overdue, else the first full one."""
        if not self._arrivals:
            return []
        full = None if self._is_overdue else self._full_key()
        wanted = self._arrivals[0].key if full is None else full
        group: list[_Arrival] = []
        rest: list[_Arrival] = []
        for arrival in self._arrivals:
            may_join = self._by_shape or not rest
            fits = arrival.key == wanted and may_join and len(group) < self._batch
            (group if fits else rest).append(arrival)
        self._arrivals = rest
        return [arrival.frame for arrival in group]

    @property
    def _is_overdue(self) -> bool:
        """True if `span` frames, or too many bytes, have arrived since the oldest frame."""
        if self._arrivals and self._accepted - self._arrivals[0].number >= self._span:
            return True
        held = sum(frame.size[0] * frame.size[1] for frame in self.unreleased)
        return held * _BYTES_PER_PIXEL >= LOOKAHEAD_BYTES

    def _full_key(self) -> Hashable | None:
        """The first key with a full batch of frames; only the oldest frame and its neighbours count, unless grouped."""
        counts: Counter[Hashable] = Counter()
        for arrival in self._arrivals:
            if not self._by_shape and counts and arrival.key not in counts:
                return self._arrivals[0].key  # a change of shape ends the oldest frame's batch
            counts[arrival.key] += 1
            if counts[arrival.key] >= self._batch:
                return arrival.key
        return None


class _Ordered:
    """Restores the order of the frames."""

    def __init__(self, unreleased: deque[Frame]) -> None:
        self._unreleased = unreleased
        self._ready: dict[int, tuple[Frame, Depth]] = {}

    def release(self, results: Sequence[tuple[Frame, Depth]]) -> Iterator[tuple[Frame, Depth]]:
        """Add results; yield all those whose predecessors have been yielded."""
        for frame, depth in results:
            self._ready[frame.index] = (frame, depth)
        while self._unreleased and self._unreleased[0].index in self._ready:
            yield self._ready.pop(self._unreleased.popleft().index)


class EngineInference(Inference):
    """Runs a single engine, in batches."""

    def __init__(self, engine: "Engine", *, batch: int, stills: bool) -> None:
        self.engine, self._batch, self._stills = engine, batch, stills

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `infer_stream`."""
        grouping = Grouping.BY_SHAPE if self._stills else Grouping.NONE
        return infer_stream(frames, self.engine, batch=self._batch, grouping=grouping, on_skip=on_skip)

    def close(self) -> None:
        """Release the model."""
        self.engine.close()
