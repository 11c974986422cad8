"""The catalog and what it loads: rows are consistent, names resolve, and networks fit their files."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import stream
from stream.errors import ModelError, UsageError
from stream.models import catalog, registry
from stream.models.layers import SameConv2d, fold_for_inference
from stream.models.spec import ModelSpec
from stream.models.starter import Starter
from stream.models.suggest import without_row
from stream.models.weights.locate import find_file, sha256
from tests.support.paths import DATA, REPOSITORY

torch.set_num_threads(1)  # torch's threads wait for one another at every layer: slow beside other tests
EXPECTED = json.loads((DATA / "starter_expected.json").read_text())
ROWS = pytest.mark.parametrize("spec", catalog.MODELS, ids=lambda spec: spec.name)


def test_names_and_aliases_are_unique() -> None:
    names = [name.lower() for spec in catalog.MODELS for name in (spec.name, *spec.aliases)]
    assert len(names) == len(set(names))
    assert registry.names() == [spec.name for spec in catalog.MODELS]


@ROWS
def test_a_row_is_consistent(spec: ModelSpec) -> None:
    assert spec.precisions[0] in ("fp32", "bf16", "fp16")
    assert "fp32" in spec.precisions
    assert all(side % spec.input.multiple_of == 0 for side in spec.input.size_hw)
    if "max_depth_m" in (options := dict(spec.options)):  # the scale of a head, without which it gives no metres
        assert options["max_depth_m"] == spec.max_depth_m
        assert (spec.max_depth_m is not None) == (spec.output.value == "metric_depth")
    else:
        assert spec.max_depth_m is None
    is_unpublished = "never released" in spec.summary
    assert spec.weights.packaged or spec.weights.url or is_unpublished
    assert json.loads(json.dumps(spec.describe()))["name"] == spec.name


@ROWS
def test_a_row_builds_without_memory_and_has_its_parameters(spec: ModelSpec) -> None:
    if spec.architecture == "openvino_ir":
        return  # another runtime's file is its own network; see test_models_openvino
    network = registry.build(spec)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(spec.parameters_m, rel=0.02)


@ROWS
def test_a_licence_that_is_not_stated_is_said(spec: ModelSpec) -> None:
    """Those of the metric checkpoints: the authors' pages give them for the relative ones."""
    is_metric = spec.max_depth_m is not None or spec.name.startswith("metric_video")
    assert spec.licence_stated == (not is_metric or spec.architecture == "zoe_depth_anything")
    assert spec.describe()["licence_stated"] == spec.licence_stated
    assert ("no licence is stated for it" in spec.licence_note) == (not spec.licence_stated)
    assert ("not stated" in spec.licence_text) == (not spec.licence_stated)
    assert ("commercial use" in spec.licence_note) == spec.forbids_commerce == ("-NC" in spec.licence)


@ROWS
def test_a_packaged_file_is_the_one_named(spec: ModelSpec) -> None:
    if spec.weights.packaged:
        assert find_file(spec).sha256 == spec.weights.sha256


@pytest.mark.parametrize("name", ["starter", "Starter", "STARTER"])
def test_find_ignores_case(name: str) -> None:
    assert registry.find(name) is catalog.STARTER


