"""The capture and inference threads: how they start, stop and fail together.

    capture thread ──frames──▶ inference thread ──results──▶ the caller

Invariant: the first exception wins. It aborts both channels, so that no stage waits for one that has ended, and the
caller gets that exception.
"""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from stream.capture.base import Skipped, Source
from stream.channel import Channel, Closed, WhenFull
from stream.frames import Frame, Result
from stream.infer.base import Inference
from stream.metrics import Metrics, StageTime

JOIN_DEADLINE_S = 1.0
"""Seconds that both threads together get to stop before they are abandoned: a reader can be stuck in a driver, and a
large model takes seconds for a frame."""


def channel(*, is_live: bool, queue: int, most: int | None = None) -> Channel[Any]:
    """A channel between two stages: for a live source only the newest item waits, otherwise up to `queue` items.

    `most` limits the bytes of the images between the source and the caller, see `Channel`.

    This bounds latency to one frame interval, one inference and one render, plus the item waiting in front of each; see
    tests/live/test_age.py.
    """
    return Channel(1, WhenFull.DROP_OLDEST) if is_live else Channel(queue, WhenFull.BLOCK, most=most)


class Stages:
    """Runs `source` and `inference` in threads; `get` reads the results.

    Args:
        source: the capture thread reads and closes it.
        inference: the inference thread uses and closes it.
        metrics: counters to keep.
        queue: capacity of both channels for lossless sources; a live source always has 1, where the newest wins.
        most_bytes: of the images of a lossless source that are in the stages and with the caller; one may be larger.
            None for no limit.
    """

    def __init__(
        self,
        source: Source,
        inference: Inference,
        metrics: Metrics,
        *,
        queue: int,
        most_bytes: int | None = None,
    ) -> None:
        live = source.info.is_live
        self.source, self.inference, self.metrics = source, inference, metrics
        self.frames: Channel[Frame] = channel(is_live=live, queue=queue, most=most_bytes)
        self.results: Channel[Result] = channel(is_live=live, queue=queue)
        self._with_caller = 0
        """Bytes of the image of the result that the caller got last; it has none any more when it asks for the next."""
        self.refused: list[Skipped] = []
        """Frames that the model cannot take."""
        self.abandoned: list[str] = []
        """Names of the threads that did not stop in time."""
        self._stop = threading.Event()
        self._stopped_s: float | None = None
        self._busy_s: dict[str, float] = {}
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._threads = [
            # Daemon threads: a reader stuck in a driver or network call, which Python cannot wake, can be abandoned.
            # Each runs in a copy of the context, so that its notes belong to this run.
            threading.Thread(
                target=copy_context().run, args=(self._guard, name, work), name=f"depthstream-{name}", daemon=True
            )
            for name, work in (("capture", self._capture), ("inference", self._infer))
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def get(self, timeout_s: float) -> Result:
        """The next result.

        Raises:
            TimeoutError: no result within `timeout_s`.
            Closed: the source has ended and every result was delivered.
            BaseException: the error of a stage.
        """
        if self._with_caller:
            self.frames.release(self._with_caller)
            self._with_caller = 0
        result = self.results.get(timeout_s)
        self._with_caller = result[0].rgb.nbytes
        return result

    @property
    def gave_up(self) -> bool:
        """True if `stop` was called more than half of `JOIN_DEADLINE_S` ago: do not wait for a running inference."""
        return self._stopped_s is not None and time.monotonic() - self._stopped_s > JOIN_DEADLINE_S / 2

    def stop(self) -> None:
        """End early: read and infer no more frames; `get` still delivers the results that are waiting."""
        if self._stopped_s is None:
            self._stopped_s = time.monotonic()
        self._stop.set()
        self.source.interrupt()
        self.frames.close(early=True)

    def fail(self, error: BaseException) -> None:
        """Stop every stage because of `error`; the first call wins."""
        with self._lock:
            if self._failure is None:
                self._failure = error
            error = self._failure
        self._stop.set()
        self.frames.abort(error)
        self.results.abort(error)
        self.source.interrupt()

    def close(self) -> None:
        """Stop both threads and wait for them up to `JOIN_DEADLINE_S`, then abandon those still running. Idempotent."""
        capture, inference = self._threads
        if capture.ident is None:
            self.source.close()
            self.inference.close()
            return
        self.stop()
        self.results.close()
        deadline = time.monotonic() + JOIN_DEADLINE_S
        for thread in (inference, capture):
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(0.1)
            if thread.is_alive() and thread.name not in self.abandoned:
                self.abandoned.append(thread.name)

    @property
    def stopped_early(self) -> bool:
        """True after `stop` or `fail`."""
        return self._stop.is_set()

    @property
    def has_captured_all(self) -> bool:
        """True once the source has ended; captured frames may still be in the pipeline."""
        return self.frames.is_closed

    def times(self) -> dict[str, StageTime]:
        """Seconds that each thread was busy and waiting so far."""
        waiting = {
            "capture": self.frames.put_wait_s,
            "inference": self.frames.get_wait_s + self.results.put_wait_s,
        }
        return {
            name: StageTime(busy_s=max(0.0, self._busy_s.get(name, 0.0) - wait_s), waiting_s=wait_s)
            for name, wait_s in waiting.items()
        }

    def _guard(self, name: str, work: Callable[[], None]) -> None:
        start = self.metrics.clock()
        try:
            work()
        except Closed:
            pass  # `stop` closed the channel
        except BaseException as error:  # noqa: BLE001  `get` raises it on the caller's thread
            self.fail(error)
        finally:
            self._busy_s[name] = self.metrics.clock() - start

    def _capture(self) -> None:
        metrics = self.metrics
        try:
            for frame in self.source:
                metrics.count_captured()
                if self.frames.put(frame, frame.rgb.nbytes) is not None:
                    metrics.drop("model_busy")
                if self._stop.is_set():
                    break
        finally:
            self.source.close()
        self.frames.close()

    def _infer(self) -> None:
        try:
            for result in self.inference.stream(self.frames, self._refuse):
                self.metrics.count_result(is_carried=result[1].carried, inferred=self.inference.inferred)
                if self.results.put(result) is not None:
                    self.metrics.drop("output_busy")
                if self._stop.is_set():
                    break
        finally:
            self.inference.close()
        self.results.close()

    def _refuse(self, frame: Frame, reason: str) -> None:
        self.frames.release(frame.rgb.nbytes)
        self.refused.append(Skipped(name=frame.name or f"frame {frame.index}", reason=reason))
