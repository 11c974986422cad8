"""ZipDepth before and after its branches are merged, and what is said about its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stream.errors import ModelError
from stream.infer.geometry import network_size
from stream.infer.preprocess import Preprocessor, resized_on_host
from stream.models import catalog, registry
from stream.models.layers import Mergeable, merge_norm
from stream.models.zipdepth import catalog as zipdepth
from tests.support.manifests import FILES, checkpoint, error, reference
from tests.support.reference import image

torch.set_num_threads(1)  # torch's threads wait for one another at every layer: slow beside other tests
TOLERANCE, INSIDE = 1e-5, 3e-5
"""Of the official values' standard deviation, at the end and inside: sums of 3,456 products in another order are off by
1e-5. The authors' own merged form is off by 5e-6 at the end."""


@pytest.fixture(scope="module", params=["zipdepth_base-input_size256", "zipdepth_base_npu"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A reference, and its file as it is published: a flat dict of what training left."""
    expected = reference(FILES[0].with_name(f"{request.param}.json"))
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(checkpoint(expected["state_dict"]), path)
    return expected, path


def network_input(expected: dict[str, Any], case: dict[str, Any]) -> Tensor:
    policy, rgb = registry.find(expected["model"]).input, image(*case["image"])
    size_hw = network_size(policy, rgb.shape[:2], **expected["options"])
    resized = resized_on_host(rgb, size_hw, policy.resample, longest=384)
    return Preprocessor(policy, torch.device("cpu"))(torch.from_numpy(resized), size_hw, torch.float32)


@pytest.mark.parametrize("is_merged", [False, True], ids=["as trained", "merged"])
def test_every_layer_is_the_official_one(published: tuple[dict[str, Any], Path], *, is_merged: bool) -> None:
    expected, path = published
    case = expected["cases"][0]
    network = registry.load(expected["model"], weights=path, merge_norms=is_merged).network
    seen: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.__setitem__(name, output))
    with torch.inference_mode():
        output = network(network_input(expected, case))
    assert error(output[0].numpy(), case["net"]) < TOLERANCE
    for name, probe in case["probes"].items():
        key, bracket, number = name.partition("[")
        value = seen[key][int(number.rstrip("]"))] if bracket else seen[key]
        assert list(value.shape) == probe["shape"]
        flat = value.flatten().numpy()
        taken = flat[[round(i * (flat.size - 1) / 15) for i in range(16)]]
        assert np.abs(taken - np.array(probe["values16"])).max() < INSIDE * probe["std"], name
    count = sum(parameter.numel() for parameter in network.parameters())
    assert (count < expected["parameters_fused"] + 10_000) is is_merged


def test_merged_there_are_only_convolutions_left(published: tuple[dict[str, Any], Path]) -> None:
    expected, path = published
    network = registry.load(expected["model"], weights=path).network
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for module in network.modules():
        if isinstance(module, Mergeable):
            module.merge()
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_norm_is_not_merged_into_a_sum_whose_bias_would_be_lost() -> None:
    convolutions = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    with pytest.raises(ValueError, match="only the first convolution of a sum may have a bias"):
        merge_norm(nn.BatchNorm2d(2), *convolutions)


def test_the_file_of_the_other_upsampling_is_named(
    published: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Comparing with the whole catalog, as a run does, takes seconds.
    monkeypatch.setattr(catalog, "MODELS", (catalog.STARTER, *zipdepth.MODELS))
    expected, path = published
    other = {"zipdepth_base": "zipdepth_base_npu", "zipdepth_base_npu": "zipdepth_base"}[expected["model"]]
    with pytest.raises(ModelError, match=f"does not fit this model: .*; the file fits -m {expected['model']}$"):
        registry.load(other, weights=path)


def test_wrapped_files_load_too(published: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    expected, _ = published
    wrap = "_orig_mod.module."
    tensors = {f"{wrap}{key}": value for key, value in checkpoint(expected["state_dict"]).items()}
    torch.save({"model_state_dict": tensors, "epoch": 3}, tmp_path / "mine.pth")
    network = registry.load(expected["model"], weights=tmp_path / "mine.pth").network
    assert torch.equal(network.state_dict()["decoder.head_half.bias"], tensors[f"{wrap}decoder.head_half.bias"])