def test_find_knows_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(catalog.STARTER, name="other", aliases=("Second",))
    monkeypatch.setattr(catalog, "MODELS", (catalog.STARTER, spec))
    assert registry.find("second") is spec


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        registry.find("startr")
    assert str(caught.value) == "unknown model 'startr'; did you mean starter? `depthstream models` lists all"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("depth-anything/Depth-Anything-V2-Base-hff", "did you mean depth-anything-v2-base-hf?"),
        ("depth_anything_v2_large", "did you mean depth_anything_v2_vitl?"),
        ("LiheYoung/depth-anything-large", "did you mean depth_anything_vitl14?"),
        ("depth_anything_v2_metric_indoor_base", "did you mean depth_anything_v2_metric_hypersim_vitb?"),
        ("dpt-large-384-x", "did you mean dpt_large_384?"),
        ("dpt_beit_512", "did you mean dpt_beit_l_512?"),
        ("video-depth-anything-bas", "did you mean video-depth-anything-base"),
        ("da3metric_larg", "did you mean da3metric_large"),
        ("dav2-gaint", "did you mean dav2-giant?"),
        ("dav2-bas", "did you mean dav2-base?"),
        (
            "depth-anything-v2",
            "did you mean depth_anything_v2_vits or depth_anything_v2_vitb or depth_anything_v2_vitl?",
        ),
        ("vda-giant", "did you mean vda-large?"),
        ("moge-2-vitg", "did you mean moge_2_vitl?"),
        ("da3-tiny", "did you mean da3_small?"),  # none is smaller
        ("zip", "did you mean zipdepth_base or zipdepth_base_npu?"),
        ("moge", "did you mean moge_2_vits_normal or moge_2_vitb_normal or moge_2_vitl_normal?"),
        ("depth-anything-3", "did you mean da3_small or da3_base or da3mono_large?"),
        ("dav3-small", "did you mean da3_small?"),
        ("depth-anything-3-mono-large", "did you mean da3mono_large?"),
        ("vide", "did you mean video?"),
        ("zoedepth", "unknown model 'zoedepth'; `depthstream models` lists all"),
        ("mine/dav2.pth", "a checkpoint is named with --weights FILE, or with its model as -m NAME=FILE"),
    ],
)
def test_no_other_size_is_suggested_than_the_one_that_is_meant(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.find(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason", "nearest"),
    [
        ("da3-large", "CC-BY-NC-4.0", "da3_base"),
        ("dav3-large", "CC-BY-NC-4.0", "da3_base"),
        ("da3-giant", "CC-BY-NC-4.0", "da3_base"),
        ("depth-anything/DA3-LARGE-1.1", "CC-BY-NC-4.0", "da3_base"),
        ("depth-anything/DA3NESTED-GIANT-LARGE", "CC-BY-NC-4.0", "da3_base"),
        ("Distill-Any-Depth-Base", "CC-BY-NC-4.0", "distill_any_depth_small"),
        ("xingyang1/Distill-Any-Depth-Large-hf", "CC-BY-NC-4.0", "distill_any_depth_small"),
        ("Ruicheng/moge-vitl", "MoGe-1", "moge_2_vitl"),
        ("moge-3", "only version 2", "moge_2_vits_normal"),
    ],
)
def test_of_a_published_model_without_a_row_it_is_said_why(name: str, reason: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.find(name)
    said, hint = str(caught.value).split("; nearest: ")
    assert said.startswith(f"the model {name!r} has no row: ")
    assert reason in said
    assert hint.startswith(nearest)


def test_no_model_of_the_catalog_counts_as_one_without_a_row() -> None:
    for row in catalog.MODELS:
        assert not [name for name in (row.name, *row.aliases) if without_row(name)]
    for missing in catalog.WITHOUT_ROW:
        assert [registry.find(name).name for name in missing.nearest] == list(missing.nearest)


def test_the_manifest_is_that_of_the_file() -> None:
    entries = {key: tuple(shape) for key, shape, _dtype in EXPECTED["state_dict"]}
    given = load_file(find_file(catalog.STARTER).path)
    assert {key: tuple(value.shape) for key, value in given.items()} == entries
    wanted = {k: tuple(v.shape) for k, v in Starter().state_dict().items() if not k.endswith("num_batches_tracked")}
    assert wanted == {key: shape for key, shape in entries.items() if not key.endswith("num_batches_tracked")}


def test_a_loaded_model_is_ready_to_run() -> None:
    model = registry.load("starter")
    assert not model.network.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.network.modules())
    assert all(p.dtype == torch.float32 and not p.requires_grad and not p.is_meta for p in model.network.parameters())
    assert not any(b.is_meta for b in model.network.buffers())
    assert model.weights_sha256 == catalog.STARTER.weights.sha256


def test_another_weights_file_of_the_same_format_loads(tmp_path: Path, notes: list[str]) -> None:
    path = tmp_path / "retrained.safetensors"
    tensors = load_file(find_file(catalog.STARTER).path)
    tensors["head.2.bias"] = tensors["head.2.bias"].float() + 1
    save_file(tensors, path)
    usual = registry.load("starter")
    assert notes == []
    retrained = registry.load("starter", weights=path)
    assert notes == [f"{path}: not the published file (sha256 {sha256(path)})"]
    x = torch.zeros(1, 3, 64, 96)
    torch.testing.assert_close(retrained.network(x), usual.network(x) + 1)
    assert retrained.weights_sha256 == sha256(path) != usual.weights_sha256


@pytest.mark.parametrize("input_size", [128, 192, 224, 288])
def test_no_corner_of_the_builtin_models_depth_takes_the_colours_of_all_the_rest(input_size: int) -> None:
    demo = REPOSITORY / "stream" / "data" / "demo.mp4"
    with av.open(str(demo)) as container:
        rgb = next(container.decode(video=0)).to_ndarray(format="rgb24")
    ((_, depth),) = stream.iter_depth(rgb, input_size=input_size)
    lowest, high, highest = np.percentile(depth.values, [0, 99, 100])
    assert highest - lowest < 1.3 * (high - lowest)


def test_a_changed_packaged_file_is_refused() -> None:
    spec = replace(catalog.STARTER, weights=replace(catalog.STARTER.weights, sha256="0" * 64))
    with pytest.raises(ModelError, match=r"starter\.safetensors: is damaged: its sha256 is .*; reinstall depthstream"):
        registry.load(spec)


def test_a_file_that_is_not_there_says_where_to_get_it() -> None:
    weights = replace(catalog.STARTER.weights, packaged=False, url="https://example.org/starter.safetensors")
    with pytest.raises(ModelError, match=r"download https://example\.org/starter\.safetensors by hand and put it into"):
        registry.load(replace(catalog.STARTER, weights=weights), offline=True)
    with pytest.raises(UsageError, match="no such weights file"):
        registry.load("starter", weights=Path("nowhere.safetensors"))


def test_folding_changes_nothing_but_rounding() -> None:
    torch.manual_seed(0)
    network = Starter().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        before = network(x)
        fold_for_inference(network)
        after = network(x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert (after - before).abs().max() < 1e-4 * before.std()


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size_hw", [(8, 8), (7, 8), (9, 5), (1, 6)])
def test_same_padding_is_that_of_padding_the_input(kernel: int, stride: int, size_hw: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = SameConv2d(4, 4, kernel, stride=stride, groups=4)
    x = torch.randn(1, 4, *size_hw)
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in size_hw]
    top, left = total[0] // 2, total[1] // 2
    padded = nn.functional.pad(x, (left, total[1] - left, top, total[0] - top))
    wanted = nn.functional.conv2d(padded, conv.weight, conv.bias, stride, groups=4)
    torch.testing.assert_close(conv(x), wanted)


def test_a_row_is_a_value() -> None:
    """Rows are keys of caches."""
    assert len({hash(spec) for spec in catalog.MODELS}) > 1
