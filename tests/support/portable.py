"""A runtime that tests export networks for, in milliseconds."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from stream.infer.backends import InputShape
from stream.infer.backends.exported import Call, as_tuple
from stream.models import registry

CPU = torch.device("cpu")


class Portable:
    """A runtime that saves and loads torch programs; `off` is added to their outputs."""

    name = "portable"
    device, dtype, memory_format = CPU, torch.float32, torch.contiguous_format

    def __init__(self, *, off: float = 0.0, pads: bool = False, precision: str = "fp32") -> None:
        self.off, self.pads, self.precision = off, pads, precision
        self.facts: dict[str, object] = {}
        self.made: list[InputShape] = []
        self.called_with: list[int] = []

    def source(self, model: registry.LoadedModel) -> nn.Module:
        return model.network

    def make(self, program: ExportedProgram, folder: Path) -> None:
        (example,) = program.example_inputs[0]  # type: ignore[index]
        self.made.append((example.shape[0], *example.shape[2:]))
        torch.export.save(program, folder / "model.pt2")

    def load(self, folder: Path) -> Call:
        module = torch.export.load(folder / "model.pt2").module()

        def call(x: Tensor) -> tuple[Tensor, ...]:
            self.called_with.append(len(x))
            *others, last = as_tuple(module(x))
            return (*others, last + self.off)

        return call
