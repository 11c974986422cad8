"""What executes a network: torch itself, or a runtime that the network is exported to.

    eager       torch without conversion; supports every model, size and device
    exported    a network exported once per input size, checked against torch and kept on disk,
                for one of the runtimes inductor (`compile`), openvino and onnx
    int8        quantisation for openvino
    cache       the exported files on disk
    choose      makes a backend by name, or finds the fastest one on this machine

Invariant: the engine uses all of them alike: a callable from network inputs to the network's output.
"""

from collections import Counter
from typing import Protocol

import torch
from torch import Tensor

NAMES = ("torch", "compile", "onnx", "openvino")
"""Values of `--backend` besides `auto`."""

InputShape = tuple[int, int, int]
"""(images, height, width) of a network's input; the channels are always three."""


class Backend(Protocol):
    """Executes one network.

    Attributes:
        name: one of `NAMES`.
        dtype, memory_format: required of inputs, which are on the engine's device.
        batch: most images in one call; lowered by the engine when memory runs out.
        notes: messages for the user, each to be shown once; grows while running.
        counters: `eager_frames`: frames that ran in torch because the runtime does not hold their network size.
    """

    name: str
    dtype: torch.dtype
    memory_format: torch.memory_format
    batch: int
    notes: list[str]
    counters: Counter[str]

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """Do in advance what the first input of (height, width) would otherwise wait for."""
        ...

    def __call__(self, x: Tensor, *aspect: float) -> Tensor | tuple[Tensor, ...]:
        """N×3×H×W → N×H×W, or several tensors N×…; what they are depends on the model.

        Args:
            aspect: W / H of the pictures, for models with `needs_aspect`.
        """
        ...
