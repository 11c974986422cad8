"""Files of Hugging Face transformers: the official keys come out, and the same depth as transformers computes."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stream.errors import ModelError
from stream.models import catalog, registry
from stream.models.depth_anything import dinov2
from stream.models.depth_anything.network import DepthAnything
from stream.models.midas.beit import BeitEncoder
from stream.models.midas.network import Midas
from stream.models.midas.swin import Swin
from stream.models.midas.vit import VitHybrid, VitLarge
from stream.models.spec import ModelSpec
from stream.models.weights.read import fill, read_state_dict
from stream.models.weights.transformers import to_official

torch.set_num_threads(1)  # torch's threads wait for one another at every layer: slow beside other tests

OUTPUTS, DECODER = (8, 16, 24, 32), 16
"""Channels in small: of the maps that enter the decoder, and of the decoder."""
EPS = 1e-6
"""Of MiDaS' layer norms. Intel's configurations say 1e-12: that moves these depths by up to 1e-4 of their deviation."""


@pytest.fixture(scope="module")
def hf() -> Iterator[Any]:
    """The transformers package, without torchvision: it is not needed, and one of another build would break it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        if not os.environ.get("CI"):
            pytest.importorskip("transformers", minversion="5")
        import transformers

        transformers.utils.logging.disable_progress_bar()
        yield transformers


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A position table of 5×5 patches for DINOv2, so that its native size is 70 pixels."""
    monkeypatch.setattr(dinov2, "_GRID", 5)


# How transformers is asked for a model; the arguments are those of our networks.


def hf_depth_anything(
    hf: Any,
    *,
    width: int,
    depth: int,
    heads: int,
    taps: tuple[int, ...],
    channels: int,
    outputs: tuple[int, ...],
    gated: bool = False,
    max_depth_m: float | None = None,
    grid: int = 37,
) -> Any:
    backbone = hf.Dinov2Config(
        image_size=14 * grid,
        patch_size=14,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        use_swiglu_ffn=gated,
        out_indices=[n + 1 for n in taps],
        reshape_hidden_states=False,
    )
    config = hf.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=width,
        neck_hidden_sizes=outputs,
        fusion_hidden_size=channels,
        depth_estimation_type="metric" if max_depth_m else "relative",
        max_depth=int(max_depth_m or 1),
    )
    return hf.DepthAnythingForDepthEstimation(config)


def hf_dpt(hf: Any, outputs: tuple[int, ...], decoder: int, **options: Any) -> Any:
    config = hf.DPTConfig(neck_hidden_sizes=outputs, fusion_hidden_size=decoder, **options)
    return hf.DPTForDepthEstimation(config)


def hf_vit(
    hf: Any,
    *,
    width: int = 1024,
    depth: int = 24,
    heads: int = 16,
    taps: tuple[int, ...] = (5, 11, 17, 23),
    channels: tuple[int, ...] = (256, 512, 1024, 1024),
    decoder: int = 256,
    grid: int = 24,
    **options: Any,
) -> Any:
    return hf_dpt(
        hf,
        channels,
        decoder,
        image_size=16 * grid,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        layer_norm_eps=EPS,
        backbone_out_indices=list(taps),
        **options,
    )


def hf_hybrid(
    hf: Any,
    *,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    taps: tuple[int, ...] = (8, 11),
    channels: tuple[int, ...] = (256, 512, 768, 768),
    stages: tuple[int, ...] = (256, 512, 1024),
    layers: tuple[int, ...] = (3, 4, 9),
    decoder: int = 256,
    grid: int = 24,
) -> Any:
    return hf_vit(
        hf,
        width=width,
        depth=depth,
        heads=heads,
        taps=(0, 1, *taps),
        channels=channels,
        decoder=decoder,
        grid=grid,
        is_hybrid=True,
        reassemble_factors=[1, 1, 1, 0.5],
        backbone_featmap_shape=[1, stages[-1], grid, grid],
        backbone_config={
            "model_type": "bit",
            "global_padding": "same",
            "layer_type": "bottleneck",
            "depths": list(layers),
            "hidden_sizes": list(stages),
            "out_features": ["stage1", "stage2", "stage3"],
            "embedding_dynamic_padding": True,
        },
    )


def hf_beit(
    hf: Any,
    *,
    width: int,
    depth: int,
    heads: int,
    grid: int,
    taps: tuple[int, ...],
    channels: tuple[int, ...],
    decoder: int = 256,
) -> Any:
    backbone = hf.BeitConfig(
        image_size=16 * grid,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        layer_norm_eps=EPS,
        use_relative_position_bias=True,
        reshape_hidden_states=False,
        out_indices=[n + 1 for n in taps],
    )
    return hf_dpt(hf, channels, decoder, backbone_config=backbone)


def hf_swin2(
    hf: Any,
    *,
    version: int,
    size: int,
    width: int,
    depths: tuple[int, ...],
    heads: tuple[int, ...],
    window: int,
    trained_windows: tuple[int, ...] = (0, 0, 0, 0),
    decoder: int = 256,
) -> Any:
    assert version == 2
    backbone = hf.Swinv2Config(
        image_size=size,
        embed_dim=width,
        depths=depths,
        num_heads=heads,
        window_size=window,
        pretrained_window_sizes=trained_windows,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return hf_dpt(hf, tuple(width << n for n in range(4)), decoder, backbone_config=backbone)


def midas(encoder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return lambda **options: Midas(encoder(**options), channels=DECODER, head=(DECODER, 32))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A small model: how both are built, options for both and for transformers alone, and the sizes of inputs."""

    theirs: Callable[..., Any]
    ours: Callable[..., nn.Module]
    both: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ((64, 64),)


