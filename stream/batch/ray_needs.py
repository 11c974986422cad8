"""What a worker needs of a cluster of Ray, and how many of them its machines have room for.

Invariant: nothing here asks the cluster; what its machines have is given, as Ray states it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stream.config import LEAST_MEMORY, Config


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What Ray reserves for each worker.

    Attributes:
        cpus: cores; may be a fraction.
        gpus: 0.5 puts two workers on each GPU.
        memory: bytes; Ray uses it to place workers and enforces nothing. None: not considered.
    """

    cpus: float
    gpus: float = 0.0
    memory: int | None = None

    def fit(self, node: dict[str, float]) -> int:
        """How many workers a machine with these resources has room for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory or 0)}
        # Ray counts in units of 1/10000.
        rooms = [math.floor(node.get(name, 0.0) / number + 1e-4) for name, number in wanted.items() if number]
        return min(rooms)

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPUs"]
        parts += [f"{self.gpus:g} GPUs"] if self.gpus else []
        parts += [f"{self.memory / 1e9:.3g} GB of memory"] if self.memory else []
        return ", ".join(parts)


def needs_of(
    nodes: Sequence[dict[str, float]], config: Config, *, count: int | None, gpus: float | None, memory: int | None
) -> tuple[Needs, int]:
    """What a worker needs on this cluster, and how many of them it has room for now.

    Workers with a GPU share the cores beside it. Without one, each machine is one worker, or the cores are divided by
    `count`.
    """
    if gpus is None:
        gpus = 1.0 if config.inference.device != "cpu" and any(node.get("GPU") for node in nodes) else 0.0
    cores = [node.get("CPU", 0.0) for node in nodes]
    if config.inference.threads is not None:
        cpus = float(config.inference.threads)
    elif gpus:
        shares = [node.get("CPU", 0.0) * gpus / node["GPU"] for node in nodes if node.get("GPU")]
        cpus = _whole(min(shares, default=1.0))
    elif count is not None:
        cpus = _whole(sum(cores) / count) if any(cores) else 1.0
    else:
        cpus = max(1.0, min((number for number in cores if number), default=1.0))
    needs = Needs(cpus=cpus, gpus=gpus, memory=memory)
    return needs, sum(needs.fit(node) for node in nodes)


def _whole(cores: float) -> float:
    """Whole cores, or a fraction of one that Ray can count."""
    return float(math.floor(cores)) if cores >= 1 else max(0.01, math.floor(cores * 100) / 100)


def with_shares(config: Config, needs: Needs, nodes: Sequence[dict[str, float]]) -> Config:
    """The config of a worker, which knows nothing of those beside it: its cores, and its share of the memory."""
    capture, inference = config.capture, config.inference
    if inference.threads is None:
        inference = inference.model_copy(update={"threads": max(1, int(needs.cpus))})
    shares = [node.get("memory", 0.0) / number for node in nodes if (number := needs.fit(node))]
    share = needs.memory or int(min(shares, default=0.0))
    if capture.max_memory is None and share:
        capture = capture.model_copy(update={"max_memory": max(LEAST_MEMORY, share)})
    return config.model_copy(update={"inference": inference, "capture": capture})


def largest(nodes: Sequence[dict[str, float]]) -> str:
    node = max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)), default={})
    return str(Needs(cpus=node.get("CPU", 0.0), gpus=node.get("GPU", 0.0), memory=int(node.get("memory", 0.0)) or None))
