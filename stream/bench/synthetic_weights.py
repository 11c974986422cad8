"""Networks with made-up weights, for measuring speed where the real ones are not here.

Invariant: the same on every machine, finite, and as large as trained ones are, so that no time is lost with denormal
numbers or saved with zeros; what they compute means nothing.
"""

import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from stream.errors import UsageError
from stream.models import registry
from stream.models.registry import LoadedModel
from stream.models.spec import ModelSpec


def with_synthetic_weights(spec: ModelSpec, *, merge_norms: bool = True) -> LoadedModel:
    """The network of a row with made-up weights.

    Args:
        merge_norms: see `layers.fold_for_inference`.

    Raises:
        UsageError: another runtime's model, which is its weights file.
    """
    if registry.runtime_of(spec) != "torch":
        raise UsageError("its network is in its weights file", where=spec.name, hint="`depthstream weights get` it")
    network = registry.build(spec)
    state = {key: _tensor(key, tensor) for key, tensor in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    registry.finish(network, merge_norms=merge_norms)
    digest = f"{zlib.crc32(spec.name.encode()):08x}".ljust(64, "0")
    return LoadedModel(spec=spec, network=network, weights_path=Path(), weights_sha256=digest)


def _tensor(key: str, meta: Tensor) -> Tensor:
    """By role: kernels keep the variance of what they get (He et al. 2015), norms are near the identity."""
    if not meta.dtype.is_floating_point:
        return torch.zeros(meta.shape, dtype=meta.dtype)
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    noise = torch.randn(meta.shape, generator=generator)
    if key.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if meta.dim() >= 2 and "pos_embed" not in key and "token" not in key and "table" not in key:
        return noise / math.sqrt(meta[0].numel())
    if key.endswith(("weight", "gamma", "gamma_1", "gamma_2", "logit_scale")):
        return 0.5 + 0.05 * noise
    return 0.02 * noise
