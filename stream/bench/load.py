"""The load of the machine: what other programs take of it, and programs that take as much as is asked for.

Invariant: what this process computes itself is never counted as load.
"""

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

QUIET_CORES = 0.2
"""Up to so many cores that other programs use, a machine counts as idle."""
_SAMPLE_S = 0.5
_SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends by itself when its parent has ended."""


class OtherPrograms:
    """Counts the cores that everything but this process uses, from its construction on."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started, self._busy_s, self._own_s = clock(), _busy_s(), _own_s()

    @property
    def cores(self) -> float:
        """Their mean until now; processes that this one has started count, too."""
        elapsed_s = self._clock() - self._started
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return max(0.0, others_s) / elapsed_s if elapsed_s > 0 else 0.0


def cores_in_use() -> float:
    """Cores that other programs use now; takes half a second."""
    others = OtherPrograms()
    time.sleep(_SAMPLE_S)
    return others.cores


@contextmanager
def beside(count: int) -> Iterator[None]:
    """Keep `count` processes busy meanwhile, each of which would use a whole core."""
    processes = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen([sys.executable, "-S", "-c", _SPIN]))
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _busy_s() -> float:
    """CPU seconds of all processors so far; time that a hypervisor gives to other guests counts."""
    times = psutil.cpu_times()._asdict()
    return math.fsum(value for name, value in times.items() if name not in ("idle", "iowait", "guest", "guest_nice"))


def _own_s() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