def depth_anything(**options: Any) -> Case:
    small = {"width": 32, "depth": 6, "heads": 2, "channels": DECODER, "outputs": OUTPUTS, **options}
    # At the native size alone: elsewhere transformers resamples the position table to a size instead of by a factor,
    # which moves these depths by up to 2 % of their deviation.
    return Case(theirs=hf_depth_anything, ours=DepthAnything, both=small, extra={"grid": 5}, sizes=((70, 70),))


def swin2(**options: Any) -> Case:
    small = {"version": 2, "size": 64, "width": 8, "depths": (2,) * 4, "heads": (1, 2, 2, 4), "window": 4, **options}
    return Case(theirs=hf_swin2, ours=midas(Swin), both=small, extra={"decoder": DECODER})


VIT = {"width": 32, "depth": 5, "heads": 2, "grid": 4}
CASES: dict[str, Case] = {
    "depth anything v1": depth_anything(taps=(2, 3, 4, 5)),
    "depth anything v2": depth_anything(taps=(0, 2, 3, 5)),
    "depth anything v2 giant": depth_anything(taps=(0, 2, 3, 5), gated=True),
    "depth anything v2 metric": depth_anything(taps=(0, 2, 3, 5), max_depth_m=20.0),
    # transformers takes squares alone for this one, and the native size alone for the next.
    "dpt large": Case(
        theirs=hf_vit,
        ours=midas(VitLarge),
        both={**VIT, "taps": (1, 2, 3, 4), "channels": OUTPUTS},
        extra={"decoder": DECODER},
        sizes=((64, 64), (96, 96)),
    ),
    "dpt hybrid": Case(
        theirs=hf_hybrid,
        ours=midas(VitHybrid),
        both={
            **VIT,
            "taps": (3, 4),
            "channels": (128, 256, 24, 32),
            "stages": (128, 256, 384),
            "layers": (1, 2, 1),
        },
        extra={"decoder": DECODER},
    ),
    "dpt beit": Case(
        theirs=hf_beit,
        ours=midas(BeitEncoder),
        both={"width": 32, "depth": 4, "heads": 2, "grid": 4, "taps": (0, 1, 2, 3), "channels": OUTPUTS},
        extra={"decoder": DECODER},
        sizes=((64, 64), (64, 96)),
    ),
    "dpt swin2": swin2(),
    "dpt swin2 of a smaller window": swin2(trained_windows=(3, 3, 3, 2)),
}


def randomised(network: Any) -> Any:
    """Every tensor different from every other, so that no two can be confused."""
    torch.manual_seed(0)
    for name, value in network.named_parameters():
        noise = torch.randn(value.shape)
        if value.ndim > 1:
            value.data = noise / value[0].numel() ** 0.5
        else:
            value.data = 0.2 * noise if name.endswith("bias") else 1 + 0.2 * noise
        if value.shape == (1,):
            value.data = torch.ones(1)  # the last bias: else the last ReLU hides most of what is compared
    return network.eval().requires_grad_(False)


def theirs_and_file(hf: Any, case: Case, folder: Path) -> tuple[Any, Path]:
    theirs = randomised(case.theirs(hf, **case.both, **case.extra))
    theirs.save_pretrained(folder)  # with the names of the files on the Hub; those in memory differ
    return theirs, folder / "model.safetensors"


def filled(case: Case, path: Path) -> nn.Module:
    with torch.device("meta"):
        network = case.ours(**case.both)
    fill(network, read_state_dict(path), where=str(path))
    registry.finish(network)
    return network


def assert_same_depth(given: Tensor, wanted: Tensor) -> None:
    assert given.shape == wanted.shape
    assert (wanted > 0).float().mean() > 0.5
    assert (given - wanted).abs().max() <= 1e-4 * wanted.std()


