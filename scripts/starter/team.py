"""Several training processes of one thread each: on two cores 46 samples per second, with two threads in one 37.

Invariant: every member leaves `mean` and `total` with the same numbers, so that networks which start alike stay alike.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.multiprocessing as processes
from torch import Tensor

LONGEST_WAIT_S = 600.0
"""For a member that still validates; one that died is noticed sooner."""
KEEP_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**26)}
"""For glibc in members: maps of megabytes come and go at every step, and clearing new pages for them takes a tenth."""


@dataclass(frozen=True)
class Team:
    """One member's view of the team."""

    rank: int = 0
    slots: Tensor | None = None
    """Shared memory, members×numbers; None when alone."""
    barrier: Any = None

    @property
    def size(self) -> int:
        """How many members there are."""
        return 1 if self.slots is None else len(self.slots)

    def total(self, values: Tensor) -> Tensor:
        """The sum of every member's `values`, float32 of one dimension."""
        if self.slots is None:
            return values
        self.slots[self.rank, : len(values)] = values
        self.barrier.wait(LONGEST_WAIT_S)
        sums = self.slots[:, : len(values)].sum(0)
        self.barrier.wait(LONGEST_WAIT_S)  # no member writes again before all have read
        return sums

    def are_alike(self, values: Tensor) -> bool:
        """Whether every member's `values` are the same."""
        if self.slots is None:
            return True
        self.slots[self.rank, : len(values)] = values
        self.barrier.wait(LONGEST_WAIT_S)
        alike = bool((self.slots[:, : len(values)] == values).all())
        self.barrier.wait(LONGEST_WAIT_S)
        return alike

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace each float32 tensor by its mean over the members."""
        if self.size == 1:
            return
        sums = self.total(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.size
        for tensor, part in zip(tensors, sums.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))


@contextmanager
def until_told() -> Iterator[list[int]]:
    """A list that stays empty until the process receives a signal to stop."""
    stopping: list[int] = []
    before = {
        number: signal.signal(number, lambda n, _: stopping.append(n)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gather(size: int, numbers: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(team, *arguments)` in `size` processes, in this one if it is alone, until all have ended.

    Args:
        numbers: the most that `total` is given.

    An error in one member ends all of them and is raised. A signal to stop is passed on.
    """
    if size == 1:
        work(Team(), *arguments)
        return
    slots = torch.zeros(size, numbers).share_memory_()
    barrier = processes.get_context("spawn").Barrier(size)
    with until_told() as stopping:
        before = dict(os.environ)
        os.environ.update(KEEP_PAGES)
        context = processes.spawn(_member, (slots, barrier, work, arguments), nprocs=size, join=False)
        for name in KEEP_PAGES.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        assert context is not None
        passed_on = False
        while not context.join(timeout=1):
            if stopping and not passed_on:
                passed_on = True
                for process in context.processes:
                    process.terminate()


def _member(rank: int, slots: Tensor, barrier: Any, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    work(Team(rank, slots, barrier), *arguments)
