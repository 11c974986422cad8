"""Workers in processes on this machine.

A process reads its config and then tasks as lines of JSON from stdin, and answers in lines on what was its stdout. It
is started anew, not forked: a fork would inherit locks and the GPU's context. It has a session of its own, so that
Ctrl-C and a closing terminal are the parent's to handle.
Invariant: no process outlives the `Processes`, nor this program: the end of its stdin ends it.
"""

import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import IO, Any

from stream.batch.base import Result, Task, lost
from stream.batch.bucket import records_of
from stream.config import Config
from stream.errors import StreamError, shown

_START = """
import sys
sys.path[:] = {path}
from stream.batch.processes import serve
serve()
"""
_LAST_WORDS_S = 10.0
"""How long a process may take to end after its stdin was closed; then it is killed."""
_TELL_EVERY_S = 0.5
_MOST_STARTS_WITHOUT_A_TASK = 3
"""A process that cannot even start is not started for ever."""


class Processes:
    """See `Executor`.

    Args:
        configs: one for each process; their `output.path` is the output folder.
        gpus: CUDA_VISIBLE_DEVICES of each process; empty: as it is.
        on_note: called with what the workers have to say.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        *,
        gpus: Sequence[str] = (),
        on_note: Callable[[str], None] = lambda _note: None,
    ) -> None:
        self._records = records_of(configs[0])
        self._events: queue.SimpleQueue[tuple[_Process, dict[str, Any] | None]] = queue.SimpleQueue()
        self._on_note, self._is_stopping = on_note, False
        self._processes: list[_Process] = []
        try:
            for config, gpu in zip_longest(configs, gpus, fillvalue=None):
                assert config is not None
                self._processes.append(_Process(config, self._events, gpu=gpu))
        except OSError as error:
            self.close()
            raise StreamError(f"a process cannot be started: {error.strerror}", hint="use fewer with -j") from error

    @property
    def slots(self) -> int:
        """See `Executor`."""
        return len(self._processes)

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def submit(self, task: Task) -> None:
        """See `Executor`."""
        free = next(process for process in self._processes if process.task is None)
        free.start(task)

    def wait(self, timeout_s: float) -> list[Result]:
        """See `Executor`."""
        results: list[Result] = []
        with suppress(queue.Empty):
            while True:
                process, message = self._events.get(timeout=0 if results else timeout_s)
                if message is None:
                    results += self._replace(process)
                elif "note" in message:
                    self._on_note(message["note"])
                elif "frames" in message:
                    process.frames = message["frames"]
                else:
                    process.task, process.frames = None, 0
                    process.has_answered = True
                    results.append(message["result"])
        return results

    def frames(self) -> dict[int, int]:
        """See `Executor`."""
        return {process.task["id"]: process.frames for process in self._processes if process.task is not None}

    def stop(self) -> None:
        """See `Executor`."""
        self._is_stopping = True
        for process in self._processes:
            process.send({"stop": True})

    def close(self) -> None:
        """See `Executor`."""
        for process in self._processes:
            process.hang_up(in_order=process.task is None)
        until = time.monotonic() + _LAST_WORDS_S
        for process in self._processes:
            process.join(max(0.0, until - time.monotonic()))
            self._records.discard_scratch(process.scratch)
        self._processes.clear()

    def _replace(self, process: "_Process") -> list[Result]:
        """Start another process in the place of one that has ended."""
        if process not in self._processes:
            return []
        process.join(_LAST_WORDS_S)
        self._records.discard_scratch(process.scratch)
        starts = 0 if process.has_answered else process.starts + 1
        place = self._processes.index(process)
        del self._processes[place]
        if not self._is_stopping and starts < _MOST_STARTS_WITHOUT_A_TASK:
            with suppress(OSError):  # no memory, or no process is left: fewer go on
                self._processes.insert(place, _Process(process.config, self._events, gpu=process.gpu, starts=starts))
        return [] if process.task is None else [lost(process.task, process.how_it_ended())]


class _Process:
    """One process.

    Attributes:
        task: in progress.
        frames: done of it.
        starts: processes before it in its place, one after another, that ended before they did anything.
    """

    def __init__(
        self,
        config: Config,
        events: "queue.SimpleQueue[tuple[_Process, dict[str, Any] | None]]",
        *,
        gpu: str | None = None,
        starts: int = 0,
    ) -> None:
        self.gpu, self.config, self.starts, self.scratch = gpu, config, starts, f"{os.getpid()}-{secrets.token_hex(4)}"
        self.task: Task | None = None
        self.frames, self.has_answered = 0, False
        self._errors: deque[str] = deque(maxlen=5)
        threads = config.inference.threads
        limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if gpu is not None:
            limits["CUDA_VISIBLE_DEVICES"] = gpu
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(path=repr(sys.path))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **limits},
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=self._read, args=(events,), name="depthstream-batch", daemon=True),
            threading.Thread(target=self._listen, name="depthstream-batch-errors", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self.send({"config": config.model_dump(mode="json"), "scratch": self.scratch})

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, task: Task) -> None:
        self.task, self.frames = task, 0
        self.send({"task": dict(task)})

    def send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it has ended, which is an event
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def hang_up(self, *, in_order: bool) -> None:
        """Have it end: when it has cleaned up, or now."""
        if not in_order:
            self._process.kill()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended, and kill it if it does not."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()

    def how_it_ended(self) -> str:
        """For people."""
        code = self._process.returncode
        if code < 0:
            with suppress(ValueError):
                name = signal.Signals(-code).name
                hint = " (out of memory?)" if name == "SIGKILL" else ""
                return f"the worker process was ended by {name}{hint}"
        last = self._errors[-1] if self._errors else ""
        return shown(f"the worker process ended with code {code}" + (f": {last}" if last else ""))[:300]

    def _read(self, events: "queue.SimpleQueue[tuple[_Process, dict[str, Any] | None]]") -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):  # half a line of a process that was killed
                events.put((self, json.loads(line)))
        self._process.wait()
        events.put((self, None))

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if text := " ".join(line.decode(errors="replace").split()):
                self._errors.append(text)


def serve() -> None:
    """The process: do tasks until stdin ends."""
    answers, asked = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # what libraries print is no answer
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    lock, stop = threading.Lock(), threading.Event()
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()

    def answer(message: dict[str, Any]) -> None:
        with lock, suppress(OSError):  # the parent is gone, which ends this process
            answers.write(json.dumps(message).encode() + b"\n")
            answers.flush()

    def listen(lines: IO[bytes]) -> None:
        for line in lines:
            message = json.loads(line)
            if "task" in message:
                tasks.put(message["task"])
            else:
                stop.set()
        stop.set()
        tasks.put(None)

    from stream.batch.worker import Worker

    first = json.loads(asked.readline() or b"{}")
    if not first:
        return
    told_s = 0.0

    def tell(frames: int) -> None:
        nonlocal told_s
        if (now := time.monotonic()) - told_s >= _TELL_EVERY_S:
            told_s = now
            answer({"frames": frames})

    worker = Worker(
        Config.model_validate(first["config"]),
        scratch=first["scratch"],
        stop=stop,
        on_frames=tell,
        on_note=lambda note: answer({"note": note}),
    )
    threading.Thread(target=listen, args=(asked,), name="depthstream-batch-tasks", daemon=True).start()
    try:
        while (task := tasks.get()) is not None:
            answer({"result": worker.run(task)})
    finally:
        worker.close()
    answers.flush()
    os._exit(0)  # everything is closed: what still runs is stuck, see `stream.cli.main`
