"""CUDA graphs: what a network does with inputs of the same shape is recorded once and then replayed at one command.

Launching hundreds of kernels one by one takes Python longer than a fast GPU takes to run them: on an H200 in fp16, a
frame of `depth_anything_v2_vits` took 7.1 ms and 2.1 as a graph (docs/speed.md).
Invariant: a call returns what it would without a graph, in memory of its own.
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from stream.models.layers import tables_kept
from stream.models.memory import is_out_of_memory, release_cached

MOST_GRAPHS = 4
"""Each one keeps the memory of all intermediate results on the device, or shares it with the others."""
WARM_UP = 3
"""Calls before the first replay: libraries choose kernels and take memory in the first ones, and a size that never
comes again, as in a folder of photos, is not worth recording."""
_ROUNDING = 0.01
"""Largest difference in standard deviations of an output; the same kernels give the same numbers."""
UNUSED_CALLS = 64
"""Calls after which a graph that none of them used makes room for another, as when `--target-fps` has changed the size.
Sizes that take turns are used more often than that; those beyond the fourth run without a graph then."""
_MOST_COUNTED = 256
"""Shapes whose calls are counted."""

Tensors = Tensor | tuple[Tensor, ...]
Outputs = TypeVar("Outputs", bound=Tensors)
Recorder = Callable[[Callable[[], Tensors]], tuple[Tensors, Callable[[], None]]]
"""Records the work that it is given; returns the work's tensors, and what fills them again."""


_recording = threading.Lock()
"""A recording synchronises the device first, which another one on the same device does not survive."""


class CudaRecorder:
    """Records graphs of the current stream, which must not be the default one."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """See `Recorder`. Other threads may launch kernels, copy and take memory on the device meanwhile.

        Raises:
            RuntimeError: it cannot be recorded: it waits for the device, or has no memory.
        """
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        with _recording, torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            outputs = work()
        return outputs, graph.replay


@dataclass(kw_only=True)
class Graph:
    """A recording.

    Attributes:
        inputs, outputs: the tensors that it reads and writes.
        tables: others that it reads, which networks keep for the sizes that they saw last.
        used: number of the last call that replayed it.
    """

    replay: Callable[[], None]
    inputs: tuple[Tensor, ...]
    outputs: Tensors
    tables: tuple[Tensor, ...]
    used: int = 0


class Graphs:
    """Runs functions of tensors, as graphs where that is possible; used by one thread at a time, on one stream.

    Args:
        record: the device's way to record.
        notes, counters: where fallbacks are recorded: `graph_failures` counts functions that could not be recorded.
    """

    def __init__(self, record: Recorder, notes: list[str], counters: Counter[str]) -> None:
        self._record, self._notes, self._counters = record, notes, counters
        self._graphs: dict[Hashable, Graph] = {}
        self._calls: Counter[Hashable] = Counter()
        self._refused: set[Hashable] = set()
        self._call = 0
        self._is_off = False

    @property
    def held(self) -> Sequence[Graph]:
        """The recordings, oldest first."""
        return tuple(self._graphs.values())

    def run(self, function: Callable[..., Outputs], *inputs: Tensor, fixed: tuple[Hashable, ...] = ()) -> Outputs:
        """`function(*inputs, *fixed)`. It must depend on nothing else, change nothing, and give tensors of the device.

        Raises:
            whatever `function` raises.
        """
        if self._is_off:
            return function(*inputs, *fixed)
        key = (function, fixed, *((x.shape, x.dtype, x.stride()) for x in inputs))
        self._call += 1
        graph = self._graphs.get(key)
        if graph is not None:
            return self._replayed(graph, inputs)  # type: ignore[return-value]
        # Also before a recording: tables for this size, which the network keeps, must not be computed by a graph.
        outputs = function(*inputs, *fixed)
        if self._is_due(key):
            self._add(key, lambda *given: function(*given, *fixed), inputs, outputs)
        return outputs

    def give_back(self) -> bool:
        """Drop all graphs, and make no more, because their memory is needed; False if there is none."""
        if not self._graphs:
            return False
        self._graphs.clear()
        self._is_off = True
        release_cached()
        self._fail("their memory is needed")
        return True

    def _replayed(self, graph: Graph, inputs: tuple[Tensor, ...]) -> Tensors:
        graph.used = self._call
        torch._foreach_copy_(graph.inputs, inputs)  # at once: a frame of a video model brings 250 tensors
        graph.replay()
        found = graph.outputs
        return found.clone() if isinstance(found, Tensor) else tuple(x.clone() for x in found)

    def _is_due(self, key: Hashable) -> bool:
        """Whether it is time for a graph, and there is room."""
        if key not in self._calls and len(self._calls) >= _MOST_COUNTED:
            self._calls.clear()
        self._calls[key] += 1
        if self._calls[key] < WARM_UP or key in self._refused:
            return False
        if len(self._graphs) < MOST_GRAPHS:
            return True
        oldest = min(self._graphs, key=lambda key: self._graphs[key].used)
        if self._call - self._graphs[oldest].used <= UNUSED_CALLS:
            return False
        del self._graphs[oldest], self._calls[oldest]
        return True

    def _add(self, key: Hashable, work: Callable[..., Tensors], inputs: tuple[Tensor, ...], outputs: Tensors) -> None:
        """Record `work`, unless that is impossible or gives something else than `outputs`."""
        try:
            ours = tuple(x.clone() for x in inputs)
            with tables_kept() as tables:
                recorded, replay = self._record(lambda: work(*ours))
            graph = Graph(replay=replay, inputs=ours, outputs=recorded, tables=tuple(tables), used=self._call)
            if not agree(self._replayed(graph, inputs), outputs):
                raise RuntimeError("a replay gave other numbers")
        except RuntimeError as error:
            self._refused.add(key)
            self._is_off = len(self._refused) >= MOST_GRAPHS and not self._graphs  # it would fail for any size
            self._fail("no memory" if is_out_of_memory(error) else str(error).strip().splitlines()[0])
        else:
            self._graphs[key] = graph

    def _fail(self, why: str) -> None:
        self._counters["graph_failures"] += 1
        text = f"the network runs without CUDA graphs, which only costs speed: {why}"
        if text not in self._notes:
            self._notes.append(text)


def agree(found: Tensors, expected: Tensors) -> bool:
    """Whether the outputs of the same work are the same but for rounding."""
    for one, other in zip(_as_tuple(found), _as_tuple(expected), strict=True):
        a, b = one.float(), other.float()
        spread = float(b.nan_to_num(0, 0, 0).std(correction=0))
        if not torch.allclose(a, b, rtol=0, atol=_ROUNDING * spread, equal_nan=True):
            return False
    return True


def _as_tuple(found: Tensors) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else found
