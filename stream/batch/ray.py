"""Workers in actors of Ray, on this machine or on a cluster.

An actor is a `Worker` that has loaded its model once. Tasks and results, small as `Worker` says, go through
Ray; frames never do.
Invariant: Ray retries nothing. An actor that dies is a lost task, which the batch counts as an attempt, and a new actor
takes its seat; so nobody but the batch decides how often a video is tried.
"""

import importlib
import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stream.batch.base import Result, Task, lost
from stream.batch.bucket import BucketRecords, records_of
from stream.batch.ray_needs import largest, needs_of, with_shares
from stream.batch.records import FOLDER, Records
from stream.batch.worker import Worker as TheWorker
from stream.config import Config
from stream.errors import MissingExtraError, StreamError, UsageError, shown
from stream.files import as_sink_error
from stream.version import __version__

LOCAL = "local"
"""As an address: a cluster on this machine that lives as long as the batch."""
_CONTROL = "control"
_ASK_EVERY_S = 1.0
_MOST_STARTS_WITHOUT_A_TASK = 3
"""An actor that cannot even start is not started for ever."""
_SAY_WAITING_AFTER_S = 20.0
_GOODBYE_S = 5.0
_ANSWERS_WITHIN_S = 10.0


def check_installed() -> None:
    """Raise `MissingExtraError` without the package `ray`; imports nothing."""
    try:
        is_there = find_spec("ray") is not None
    except ValueError:  # as None in `sys.modules`
        is_there = False
    if not is_there:
        raise MissingExtraError("ray is not installed", where="--ray", hint="pip install 'depthstream[ray]'")


class Worker:
    """What runs in an actor. Its methods are called from several threads: tasks by one, everything else by another."""

    def __init__(self, config: dict[str, Any], scratch: str, folder: str) -> None:
        with suppress(OSError):  # relative paths, as of weights, are from here; without it, an error names them
            os.chdir(folder)
        self._frames, self._notes, self._stop = 0, deque[str](maxlen=20), threading.Event()
        self._worker = TheWorker(
            Config.model_validate(config),
            scratch=scratch,
            stop=self._stop,
            on_frames=self._count,
            on_note=self._notes.append,
        )
        self._scratch = scratch

    def hello(self) -> dict[str, Any]:
        """The first answer: whether this machine can take part."""
        records = self._worker.records
        sees_output = isinstance(records, BucketRecords) or _mark(records, self._scratch).is_dir()
        return {"version": __version__, "sees_output": sees_output, "pid": os.getpid()}

    def run(self, task: dict[str, Any]) -> dict[str, Any]:
        """Do a task. Every error of it is in the result."""
        self._frames = 0
        return {"result": self._worker.run(task), "notes": self._new_notes()}

    def state(self) -> dict[str, Any]:
        """How far the present task is."""
        return {"frames": self._frames, "notes": self._new_notes()}

    def stop(self) -> None:
        """End the present task in order."""
        self._stop.set()

    def close(self) -> None:
        """Release the model."""
        self._worker.close()

    def _count(self, frames: int) -> None:
        self._frames = frames

    def _new_notes(self) -> list[str]:
        notes = []
        with suppress(IndexError):
            while True:
                notes.append(self._notes.popleft())
        return notes


@dataclass(eq=False)
class _Seat:
    """The place of a worker, and the actor that has it now.

    Attributes:
        answers: what the actor has been asked: reference → "hello", "run" or "state".
        pid: of its process, on its machine; 0 until it has answered.
        task: in progress.
        starts: actors before it, one after another, that ended before they did anything.
    """

    scratch: str
    actor: Any
    answers: dict[Any, str] = field(default_factory=dict)
    pid: int = 0
    task: Task | None = None
    frames: int = 0
    asked_at: float = 0.0
    starts: int = 0


