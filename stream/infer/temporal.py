"""Inference with a network that sees several frames of a clip: frame after frame (`Streaming`) or in windows
(`Windowed`).

What is known of earlier frames belongs to one source and one inference, never to the network. It is dropped where a new
clip begins, which `Clips` alone decides: at a scene cut, at a change of the frame's or the network input's size, where
time goes back, and where a live source has paused. Frames that a live source drops, or that the model cannot take, are
as if they had never been.
Invariant: a frame's depth depends on frames of its clip alone.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stream.channel import Channel, Closed, HeldBack
from stream.errors import ModelError
from stream.frames import Depth, Frame, Result
from stream.infer.base import Inference
from stream.infer.joining import STEP
from stream.infer.phases import State
from stream.infer.windows import Stopped, Windows
from stream.models.temporal import WINDOW
from stream.motion.cuts import CutDetector
from stream.notes import note

if TYPE_CHECKING:
    from stream.infer.engine import Engine

_PAUSE_S, _PAUSE_STEPS = 2.0, 8
"""A live source has paused if its next frame comes so much later, and so many times as late as the one before: a camera
was lost and found, a stream connected again. A slow model takes seconds for each frame, which is no pause."""
_LEAST_SIDE = 80
"""Frames with a shorter side in pixels are not searched for cuts. On them a pan by a few pixels is a new picture to
`CutDetector`, whose limits were measured on larger ones: in clips that only pan, by up to 20 pixels a frame, it found
cuts in some of up to 128×72 and in none of 160×120 or more."""
_FLOAT = 4


class Clips:
    """Tells the first frame of a clip from the others.

    Args:
        is_live: the source's times are those of the clock, so that a gap means a pause. In a file with a variable rate
            it means that nothing has changed.
    """

    def __init__(self, *, is_live: bool) -> None:
        self._detector, self._is_live = CutDetector(), is_live
        self._has_cut = False
        self._key: tuple[int, ...] | None = None
        self._time_s = 0.0
        self._step_s: float | None = None

    def begins(self, frame: Frame, key: tuple[int, ...]) -> bool:
        """Whether this frame begins a new clip, as the first of all does; called once per frame, in order.

        Args:
            key: size of the network input, and whatever else a clip must have in common.
        """
        key, before = (*key, *frame.size), self._key
        step_s, last_s = frame.time_s - self._time_s, self._step_s
        is_cut = min(frame.size) >= _LEAST_SIDE and self._detector.is_cut(frame.rgb)
        self._key, self._time_s = key, frame.time_s
        if before is None:
            return True
        self._step_s = step_s
        has_paused = self._is_live and last_s is not None and step_s > max(_PAUSE_S, _PAUSE_STEPS * last_s)
        if is_cut and not self._has_cut:
            self._has_cut = True
            note(f"a scene cut before frame {frame.index}: the model starts anew there and at each further cut")
        begins = is_cut or key != before or step_s < 0 or has_paused
        if begins and not is_cut:  # else this frame would be compared with one of the clip before
            self._detector.restart()
            self._detector.is_cut(frame.rgb)
        return begins


class Stepper:
    """One engine that takes the frames of one source one by one, and what it knows of the earlier ones."""

    def __init__(self, engine: "Engine", *, is_live: bool) -> None:
        self.engine, self._clips, self._state = engine, Clips(is_live=is_live), State()

    @property
    def state(self) -> State:
        """What is known of the clip so far."""
        return self._state

    def infer(self, frame: Frame) -> Depth:
        """Depth of the next frame. Raises like `Engine.infer`."""
        if self._clips.begins(frame, self.engine.key(frame)):
            self.restart()
        (depth,) = self.engine.infer([frame], self._state)
        return depth

    def restart(self) -> None:
        """The next frame begins a clip."""
        self._state = State()


class Streaming(Inference):
    """Computes each frame from itself and what is known of the earlier ones: a result for a frame as soon as it comes.

    Args:
        engine: closed with this one.
        is_live: see `Clips`.
    """

    def __init__(self, engine: "Engine", *, is_live: bool) -> None:
        self.engine, self._stepper = engine, Stepper(engine, is_live=is_live)

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""
        for frame in frames:
            try:
                self.engine.key(frame)
            except ModelError as error:
                on_skip(frame, str(error))
                continue
            yield frame, self._stepper.infer(frame)

    def kept_bytes(self, size_hw: tuple[int, int]) -> int:
        """See `Inference`."""
        return streaming_bytes(self.engine, size_hw)

    def close(self) -> None:
        """Release the model."""
        self.engine.close()


def streaming_bytes(engine: "Engine", size_hw: tuple[int, int]) -> int:
    """Host memory for what a network knows of earlier frames of `size_hw`; 0 if it is on another device."""
    planned = engine.plan_or_none(size_hw)
    return 0 if planned is None or engine.device.type == "cuda" else engine.eager().temporal.past_bytes(planned)


class Windowed(Inference):
    """Computes overlapping windows of `WINDOW` frames and joins them: steadier and better, but the first result needs
    a window, so this is for sources that wait.

    A stop in the middle of a window leaves out the frames whose maps are not final: they would cost another window.

    Args:
        engine: closed with this one.
    """

    def __init__(self, engine: "Engine") -> None:
        self.engine, self._clips = engine, Clips(is_live=False)
        self._waiting = f"first window: 0 of {WINDOW} frames"

    @property
    def waiting(self) -> str:
        """See `Inference`."""
        return self._waiting

    @property
    def holds(self) -> int:
        """See `Inference`."""
        return WINDOW

    def kept_bytes(self, size_hw: tuple[int, int]) -> int:
        """See `Inference`."""
        planned = self.engine.plan_or_none(size_hw)
        if planned is None or self.engine.device.type == "cuda":
            return 0
        pixels = planned[0] * planned[1] * _FLOAT
        features = WINDOW * self.engine.eager().temporal.feature_bytes(planned)
        return features + pixels * (3 * (WINDOW + STEP) + 2 * WINDOW)

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        """See `Inference`."""
        try:
            for result in self._results(frames, on_skip):
                self._waiting = ""
                yield result
        except Stopped:
            return

    def _results(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:
        clip: Windows | None = None
        while not frames.is_cut_short:
            try:
                frame = frames.get() if clip is None else frames.get_unless_held_back(clip.held_bytes)
            except HeldBack:
                if clip is not None and clip.is_computing:
                    yield from clip.collect()
                elif clip is not None:
                    note(
                        f"{clip.count} frames of this size fill the memory: the model starts anew after as many, and "
                        "its scale may jump; --temporal stream avoids that"
                    )
                    yield from clip.finish()
                    clip = None
                continue
            except Closed:
                break
            try:
                key = self.engine.key(frame)
            except ModelError as error:
                on_skip(frame, str(error))
                continue
            if self._clips.begins(frame, key) and clip is not None:
                yield from clip.finish()
                clip = None
            clip = clip or Windows(self.engine, frame, lambda: frames.is_cut_short)
            if self._waiting:
                self._waiting = f"first window: {min(clip.count + 1, WINDOW)} of {WINDOW} frames"
            yield from clip.add(frame)
            if clip.is_ready:
                yield from clip.collect()
        if clip is not None and not frames.is_cut_short:
            yield from clip.finish()

    def close(self) -> None:
        """Release the model."""
        self.engine.close()
