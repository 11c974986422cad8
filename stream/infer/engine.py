"""Frames in, depth out, on any device.

Invariant: every batch submitted is collected once, in order, and what comes out is finite float32 at source size.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from stream.errors import ModelError, UsageError
from stream.frames import Depth, Frame
from stream.infer.backends import Backend, choose
from stream.infer.backends.cache import ModelCache
from stream.infer.backends.eager import Eager, placed
from stream.infer.device import resolve_device, resolve_precision, resolve_threads
from stream.infer.executor import Event, Lane, Lanes, Task, lanes_for
from stream.infer.geometry import network_size
from stream.infer.preprocess import Preprocessor, to_picture_size
from stream.models.registry import LoadedModel, runtime_of

T = TypeVar("T")

_REMEMBERED_SIZES = 4096
"""Picture sizes whose network size is remembered: a folder of stills may hold any number of them."""

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""In the message of the plain RuntimeError that torch raises when the host has no memory."""


@dataclass(kw_only=True)
class _Slot:
    """Input buffers of one batch in flight, and the events that guard them."""

    host: Tensor | None = None
    device: Tensor | None = None
    uploaded: Event | None = None
    computed: Event | None = None


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """What a batch gives.

    Attributes:
        on_device: kept until the results are on the host, so that no later batch is given its memory.
        results: float32 H×W each, on the host once `downloaded` is reached.
        is_finite: bool N, likewise.
    """

    on_device: Sequence[Tensor]
    results: Sequence[Tensor]
    is_finite: Tensor
    downloaded: Event


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """A submitted batch."""

    frames: Sequence[Frame]
    finished: Task[_Finished]


