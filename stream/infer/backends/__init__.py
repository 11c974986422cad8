"""What executes a network: torch itself, or a runtime that the network is exported to.

    eager       torch without conversion; supports every model, size and device
    exported    a network exported once per input size, checked against torch and kept on disk,
                for one of the runtimes inductor (`compile`), openvino and onnx
    int8        quantisation for openvino
    cache       the exported files on disk
    choose      makes a backend by name
    auto        torch, until a faster runtime is ready
    exporter    exports networks while torch computes, in a child process (`child`)

Invariant: the engine uses all of them alike: a callable from network inputs to the network's output.
"""

from collections import Counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a child process reads its request, and watches its parent, before it imports torch
    import torch
    from torch import Tensor

NAMES = ("torch", "compile", "onnx", "openvino")
"""Values of `--backend` besides `auto`."""

InputShape = tuple[int, int, int]
"""(images, height, width) of a network's input; the channels are always three."""


class Backend(Protocol):
    """Executes one network.

    Attributes:
        batch: most images in one call; lowered by the engine when memory runs out.
        notes: messages for the user, each to be shown once; grows while running.
        counters: `eager_frames`: frames that ran in torch because the runtime does not hold their network size; those
            of `auto.Auto`.
    """

    batch: int
    notes: list[str]
    counters: Counter[str]

    @property
    def name(self) -> str:
        """One of `NAMES`."""
        ...

    @property
    def dtype(self) -> "torch.dtype":
        """Required of inputs, which are on the engine's device."""
        ...

    @property
    def memory_format(self) -> "torch.memory_format":
        """Likewise."""
        ...

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """Do in advance what the first input of (height, width) would otherwise wait for."""
        ...

    def __call__(self, x: "Tensor", *aspect: float) -> "Tensor | tuple[Tensor, ...]":
        """N×3×H×W → N×H×W, or several tensors N×…; what they are depends on the model.

        Args:
            aspect: W / H of the pictures, for models with `needs_aspect`.
        """
        ...