class Actors:
    """See `Executor`.

    Args:
        config: of every worker; its `output.path` is the output folder, which every machine of the cluster sees.
        address: `host:port` of a cluster; "": the one that `RAY_ADDRESS` names, else one that runs on this machine,
            else a new one; `LOCAL`: always a new one on this machine.
        count: workers, which may have to wait for machines; None: as many as there is room for now.
        gpus: for each worker; None: 1 where the cluster has GPUs and the device is not the CPU.
        memory: see `Needs`.
        on_note: called with what the workers have to say.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: no machine of the cluster has room for a worker.
        StreamError: the cluster cannot be reached.
    """

    def __init__(
        self,
        config: Config,
        *,
        address: str = "",
        count: int | None = None,
        gpus: float | None = None,
        memory: int | None = None,
        on_note: Callable[[str], None] = lambda _note: None,
    ) -> None:
        self._ray: Any = _imported()
        if isinstance(out := config.output.path, Path):
            config = config.model_copy(update={"output": config.output.model_copy(update={"path": out.absolute()})})
        self._records = records_of(config)
        self._on_note, self._is_stopping, self._why_lost = on_note, False, ""
        self._backlog: deque[Task] = deque()
        self._seats: list[_Seat] = []
        self._begun_at, self._has_said_waiting = time.monotonic(), False
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            _connect(self._ray, address)
        try:
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self.needs, room = needs_of(nodes, config, count=count, gpus=gpus, memory=memory)
            if not room and count is None:
                raise UsageError(
                    f"no machine of the cluster has room for a worker, which takes {self.needs}",
                    where="--ray",
                    hint=f"the largest has {largest(nodes)}; ask for less, or with -j N wait until there are machines",
                )
            if count is not None and room < count:
                on_note(f"the cluster has room for {room} of {count} workers now; the others wait for machines")
            self._config = with_shares(config, self.needs, nodes).model_dump(mode="json")
            self._class = self._ray.remote(
                num_cpus=self.needs.cpus,
                num_gpus=self.needs.gpus,
                memory=self.needs.memory,
                max_restarts=0,
                max_task_retries=0,
                max_concurrency=1,
                concurrency_groups={_CONTROL: 1},
                scheduling_strategy="SPREAD",
            )(Worker)
            for _ in range(count or room):
                self._seats.append(self._start())
        except BaseException:  # raised again: no actor stays behind
            self.close()
            raise

    @property
    def slots(self) -> int:
        """See `Executor`. Workers that wait for a machine count; their tasks wait with them, for any worker."""
        return len(self._seats)

    def submit(self, task: Task) -> None:
        """See `Executor`."""
        self._backlog.append(task)
        self._hand_out()

    def wait(self, timeout_s: float) -> list[Result]:
        """See `Executor`. Raises `StreamError` where no worker can be started at all."""
        results: list[Result] = []
        until = time.monotonic() + timeout_s
        while not results and (left := until - time.monotonic()) > 0:
            if self._is_stopping and self._backlog:
                return self._give_back_backlog()
            self._ask()
            self._say_waiting()
            asked = {answer: seat for seat in self._seats for answer in seat.answers}
            if not asked:
                threading.Event().wait(left)
                break
            ready, _ = self._ray.wait([*asked], timeout=min(left, _ASK_EVERY_S))
            if ready:
                ready, _ = self._ray.wait([*asked], num_returns=len(asked), timeout=0)
            for answer in ready:
                results += self._take(asked[answer], answer)
            if not self._seats and not self._is_stopping:
                raise StreamError(f"no worker is left: {self._why_lost}", where="--ray")
            self._hand_out()
        return results

    def frames(self) -> dict[int, int]:
        """See `Executor`."""
        return {seat.task["id"]: seat.frames for seat in self._seats if seat.task is not None}

    def stop(self) -> None:
        """See `Executor`."""
        self._is_stopping = True
        for seat in self._seats:
            if seat.task is not None:
                self._control(seat, "stop")

    def close(self) -> None:
        """See `Executor`."""
        seats, self._seats = self._seats, []
        goodbyes = [self._control(seat, "close") for seat in seats if seat.pid and seat.task is None]
        with suppress(self._ray.exceptions.RayError):
            if goodbyes:
                self._ray.wait(goodbyes, num_returns=len(goodbyes), timeout=_GOODBYE_S)
        for seat in seats:
            self._end(seat)
        if self._is_ours:
            self._is_ours = False
            self._ray.shutdown()

    def _start(self, *, starts: int = 0) -> _Seat:
        scratch = f"ray-{secrets.token_hex(4)}"
        mark = _mark(self._records, scratch)
        with as_sink_error(mark):
            mark.mkdir(parents=True)
        seat = _Seat(scratch=scratch, actor=self._class.remote(self._config, scratch, os.getcwd()), starts=starts)
        seat.answers[self._control(seat, "hello")] = "hello"
        return seat

    def _control(self, seat: _Seat, method: str) -> Any:
        return getattr(seat.actor, method).options(concurrency_group=_CONTROL).remote()

    def _hand_out(self) -> None:
        for seat in self._seats:
            if self._backlog and seat.pid and seat.task is None and not self._is_stopping:
                seat.task, seat.frames = self._backlog.popleft(), 0
                seat.answers[seat.actor.run.remote(dict(seat.task))] = "run"

    def _ask(self) -> None:
        """Ask the busy ones how far they are, each again only after it has answered."""
        now = time.monotonic()
        for seat in self._seats:
            if seat.task is not None and "state" not in seat.answers.values() and now - seat.asked_at >= _ASK_EVERY_S:
                seat.asked_at = now
                seat.answers[self._control(seat, "state")] = "state"

    def _take(self, seat: _Seat, answer: Any) -> list[Result]:
        """Take an answer. All of a dead actor come back at once; the first one replaces it."""
        if seat not in self._seats:
            return []
        what = seat.answers.pop(answer)
        try:
            found = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            return self._replace(seat, _reason(self._ray, error))
        for note in found.get("notes", ()):
            self._on_note(note)
        if what == "hello":
            return self._welcome(seat, found)
        if what == "state":
            if seat.task is not None:
                seat.frames = found["frames"]
            return []
        seat.task, seat.frames, seat.starts = None, 0, 0
        results: list[Result] = [found["result"]]
        return results

    def _welcome(self, seat: _Seat, found: dict[str, Any]) -> list[Result]:
        if found["version"] != __version__:
            what = f"a machine of the cluster has depthstream {found['version']}, this one has {__version__}"
            return self._retire(seat, what)
        if not found["sees_output"]:
            where = self._records.root
            return self._retire(seat, f"{where}: a machine of the cluster does not see this folder; use a shared one")
        seat.pid = found["pid"]
        return []

    def _replace(self, seat: _Seat, reason: str) -> list[Result]:
        """Give the seat of a dead actor to a new one."""
        starts = seat.starts + 1 if seat.task is None and not seat.pid else 0
        if self._is_stopping or starts >= _MOST_STARTS_WITHOUT_A_TASK:
            return self._retire(seat, reason)
        self._end(seat)
        self._seats[self._seats.index(seat)] = self._start(starts=starts)
        return [] if seat.task is None else [lost(seat.task, reason)]

    def _retire(self, seat: _Seat, reason: str) -> list[Result]:
        """Go on without a worker."""
        self._end(seat)
        self._seats.remove(seat)
        if not self._is_stopping and reason != self._why_lost:
            self._why_lost = reason
            self._on_note(f"a worker less: {reason}")
        return [] if seat.task is None else [lost(seat.task, reason)]

    def _end(self, seat: _Seat) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(seat.actor)
        self._records.discard_scratch(seat.scratch)

    def _give_back_backlog(self) -> list[Result]:
        given = [{**lost(task, "interrupted"), "state": "interrupted"} for task in self._backlog]
        self._backlog.clear()
        return given

    def _say_waiting(self) -> None:
        if any(seat.pid for seat in self._seats):
            self._begun_at = time.monotonic()
        elif not self._has_said_waiting and time.monotonic() - self._begun_at > _SAY_WAITING_AFTER_S:
            self._has_said_waiting = True
            self._on_note(f"waiting for a machine of the cluster with room for a worker ({self.needs})")


