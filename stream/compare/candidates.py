"""The models of a comparison: which, on what device, and whether they fit into memory together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stream.config import Config
from stream.errors import UsageError
from stream.files import expanded
from stream.jobs.models import spec_meant
from stream.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

_BYTES_PER_PARAMETER = 4
_SHARE_OF_MEMORY = 0.5
"""Share of the free memory that the weights of all models may take; the rest is for activations."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model to compare, and its weights file if it is not the published one."""

    spec: ModelSpec
    weights: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """Parse `NAME` or `NAME=FILE`. Raises `UsageError` for an unknown name."""
        from stream.models import registry

        name, _, file = text.partition("=")
        return cls(spec=registry.find(name), weights=Path(expanded(file)) if file else None)


def candidates_of(models: Sequence[str], config: Config, *, what: str = "a comparison") -> list[Candidate]:
    """The models that the user has named.

    Args:
        models: two or more of `NAME` or `NAME=FILE`.
        what: needs them, for errors.

    Raises:
        UsageError: they are fewer or alike, or an option does not apply to any of them.
    """
    found = [Candidate.parse(text) for text in models]
    if len(found) < 2:
        raise UsageError(f"{what} needs two models or more", where="-m", hint="e.g. -m starter -m dav2-small")
    if len({candidate.spec.name for candidate in found}) < len(found):
        raise UsageError("the same model is named twice", where="-m")
    return _meant(found, config)


def _meant(candidates: list[Candidate], config: Config) -> list[Candidate]:
    """The candidates, those with a file of the user's own as `--kind` and `--max-depth` say."""
    if not (config.model.kind or config.model.max_depth):
        return candidates
    if not any(candidate.weights for candidate in candidates):
        where = "--kind" if config.model.kind else "--max-depth"
        raise UsageError("applies to a file of your own, and none is named", where=where, hint="use -m NAME=FILE")
    return [replace(candidate, spec=spec_meant(config_of(config, candidate, threads=1))) for candidate in candidates]


def config_of(config: Config, candidate: Candidate, threads: int) -> Config:
    """The config of a run of one of the models."""
    of_file = {} if candidate.weights else {"kind": None, "max_depth": None}
    named = {"name": candidate.spec.name, "weights": candidate.weights}
    model = config.model.model_copy(update={**named, **of_file})
    inference = config.inference.model_copy(update={"threads": threads, "temporal": "off"})
    return config.model_copy(update={"model": model, "inference": inference})


def device_and_threads(config: Config, candidates: Sequence[Candidate]) -> tuple["torch.device", int]:
    """The device that the models run on, and the number of threads: as many as the largest model would use alone.

    Raises:
        UsageError: a model does not support the device, precision or input size.
    """
    from stream.infer.device import resolve_device, resolve_precision, resolve_threads
    from stream.infer.geometry import network_size

    asked, threads = config.inference, 1
    for candidate in candidates:
        spec = candidate.spec
        device = resolve_device(asked.device, spec)
        resolve_precision(asked.precision, device, spec)
        network_size(spec.input, spec.input.size_hw, input_size=config.model.input_size, square=config.model.square)
        threads = max(threads, resolve_threads(asked.threads, device, spec))
    return device, threads


def fit_into_memory(candidates: Sequence[Candidate], device: "torch.device") -> bool:
    """Whether all models can be in memory at the same time."""
    from stream.infer.device import free_memory_bytes

    free = free_memory_bytes(device)
    needed = sum(candidate.spec.parameters_m for candidate in candidates) * 1e6 * _BYTES_PER_PARAMETER
    return free is None or needed <= _SHARE_OF_MEMORY * free
