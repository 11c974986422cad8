"""CUDA graphs: what a network does with inputs of the same shape is recorded once and then replayed at one command.

Launching hundreds of kernels one by one takes Python longer than a fast GPU takes to run them: on an H200 in fp16,
`depth_anything_v2_vits` took 5.7 ms a frame and 1.8 ms as a graph, `starter` 3.8 and 0.66.
Invariant: a call returns what it would without a graph, in memory of its own.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from stream.models.layers import tables_kept
from stream.models.memory import is_out_of_memory

MOST_GRAPHS = 4
"""Each one keeps the memory of all intermediate results on the device, or shares it with the others."""
WARM_UP = 3
"""Calls before a recording: libraries choose kernels and take memory in the first ones, and a size that never comes
again, as in a folder of photos, is not worth recording."""
UNUSED_CALLS = 64
"""Calls after which a graph that none of them used makes room for another, as when `--target-fps` has changed the size.
Sizes that take turns are used more often than that; those beyond the fourth run without a graph then."""
_MOST_COUNTED = 256
"""Shapes whose calls are counted."""

Tensors = Tensor | tuple[Tensor, ...]
Outputs = TypeVar("Outputs", bound=Tensors)
Recorder = Callable[[Callable[[], Tensors]], tuple[Tensors, Callable[[], None]]]
"""Records the work that it is given; returns the work's tensors, and what fills them again."""


class CudaRecorder:
    """Records graphs of the current stream, which must not be the default one."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        """See `Recorder`. Other threads may go on with other work on the device meanwhile.

        Raises:
            RuntimeError: it cannot be recorded: it waits for the device, or has no memory.
        """
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
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
        graph = self._graphs.get(key) or self._recorded(key, function, inputs, fixed)
        if graph is None:
            return self._directly(function, inputs, fixed)
        graph.used = self._call
        torch._foreach_copy_(graph.inputs, inputs)  # at once: a frame of a video model brings 250 tensors
        graph.replay()
        if isinstance(graph.outputs, Tensor):
            return graph.outputs.clone()  # type: ignore[return-value]
        return tuple(x.clone() for x in graph.outputs)  # type: ignore[return-value]

    def _recorded(
        self,
        key: Hashable,
        function: Callable[..., Outputs],
        inputs: tuple[Tensor, ...],
        fixed: tuple[Hashable, ...],
    ) -> Graph | None:
        """A new graph, or None if it is too early, or there are enough, or it is impossible."""
        if key not in self._calls and len(self._calls) >= _MOST_COUNTED:
            self._calls.clear()
        self._calls[key] += 1
        if self._calls[key] <= WARM_UP or not self._has_room():
            return None
        try:
            ours = tuple(x.clone() for x in inputs)
            with tables_kept() as tables:
                outputs, replay = self._record(lambda: function(*ours, *fixed))
        except RuntimeError as error:
            self._is_off = True
            self._counters["graph_failures"] += 1
            why = "no memory" if is_out_of_memory(error) else str(error).strip().splitlines()[0]
            self._notes.append(f"no CUDA graph of the network could be made, which only costs speed: {why}")
        if self._is_off:
            self._drop()
            return None
        graph = self._graphs[key] = Graph(replay=replay, inputs=ours, outputs=outputs, tables=tuple(tables))
        return graph

    def _has_room(self) -> bool:
        if len(self._graphs) < MOST_GRAPHS:
            return True
        oldest = min(self._graphs, key=lambda key: self._graphs[key].used)
        if self._call - self._graphs[oldest].used <= UNUSED_CALLS:
            return False
        del self._graphs[oldest], self._calls[oldest]
        return True

    def _directly(
        self, function: Callable[..., Outputs], inputs: tuple[Tensor, ...], fixed: tuple[Hashable, ...]
    ) -> Outputs:
        try:
            return function(*inputs, *fixed)
        except RuntimeError as error:
            if not is_out_of_memory(error) or not self._graphs:
                raise
        # Outside the `except`, which keeps the tensors of the attempt alive.
        self._is_off = True
        self._notes.append("the memory of CUDA graphs is needed for the network itself, which is slower without them")
        self._counters["graph_failures"] += 1
        self._drop()
        return function(*inputs, *fixed)

    def _drop(self) -> None:
        self._graphs.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
