"""Depth Anything V1 in metres, in small: the slow tests compare the published size with the official numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stream.models import registry
from stream.models.depth_anything.zoe import ZoeDepthAnything
from stream.models.spec import ModelSpec
from tests.support.manifests import FILES, reference
from tests.support.reference import weight

torch.set_num_threads(1)  # torch's threads wait for one another at every layer: slow beside other tests
SMALL = {"width": 24, "depth": 4, "heads": 2, "taps": (0, 1, 2, 3), "channels": 16, "outputs": (8, 8, 8, 8)}


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """The row, with a network that is built in no time."""
    row = registry.find("depth_anything_metric_depth_indoor")
    build = registry._architectures()
    monkeypatch.setattr(
        registry, "_architectures", lambda: {**build, "zoe_depth_anything": lambda **_: ZoeDepthAnything(**SMALL)}
    )
    return row


@pytest.fixture
def tensors(spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Tensors by the rules of the reference."""
    rules = {
        key: rule
        for key, _, _, rule in reference(FILES[0].with_name("depth_anything_metric_depth_indoor.json"))["state_dict"]
    }
    shapes = {key: tuple(value.shape) for key, value in registry.build(spec).state_dict().items()}
    return {key: torch.from_numpy(np.asarray(weight(key, shape, rules[key]))) for key, shape in shapes.items()}


@pytest.mark.parametrize(("prefix", "wrap"), [("", False), ("", True), ("module.", True)])
def test_files_load_as_they_are_published_and_wrapped(
    spec: ModelSpec, tensors: dict[str, torch.Tensor], tmp_path: Path, prefix: str, *, wrap: bool
) -> None:
    constants = {
        "conditional_log_binomial.log_binomial_transform.k_idx": torch.arange(64).view(1, 64, 1, 1),
        "conditional_log_binomial.log_binomial_transform.K_minus_1": torch.full((1, 1, 1, 1), 63.0),
    }
    content = {f"{prefix}{key}": value for key, value in {**tensors, **constants}.items()}
    torch.save({"model": content, "optimizer": None, "epoch": 5} if wrap else content, tmp_path / "mine.pt")
    found = registry.load(spec, weights=tmp_path / "mine.pt").network.state_dict()
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in found)


def test_each_pixel_is_a_mean_of_its_bins(spec: ModelSpec, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "mine.pt")
    network = registry.load(spec, weights=tmp_path / "mine.pt").network
    weights: list[torch.Tensor] = []
    network.conditional_log_binomial.register_forward_hook(lambda _m, _i, output: weights.append(output))  # type: ignore[union-attr]
    with torch.inference_mode():
        metres = network(torch.randn(2, 3, 42, 70, generator=torch.Generator().manual_seed(0)))
    assert metres.shape == (2, 42, 70)
    assert metres.isfinite().all()
    assert (metres > 0).all()
    torch.testing.assert_close(weights[0].sum(1), torch.ones(2, 42, 70))
    steps, peak = weights[0].diff(dim=1), weights[0].argmax(1, keepdim=True)
    is_before = torch.arange(63).view(1, 63, 1, 1) < peak
    assert torch.where(is_before, steps >= 0, steps <= 0).all()
    assert peak.unique().numel() > 1
