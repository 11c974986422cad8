"""Frames in, depth out, on any device.

Invariant: every batch submitted is collected once, in order, and what comes out is finite float32 at source size.
"""

import copy
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from stream.errors import ModelError, StreamError
from stream.frames import Depth, Frame
from stream.infer.device import DTYPES, resolve_device, resolve_precision
from stream.infer.geometry import network_size
from stream.infer.lanes import Event, Lanes, lanes_for
from stream.infer.preprocess import to_input, to_picture_size
from stream.models.registry import LoadedModel


@dataclass(kw_only=True)
class _Slot:
    """Input buffers of one batch in flight, and the events that guard them."""

    host: Tensor | None = None
    device: Tensor | None = None
    uploaded: Event | None = None
    computed: Event | None = None


@dataclass(kw_only=True)
class _Batch:
    """A submitted batch. Device tensors are held until its results are on the host."""

    frames: Sequence[Frame]
    outputs: list[Tensor]
    results: list[Tensor]
    is_finite: Tensor
    downloaded: Event
    on_device: list[Tensor] = field(default_factory=list)


class Engine:
    """Runs a model on batches of frames.

    Args:
        model: its network is moved to the device and, for half precision, cast once.
        device: `auto`, `cpu`, `cuda[:N]` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        batch: most frames in one forward pass; halved when the device runs out of memory.
        input_size: inference size instead of the model's own, see `geometry.network_size`.
        square: squeeze pictures to a square network input.
        threads: CPU threads for the whole process, None leaves torch's choice.
        lanes: the device's order of work; for tests.

    Raises:
        UsageError: device, precision or input size are not possible here.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch: int = 1,
        input_size: int | None = None,
        square: bool = False,
        threads: int | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self.model, self.spec = model, model.spec
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device, self.spec)
        self.batch = batch
        self.notes: list[str] = list(model.notes)
        self.counters: Counter[str] = Counter()
        self._input_size, self._square = input_size, square
        network_size(self.spec.input, self.spec.input.size_hw, input_size=input_size, square=square)
        if threads is not None:
            torch.set_num_threads(threads)
        self._lanes = lanes or lanes_for(self.device)
        self._network = self._placed(self.precision)
        self._safe_network: nn.Module | None = None
        self._slots = deque(_Slot() for _ in range(self._lanes.depth))
        self._batches: deque[_Batch] = deque()
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}

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
            if len(self._sizes) > 4096:
                self._sizes.clear()  # a folder of stills may hold any number of sizes
            self._sizes[size_hw] = network_size(
                self.spec.input, size_hw, input_size=self._input_size, square=self._square
            )
        return self._sizes[size_hw]

    def key(self, frame: Frame) -> tuple[int, int]:
        """What frames of one batch have in common: the network input size. Raises like `plan`."""
        return self.plan(frame.size)

    def infer(self, frames: Sequence[Frame]) -> list[Depth]:
        """Depth of each frame; nothing may be pending."""
        self.submit(frames)
        return [depth for _, depth in self.collect()]

    def submit(self, frames: Sequence[Frame]) -> None:
        """Start computing a batch whose frames have the same `key`.

        Raises:
            ValueError: no frames, different keys, or `depth` batches are pending.
            ModelError: even one frame does not fit into the device's memory.
        """
        keys = {self.key(frame) for frame in frames}
        if len(keys) != 1 or self.pending >= self.depth:
            raise ValueError(f"cannot submit {len(frames)} frames of network sizes {keys}, {self.pending} pending")
        slot = self._slots[0]
        self._slots.rotate(-1)
        pictures = self._upload(slot, frames)
        with torch.inference_mode(), self._lanes.computing(slot.uploaded):
            outputs, is_finite = self._forward(pictures, frames, keys.pop(), self._network)
            slot.computed = self._lanes.event()
        with torch.inference_mode(), self._lanes.downloading(slot.computed):
            results = [self._lanes.to_host(output) for output in outputs]
            flag = self._lanes.to_host(is_finite)
            downloaded = self._lanes.event()
        self._batches.append(
            _Batch(
                frames=frames,
                outputs=outputs,
                results=results,
                is_finite=flag,
                downloaded=downloaded,
                on_device=[is_finite],
            )
        )

    def collect(self) -> list[tuple[Frame, Depth]]:
        """Results of the oldest batch, waiting for that batch alone.

        Raises:
            ModelError: the output is not finite, in fp32 either.
            IndexError: nothing is pending.
        """
        batch = self._batches.popleft()
        batch.downloaded.synchronize()
        results = batch.results if bool(batch.is_finite) else self._recomputed(batch.frames)
        return [(frame, self._depth(frame, result)) for frame, result in zip(batch.frames, results, strict=True)]

    def close(self) -> None:
        """Forget what is pending and release the network. Idempotent."""
        self._batches.clear()
        self._slots = deque(_Slot() for _ in range(self.depth))
        self._network = self._safe_network = nn.Identity()

    def _depth(self, frame: Frame, result: Tensor) -> Depth:
        values: np.ndarray[tuple[int, int], np.dtype[np.float32]] = result.numpy()
        return Depth(values=values, kind=self.spec.output, index=frame.index)

    def _upload(self, slot: _Slot, frames: Sequence[Frame]) -> list[Tensor]:
        """Copy frames into the slot; returns uint8 H×W×3 views on the device."""
        total = sum(frame.rgb.size for frame in frames)
        if slot.uploaded is not None:
            slot.uploaded.synchronize()  # the copy engine may still read the host buffer
        if slot.host is None or slot.device is None or slot.host.numel() < total:
            slot.host = self._lanes.host_buffer(total, torch.uint8)
            slot.device = self._lanes.device_buffer(total, torch.uint8)
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

    def _forward(
        self, pictures: Sequence[Tensor], frames: Sequence[Frame], size_hw: tuple[int, int], network: nn.Module
    ) -> tuple[list[Tensor], Tensor]:
        """float32 maps at source size, and a bool scalar: all of them are finite."""
        dtype = next((p.dtype for p in network.parameters()), torch.float32)
        while True:
            try:
                maps: list[Tensor] = []
                for start in range(0, len(pictures), self.batch):
                    chunk = pictures[start : start + self.batch]
                    inputs = [to_input(picture, self.spec.input, size_hw, dtype) for picture in chunk]
                    maps += network(inputs[0] if len(inputs) == 1 else torch.cat(inputs)).unbind()
                outputs = [
                    to_picture_size(output, frame.size, self.spec.upsample).contiguous()
                    for output, frame in zip(maps, frames, strict=True)
                ]
                return outputs, torch.stack([torch.isfinite(output).all() for output in outputs]).all()
            except torch.OutOfMemoryError as error:
                message = str(error).partition("\n")[0]
            # Outside the `except`: the exception's frames keep the failed attempt's tensors alive.
            self._halve(message)

    def _halve(self, message: str) -> None:
        if self.batch == 1:
            raise ModelError(
                f"one frame does not fit into the memory of {self.device}: {message}",
                where=self.spec.name,
                hint="use a smaller --input-size, --precision fp16, or --device cpu",
            )
        self.batch = max(1, self.batch // 2)
        self.counters["batch_halvings"] += 1
        self.notes.append(f"{self.device} ran out of memory: batch reduced to {self.batch}")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _recomputed(self, frames: Sequence[Frame]) -> list[Tensor]:
        """The batch again in fp32."""
        if self.precision == "fp32":
            raise self._not_finite(frames)
        if self._safe_network is None:
            self._safe_network = self._placed("fp32")
            self.notes.append(f"{self.spec.name} gave non-finite depth in {self.precision}: such frames use fp32")
        self.counters["precision_fallbacks"] += len(frames)
        pictures = [torch.from_numpy(frame.rgb.copy()).to(self.device) for frame in frames]
        with torch.inference_mode():
            outputs, is_finite = self._forward(pictures, frames, self.key(frames[0]), self._safe_network)
            if not bool(is_finite):
                raise self._not_finite(frames)
            return [output.cpu() for output in outputs]

    def _not_finite(self, frames: Sequence[Frame]) -> StreamError:
        name = frames[0].name or f"frame {frames[0].index}"
        return ModelError(
            f"the depth of {name} is not finite in fp32 either", where=self.spec.name, hint="is the weights file whole?"
        )

    def _placed(self, precision: str) -> nn.Module:
        """The network on the device in `precision`, channels last; cast once, here."""
        network = self.model.network
        if precision != "fp32" or self.device.type != "cpu":
            network = copy.deepcopy(network)
        network = network.to(device=self.device, dtype=DTYPES[precision])
        for name, module in network.named_modules():
            if any(name == prefix or name.startswith(f"{prefix}.") for prefix in self.spec.fp32_modules):
                module.float()
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the weights, before another stream reads them
        return network
