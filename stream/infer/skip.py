"""Inference of some frames of a video; the depth of those between is carried along the motion of the picture.

The model runs on a thread of its own, so that depth is carried meanwhile. A file allows looking ahead: a frame between
two inferences takes from both. A live source does not wait: a frame takes from the last inference that is done, so none
is later for it, and the frame that goes through the model corrects those after it.
Invariant: depth is carried within a scene only, and the first frame of a scene goes through the model.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from stream.channel import Channel, Closed, HeldBack
from stream.config import defaults
from stream.frames import Depth, Frame, Result
from stream.infer.base import Inference, Wrapped
from stream.infer.pace import MOST, Pace
from stream.infer.worker import Answer, Worker
from stream.motion.carry import Carrier, Seen
from stream.motion.flow import Motion, flow_size
from stream.motion.steps import Step, Steps
from stream.notes import note

LEAST_CARRIED = 0.5
"""Share of a frame that must be found in the last one that the model has seen; with less, the model sees this one."""
OLDEST_S = 1.0
"""A live frame takes from one that is older by up to this; then it waits for the model."""
_LEAST_S = 1e-6
_MASK, _PLACE = 1, 8
"""Bytes of a pixel at the flow's size: whether it was found, and where."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sent:
    """A frame of a live source that the model sees, or has seen.

    Attributes:
        at_s: when it was sent, in monotonic seconds.
        back: where the pixels of the newest frame were in it; None if they have not moved.
        depth: None until it is there.
        refusal: why the model cannot take it.
    """

    frame: Frame
    at_s: float
    back: Motion | None = None
    depth: Depth | None = None
    refusal: str = ""

    def after(self, step: Step) -> "_Sent":
        """The same, seen from the next frame."""
        return self if step.back is None else replace(self, back=step.back.after(self.back))

    def answered(self, answer: Answer | None) -> "_Sent":
        """The same with what the model says."""
        return self if answer is None else replace(self, depth=answer.depth, refusal=answer.refusal)


@dataclass(kw_only=True, eq=False)
class _Held:
    """A frame of a file that waits for its depth.

    Attributes:
        back: where its pixels were in the last frame that the model sees; None if they have not moved.
        step: from the frame before.
        is_sent: the model sees it.
    """

    frame: Frame
    step: Step
    back: Motion | None
    is_sent: bool = False


