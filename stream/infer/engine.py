"""Frames in, depth out, on any device.

Invariant: every batch submitted is collected once, in order, and what comes out is finite float32 at source size.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from stream.config import defaults
from stream.errors import ModelError, UsageError
from stream.frames import Depth, Frame, Intrinsics
from stream.infer.backends import Backend, choose
from stream.infer.backends.auto import Auto
from stream.infer.backends.cache import ModelCache
from stream.infer.backends.eager import Eager, placed
from stream.infer.device import resolve_device, resolve_precision, resolve_threads
from stream.infer.executor import Phase, SerialExecutor, executor_for
from stream.infer.geometry import network_size
from stream.infer.phases import BatchPhases, PendingResults, Slot, State
from stream.models.answer import Answer
from stream.models.registry import LoadedModel, runtime_of

T = TypeVar("T")

_MAX_REMEMBERED_SIZES = 4096
"""Frame sizes whose network size is remembered; a folder of images may hold any number of sizes."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """A submitted batch and its results to come."""

    frames: Sequence[Frame]
    download: "Future[PendingResults]"
    state: State | None


class Engine:
    """Runs a model on batches of frames; used by one thread at a time.

    Args:
        model: its network is moved to the device and, for half precision, cast once.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        precision: `auto`, `fp32`, `bf16`, `fp16` or `int8`; see `device.resolve_precision`.
        exact: see `device.resolve_precision`.
        backend: one of `backends.NAMES`; `use_fastest` lets another one take the place of torch.
        provider: ONNX Runtime's execution provider, see `backends.onnx`.
        calibration: returns frames of the user's own to quantise with; called once, and only for `int8`.
        cache: where exported models are kept.
        batch: most frames in one forward pass; halved when the device runs out of memory.
        input_size: inference size instead of the model's own, see `geometry.network_size`.
        square: squeeze frames to a square network input.
        refines: depth follows the edges of the frames, see `refine`; else the official upsampling.
        fov: horizontal field of view of the camera in degrees, for models whose answer depends on it.
        threads: CPU threads of the network; see `device.resolve_threads` for None.
        executor: replaces the device's own, for tests.

    Raises:
        UsageError: device, precision, backend or input size are not possible here.
        MissingExtraError: the backend is not installed.
        ModelError: the network does not fit into the device's memory.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        device: str = defaults().inference.device,
        precision: str = defaults().inference.precision,
        exact: bool = False,
        backend: str = "torch",
        provider: str = defaults().inference.provider,
        calibration: Callable[[], Sequence[Frame]] | None = None,
        cache: ModelCache | None = None,
        batch: int = defaults().inference.batch,
        input_size: int | None = None,
        square: bool = False,
        refines: bool = False,
        fov: float | None = None,
        threads: int | None = None,
        executor: SerialExecutor | None = None,
    ) -> None:
        self.model, self.spec = model, model.spec
        self.device = resolve_device(device, self.spec)
        self.precision = resolve_precision(
            precision, self.device, self.spec, allowed=choose.precisions(backend, self.device), exact=exact
        )
        self.refines = refines
        self.has_refined = False
        """Whether any depth so far follows the edges of its frame."""
        self._notes: list[str] = []
        self._counters: Counter[str] = Counter()
        self._input_size, self._square = input_size, square
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        try:
            self.plan(self.spec.input.size_hw)  # refuses an impossible input size here rather than at the first frame
        except ModelError as error:
            raise UsageError("is too large", where=f"--input-size {input_size}", allowed=error.allowed) from error
        self.threads = resolve_threads(threads, self.device, self.spec)
        self._executor = executor or executor_for(self.device, self.threads)
        self._phases = BatchPhases(
            self.spec, self._executor, batch=batch, refines=refines, fov=fov, give_back=self._give_back,
            notes=self._notes, counters=self._counters,
        )  # fmt: skip
        self._use_inference_size()
        calibration_set = None
        if self.precision == "int8":
            from stream.infer.backends.int8 import CalibrationSet

            calibration_set = CalibrationSet(
                calibration() if calibration is not None else (),
                lambda frame, size_hw: self._phases.input_of(frame, size_hw, torch.float32, torch.contiguous_format),
            )
            self._notes += calibration_set.notes
        self._options = choose.BackendOptions(
            model=model, device=self.device, precision=self.precision, batch=batch, threads=self.threads,
            provider=provider, cache=cache or ModelCache(), calibration_set=calibration_set,
        )  # fmt: skip
        try:
            self._backend: Backend | None = self._on_compute_thread(lambda: choose.make(backend, self._options))
        except BaseException:
            self._executor.close()
            raise
        self._backend_name = self._backend.name
        self._fp32: Eager | None = None
        self._slots = deque(Slot() for _ in range(self.in_flight))
        self._batches: deque[_Batch] = deque()
        self.is_kept = False
        """Somebody keeps the model for later: `close` then only ends the present use of it."""
        self.is_in_use = False
        """Set by who keeps the model, for the time of a run; ended by `close`."""

    @property
    def batch(self) -> int:
        """Most frames in one forward pass."""
        return self._phases.batch

    @property
    def backend(self) -> str:
        """What executes the network now: one of `backends.NAMES`."""
        if not self.may_change:
            return runtime_of(self.spec)
        return self._backend_name if self._backend is None else self._backend.name

    @property
    def asked_backend(self) -> str:
        """`auto` if another backend may take the place of torch while it runs, else `backend`."""
        return "auto" if isinstance(self._backend, Auto) else self.backend

    @property
    def notes(self) -> list[str]:
        """Messages for the user, each to be shown once; the list grows while running."""
        return [*self._notes, *(self._backend.notes if self._backend is not None else ())]

    @property
    def counters(self) -> Counter[str]:
        """`precision_fallbacks` (frames), `batch_halvings`, and the backend's."""
        return +self._counters if self._backend is None else self._counters + self._backend.counters

    @property
    def executor(self) -> SerialExecutor:
        """Schedules the phases."""
        return self._executor

    @property
    def phases(self) -> BatchPhases:
        """The work of each phase."""
        return self._phases

    @property
    def in_flight(self) -> int:
        """Most batches that may be in flight."""
        return self._executor.in_flight

    @property
    def pending(self) -> int:
        """Batches submitted and not yet collected."""
        return len(self._batches)

    def plan(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Network input (height, width) for frames of `size_hw`.

        Raises:
            ModelError: it would be larger than `geometry.MAX_INPUT_PIXELS`.
        """
        if size_hw not in self._sizes:
            if len(self._sizes) >= _MAX_REMEMBERED_SIZES:
                self._sizes.clear()
            self._sizes[size_hw] = network_size(
                self.spec.input, size_hw, input_size=self._input_size, square=self._square
            )
        return self._sizes[size_hw]

    def may_refine(self, size_hw: tuple[int, int]) -> bool:
        """Whether depth of frames of `size_hw` will follow their edges; networks give maps of their input's size."""
        planned = self.plan_or_none(size_hw)
        return self.refines and planned is not None and (planned[0] < size_hw[0] or planned[1] < size_hw[1])

    def resize(self, input_size: int | None) -> None:
        """Use another inference size from the next frame on; None for the model's own. Nothing may be pending.

        Raises:
            UsageError: the model does not support it.
            ValueError: a batch is pending.
        """
        if self.pending:
            raise ValueError("a batch is pending")
        before, self._input_size = self._input_size, input_size
        self._sizes.clear()
        try:
            self.plan(self.spec.input.size_hw)
        except BaseException:
            self._input_size = before
            self._sizes.clear()
            raise
        self._use_inference_size()

    def _use_inference_size(self) -> None:
        self._phases.inference_size = self._input_size or self.spec.input.size_hw[0]

    @property
    def may_change(self) -> bool:
        """True if the network is torch's, so that other backends can execute it too."""
        return runtime_of(self.spec) == "torch"

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """Export the network for frames of `size_hw` now, so that the first one need not wait for it."""
        if (planned := self.plan_or_none(size_hw)) is not None:
            backend = self._open_backend
            self._on_compute_thread(lambda: backend.prepare(planned))

    def use_fastest(self, size_hw: tuple[int, int], *, frames: float | None) -> None:
        """Let a backend that is faster take the place of torch: now if it is known, or else between two frames.

        Args:
            size_hw: of the frames to come; nothing may be pending.
            frames: how many; infinity for a live source, None if nobody knows.
        """
        backend = self._open_backend
        if isinstance(backend, Eager) and choose.candidates(self._options):
            backend = self._backend = Auto(self._options, backend)
        if isinstance(backend, Auto) and (planned := self.plan_or_none(size_hw)) is not None:
            auto = backend
            self._on_compute_thread(lambda: auto.expect(frames, planned))

    def key(self, frame: Frame) -> tuple[int, ...]:
        """What all frames of a batch must share: the network input size, and the frame size if the network needs the
        aspect ratio. Raises like `plan`."""
        planned = self.plan(frame.size)
        return (*planned, *frame.size) if self.spec.needs_aspect else planned

    def _aspect(self, frame: Frame) -> float | None:
        return frame.size[1] / frame.size[0] if self.spec.needs_aspect else None

    def infer(self, frames: Sequence[Frame], state: State | None = None) -> list[Depth]:
        """Depth of each frame; nothing may be pending.

        Args:
            state: of the clip that the frame, only one, is the next of; see `submit`.
        """
        self.submit(frames, state)
        return [depth for _, depth in self.collect()]

    def network_input(self, frame: Frame, *, count: int = 1) -> Tensor:
        """The network's input for a frame, repeated `count` times, on the device; for benchmarks."""
        backend = self._open_backend

        def prepared() -> Tensor:
            with self._executor.computing(None):
                x = self._phases.prepare_one(frame, self.plan(frame.size), backend)
                return x.expand(count, -1, -1, -1).contiguous(memory_format=backend.memory_format)

        return self._on_compute_thread(prepared)

    def run_network(self, x: Tensor) -> Tensor:
        """The network's (first) output for `x`, on the host; for benchmarks. The pictures have the aspect of `x`."""
        backend = self._open_backend
        aspect = (x.shape[-1] / x.shape[-2],) if self.spec.needs_aspect else ()

        def output() -> Tensor:
            with torch.inference_mode(), self._executor.computing(None):
                found = backend(x, *aspect)
                return (found[0] if isinstance(found, tuple) else found).cpu()

        return self._on_compute_thread(output)

    def submit(self, frames: Sequence[Frame], state: State | None = None) -> None:
        """Start computing a batch whose frames have the same `key`.

        Args:
            state: what is known of earlier frames, by a network that sees several: the batch is one frame, computed by
                torch, and becomes part of it. Nothing may be pending then. None takes each frame alone.

        Raises:
            ValueError: no frames, different keys, or `in_flight` batches are pending.
            ModelError: even one frame does not fit into the device's memory.
        """
        keys = {self.key(frame) for frame in frames}
        if len(keys) != 1 or self.pending >= self.in_flight:
            raise ValueError(f"cannot submit {len(frames)} frames of network sizes {keys}, {self.pending} pending")
        size_hw, aspect = self.plan(frames[0].size), self._aspect(frames[0])
        backend, slot, phases, executor = self._open_backend, self._slots[0], self._phases, self._executor
        compute = partial(phases.compute, backend=backend, aspect=aspect)
        if state is not None:
            if self.pending:
                raise ValueError("the frame before is pending")
            backend = eager = self.eager(in_fp32=state.in_fp32)
            self.count_in_fp32(int(state.in_fp32))
            compute = partial(phases.step, backend=eager, state=state)
        self._slots.rotate(-1)
        inputs = executor.submit(Phase.PREPARE, lambda: phases.prepare(slot, frames, size_hw, backend))
        outputs = executor.submit(Phase.COMPUTE, lambda: compute(inputs.result()))
        download = executor.submit(Phase.FINISH, lambda: phases.finish(outputs.result(), slot))
        self._batches.append(_Batch(frames=frames, download=download, state=state))

    def collect(self) -> list[tuple[Frame, Depth]]:
        """Results of the oldest batch; waits for that batch alone.

        Raises:
            ModelError: a frame's output is not finite, not even in fp32.
            IndexError: nothing is pending.
        """
        batch = self._batches.popleft()
        download = batch.download.result()
        download.downloaded.synchronize()
        return [
            (frame, self.depth(frame, result if is_finite else self._in_fp32(frame, batch.state), refined=refined))
            for frame, result, is_finite, refined in zip(
                batch.frames, download.results, download.is_finite.tolist(), download.refined, strict=True
            )
        ]

    def begin(self) -> None:
        """Start another run with a model that is kept: its counts begin at 0."""
        self._counters.clear()
        self._open_backend.counters.clear()
        self.has_refined, self.is_in_use = False, True

    def drop_pending(self) -> None:
        """Wait for the batches in flight and drop their results."""
        while self._batches:
            future = self._batches.popleft().download
            if future.exception() is None:
                future.result().downloaded.synchronize()

    def close(self) -> None:
        """Drop what is pending and release the device's memory and the threads; idempotent.

        `backend`, `notes` and `counters` stay readable. A model that is kept (`is_kept`) stays ready.
        """
        if self.is_kept:
            self.drop_pending()
            self.is_in_use = False
            return
        self._executor.close()
        for batch in self._batches:
            future = batch.download
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().downloaded.synchronize()  # the device may still use the memory to be released
        self._batches.clear()
        self._slots.clear()
        if isinstance(self._backend, Auto):
            self._backend.close()
        self._notes, self._counters, self._backend_name = self.notes, self.counters, self.backend
        self._backend = self._fp32 = None
        self._options = replace(self._options, calibration_set=None)

    @property
    def _open_backend(self) -> Backend:
        if self._backend is None:
            raise RuntimeError("the engine is closed")
        return self._backend

    def _on_compute_thread(self, work: Callable[[], T]) -> T:
        """The result of `work`, done by the thread that runs the network."""
        return self._executor.submit(Phase.COMPUTE, work).result()

    def plan_or_none(self, size_hw: tuple[int, int]) -> tuple[int, int] | None:
        """Like `plan`, but None for a size that is refused: the frame that has it will raise the error."""
        try:
            return self.plan(size_hw)
        except ModelError:
            return None

    def depth(self, frame: Frame, answer: Answer, *, refined: bool) -> Depth:
        """The depth of a frame from its answer on the host."""
        self.has_refined |= refined
        answer = answer.completed()
        if answer.note and answer.note not in self._notes:
            self._notes.append(answer.note)
        confidence, valid, camera = answer.confidence, answer.valid, answer.camera
        return Depth(
            values=self._executor.to_array(answer.values),
            kind=self.spec.output,
            index=frame.index,
            model=self.spec.name,
            valid=None if valid is None else valid.numpy().copy(),
            intrinsics=None if camera is None else _intrinsics(camera),
            confidence=None if confidence is None else self._executor.to_array(confidence),
            refined=refined,
        )

    def eager(self, *, in_fp32: bool = False) -> Eager:
        """The network in torch, for a model that sees several frames.

        Args:
            in_fp32: a copy that computes again what was not finite.
        """
        if in_fp32:
            return self._safe()
        backend = self._open_backend
        if isinstance(backend, Auto):
            return backend.eager
        if not isinstance(backend, Eager):  # found for an earlier run that took each frame alone
            self._backend = backend = choose.eager(replace(self._options, batch=self.batch))
        return backend

    def _give_back(self) -> bool:
        """Drop the CUDA graphs, because their memory is needed; False if there are none."""
        backend = self._backend
        eager = backend.eager if isinstance(backend, Auto) else backend
        return isinstance(eager, Eager) and eager.give_back()

    def count_in_fp32(self, frames: int) -> None:
        """Count frames that are computed in fp32 because the engine's own precision gave no finite depth."""
        self._counters["precision_fallbacks"] += frames

    def not_finite(self, frame: Frame) -> ModelError:
        """The error for a frame without finite depth."""
        what = f"the depth of {frame.name or f'frame {frame.index}'} is not finite in fp32"
        is_from_file = bool(self.spec.weights.file)
        hint = "the weights file may be damaged" if is_from_file else "the module must give finite numbers"
        return ModelError(what, where=self.spec.name, hint=hint)

    def _in_fp32(self, frame: Frame, state: State | None) -> Answer:
        """The frame's depth, computed again in fp32: on the host."""
        depth_map = None
        is_exact = self.precision == "fp32" and isinstance(self._backend, Eager)
        if not is_exact and not (state is not None and state.in_fp32):
            depth_map = self._on_compute_thread(lambda: self._recomputed(frame, state))
        if depth_map is None:
            raise self.not_finite(frame)
        return depth_map

    def _safe(self) -> Eager:
        if self._fp32 is None:
            self._fp32 = Eager(placed(self.model.network, self.spec, self.device, "fp32"), "fp32", batch=1)
            self._notes.append(f"{self.spec.name} gave non-finite depth in {self.precision}: such frames use fp32")
        return self._fp32

    def _recomputed(self, frame: Frame, state: State | None) -> Answer | None:
        backend = self._safe()
        self.count_in_fp32(1)
        with torch.inference_mode(), self._executor.computing(None):
            x = self._phases.prepare_one(frame, self.plan(frame.size), backend)
            if state is None:
                (output,) = self._phases.compute([x], backend, self._aspect(frame))
            else:  # what is known of the frames before may be what is not finite
                state.past, state.in_fp32 = None, True
                (output,) = self._phases.step([x], backend, state)
            return self._phases.finish_one(output, frame)


def _intrinsics(camera: Tensor) -> Intrinsics | None:
    """Intrinsics of a float32 4-vector; None if no camera has these."""
    fx, fy, cx, cy = camera.tolist()
    is_possible = all(map(math.isfinite, (fx, fy, cx, cy))) and min(fx, fy) > 0
    return Intrinsics(fx=fx, fy=fy, cx=cx, cy=cy) if is_possible else None
