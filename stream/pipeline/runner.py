"""One run over open stages: source → inference → renderer → sinks.

It knows the stages by their contracts only (their `base` modules).
Invariant: each sink gets exactly one of `finish`, `keep_partial` or `abort`, whatever fails, and `run` raises the first
exception.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

from stream.capture.base import Source
from stream.channel import Closed
from stream.errors import ModelError, SourceError
from stream.frames import Depth, Frame
from stream.infer.base import Inference
from stream.metrics import Metrics, Outcome, StageTime
from stream.pipeline.threads import Stages
from stream.render.base import BaseRenderer
from stream.sinks.base import Sink

POLL_S = 0.05
"""Seconds between two looks at sinks, signals and the progress display while no result arrives."""
QUEUE = 4
"""Frames that may wait before and after the model for lossless sources; a batch if that is more. Enough to hide jitter;
a 4K frame takes 25 MB."""


@dataclass(kw_only=True)
class Progress:
    """State of a run for a progress display; the numbers change while it runs.

    Attributes:
        total: frames of the source as an estimate, None if unknown.
        metrics, stages: everything that is counted, for displays that show more.
    """

    metrics: Metrics
    stages: Stages
    total: int | None

    @property
    def done(self) -> int:
        """Frames written or yielded so far."""
        return self.metrics.written

    @property
    def fps(self) -> float | None:
        """Frames per second so far; None before the second frame."""
        return self.metrics.fps


ProgressHook = Callable[[Progress], None]


class Pipeline:
    """Runs an open source and an inference stage into a renderer and sinks.

    Args:
        source: the pipeline closes it, whatever happens.
        inference: the pipeline closes it, whatever happens.
        renderer: makes the image of each result.
        sinks: not yet open; the pipeline opens, feeds and ends them.
        on_progress: called on the caller's thread after each result, and every `POLL_S` while none arrives.
        metrics: counters to keep; new ones by default.
        queue: see `QUEUE`.
    """

    def __init__(
        self,
        source: Source,
        inference: Inference,
        renderer: BaseRenderer,
        sinks: list[Sink],
        *,
        on_progress: ProgressHook | None = None,
        metrics: Metrics | None = None,
        queue: int = QUEUE,
    ) -> None:
        self.metrics = metrics or Metrics()
        self.source, self.renderer, self.sinks = source, renderer, sinks
        self.stages = Stages(source, inference, self.metrics, queue=queue)
        self._needs_image = any(sink.needs_image for sink in sinks)
        self._accepted = dict.fromkeys(range(len(sinks)), 0)
        self._ended: set[int] = set()
        self._progress = Progress(metrics=self.metrics, stages=self.stages, total=source.info.frame_count)
        self.on_progress = on_progress
        self._interrupts = 0
        self._wants_stop = False
        self.output_time = StageTime(busy_s=0.0, waiting_s=0.0)

    @property
    def scene_cuts(self) -> int:
        """Scene cuts so far: the highest count, as a preview's own renderer sees the same cuts as the run's."""
        return max([self.renderer.scene_cuts, *(sink.scene_cuts for sink in self.sinks)])

    def run(self) -> Outcome:
        """Run to the end of the source, an interruption or the first error.

        Returns:
            How the run ended. After an interruption of a file job the partial outputs stay as NAME.partial.EXT.

        Raises:
            BaseException: the first exception of any stage, unchanged.
        """
        info = self.source.info
        try:
            size = self.renderer.output_size(info.size)
            for sink in self.sinks:
                sink.open(info, size)
            with signals(self._interrupt):
                self.stages.start()
                self._drain()
                raise_if_all_refused(self.stages, self.metrics.written)
                outcome = self._end(is_live=info.is_live)
        except BaseException as error:
            with signals(self._interrupt):
                self.stages.fail(error)
                self._end_after(error)
            raise
        finally:
            self.stages.close()
        log = self.source.log
        if outcome is Outcome.DONE and (log.skipped or log.warnings or self.stages.refused):
            return Outcome.DONE_WITH_SKIPS
        return outcome

    def _drain(self) -> None:
        clock, start, waited_s = self.metrics.clock, self.metrics.clock(), 0.0
        try:
            while True:
                asked = clock()
                try:
                    result = self.stages.get(POLL_S)
                except TimeoutError:
                    result = None
                    if self.stages.gave_up:
                        return
                except Closed:
                    return
                finally:
                    waited_s += clock() - asked
                if result is not None:
                    self._output(*result)
                elif not self.stages.stopped_early and not self.stages.has_captured_all:
                    self._raise_if_frozen(start)
                for sink in self.sinks:
                    sink.poll()
                    self._wants_stop |= sink.wants_stop
                if self._wants_stop and not self.stages.stopped_early:
                    self.stages.stop()
                if self.on_progress is not None:
                    self.on_progress(self._progress)
        finally:
            self.output_time = StageTime(busy_s=clock() - start - waited_s, waiting_s=waited_s)

    def _raise_if_frozen(self, started_s: float) -> None:
        """Give up a source that has been silent for too long: a driver that hangs cannot be woken, only abandoned."""
        limit_s = self.source.silence_limit_s
        last_s = self.metrics.last_capture_s or started_s
        if limit_s is not None and self.metrics.clock() - last_s > limit_s:
            hint = "the device is connected but delivers nothing: plug it in again, or raise --read-timeout-s"
            raise SourceError(f"no new frame for {limit_s:g} s", where=self.source.info.name, hint=hint)

    def _output(self, frame: Frame, depth: Depth) -> None:
        image = self.renderer.render(frame, depth) if self._needs_image else frame.rgb
        shown = None
        for number, sink in enumerate(self.sinks):
            accepted = sink.write(frame, depth, image)
            self._accepted[number] += 1
            if not sink.is_lossless:
                shown = bool(shown) or accepted
        self.metrics.written += 1
        if shown is not None:
            self.metrics.shown += shown
            self.metrics.not_shown += not shown
        self.metrics.record_output(frame.captured_at)

    def _end(self, *, is_live: bool) -> Outcome:
        """End the sinks after the last result. An interrupted file job stays partial; a live recording is complete."""
        partial = self.stages.stopped_early and not is_live and any(sink.is_lossless for sink in self.sinks)
        for number, sink in enumerate(self.sinks):
            self._ended.add(number)
            if not self._accepted[number]:
                sink.abort(KeyboardInterrupt("nothing was written"))
            elif partial:
                sink.keep_partial("interrupted")
            else:
                sink.finish()
        nothing = self.stages.stopped_early and not self.metrics.written
        seen_in_part = self.stages.stopped_early and self._interrupts and not is_live
        return Outcome.INTERRUPTED if partial or nothing or seen_in_part else Outcome.DONE

    def _end_after(self, error: BaseException) -> None:
        """End the sinks after an error: keep what was written as partial files. Attach a second failure to `error`."""
        for number, sink in enumerate(self.sinks):
            if number in self._ended:
                continue
            self._ended.add(number)
            try:
                if self._accepted[number]:
                    sink.keep_partial(str(error))
                else:
                    sink.abort(error)
            except BaseException as second:  # noqa: BLE001  attached to the first error
                error.add_note(f"then {type(sink).__name__} failed too: {second}")

    def _interrupt(self) -> None:
        """First Ctrl-C: request an orderly stop; no locks, as a handler may interrupt any line. Second: stop now."""
        self._interrupts += 1
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self._wants_stop = True


def raise_if_all_refused(stages: Stages, results: int) -> None:
    """Raise `ModelError` if the model refused every frame: there is no result to return."""
    if stages.refused and not results:
        first = stages.refused[0]
        raise ModelError(first.reason, where=first.name)


@contextmanager
def signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Route SIGINT and SIGTERM to `interrupt` while on the main thread; on another thread, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signum: int, _frame: FrameType | None) -> None:
        interrupt()

    with ExitStack() as restore:
        for number in (signal.SIGINT, signal.SIGTERM):
            restore.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, handle)
        yield