def _imported() -> Any:
    """The package, quiet, and without its reports on its use to its makers."""
    check_installed()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")  # the batch says it
    ray = importlib.import_module("ray")
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _connect(ray: Any, address: str) -> None:
    if address.startswith("ray://"):
        hint = "start depthstream on a machine of the cluster, or as a job (deploy/ray-job.yaml)"
        raise UsageError("the Ray Client is not supported", where=f"--ray {address}", hint=hint)
    _check_reachable(address or os.environ.get("RAY_ADDRESS", ""))
    quiet = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    try:
        ray.init(address=address or None, **quiet)
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        hint = "`ray status` on one of its machines says whether it runs; --ray without an address finds a local one"
        text = " ".join(str(error).split())
        raise StreamError(
            f"no Ray cluster can be used: {shown(text)[:300]}", where=f"--ray {address}".strip(), hint=hint
        ) from error


def _mark(records: Records, scratch: str) -> Path:
    """An empty folder that every machine sees which sees the output folder."""
    return records.root / FOLDER / "work" / scratch / "ray"


def _check_reachable(address: str) -> None:
    """Raise `StreamError` if nothing answers at HOST:PORT: Ray itself would end this program."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        hint = "`ray status` on one of its machines says whether it runs, and where"
        raise StreamError(f"no Ray cluster answers: {error}", where=f"--ray {address}", hint=hint) from error


def _reason(ray: Any, error: Exception) -> str:
    """Why a worker is gone, in one line."""
    text = str(error)
    if isinstance(error, ray.exceptions.RayTaskError) or getattr(error, "actor_init_failed", False):
        last = [line.strip() for line in text.splitlines() if line.strip()][-1]
        return f"the worker failed: {shown(last)[:300]}"
    if "NODE_OUT_OF_MEMORY" in text or isinstance(error, ray.exceptions.OutOfMemoryError):
        return "the worker process was ended because its machine ran out of memory"
    if "node has died" in text or isinstance(error, ray.exceptions.NodeDiedError):
        return "the machine of the worker was lost"
    return "the worker process was killed or crashed (out of memory?)"
