"""The phases of a batch on a device: frames to network inputs, the network, network outputs to depth maps on the host.

Invariant: the host waits for nothing but the last upload from the buffer that it is about to overwrite, and a batch for
which the device has no memory is split in halves until its parts fit.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stream.errors import ModelError
from stream.frames import Frame
from stream.infer.backends import Backend
from stream.infer.executor import Event, SerialExecutor
from stream.infer.preprocess import Preprocessor, to_frame_size
from stream.models.spec import ModelSpec

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"
"""Found in the message of the ordinary RuntimeError that torch raises when the host has no memory."""


@dataclass(kw_only=True)
class Slot:
    """Input buffers of one batch in flight, and the events after which they may be reused.

    Attributes:
        host, device: flat uint8, made by the first batch and replaced when a batch is larger.
        uploaded: the device buffer holds the frames; the host buffer is free.
        computed: the network inputs exist; the device buffer is free.
    """

    host: Tensor | None = None
    device: Tensor | None = None
    uploaded: Event | None = None
    computed: Event | None = None


@dataclass(frozen=True, kw_only=True)
class PendingResults:
    """Results of a batch on their way to the host.

    Attributes:
        on_device: sources of the copies, kept so that no later batch reuses their memory before the copies have ended.
        results: float32 H×W each, valid once `downloaded` is reached.
        is_finite: bool N, likewise.
    """

    on_device: Sequence[Tensor]
    results: Sequence[Tensor]
    is_finite: Tensor
    downloaded: Event


class BatchPhases:
    """Does the work of each phase, in the executor's contexts; the engine decides on which thread.

    Args:
        spec: the model.
        executor: what orders the work on the device.
        batch: most frames in one forward pass; halved when the device runs out of memory.
        notes, counters: where fallbacks are recorded.
    """

    def __init__(
        self, spec: ModelSpec, executor: SerialExecutor, *, batch: int, notes: list[str], counters: Counter[str]
    ) -> None:
        self.batch = batch
        self.preprocess = Preprocessor(spec.input, executor.device)
        self._spec, self._executor, self._notes, self._counters = spec, executor, notes, counters

    def prepare(
        self, slot: Slot, frames: Sequence[Frame], size_hw: tuple[int, int], backend: Backend
    ) -> Sequence[Tensor]:
        """Upload frames and make network inputs of them, 1×3×h×w each.

        Raises:
            ModelError: they do not fit into the device's memory.
        """
        with torch.inference_mode():
            images = self._upload(slot, frames)
            with self._executor.computing(slot.uploaded):
                try:
                    inputs = [self.preprocess(x, size_hw, backend.dtype, backend.memory_format) for x in images]
                except torch.OutOfMemoryError as error:
                    raise self._too_large(len(frames)) from error
                slot.computed = self._executor.event()  # the network does not read the slot
            return inputs

    def prepare_one(self, frame: Frame, size_hw: tuple[int, int], backend: Backend) -> Tensor:
        """The network input of one frame, 1×3×h×w, made without a slot."""
        image = torch.tensor(frame.rgb, device=self._executor.device)
        return self.preprocess(image, size_hw, backend.dtype, backend.memory_format)

    def compute(self, inputs: Sequence[Tensor], backend: Backend) -> Sequence[Tensor]:
        """Run the network; h×w for each input.

        Raises:
            ModelError: even one input does not fit into the device's memory.
        """
        device = self._executor.device
        with torch.inference_mode(), self._executor.computing(None):
            # Retrying outside the `except` matters: the exception keeps the tensors of the failed attempt alive.
            while (outputs := self._attempt(inputs, backend)) is None:
                tried = min(self.batch, len(inputs))
                if tried == 1:
                    raise self._too_large(1)
                self.batch = backend.batch = tried // 2
                self._counters["batch_halvings"] += 1
                self._notes.append(f"{device} ran out of memory: batch reduced to {self.batch}")
                if device.type == "cuda":
                    torch.cuda.empty_cache()
            return outputs

    def finish(self, outputs: Sequence[Tensor], frames: Sequence[Frame]) -> PendingResults:
        """Resize network outputs to the frames' sizes and start copying them to the host.

        Raises:
            ModelError: they do not fit into the device's memory.
        """
        with torch.inference_mode():
            with self._executor.computing(None):
                try:
                    maps = [
                        to_frame_size(output, frame.size, self._spec.upsample)
                        for output, frame in zip(outputs, frames, strict=True)
                    ]
                except torch.OutOfMemoryError as error:
                    raise self._too_large(len(frames)) from error
                # The network's output is checked, not the upsampled map: at 1080p that takes 8 ms on a CPU.
                is_finite = torch.stack([torch.isfinite(output).all() for output in outputs])
                computed = self._executor.event()
            with self._executor.downloading(computed):
                return PendingResults(
                    on_device=[*maps, is_finite],
                    results=[self._executor.to_host(depth_map) for depth_map in maps],
                    is_finite=self._executor.to_host(is_finite),
                    downloaded=self._executor.event(),
                )

    def finish_one(self, output: Tensor, frame: Frame) -> Tensor | None:
        """The depth map of one frame, float32 H×W on the host; None if the network's output is not finite."""
        if not torch.isfinite(output).all():
            return None
        return to_frame_size(output, frame.size, self._spec.upsample).cpu()

    def _upload(self, slot: Slot, frames: Sequence[Frame]) -> Sequence[Tensor]:
        """Copy frames into the slot; returns uint8 H×W×3 views on the device."""
        total = sum(frame.rgb.size for frame in frames)
        if slot.uploaded is not None:
            slot.uploaded.synchronize()  # the copy engine may still read the host buffer
        if slot.host is None or slot.device is None or slot.host.numel() < total:
            try:
                slot.host = self._executor.host_buffer(total)
                slot.device = self._executor.device_buffer(slot.host)
            except torch.OutOfMemoryError as error:
                raise self._too_large(len(frames)) from error
        host = slot.host.numpy()
        images, offset = [], 0
        for frame in frames:
            end = offset + frame.rgb.size
            host[offset:end] = frame.rgb.reshape(-1)
            images.append(slot.device[offset:end].view(frame.rgb.shape))
            offset = end
        with self._executor.uploading(slot.computed):
            slot.device[:total].copy_(slot.host[:total], non_blocking=True)
            slot.uploaded = self._executor.event()
        return images

    def _attempt(self, inputs: Sequence[Tensor], backend: Backend) -> Sequence[Tensor] | None:
        """h×w of each input, or None if the device runs out of memory."""
        try:
            outputs: list[Tensor] = []
            for start in range(0, len(inputs), self.batch):
                group = inputs[start : start + self.batch]
                outputs += backend(group[0] if len(group) == 1 else torch.cat(list(group))).unbind()
            return outputs
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or _CPU_OUT_OF_MEMORY in str(error):
                return None
            raise

    def _too_large(self, frames: int) -> ModelError:
        count = f"{frames} frames do" if frames > 1 else "one frame does"
        return ModelError(
            f"{count} not fit into the memory of {self._executor.device}",
            where=self._spec.name,
            hint="use a smaller --input-size or --batch, --precision fp16, or --device cpu",
        )
