"""The phases of a batch on a device: frames to network inputs, the network, network outputs to depth maps on the host.

Invariant: the host waits for nothing but the last upload from the buffer that it is about to overwrite and, in windows,
the upload of a frame that refines its map; a batch for which the device has no memory is split in halves until its
parts fit.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from stream.errors import ModelError
from stream.frames import Frame, RgbImage
from stream.infer.backends import Backend
from stream.infer.backends.eager import Eager
from stream.infer.executor import Event, SerialExecutor
from stream.infer.joining import Joined
from stream.infer.preprocess import Preprocessor, resized_on_host
from stream.infer.refine import refine
from stream.models.answer import Answer, View
from stream.models.memory import is_out_of_memory, release_cached
from stream.models.registry import answer_of
from stream.models.spec import ModelSpec
from stream.models.temporal import Past

_NOTHING_TO_REFINE = "--refine changes nothing in images that are no larger than the network's map of them"

T = TypeVar("T")
Outputs = tuple[Tensor, ...]
"""What a network computed for one picture, without the batch axis; of most networks one map h×w."""


@dataclass(kw_only=True)
class Slot:
    """Input buffers of one batch in flight, and the events after which they may be reused.

    Attributes:
        host, device: flat uint8, made by the first batch and replaced when a batch is larger.
        images: uint8 H×W×3 each, in the device buffer: the frames, or what OpenCV made of them.
        frames: the frames of the batch.
        uploaded: the device buffer holds the frames; the host buffer is free.
        computed: the network inputs exist, and what refines the maps has ended; the device buffer is free.
    """

    host: Tensor | None = None
    device: Tensor | None = None
    images: Sequence[Tensor] = ()
    frames: Sequence[Frame] = ()
    uploaded: Event | None = None
    computed: Event | None = None


@dataclass(frozen=True, kw_only=True)
class PendingResults:
    """Results of a batch on their way to the host.

    Attributes:
        on_device: sources of the copies, kept so that no later batch reuses their memory before the copies have ended.
        results: the answer of each frame on the host, valid once `downloaded` is reached.
        is_finite: bool N, likewise.
        refined: whether each of the results follows the edges of its frame.
    """

    on_device: Sequence[Tensor]
    results: Sequence[Answer]
    is_finite: Tensor
    refined: Sequence[bool]
    downloaded: Event


@dataclass(kw_only=True)
class State:
    """What a network knows of the earlier frames of one clip, frame by frame; a new clip gets a new one.

    Attributes:
        past: see `TemporalNetwork.step`; None before the first frame.
        in_fp32: an output was not finite: the rest of the clip is computed in fp32, from a new past.
    """

    past: Past | None = None
    in_fp32: bool = False


def _is_finite(outputs: Outputs) -> Tensor:
    """bool, 0-D, on the device."""
    return torch.stack([torch.isfinite(x).all() for x in outputs]).all()


class BatchPhases:
    """Does the work of each phase, in the executor's contexts; the engine decides on which thread.

    Args:
        spec: the model.
        executor: what orders the work on the device.
        batch: most frames in one forward pass; halved when the device runs out of memory.
        refines: depth follows the edges of the frames, see `refine`.
        fov: see `View`.
        give_back: drops what only makes the network faster, so that the device has memory; False if there is nothing.
        notes, counters: where fallbacks are recorded.
    """

    def __init__(
        self,
        spec: ModelSpec,
        executor: SerialExecutor,
        *,
        batch: int,
        refines: bool,
        fov: float | None = None,
        give_back: Callable[[], bool],
        notes: list[str],
        counters: Counter[str],
    ) -> None:
        self.batch = batch
        self._refines, self._fov, self._give_back = refines, fov, give_back
        self.inference_size = spec.input.size_hw[0]
        """N, which the size of a network's input follows from; only changed while nothing is pending."""
        self._answer = answer_of(spec)
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
            slot.frames, resample = frames, self._spec.input.resample
            arrays = [frame.rgb for frame in frames]
            resized = [self._resized(rgb, size_hw) for rgb in arrays] if resample.is_on_host else []
            images = slot.images = self._upload(slot, arrays if self._refines else resized or arrays)

            def prepared() -> Sequence[Tensor]:
                ours = images
                if resized and self._refines:  # `refine` needs the frames, the network what became of them
                    ours = [torch.tensor(rgb, device=self._executor.device) for rgb in resized]
                return [self.preprocess(x, size_hw, backend.dtype, backend.memory_format) for x in ours]

            with self._executor.computing(slot.uploaded):
                inputs = self._fitting(prepared, len(frames))
                slot.computed = self._executor.event()  # the network does not read the slot; `finish` may
            return inputs

    def prepare_one(self, frame: Frame, size_hw: tuple[int, int], backend: Backend) -> Tensor:
        """The network input of one frame, 1×3×h×w, made without a slot. Raises like `prepare`."""
        return self._fitting(lambda: self.input_of(frame, size_hw, backend.dtype, backend.memory_format), 1)

    def input_of(
        self, frame: Frame, size_hw: tuple[int, int], dtype: torch.dtype, memory_format: torch.memory_format
    ) -> Tensor:
        """See `prepare_one`."""
        is_on_host = self._spec.input.resample.is_on_host
        rgb = self._resized(frame.rgb, size_hw) if is_on_host else frame.rgb
        image = torch.tensor(rgb, device=self._executor.device)
        return self.preprocess(image, size_hw, dtype, memory_format)

    def compute(self, inputs: Sequence[Tensor], backend: Backend, aspect: float | None = None) -> Sequence[Outputs]:
        """Run the network.

        Args:
            aspect: W / H of the frames, for a network that needs it.

        Raises:
            ModelError: even one input does not fit into the device's memory.
        """
        further = () if aspect is None else (aspect,)

        def outputs_of(x: Tensor) -> Sequence[Outputs]:
            found = backend(x, *further)
            return list(zip(*(y.unbind() for y in (found if isinstance(found, tuple) else (found,))), strict=True))

        return self._in_parts(inputs, outputs_of, backend)

    def features(self, inputs: Sequence[Tensor], backend: Eager) -> Sequence[Outputs]:
        """What a network that sees several frames at once computes of each alone. Raises like `compute`."""
        return self._in_parts(inputs, backend.features, backend)

    def window(self, features: Sequence[Outputs], backend: Eager, *, count: int) -> Sequence[Tensor]:
        """The maps of the first `count` frames of a window; it cannot be computed in parts, as each frame sees all.

        Raises:
            ModelError: it does not fit into the device's memory.
        """
        with torch.inference_mode(), self._executor.computing(None):
            maps = self._fitting(lambda: backend.temporal.window(features, count=count), len(features), in_window=True)
            return maps.unbind()

    def step(self, inputs: Sequence[Tensor], backend: Eager, state: State) -> Sequence[Outputs]:
        """The map of the next frame of a clip; it becomes part of `state`.

        Raises:
            ModelError: the frame does not fit into the device's memory.
        """
        (x,) = inputs
        with torch.inference_mode(), self._executor.computing(None):
            output, state.past = self._fitting(lambda: backend.step(x, state.past), 1)
            return [(output[0],)]

    def _in_parts(
        self, inputs: Sequence[Tensor], run: Callable[[Tensor], Sequence[Outputs]], backend: Backend
    ) -> Sequence[Outputs]:
        """What `run` makes of each input; they are given to it in batches."""
        device = self._executor.device
        with torch.inference_mode(), self._executor.computing(None):
            # Retrying outside the `except` matters: the exception keeps the tensors of the failed attempt alive.
            while (outputs := self._attempt(inputs, run)) is None:
                if self._give_back():
                    continue
                tried = min(self.batch, len(inputs))
                if tried == 1:
                    raise self._too_large(1)
                self.batch = backend.batch = tried // 2
                self._counters["batch_halvings"] += 1
                self._notes.append(f"{device} ran out of memory: batch reduced to {self.batch}")
                release_cached()
            return outputs

    def _fitting(self, work: Callable[[], T], frames: int, *, in_window: bool = False) -> T:
        """What `work` gives; tried again as long as `give_back` finds memory for it.

        Raises:
            ModelError: it does not fit into the device's memory.
        """
        while True:
            try:
                return work()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if not self._give_back():
                    raise self._too_large(frames, in_window=in_window) from error

    def finish(self, outputs: Sequence[Outputs], slot: Slot) -> PendingResults:
        """Resize network outputs to the frames' sizes and start copying them to the host.

        Raises:
            ModelError: they do not fit into the device's memory.
        """
        with torch.inference_mode():
            with self._executor.computing(None):
                triples = list(zip(outputs, slot.frames, slot.images, strict=True))
                answers = self._fitting(lambda: [self._at_frame_size(*triple) for triple in triples], len(outputs))
                # The network's outputs are checked, not the upsampled map: at 1080p that takes 8 ms on a CPU.
                is_finite = torch.stack([_is_finite(output) for output in outputs])
                computed = self._executor.event()
                if self._refines:
                    slot.computed = computed
            with self._executor.downloading(computed):
                return PendingResults(
                    on_device=[*chain.from_iterable(answer.tensors for answer in answers), is_finite],
                    results=[self._on_host(answer) for answer in answers],
                    is_finite=self._executor.to_host(is_finite),
                    refined=[self._may_refine(*pair) for pair in zip(answers, slot.images, strict=True)],
                    downloaded=self._executor.event(),
                )

    def finish_one(self, output: Outputs, frame: Frame) -> Answer | None:
        """The answer of one frame on the host; None if the network's output is not finite."""
        if not _is_finite(output):
            return None
        image = torch.tensor(frame.rgb, device=output[0].device)
        return self._at_frame_size(output, frame, image).map(Tensor.cpu)

    def _at_frame_size(self, output: Outputs, frame: Frame, image: Tensor) -> Answer:
        """The answer of a frame on the device; `image` is the frame, uint8 H×W×3, wherever it may be refined."""
        view = View(size_hw=frame.size, intrinsics=frame.intrinsics, fov=self._fov)
        answer = self._answer(self._spec, output, view)
        if answer.note and answer.note not in self._notes:
            self._notes.append(answer.note)
        return self._refined(answer, image)

    def finish_joined(self, joined: Joined, frame: Frame) -> PendingResults:
        """Like `finish`, for a frame whose map is joined from windows and known to be finite."""
        upsample = self._spec.upsample

        def finished() -> tuple[Answer, bool]:
            answer = Answer(values=joined.at(frame.size, upsample).contiguous())
            if not self._refines:
                return answer, False
            answer = replace(answer, network=joined.at(None, upsample))
            image = torch.tensor(frame.rgb, device=self._executor.device)
            return self._refined(answer, image), self._may_refine(answer, image)

        with torch.inference_mode():
            with self._executor.computing(None):
                answer, refined = self._fitting(finished, 1)
                computed = self._executor.event()
            with self._executor.downloading(computed):
                return PendingResults(
                    on_device=answer.tensors,
                    results=[self._on_host(answer)],
                    is_finite=torch.ones(1, dtype=torch.bool),
                    refined=[refined],
                    downloaded=self._executor.event(),
                )

    def _refined(self, answer: Answer, image: Tensor) -> Answer:
        if self._refines:
            if answer.network is not None and self._may_refine(answer, image):
                refine(answer.values, answer.network, image, self._spec.output)
            elif _NOTHING_TO_REFINE not in self._notes:
                self._notes.append(_NOTHING_TO_REFINE)
        return answer

    def _on_host(self, answer: Answer) -> Answer:
        return answer.map(self._executor.to_host)

    def _resized(self, rgb: RgbImage, size_hw: tuple[int, int]) -> RgbImage:
        return resized_on_host(rgb, size_hw, self._spec.input.resample, longest=self.inference_size)

    def _may_refine(self, answer: Answer, image: Tensor) -> bool:
        if not self._refines or answer.network is None:
            return False
        return answer.network.shape[0] < image.shape[0] or answer.network.shape[1] < image.shape[1]

    def _upload(self, slot: Slot, arrays: Sequence[RgbImage]) -> Sequence[Tensor]:
        """Copy images into the slot; returns uint8 H×W×3 views on the device."""
        total = sum(rgb.size for rgb in arrays)
        if slot.uploaded is not None:
            slot.uploaded.synchronize()  # the copy engine may still read the host buffer
        if slot.host is None or slot.device is None or slot.host.numel() < total:
            buffer = slot.host = self._executor.host_buffer(total)
            slot.device = self._fitting(lambda: self._executor.device_buffer(buffer), len(arrays))
        host = slot.host.numpy()
        images, offset = [], 0
        for rgb in arrays:
            end = offset + rgb.size
            host[offset:end] = rgb.reshape(-1)
            images.append(slot.device[offset:end].view(rgb.shape))
            offset = end
        with self._executor.uploading(slot.computed):
            slot.device[:total].copy_(slot.host[:total], non_blocking=True)
            slot.uploaded = self._executor.event()
        return images

    def _attempt(
        self, inputs: Sequence[Tensor], run: Callable[[Tensor], Sequence[Outputs]]
    ) -> Sequence[Outputs] | None:
        """The outputs for each input, or None if the device runs out of memory."""
        try:
            outputs: list[Outputs] = []
            for start in range(0, len(inputs), self.batch):
                group = inputs[start : start + self.batch]
                outputs += run(group[0] if len(group) == 1 else torch.cat(list(group)))
            return outputs
        except RuntimeError as error:
            if is_out_of_memory(error):
                return None
            raise

    def _too_large(self, frames: int, *, in_window: bool = False) -> ModelError:
        count = f"{frames} frames do" if frames > 1 else "one frame does"
        less = "--temporal stream, a smaller --input-size" if in_window else "a smaller --input-size or --batch"
        elsewhere = "" if in_window or self._executor.device.type == "cpu" else ", or --device cpu"
        return ModelError(
            f"{count} not fit into the memory of {self._executor.device}",
            where=self._spec.name,
            hint=f"use {less}, {'' if elsewhere else 'or '}--precision fp16{elsewhere}",
        )
