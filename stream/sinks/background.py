"""The background thread of the sinks that write one file per frame.

Encoding a 1080p PNG takes about 100 ms and a disk can stall, so both happen on one thread behind a small queue.
Invariant: the thread has ended after `finish` or `cancel`, and no error of a job is lost.
"""

import threading
from collections import deque
from collections.abc import Callable

_MAX_JOBS = 4
_MAX_BYTES = 128 << 20  # four 1080p depth maps take 33 MB; one of 200 megapixels takes 800 MB and is queued alone
_WAKE_S = 0.5  # no wait is unbounded


class BackgroundWriter:
    """Runs jobs in order on one thread, behind a queue bounded in number and bytes.

    After a job fails, no further job runs; each later `submit` raises the job's error, and so does `finish` if no
    `submit` did.
    """

    def __init__(self) -> None:
        self._jobs: deque[tuple[Callable[[], None], int]] = deque()
        self._queued_bytes = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._error: BaseException | None = None
        self._was_raised = False
        self._thread = threading.Thread(target=self._run, name="depthstream-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None], size_bytes: int) -> None:
        """Queue `job`, which holds `size_bytes` of memory; blocks while the queue is full.

        Raises:
            BaseException: the error of an earlier job.
        """
        with self._changed:
            while self._error is None and not self._fits(size_bytes):
                self._changed.wait(_WAKE_S)
            if self._error is not None:
                self._was_raised = True
                raise self._error
            self._jobs.append((job, size_bytes))
            self._queued_bytes += size_bytes
            self._changed.notify_all()

    def finish(self) -> None:
        """Run the queued jobs and end the thread. Idempotent.

        Raises:
            BaseException: the error of a job, unless `submit` raised it.
        """
        self._close()
        if self._error is not None and not self._was_raised:
            self._was_raised = True
            raise self._error

    def cancel(self) -> None:
        """Discard the queued jobs, let the running one finish, and end the thread. Idempotent, raises nothing."""
        with self._changed:
            self._jobs.clear()
        self._close()

    def _fits(self, size_bytes: int) -> bool:
        return not self._jobs or (len(self._jobs) < _MAX_JOBS and self._queued_bytes + size_bytes <= _MAX_BYTES)

    def _close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        while self._thread.is_alive():
            self._thread.join(_WAKE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._is_closed:
                    self._changed.wait(_WAKE_S)
                if not self._jobs:
                    return
                job, _ = self._jobs[0]  # stays in the queue while it runs, so that its memory counts
            error: BaseException | None = None
            try:
                job()
            except BaseException as caught:  # noqa: BLE001 - raised again on the caller's thread
                error = caught
            del job  # frees its memory before the next wait
            with self._changed:
                if error is not None:
                    self._error = error
                    self._jobs.clear()
                    self._is_closed = True
                elif self._jobs:
                    self._queued_bytes -= self._jobs.popleft()[1]
                self._changed.notify_all()
