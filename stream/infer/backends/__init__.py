"""What executes a network: torch itself, or a runtime that the network is exported to.

    eager       torch, as it is; takes every model, size and device
    exported    a network converted once for each input size, checked against torch, kept on the disk:
                inductor (`compile`), openvino, onnx
    choose      which of them, measured on this machine

Invariant: to the engine all are alike: a call that takes network inputs and gives the network's output.
"""

from collections import Counter
from typing import Protocol

import torch
from torch import Tensor

NAMES = ("torch", "compile", "onnx", "openvino")
"""What `--backend` takes besides `auto`."""


Size = tuple[int, int, int]
"""Of a network's input: pictures, height, width."""


class Backend(Protocol):
    """Executes one network.

    Attributes:
        name: one of `NAMES`.
        dtype, memory_format: what inputs must have; they are on the engine's device.
        batch: most pictures in one call; lowered by the engine when memory runs out.
        notes: worth saying once; grows while running.
        counters: `eager_frames`: frames of network sizes beyond those that a runtime holds.
    """

    name: str
    dtype: torch.dtype
    memory_format: torch.memory_format
    batch: int
    notes: list[str]
    counters: Counter[str]

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """Do now what the first input of (height, width) would have to wait for."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        ...