class Engine:
    """Runs a model on batches of frames; used by one thread at a time.

    Args:
        model: its network is moved to the device and, for half precision, cast once.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        precision: `auto`, `fp32`, `bf16`, `fp16` or `int8`; see `device.resolve_precision`.
        exact: see there.
        backend: one of `backends.NAMES`; see `use_fastest` for which is best.
        provider: of ONNX Runtime, see `backends.onnx`.
        calibration: pictures to quantise with (`int8` alone), of the user's own; called once, if at all.
        cache: of exported models.
        batch: most frames in one forward pass; halved when the device runs out of memory.
        input_size: inference size instead of the model's own, see `geometry.network_size`.
        square: squeeze pictures to a square network input.
        threads: CPU threads of the network; see `device.resolve_threads` for None.
        lanes: the device's order of work; for tests.

    Attributes:
        notes: worth saying once; grows while running.
        counters: `precision_fallbacks` (frames), `batch_halvings`, and the backend's.

    Raises:
        UsageError: device, precision, backend or input size are not possible here.
        MissingExtraError: the backend is not installed.
        ModelError: the device has no room for the network.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        device: str = "auto",
        precision: str = "auto",
        exact: bool = False,
        backend: str = "torch",
        provider: str = "auto",
        calibration: Callable[[], Sequence[Frame]] | None = None,
        cache: ModelCache | None = None,
        batch: int = 1,
        input_size: int | None = None,
        square: bool = False,
        threads: int | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self.model, self.spec = model, model.spec
        self.device = resolve_device(device, self.spec)
        self.precision = resolve_precision(
            precision, self.device, self.spec, allowed=choose.precisions(backend, self.device), exact=exact
        )
        self.batch = batch
        self._notes: list[str] = list(model.notes)
        self._counters: Counter[str] = Counter()
        self._input_size, self._square = input_size, square
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        try:
            self.plan(self.spec.input.size_hw)  # an impossible input size is refused here, not at the first frame
        except ModelError as error:
            raise UsageError("is too large", where=f"--input-size {input_size}", allowed=error.allowed) from error
        self.threads = resolve_threads(threads, self.device, self.spec)
        self._lanes = lanes or lanes_for(self.device, self.threads)
        self._preprocess = Preprocessor(self.spec.input, self.device)
        samples = None
        if self.precision == "int8":
            from stream.infer.backends.int8 import Samples

            samples = Samples(calibration() if calibration is not None else (), self._preprocess)
            self._notes += samples.notes
        self._setting = choose.Setting(
            model=model, device=self.device, precision=self.precision, batch=batch, threads=self.threads,
            provider=provider, cache=cache or ModelCache(say=self._notes.append), samples=samples,
        )  # fmt: skip
        try:
            self._backend = self._computed(lambda: choose.make(backend, self._setting))
        except BaseException:
            self._lanes.close()
            raise
        self._safe: Backend | None = None
        self._slots = deque(_Slot() for _ in range(self.depth))
        self._batches: deque[_Batch] = deque()
        self._closed = False

    @property
    def backend(self) -> str:
        """What executes the network, one of `backends.NAMES`."""
        return self._backend.name if self.may_change else runtime_of(self.spec)

    @property
    def notes(self) -> list[str]:
        """Worth saying once; grows while running."""
        return [*self._notes, *self._backend.notes]

    @property
    def counters(self) -> Counter[str]:
        """`precision_fallbacks` (frames), `batch_halvings`, and the backend's."""
        return self._counters + self._backend.counters

    @property
    def depth(self) -> int:
        """Batches that may be in flight."""
        return self._lanes.depth

    @property
    def pending(self) -> int:
        """Batches submitted and not yet collected."""
        return len(self._batches)

    def plan(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Network input (height, width) for pictures of `size_hw`.

        Raises:
            ModelError: it would be beyond `geometry.MAX_INPUT_PIXELS`.
        """
        if size_hw not in self._sizes:
            if len(self._sizes) >= _REMEMBERED_SIZES:
                self._sizes.clear()
            self._sizes[size_hw] = network_size(
                self.spec.input, size_hw, input_size=self._input_size, square=self._square
            )
        return self._sizes[size_hw]

    def resize(self, input_size: int | None) -> None:
        """Use another inference size from the next frame on; None for the model's own. Nothing may be pending.

        Raises:
            UsageError: the model does not take it.
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

    @property
    def may_change(self) -> bool:
        """True if the network is torch's, so that other backends can execute it too."""
        return runtime_of(self.spec) == "torch"

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """Do now what the first picture of `size_hw` would have to wait for: converting the network, or nothing."""
        if (planned := self._planned(size_hw)) is not None:
            self._computed(lambda: self._backend.prepare(planned))

    def use_fastest(
        self, size_hw: tuple[int, int], *, frames: float, may_measure: bool = True, say: Callable[[str], None]
    ) -> None:
        """Change to the backend that is fastest for pictures of `size_hw`; nothing may be pending.

        Args:
            frames, may_measure, say: see `choose.fastest`.
        """
        if (planned := self._planned(size_hw)) is not None:
            choice = partial(choose.fastest, self._setting, self._backend, planned, frames=frames, say=say)
            self._backend = self._computed(lambda: choice(may_measure=may_measure))

    def _computed(self, work: Callable[[], T]) -> T:
        """What `work` gives, done by the thread that runs the network."""
        return self._lanes.start(Lane.COMPUTE, work).result()

    def _planned(self, size_hw: tuple[int, int]) -> tuple[int, int] | None:
        """Like `plan`; None for a size that is refused, which is for the frame to tell."""
        try:
            return self.plan(size_hw)
        except ModelError:
            return None

    def key(self, frame: Frame) -> tuple[int, int]:
        """What frames of one batch have in common: the network input size. Raises like `plan`."""
        return self.plan(frame.size)

    def infer(self, frames: Sequence[Frame]) -> list[Depth]:
        """Depth of each frame; nothing may be pending."""
        self.submit(frames)
        return [depth for _, depth in self.collect()]

    def network_input(self, frame: Frame, *, count: int = 1) -> Tensor:
        """What the network gets for a frame, `count` times, on the device; for measuring."""

        def prepared() -> Tensor:
            picture = torch.tensor(frame.rgb, device=self.device)
            x = self._preprocess(picture, self.key(frame), self._backend.dtype, self._backend.memory_format)
            return x.expand(count, -1, -1, -1).contiguous(memory_format=self._backend.memory_format)

        return self._computed(prepared)

    def run_network(self, x: Tensor) -> Tensor:
        """The network's output for `x`, on the host; for measuring."""

        def run() -> Tensor:
            with torch.inference_mode():
                return self._backend(x).cpu()

        return self._computed(run)

    def submit(self, frames: Sequence[Frame]) -> None:
        """Start computing a batch whose frames have the same `key`.

        Raises:
            ValueError: no frames, different keys, or `depth` batches are pending.
            ModelError: even one frame does not fit into the device's memory.
        """
        keys = {self.key(frame) for frame in frames}
        if len(keys) != 1 or self.pending >= self.depth:
            raise ValueError(f"cannot submit {len(frames)} frames of network sizes {keys}, {self.pending} pending")
        slot, backend, lanes = self._slots[0], self._backend, self._lanes
        self._slots.rotate(-1)
        prepared = lanes.start(Lane.PREPARE, lambda: self._prepare(slot, frames, backend))
        computed = lanes.start(Lane.COMPUTE, lambda: self._compute(prepared.result(), backend))
        finished = lanes.start(Lane.FINISH, lambda: self._finish(computed.result(), frames))
        self._batches.append(_Batch(frames=frames, finished=finished))

    def collect(self) -> list[tuple[Frame, Depth]]:
        """Results of the oldest batch, waiting for that batch alone.

        Raises:
            ModelError: a frame's output is not finite, in fp32 either.
            IndexError: nothing is pending.
        """
        batch = self._batches.popleft()
        finished = batch.finished.result()
        finished.downloaded.synchronize()
        return [
            (frame, self._depth(frame, result if is_finite else self._recomputed(frame)))
            for frame, result, is_finite in zip(
                batch.frames, finished.results, finished.is_finite.tolist(), strict=True
            )
        ]

    def close(self) -> None:
        """Forget what is pending, release the device's memory and threads. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._lanes.close()
        for batch in self._batches:
            if batch.finished.is_done_well():
                batch.finished.result().downloaded.synchronize()  # the device may still use what is to be released
        self._batches.clear()
        self._slots.clear()
        nothing = Eager(nn.Identity(), "fp32", batch=1)
        nothing.name, nothing.notes, nothing.counters = self._backend.name, self._backend.notes, self._backend.counters
        self._backend, self._safe = nothing, None
        self._setting = replace(self._setting, samples=None)

    def _depth(self, frame: Frame, result: Tensor) -> Depth:
        values = self._lanes.owned(result)
        return Depth(values=values, kind=self.spec.output, index=frame.index, model=self.spec.name)

    def _upload(self, slot: _Slot, frames: Sequence[Frame]) -> list[Tensor]:
        """Copy frames into the slot; returns uint8 H×W×3 views on the device."""
        total = sum(frame.rgb.size for frame in frames)
        if slot.uploaded is not None:
            slot.uploaded.synchronize()  # the copy engine may still read the host buffer
        if slot.host is None or slot.device is None or slot.host.numel() < total:
            try:
                slot.host = self._lanes.host_buffer(total)
                slot.device = self._lanes.device_buffer(slot.host)
            except torch.OutOfMemoryError as error:
                raise self._too_large(len(frames)) from error
        host = slot.host.numpy()
        pictures, offset = [], 0
        for frame in frames:
            end = offset + frame.rgb.size
            host[offset:end] = frame.rgb.reshape(-1)
            pictures.append(slot.device[offset:end].view(frame.rgb.shape))
            offset = end
        with self._lanes.uploading(slot.computed):
            slot.device[:total].copy_(slot.host[:total], non_blocking=True)
            slot.uploaded = self._lanes.event()
        return pictures

    def _prepare(self, slot: _Slot, frames: Sequence[Frame], backend: Backend) -> list[Tensor]:
        """Network inputs, 1×3×h×w each."""
        with torch.inference_mode():
            pictures, size_hw = self._upload(slot, frames), self.key(frames[0])
            with self._lanes.computing(slot.uploaded):
                try:
                    inputs = [self._preprocess(p, size_hw, backend.dtype, backend.memory_format) for p in pictures]
                except torch.OutOfMemoryError as error:
                    raise self._too_large(len(frames)) from error
                slot.computed = self._lanes.event()  # the network does not read the slot
            return inputs

    def _compute(self, inputs: Sequence[Tensor], backend: Backend) -> list[Tensor]:
        """h×w of each input."""
        with torch.inference_mode(), self._lanes.computing(None):
            # The next attempt starts when the failed one's tensors are gone: its exception has kept them alive.
            while (maps := self._attempt(inputs, backend)) is None:
                tried = min(self.batch, len(inputs))
                if tried == 1:
                    raise self._too_large(1)
                self.batch = backend.batch = tried // 2
                self._counters["batch_halvings"] += 1
                self._notes.append(f"{self.device} ran out of memory: batch reduced to {self.batch}")
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
            return maps

    def _attempt(self, inputs: Sequence[Tensor], backend: Backend) -> list[Tensor] | None:
        """h×w of each input, or None if the device runs out of memory."""
        try:
            maps: list[Tensor] = []
            for start in range(0, len(inputs), self.batch):
                group = inputs[start : start + self.batch]
                maps += backend(group[0] if len(group) == 1 else torch.cat(list(group))).unbind()
            return maps
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or _CPU_OUT_OF_MEMORY in str(error):
                return None
            raise

    def _finish(self, maps: Sequence[Tensor], frames: Sequence[Frame]) -> _Finished:
        """At the frames' sizes, on their way to the host."""
        with torch.inference_mode():
            with self._lanes.computing(None):
                try:
                    outputs = [
                        to_picture_size(output, frame.size, self.spec.upsample)
                        for output, frame in zip(maps, frames, strict=True)
                    ]
                except torch.OutOfMemoryError as error:
                    raise self._too_large(len(frames)) from error
                # Of the network's output, not of the upsampled one: a 1080p map takes 8 ms to check on a CPU.
                is_finite = torch.stack([torch.isfinite(output).all() for output in maps])
                computed = self._lanes.event()
            with self._lanes.downloading(computed):
                return _Finished(
                    on_device=[*outputs, is_finite],
                    results=[self._lanes.to_host(output) for output in outputs],
                    is_finite=self._lanes.to_host(is_finite),
                    downloaded=self._lanes.event(),
                )

    def _recomputed(self, frame: Frame) -> Tensor:
        """float32 H×W on the host, in fp32."""
        if self.precision == "fp32":
            raise self._not_finite(frame)
        if self._safe is None:
            network = self._computed(lambda: placed(self.model.network, self.spec, self.device, "fp32"))
            self._safe = Eager(network, "fp32", batch=1)
            self._notes.append(f"{self.spec.name} gave non-finite depth in {self.precision}: such frames use fp32")
        self._counters["precision_fallbacks"] += 1
        return self._computed(lambda: self._in_fp32(frame, self._safe))

    def _in_fp32(self, frame: Frame, safe: Backend | None) -> Tensor:
        assert safe is not None
        with torch.inference_mode():
            picture = torch.tensor(frame.rgb, device=self.device)
            x = self._preprocess(picture, self.key(frame), safe.dtype, safe.memory_format)
            (output,) = self._compute([x], safe)
            if not torch.isfinite(output).all():
                raise self._not_finite(frame)
            return to_picture_size(output, frame.size, self.spec.upsample).cpu()

    def _not_finite(self, frame: Frame) -> ModelError:
        what = f"the depth of {frame.name or f'frame {frame.index}'} is not finite in fp32"
        return ModelError(what, where=self.spec.name, hint="is the weights file whole?")

    def _too_large(self, frames: int) -> ModelError:
        return ModelError(
            f"{f'{frames} frames do' if frames > 1 else 'one frame does'} not fit into the memory of {self.device}",
            where=self.spec.name,
            hint="use a smaller --input-size or --batch, --precision fp16, or --device cpu",
        )