@pytest.mark.parametrize("name", CASES)
def test_the_depth_is_that_of_transformers(hf: Any, small_grid: None, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    theirs, path = theirs_and_file(hf, case, tmp_path)
    network = filled(case, path)
    for size_hw in case.sizes:
        x = torch.randn(2, 3, *size_hw)
        with torch.inference_mode():
            assert_same_depth(network(x), theirs(pixel_values=x).predicted_depth)


COARSEST = "scratch.refinenet4.resConfUnit1"
UNUSED = ("neck.fusion_stage.layers.0.residual_layer1.", "backbone.embeddings.mask_token")


@pytest.mark.parametrize("name", ["depth anything v2", "dpt large", "dpt hybrid", "dpt beit", "dpt swin2"])
def test_a_file_may_lack_what_nothing_depends_on(hf: Any, small_grid: None, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    theirs, path = theirs_and_file(hf, case, tmp_path)
    tensors = load_file(path)
    kept = {key: value for key, value in tensors.items() if not key.startswith(UNUSED)}
    assert len(kept) <= len(tensors) - 4
    save_file(kept, tmp_path / "kept.safetensors")
    x = torch.randn(1, 3, *case.sizes[0])
    with torch.inference_mode():
        assert_same_depth(filled(case, tmp_path / "kept.safetensors")(x), theirs(pixel_values=x).predicted_depth)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("backbone.encoder.layer.0.attention.attention.key.bias", "1 unknown: "),
        ("backbone.encoder.layer.9.norm1.extra", "1 unknown: backbone.encoder.layer.9.norm1.extra"),
        ("head.head.1.weight", "1 unknown: head.head.1.weight"),
    ],
)
def test_an_unknown_entry_is_refused(hf: Any, small_grid: None, tmp_path: Path, key: str, message: str) -> None:
    case = CASES["dpt beit"]
    _, path = theirs_and_file(hf, case, tmp_path)
    save_file({**load_file(path), key: torch.zeros(32)}, tmp_path / "more.safetensors")
    with pytest.raises(ModelError) as caught:
        filled(case, tmp_path / "more.safetensors")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "value"),
    [
        (["query"], None),
        (["key"], None),
        (["value"], torch.zeros(32, 31)),
        (["query", "key", "value"], torch.tensor(0.0)),
    ],
)
def test_what_cannot_be_joined_is_refused(
    hf: Any, small_grid: None, tmp_path: Path, parts: list[str], value: Tensor | None
) -> None:
    case = CASES["depth anything v2"]
    _, path = theirs_and_file(hf, case, tmp_path)
    tensors = load_file(path)
    for part in parts:
        key = f"backbone.encoder.layer.1.attention.attention.{part}.weight"
        del tensors[key]
        if value is not None:
            tensors[key] = value.clone()
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(ModelError, match=r"missing: .*pretrained\.blocks\.1\.attn\.qkv\.weight"):
        filled(case, tmp_path / "less.safetensors")


def test_nothing_is_copied_but_queries_keys_and_values(hf: Any, small_grid: None, tmp_path: Path) -> None:
    _, path = theirs_and_file(hf, CASES["dpt beit"], tmp_path)
    tensors = {key: value for key, value in load_file(path).items() if not key.startswith(UNUSED)}
    # Files converted by an old version of transformers hold the index, which follows from the size.
    index = "backbone.encoder.layer.0.attention.attention.relative_position_bias.relative_position_index"
    official = to_official({**tensors, index: torch.zeros(17, 17)})
    same = {id(value) for value in tensors.values()}
    new = {key for key, value in official.items() if id(value) not in same}
    joined = {f"pretrained.model.blocks.{n}.attn.qkv.weight" for n in range(4)}
    unused = ("pretrained.model.head", "pretrained.model.fc_norm", *(f"{COARSEST}.conv{n}" for n in (1, 2)))
    zeros = {f"{module}.{end}" for module in unused for end in ("weight", "bias")}
    assert new == joined | zeros
    assert not any(official[key].any() for key in zeros)


FULL: dict[str, Callable[..., Any]] = {
    "depth_anything": hf_depth_anything,
    "vit_large": hf_vit,
    "vit_hybrid": hf_hybrid,
    "beit": hf_beit,
    "swin": hf_swin2,
}
PUBLISHED = [
    spec
    for spec in catalog.MODELS
    if spec.architecture in FULL and dict(spec.options).get("version", 2) == 2 and spec.max_depth_m is None
]
"""The rows of which transformers has a model; the metric ones have the entries of the relative ones."""


@functools.cache
def official_on_meta(spec: ModelSpec) -> dict[str, Tensor]:
    return registry.build(spec).state_dict()


@pytest.mark.parametrize("spec", PUBLISHED, ids=lambda spec: spec.name)
def test_every_entry_of_a_published_model_is_there(hf: Any, spec: ModelSpec) -> None:
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        theirs = FULL[spec.architecture](hf, **dict(spec.options))
    in_file = revert_weight_conversion(theirs, theirs.state_dict())
    given = {key: tuple(value.shape) for key, value in to_official(in_file).items()}
    assert given == {key: tuple(value.shape) for key, value in official_on_meta(spec).items()}


@pytest.mark.parametrize(
    "spec", [spec for spec in catalog.MODELS if spec.architecture != "openvino_ir"], ids=lambda spec: spec.name
)
def test_an_official_file_is_left_alone(spec: ModelSpec) -> None:
    official = official_on_meta(spec)
    assert to_official(official) is official
