"""The network in torch itself: on the device, in a precision, channels last.

Invariant: weights are cast once, here, and those that the catalog lists in `fp32_keys` stay fp32.
"""

import copy
from collections import Counter
from fnmatch import fnmatch
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from stream.errors import ModelError
from stream.infer.backends.graphs import Graphs, Recorder
from stream.infer.device import DTYPES
from stream.models.spec import ModelSpec
from stream.models.temporal import Features, Past, Run, TemporalNetwork, directly


def placed(network: nn.Module, spec: ModelSpec, device: torch.device, precision: str) -> nn.Module:
    """Place a network on the device in `precision`, channels last; `network` itself where no copy is needed.

    Raises:
        ModelError: the network does not fit into the device's memory.
    """
    try:
        if precision != "fp32" or device.type != "cpu":
            network = copy.deepcopy(network)
        for name, tensor in chain(network.named_parameters(), network.named_buffers()):
            stays_fp32 = any(fnmatch(name, pattern) for pattern in spec.fp32_keys)
            if tensor.is_floating_point() and not stays_fp32:
                tensor.data = tensor.data.to(DTYPES[precision])
        network = network.to(device)
        for tensor in network.parameters():
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    except torch.OutOfMemoryError as error:
        hint = "use --precision fp16, a smaller model, or --device cpu"
        raise ModelError(f"does not fit into the memory of {device}", where=spec.name, hint=hint) from error
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # the copies must end before another stream reads the weights
    return network


class Eager:
    """A placed network as a backend.

    Args:
        network: see `placed`.
        precision: the one that it was placed in.
        batch: see `Backend`.
        record: what the network does is recorded so, and replayed; it must be a function of its inputs.
    """

    name = "torch"
    memory_format = torch.channels_last

    def __init__(self, network: nn.Module, precision: str, *, batch: int, record: Recorder | None = None) -> None:
        self.network, self.dtype, self.batch = network, DTYPES[precision], batch
        self.notes: list[str] = []
        self.counters: Counter[str] = Counter()
        self._graphs = None if record is None else Graphs(record, self.notes, self.counters)

    @property
    def graphs(self) -> int:
        """How many recordings replace calls of the network."""
        return 0 if self._graphs is None else len(self._graphs.held)

    def give_back(self) -> bool:
        """Drop the recordings, because their memory is needed; False if there are none."""
        return self._graphs is not None and self._graphs.give_back()

    @property
    def temporal(self) -> TemporalNetwork:
        """The network, if its row says `is_temporal`."""
        return cast(TemporalNetwork, self.network)

    def prepare(self, size_hw: tuple[int, int]) -> None:
        """See `Backend`: there is nothing to prepare."""

    def __call__(self, x: Tensor, *aspect: float) -> Tensor | tuple[Tensor, ...]:
        """See `Backend`."""
        output: Tensor | tuple[Tensor, ...]
        output = self.network(x, *aspect) if self._graphs is None else self._graphs.run(self.network, x, fixed=aspect)
        return output

    def features(self, x: Tensor) -> list[Features]:
        """See `TemporalNetwork`."""
        return self.temporal.features(x, self._run)

    def step(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """See `TemporalNetwork`."""
        return self.temporal.step(x, past, self._run)

    @property
    def _run(self) -> Run:
        return directly if self._graphs is None else self._graphs.run
