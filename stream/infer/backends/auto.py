"""`--backend auto` on a CPU: torch at once, and a faster runtime as soon as a child process has exported the network.

Invariant: each input is computed once, by torch or by an export whose outputs were checked against torch's. The choice
changes between two calls only, and no call waits for an export.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from queue import Empty, SimpleQueue

import torch
from torch import Tensor

from stream.errors import ModelError, StreamError
from stream.infer.backends import Backend, choose
from stream.infer.backends.child import ChildError, StoppedError
from stream.infer.backends.choose import BackendOptions
from stream.infer.backends.eager import Eager
from stream.infer.backends.exported import MAX_SIZES, Exported, test_input
from stream.infer.backends.exporter import Exporter
from stream.infer.device import hardware_id
from stream.version import __version__

PAYS_FROM_S = 30.0
"""Export only if torch would take at least this many seconds for the rest of the job."""
MARGIN = 1.15
"""A runtime must be this many times as fast as torch to replace it."""
SHORT_JOB_S = 5.0
"""A job that torch finishes within this gains nothing from another runtime, which takes up to a second to load."""
OBSERVED = 4
"""Frames that torch computes before anything else is tried."""
LIVE_FROM_S = 3.0
"""A live source has run for this long before anything else is tried."""
TRIAL_RUNS = 5
"""Frames that each of the two computes in turn while they are compared; one more of each comes first, which is not
counted."""
_POLL_S, _CLOSE_S = 0.1, 2.0


@dataclass(eq=False, kw_only=True)
class _Size:
    """What is known of one size of the network's input.

    Attributes:
        frames: computed so far.
        recent_s: seconds a frame of the latest that torch computed.
        is_asked: something faster has been asked for.
        trial: is compared with torch now, frame by frame in turn.
        torch_s, trial_s: seconds a frame in the comparison.
        compared: set when the comparison is over.
        fast: replaces torch.
    """

    frames: int = 0
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=OBSERVED))
    is_asked: bool = False
    trial: Exported | None = None
    torch_s: list[float] = field(default_factory=list)
    trial_s: list[float] = field(default_factory=list)
    compared: threading.Event = field(default_factory=threading.Event)
    fast: Exported | None = None


class Auto:
    """See `Backend`. Calls are made by one thread; `close` ends the child.

    Args:
        options: for the runtimes.
        eager: torch, which computes until something is faster.
        clock: monotonic seconds.
    """

    def __init__(
        self, options: BackendOptions, eager: Eager, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.eager, self.batch = eager, eager.batch
        self.notes: list[str] = []
        self.counters: Counter[str] = Counter()
        """`torch_frames` and those of the runtime, once there are both; `export_failures`."""
        self._options, self._clock = options, clock
        self._names = choose.candidates(options)
        self._sizes: dict[tuple[int, int], _Size] = {}
        self._fast: Exported | None = None
        self._expected: float | None = 0.0
        self._done = 0
        self._started_s: float | None = None
        self._stop, self._asked = threading.Event(), SimpleQueue[tuple[int, int]]()
        self._thread: threading.Thread | None = None
        self._exporter = Exporter(options, stop=self._stop, notes=self.notes)
        self._run = copy_context().run

    @property
    def name(self) -> str:
        """What computes frames now."""
        return (self._fast or self.eager).name

    @property
    def dtype(self) -> torch.dtype:
        """See `Backend`; inputs in another one are converted."""
        return (self._fast or self.eager).dtype

    @property
    def memory_format(self) -> torch.memory_format:
        """See `Backend`; inputs in another one are converted."""
        return (self._fast or self.eager).memory_format

    def expect(self, frames: float | None, size_hw: tuple[int, int]) -> None:
        """Say what is to come. What is known to be faster for `size_hw` computes from the first frame on.

        Args:
            frames: how many; infinity for a live source, None if nobody knows.
        """
        left = None if self._expected is None else max(0.0, self._expected - self._done)
        if frames is not None:
            self._expected = self._done + max(frames, left or 0.0)
        elif not left:
            self._expected = None
        if size_hw not in self._sizes and self._names and len(self._sizes) < MAX_SIZES:
            known = self._options.cache.recall(self._key(size_hw))
            if known is None:
                return
            size = self._sizes[size_hw] = _Size(is_asked=True)
            torch_s = float(known["seconds"].get("torch", 0.0))
            if known["best"] != "torch" and (frames is None or torch_s * frames >= SHORT_JOB_S):
                self._use_known(size, size_hw, known)

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """See `Backend`: torch needs no preparation."""

    def __call__(self, x: Tensor, *aspect: float) -> Tensor | tuple[Tensor, ...]:
        """See `Backend`."""
        size_hw = int(x.shape[-2]), int(x.shape[-1])
        size = self._sizes.get(size_hw)
        if size is None:
            size = _Size(is_asked=len(self._sizes) >= MAX_SIZES)
            if not size.is_asked:
                self._sizes[size_hw] = size
        trial = size.trial
        is_turn = trial is not None and len(size.trial_s) < len(size.torch_s)
        chosen: Backend = (trial if is_turn else None) or size.fast or self.eager
        start = self._clock()
        if self._started_s is None:
            self._started_s = start
        output = chosen(x.to(chosen.dtype, memory_format=chosen.memory_format), *aspect)
        seconds = (self._clock() - start) / len(x)
        self._count(chosen.name, len(x))
        size.frames += len(x)
        if trial is not None:
            (size.trial_s if is_turn else size.torch_s).append(seconds)
            if len(size.trial_s) > TRIAL_RUNS:
                self._decide(size, trial, size_hw)
        elif chosen is self.eager and not size.is_asked:
            size.recent_s.append(seconds)
            if self._pays(size):
                size.is_asked = True
                self._ask(size_hw)
        return output

    def close(self) -> None:
        """End the child and its thread. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
        self._exporter.close()

    def _count(self, name: str, frames: int) -> None:
        self._done += frames
        self.counters[f"{name}_frames"] += frames

    def _pays(self, size: _Size) -> bool:
        """Whether an export is worth its while for the rest of the job."""
        if not self._names or size.frames < OBSERVED or self._started_s is None:
            return False
        rest = self._done if self._expected is None else self._expected - self._done
        if rest == float("inf"):
            return self._clock() - self._started_s >= LIVE_FROM_S
        return _median(size.recent_s) * rest * size.frames / self._done >= PAYS_FROM_S

    def _ask(self, size_hw: tuple[int, int]) -> None:
        self._asked.put(size_hw)
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._work,), name="depthstream-export", daemon=True
            )
            self._thread.start()

    def _decide(self, size: _Size, trial: Exported, size_hw: tuple[int, int]) -> None:
        """End the comparison; the first frame of each is not counted."""
        torch_s, trial_s = _median(size.torch_s[1:]), _median(size.trial_s[1:])
        if torch_s >= MARGIN * trial_s:
            self._switch(size, trial)
            what = f"{trial.name} from frame {self._done} on"
        else:
            what = f"still torch, {trial.name} is not {MARGIN} times as fast"
        self._say(what, size_hw, {trial.name: trial_s, "torch": torch_s})
        size.trial = None
        size.compared.set()

    def _switch(self, size: _Size, fast: Exported) -> None:
        size.fast = self._fast = fast
        self.notes += [text for text in fast.notes if text not in self.notes]

    def _say(self, what: str, size_hw: tuple[int, int], seconds: Mapping[str, float]) -> None:
        by_speed = sorted(seconds.items(), key=lambda item: item[1])
        times = ", ".join(f"{name} {1000 * value:.3g} ms" for name, value in by_speed)
        size = f"{size_hw[1]}×{size_hw[0]}"
        self.notes.append(f"backend {what}: {times} a frame of {size} in {self._options.precision}")

    def _use_known(self, size: _Size, size_hw: tuple[int, int], known: Mapping[str, object]) -> None:
        """Use what was faster in an earlier run, if its export is still there."""
        name = str(known["best"])
        try:
            fast = choose.make(name, self._options)
            assert isinstance(fast, Exported)
            if fast.load(size_hw):
                self._switch(size, fast)
                self._say(f"{name}, measured earlier", size_hw, known["seconds"])  # type: ignore[arg-type]
                return
        except StreamError as error:
            self._fail(name, str(error))
        size.is_asked = False  # it is exported again if that pays

    def _fail(self, name: str, reason: str) -> None:
        self.counters["export_failures"] += 1
        self.notes.append(f"{name} is not used: {reason}")

    def _key(self, size_hw: tuple[int, int]) -> Mapping[str, object]:
        """Everything that a choice depends on."""
        options = self._options
        return {
            "choice": {name: _version(name) for name in self._names},
            "program": __version__,
            "torch": torch.__version__,
            "model": options.model.spec.name,
            "weights": options.model.weights_sha256,
            "precision": options.precision,
            "device": hardware_id(options.device),
            "threads": options.threads,
            "size": list(size_hw),
        }

    # What follows runs on the thread that waits for the child.

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                size_hw = self._asked.get(timeout=_POLL_S)
            except Empty:
                continue
            try:
                self._improve(self._sizes[size_hw], size_hw)
            except StoppedError:
                return

    def _improve(self, size: _Size, size_hw: tuple[int, int]) -> None:
        """Have each candidate exported and compared until one is faster, and remember which."""
        seconds: dict[str, float] = {}
        may_remember = True
        for name in self._names:
            try:
                ready = self._exporter.get(name, size_hw)
                with torch.inference_mode():
                    ready(test_input((1, *size_hw)).to(ready.dtype))  # what the first call sets up
            except ModelError as error:
                self._fail(name, str(error))
                continue
            except (ChildError, OSError, StreamError) as error:
                self._fail(name, str(error))
                may_remember = False
                continue
            size.torch_s, size.trial_s = [], []
            size.compared.clear()
            size.trial = ready
            while not size.compared.wait(_POLL_S):
                if self._stop.is_set():
                    raise StoppedError
            seconds |= {"torch": _median(size.torch_s[1:]), name: _median(size.trial_s[1:])}
            if size.fast is not None:
                break
        if may_remember:
            best = size.fast.name if size.fast is not None else "torch"
            self._options.cache.entry(self._key(size_hw), lambda _folder: {"best": best, "seconds": seconds})


def _version(name: str) -> str:
    package = {"onnx": "onnxruntime"}.get(name, name)
    try:
        return version(package)
    except PackageNotFoundError:  # installed in another way
        return ""


def _median(values: "list[float] | deque[float]") -> float:
    return sorted(values)[len(values) // 2]
