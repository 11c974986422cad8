"""One clip in overlapping windows, for a network that sees several frames at once.

    frames ─▶ network inputs ─▶ features, each frame once ─▶ windows ─▶ joined maps ─▶ results

While a window is computed, the frames of the next one are read and prepared.
Invariant: results come out in the order of the frames, each once, and what is held does not grow with the clip: the
frames without a final map, at most `WINDOW` + `STEP`, and two that later windows see again.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stream.frames import DepthKind, Frame, Result
from stream.infer.executor import Event, Phase
from stream.infer.joining import BLENDED, OVERLAP, STEP, Joined, Joiner, carried
from stream.infer.phases import Outputs, PendingResults, Slot
from stream.models.temporal import WINDOW

if TYPE_CHECKING:
    from stream.infer.engine import Engine

_STOP_S = 0.1
"""A run that ends is noticed after this time at most."""


@dataclass(frozen=True)
class _Place:
    """A frame of a window and what the network computes of it alone."""

    frame: Frame
    features: "Future[Outputs]"


@dataclass(frozen=True)
class _Maps:
    """The maps of a window on the device; `is_finite` is on the host once `known` is reached.

    Attributes:
        on_device: what `is_finite` is copied from, kept so that nothing reuses its memory before the copy has ended.
    """

    maps: Sequence[Tensor]
    on_device: Tensor
    is_finite: Tensor
    known: Event


@dataclass(frozen=True, kw_only=True)
class _Window:
    """A window that is being computed.

    Attributes:
        frames: by place, repeated at the end of the clip.
        count: places whose maps are wanted.
        done: frames of the clip that are final once it is joined.
        is_last: no window follows.
    """

    frames: Sequence[Frame]
    count: int
    done: int
    is_last: bool
    maps: "Future[_Maps]"


class Stopped(Exception):
    """Nobody wants the results any more; a window may still be computed."""


class Windows:
    """Computes the depth of one clip.

    Args:
        engine: nothing else uses it meanwhile.
        first: the first frame; all others have its size.
        is_stopped: asked while a window is waited for, which takes seconds on a CPU: `Stopped` is raised then.
    """

    def __init__(self, engine: "Engine", first: Frame, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped
        self._engine, self._input_hw = engine, engine.plan(first.size)
        fits = engine.spec.output is not DepthKind.METRIC_DEPTH
        self._joiner = Joiner(first.size, engine.spec.upsample, fits=fits)
        on_cuda = engine.device.type == "cuda"
        # On CUDA, an upload waits for the work queued before the last use of its slot: a window. And what is queued
        # behind the next window waits for that: so each window's maps are all queued before it.
        self._slots = deque(Slot() for _ in range(STEP if on_cuda else 1))
        self._ahead = WINDOW if on_cuda else engine.in_flight
        self._held: deque[Frame] = deque()
        self._chunk: list[tuple[Frame, Future[Sequence[Tensor]]]] = []
        self._places: list[_Place] = []
        self._window: _Window | None = None
        self._frames = self._windows = self._done = 0

    @property
    def count(self) -> int:
        """Frames of the clip so far."""
        return self._frames

    @property
    def held_bytes(self) -> int:
        """Of the images of frames without a result."""
        return sum(frame.rgb.nbytes for frame in self._held)

    @property
    def is_computing(self) -> bool:
        """A window has been submitted and not collected."""
        return self._window is not None

    @property
    def is_ready(self) -> bool:
        """`collect` need not wait."""
        if self._window is None or not self._window.maps.done():
            return False
        return self._window.maps.exception() is not None or self._window.maps.result().known.query()

    def add(self, frame: Frame) -> Iterator[Result]:
        """Take the next frame; yield what has become final."""
        self._held.append(frame)
        self._frames += 1
        self._slots.rotate(-1)
        slot, phases, size, backend = self._slots[0], self._engine.phases, self._input_hw, self._engine.eager()
        inputs = self._engine.executor.submit(Phase.PREPARE, lambda: phases.prepare(slot, [frame], size, backend))
        self._chunk.append((frame, inputs))
        is_full = len(self._places) + len(self._chunk) == WINDOW
        if is_full or len(self._chunk) >= self._engine.batch:
            self._compute_features()
        if is_full:
            yield from self._advance(is_last=False)

    def collect(self) -> Iterator[Result]:
        """Wait for the window that is being computed, and yield what it makes final."""
        if self._window is not None:
            window, self._window = self._window, None
            yield from self._released(window)

    def finish(self) -> Iterator[Result]:
        """End the clip: yield what is left. Its last frame stands at the places that no frame is left for."""
        self._compute_features()
        last = self._places[-1]
        # The authors compute one more window if it holds as much as one frame, and discard its maps if it is two.
        total = max(1, ceil((self._frames - (OVERLAP - BLENDED)) / STEP))
        while self._windows < total:
            self._places += [last] * (WINDOW - len(self._places))
            yield from self._advance(is_last=self._windows + 1 == total)
        yield from self.collect()

    def _compute_features(self) -> None:
        if not self._chunk:
            return
        phases, backend, executor = self._engine.phases, self._engine.eager(), self._engine.executor
        chunk, self._chunk = self._chunk, []
        inputs = [inputs for _, inputs in chunk]
        work = executor.submit(
            Phase.COMPUTE, lambda: phases.features([x for one in inputs for x in one.result()], backend)
        )
        for number, (frame, _) in enumerate(chunk):
            # A future for each frame: that of all would keep the features of frames that no window sees again.
            features = executor.submit(Phase.COMPUTE, lambda number=number: work.result()[number])  # type: ignore[misc]
            self._places.append(_Place(frame, features))

    def _advance(self, *, is_last: bool) -> Iterator[Result]:
        """Submit the window that is complete; yield what the one before makes final."""
        before, self._window = self._window, None
        released = None if before is None else self._released(before)
        first = next(released, None) if released is not None else None  # queues its work before the next window's
        self._window = self._submitted(is_last=is_last)
        self._windows += 1
        self._places = [self._places[place] for place in carried()]
        if released is not None and first is not None:
            yield first
            yield from released

    def _submitted(self, *, is_last: bool) -> _Window:
        engine = self._engine
        phases, backend, executor = engine.phases, engine.eager(), engine.executor
        features = [place.features for place in self._places]
        start = self._windows * STEP
        count = min(WINDOW, self._frames - start)

        def computed() -> _Maps:
            maps = phases.window([one.result() for one in features], backend, count=count)
            return self._checked(maps)

        return _Window(
            frames=[place.frame for place in self._places],
            count=count,
            done=start + (count if is_last else WINDOW - BLENDED),
            is_last=is_last,
            maps=executor.submit(Phase.COMPUTE, computed),
        )

    def _checked(self, maps: Sequence[Tensor]) -> _Maps:
        executor = self._engine.executor
        with torch.inference_mode():
            with executor.computing(None):
                is_finite = torch.stack([torch.isfinite(one).all() for one in maps])
                computed = executor.event()
            with executor.downloading(computed):
                return _Maps(maps, is_finite, executor.to_host(is_finite), executor.event())

    def _released(self, window: _Window) -> Iterator[Result]:
        """The results that a window makes final, once it is computed. Up to the first one, all work is queued."""
        phases, executor = self._engine.phases, self._engine.executor
        maps = self._finite(window)

        def joined() -> list[Joined]:
            with torch.inference_mode(), executor.computing(None):
                return self._joiner.join(maps, is_last=window.is_last)

        work = executor.submit(Phase.FINISH, joined)
        waiting = deque(enumerate([self._held.popleft() for _ in range(window.done - self._done)]))
        self._done = window.done
        queued: deque[tuple[Frame, Future[PendingResults]]] = deque()
        while waiting or queued:
            while waiting and len(queued) < self._ahead:
                number, frame = waiting.popleft()
                finish = lambda number=number, frame=frame: phases.finish_joined(work.result()[number], frame)  # noqa: E731
                queued.append((frame, executor.submit(Phase.FINISH, finish)))
            frame, future = queued.popleft()
            found = future.result()
            found.downloaded.synchronize()
            yield frame, self._engine.depth(frame, found.results[0], refined=found.refined[0])

    def _finite(self, window: _Window) -> Sequence[Tensor]:
        """The maps of a window, computed again in fp32 if any is not finite.

        Raises:
            ModelError: they are not finite in fp32.
            Stopped: the run ends.
        """
        while not wait([window.maps], _STOP_S).done:
            if self._is_stopped():
                raise Stopped
        found = window.maps.result()
        found.known.synchronize()
        if not found.is_finite.all() and self._engine.precision != "fp32":
            self._engine.count_in_fp32(window.done - self._done)
            found = self._engine.executor.submit(Phase.COMPUTE, lambda: self._in_fp32(window)).result()
            found.known.synchronize()
        if not found.is_finite.all():
            raise self._engine.not_finite(window.frames[found.is_finite.tolist().index(False)])
        return found.maps

    def _in_fp32(self, window: _Window) -> _Maps:
        phases, backend = self._engine.phases, self._engine.eager(in_fp32=True)
        features: dict[int, Outputs] = {}
        with torch.inference_mode(), self._engine.executor.computing(None):
            for frame in window.frames:
                if frame.index not in features:
                    x = phases.prepare_one(frame, self._input_hw, backend)
                    (features[frame.index],) = phases.features([x], backend)
        maps = phases.window([features[frame.index] for frame in window.frames], backend, count=window.count)
        return self._checked(maps)
