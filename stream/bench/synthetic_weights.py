"""Networks with synthetic weights, to measure speed where the real weights are missing.

Invariant: the weights are finite, the same on every machine and as large as trained ones, so that denormal numbers and
zeros do not distort the measurement; the depth means nothing.
"""

import math
import zlib

import torch
from torch import Tensor

from stream.errors import UsageError
from stream.models import registry
from stream.models.registry import LoadedModel
from stream.models.spec import ModelSpec


def with_synthetic_weights(spec: ModelSpec, *, merge_norms: bool = True) -> LoadedModel:
    """The network of a row with synthetic weights.

    Args:
        merge_norms: see `layers.fold_for_inference`.

    Raises:
        UsageError: the network is defined by its weights file, in another runtime's format.
    """
    if registry.runtime_of(spec) != "torch":
        hint = f"run `depthstream weights get {spec.name}`"
        raise UsageError("its network is defined by its weights file", where=spec.name, hint=hint)

    network = registry.build(spec)
    state = {key: _tensor(key, tensor) for key, tensor in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    registry.finish(network, merge_norms=merge_norms)
    digest = f"{zlib.crc32(spec.name.encode()):08x}".ljust(64, "0")
    return LoadedModel(spec=spec, make_network=lambda: network, weights_sha256=digest)


def _tensor(key: str, meta: Tensor) -> Tensor:
    """Values by role: kernels keep the variance of their input (He et al. 2015), norms are close to the identity."""
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
