"""One run over open stages: source → inference → renderer → sinks.

It knows the stages by their contracts only (their `base` modules).
Invariant: each sink gets exactly one of `finish`, `keep_partial` or `abort`, whatever fails, and `run` raises the first
exception.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

from stream.capture.base import Skipped, Source
from stream.channel import Closed
from stream.errors import ModelError, SinkError, SourceError
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
        part: which part of the run this is ("pass 1 of 2"), whose frames are counted; "" if it has one only.
        earlier: frames of `total` that were written before this run.
    """

    metrics: Metrics
    stages: Stages
    total: int | None
    part: str = ""
    earlier: int = 0

    @property
    def done(self) -> int:
        """Frames written or yielded so far, those of `earlier` included."""
        return self.earlier + self.metrics.written

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
        most_bytes: see `Stages`.
        part: see `Progress`.
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
        most_bytes: int | None = None,
        part: str = "",
    ) -> None:
        self.metrics = metrics or Metrics()
        self.source, self.renderer, self.sinks = source, renderer, sinks
        self.stages = Stages(source, inference, self.metrics, queue=queue, most_bytes=most_bytes)
        self._needs_image = any(sink.needs_image for sink in sinks)
        self._accepted = dict.fromkeys(range(len(sinks)), 0)
        self._ended: set[int] = set()
        total = source.info.frame_count
        self.progress = Progress(metrics=self.metrics, stages=self.stages, total=total, part=part)
        self.on_progress = on_progress
        self._interrupts = Interrupts()
        self._wants_stop = False
        self.stop_if: Callable[[], bool] = lambda: False
        """Ends the run in order once it is true; asked on the caller's thread, also while a sink waits."""
        self.is_warm_up: Callable[[Frame], bool] = lambda _frame: False
        """Whether a frame only brings the model and the renderer into their state: no sink gets it."""
        self.output_time = StageTime(busy_s=0.0, waiting_s=0.0)

    @property
    def hung_up(self) -> bool:
        """Whether the terminal was closed, which ends a run like the first Ctrl-C."""
        return self._interrupts.hung_up

    @property
    def scene_cuts(self) -> int:
        """Scene cuts so far: the highest count, as a preview's own renderer sees the same cuts as the run's."""
        return max([self.renderer.scene_cuts, *(sink.scene_cuts for sink in self.sinks)])

    @property
    def unwritten(self) -> list[Skipped]:
        """Results that some sink could not write, each once, although `metrics.written` counts them."""
        return unwritten_by(self.sinks)

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
                sink.stopping = self._is_stopping
                sink.open(info, size)
            with self._interrupts.counted():
                self.stages.start()
                self._drain()
                raise_if_all_refused(self.stages, self.metrics.written)
                outcome = self._end(is_live=info.is_live)
                self._raise_if_all_unwritten()
        except BaseException as error:
            with self._interrupts.counted():
                self.stages.fail(error)
                self._end_after(error)
            raise
        finally:
            self.stages.close()
        log = self.source.log
        skipped = [*log.skipped, *self.stages.refused, *self.unwritten]
        warnings = [*log.warnings, *(warning for sink in self.sinks for warning in sink.warnings)]
        if outcome is Outcome.DONE and (skipped or warnings):
            return Outcome.DONE_WITH_SKIPS
        return outcome

    def stop(self) -> None:
        """Request an orderly stop, from any thread: what is written so far is kept."""
        self._wants_stop = True

    def _is_stopping(self) -> bool:
        return self._wants_stop or self._interrupts.count > 0 or self.stop_if()

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
                if self._is_stopping() and not self.stages.stopped_early:
                    self.stages.stop()
                if self.on_progress is not None:
                    self.on_progress(self.progress)
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
        if self.is_warm_up(frame):
            return
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
        seen_in_part = self.stages.stopped_early and self._interrupts.count and not is_live
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

    def _raise_if_all_unwritten(self) -> None:
        """Raise `SinkError` if sinks skipped every frame: there is no result."""
        unwritten = self.unwritten
        if unwritten and len(unwritten) == self.metrics.written:
            raise SinkError(unwritten[0].reason, where=unwritten[0].name)


def unwritten_by(sinks: Sequence[Sink]) -> list[Skipped]:
    """The results that any of `sinks` could not write, each once."""
    found = {one.index: one for sink in sinks for one in sink.unwritten}
    return [Skipped(name=one.name, reason=one.reason) for one in found.values()]


def raise_if_all_refused(stages: Stages, results: int) -> None:
    """Raise `ModelError` if the model refused every frame: there is no result to return."""
    if stages.refused and not results:
        first = stages.refused[0]
        raise ModelError(first.reason, where=first.name)


class Interrupts:
    """Counts what asks a program to end: a first Ctrl-C asks for an orderly end, a second one for an end now.

    No locks, as a handler may interrupt any line.

    Attributes:
        count: 0 until the program is asked to end.
        hung_up: the terminal was closed.
    """

    def __init__(self) -> None:
        self.count, self.hung_up = 0, False

    def counted(self) -> AbstractContextManager[None]:
        """Count the signals that arrive meanwhile; the second one raises `KeyboardInterrupt`."""
        return signals(self._interrupt, self._hang_up)

    def _interrupt(self) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt

    def _hang_up(self) -> None:
        """A closing terminal sends several of these, none of which means: now."""
        self.hung_up = True
        if not self.count:
            self._interrupt()


@contextmanager
def signals(interrupt: Callable[[], None], hang_up: Callable[[], None] | None = None) -> Iterator[None]:
    """Route SIGINT and SIGTERM to `interrupt`, and SIGHUP to `hang_up`, while on the main thread.

    On another thread nothing changes, and SIGHUP stays ignored where it is (nohup).

    Args:
        hang_up: default: `interrupt`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    routes = {signal.SIGINT: interrupt, signal.SIGTERM: interrupt}
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        routes[signal.SIGHUP] = hang_up or interrupt

    def handle(signum: int, _frame: FrameType | None) -> None:
        routes[signal.Signals(signum)]()

    with ExitStack() as restore:
        for number in routes:
            restore.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, handle)
        yield