class Skipping(Wrapped):
    """Lets a model see every so many frames of a video, sooner where the motion is too large to carry depth.

    Args:
        inference: sees each frame alone; it is closed with this one.
        every: one of so many frames goes through the model, those whose number is a multiple of it; None to choose it
            so that a live source keeps its rate.
        is_live: see above.
        batch: most frames that `inference` takes at once.
        target_fps: see `Pace`.
    """

    def __init__(
        self,
        inference: Inference,
        *,
        every: int | None,
        is_live: bool,
        batch: int = defaults().inference.batch,
        target_fps: float | None = None,
    ) -> None:
        super().__init__(inference)
        self._pace = Pace(target_fps=target_fps) if every is None else None
        self._fixed, self._is_live, self._batch = every or MOST, is_live, batch
        self._steps, self._carrier = Steps(), Carrier()
        self._inferred = 0

    @property
    def inferred(self) -> int:
        """See `Inference`."""
        return self._inferred

    def kept_bytes(self, size_hw: tuple[int, int]) -> int:
        """See `Inference`."""
        height, width = flow_size(size_hw)
        motions = height * width * (_MASK + _PLACE) * (3 if not self._is_live else 1)
        frames = self._fixed * (1 if self._is_live else self._batch + 2)
        return super().kept_bytes(size_hw) + frames * motions + size_hw[0] * size_hw[1] * 4 * 4

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""
        return self._live(frames, on_skip) if self._is_live else self._ahead(frames, on_skip)

    def _every_at(self, frame: Frame) -> int:
        if self._pace is None:
            return self._fixed
        self._pace.arrived(frame)
        if self._pace.every == 1:
            self._steps.restart()
        return self._pace.every

    def _worker(self) -> Worker:
        def count() -> None:
            self._inferred += 1

        return Worker(self._inference, is_live=self._is_live, most=self._batch + 3, count=count)

    def _live(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        worker, since = self._worker(), 0
        base: _Sent | None = None
        sent: _Sent | None = None
        try:
            for frame in frames:
                every, since = self._every_at(frame), since + 1
                step = self._steps.step(frame) if every > 1 else None
                if step is None or step.begins:
                    base = sent = None
                else:
                    base = None if base is None else base.after(step)
                    sent = None if sent is None else sent.after(step)
                if sent is not None and base is not None:
                    is_late = _is_lost(base.back) or frame.time_s - base.frame.time_s > OLDEST_S
                    if (answer := self._answer(worker, sent, waits=is_late)) is not None:
                        base, sent = sent.answered(answer), None
                if base is None or base.depth is None:
                    base, since = _Sent(frame=frame, at_s=time.monotonic()), 0
                    worker.frames.put(frame)
                    base = base.answered(self._answer(worker, base, waits=True))
                    if base.depth is None:
                        on_skip(frame, base.refusal)
                    else:
                        yield frame, base.depth
                    continue
                is_due = since >= every or _is_lost(base.back)
                if sent is None and is_due and not (step is not None and step.is_flash):
                    sent, since = _Sent(frame=frame, at_s=time.monotonic()), 0
                    worker.frames.put(frame)
                yield frame, self._carrier.carried(frame.index, [Seen(depth=base.depth, motion=base.back, apart_s=1.0)])
        finally:
            worker.close()

    def _answer(self, worker: Worker, sent: "_Sent", *, waits: bool) -> Answer | None:
        """The answer to a frame; those to earlier ones, which a cut has made useless, are dropped.

        Args:
            waits: until it is there; else None may be returned.
        """
        while True:
            answer = worker.answers.get() if waits else worker.answers.get_nowait()
            if answer is None:
                return None
            if answer.frame is sent.frame:
                if self._pace is not None:
                    self._pace.inferred(answer.at_s - sent.at_s)
                return answer

    def _ahead(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        held: deque[_Held] = deque()
        worker, run = self._worker(), _Run(self._carrier, held, on_skip)
        last_sent, back = -1, None

        def send(one: _Held) -> None:
            one.is_sent = True
            run.waiting += 1
            worker.frames.put(one.frame)

        def is_stopped() -> bool:
            return frames.is_cut_short

        try:
            while not is_stopped():
                if run.waiting > self._batch:
                    yield from run.taken(worker.answers.get())
                    continue
                try:
                    frame = frames.get_unless_held_back(sum(one.frame.rgb.nbytes for one in held))
                except (Closed, HeldBack) as why:
                    is_over = isinstance(why, Closed)
                    if is_over and is_stopped():
                        return
                    if not is_over:
                        note(f"the memory holds fewer frames than --skip {self._fixed}: the model sees more of them")
                    if held and not held[-1].is_sent:
                        send(held[-1])
                        last_sent, back = held[-1].frame.index, None
                    worker.frames.close()
                    for answer in worker.answers:
                        yield from run.taken(answer)
                    worker.close()
                    if is_over:
                        return
                    worker = self._worker()
                    continue
                step = self._steps.step(frame)
                if step.begins and held and not held[-1].is_sent:
                    send(held[-1])  # so that those before it have two neighbours
                back = None if step.begins else back if step.back is None else step.back.after(back)
                held.append(_Held(frame=frame, step=step, back=back))
                is_due = frame.index // self._fixed != last_sent // self._fixed or _is_lost(back)
                if step.begins or (is_due and not step.is_flash):
                    send(held[-1])
                    last_sent, back = frame.index, None
                while (found := worker.answers.get_nowait()) is not None:
                    yield from run.taken(found)
        finally:
            worker.close()


class _Run:
    """What becomes of the frames of a file that are held.

    Attributes:
        waiting: frames that the model has not answered yet.
    """

    def __init__(self, carrier: Carrier, held: deque[_Held], on_skip: Callable[[Frame, str], None]) -> None:
        self._carrier, self._held, self._on_skip = carrier, held, on_skip
        self._answers: dict[int, Answer] = {}
        self._before: Answer | None = None
        self.waiting = 0

    def taken(self, answer: Answer) -> Iterator[Result]:
        """Take an answer, and yield what is known now, in order."""
        self.waiting -= 1
        self._answers[answer.frame.index] = answer
        while (at := next((k for k, one in enumerate(self._held) if one.is_sent), None)) is not None:
            found = self._answers.pop(self._held[at].frame.index, None)
            if found is None:
                return
            yield from self._between(at, found)
            for _ in range(at):
                self._held.popleft()
            self._held.popleft()
            if found.depth is None:
                self._on_skip(found.frame, found.refusal)
            else:
                yield found.frame, found.depth
            self._before = found

    def _between(self, count: int, after: Answer) -> Iterator[Result]:
        """The results of the first frames, which lie before the one that was answered."""
        ways: list[Motion | None] = []
        way: Motion | None = None
        for place in range(count, 0, -1):
            step = self._held[place].step
            way = way if step.ahead is None else step.ahead.after(way)
            ways.append(way)
        for place in range(count):
            one = self._held[place]
            seen = [
                Seen(depth=each.depth, motion=motion, apart_s=max(_LEAST_S, abs(one.frame.time_s - each.frame.time_s)))
                for each, motion in ((self._before, one.back), (after, ways[count - 1 - place]))
                if each is not None and each.depth is not None
            ]
            if seen:
                yield one.frame, self._carrier.carried(one.frame.index, seen)
            else:
                self._on_skip(one.frame, after.refusal)


def _is_lost(motion: Motion | None) -> bool:
    """Whether too little of a frame is found in the one that the model has seen."""
    return motion is not None and motion.share_found < LEAST_CARRIED
