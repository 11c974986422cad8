"""Relative and metric checkpoints have the same tensors: what a file says about itself decides."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stream.errors import ModelError, UsageError
from stream.frames import DepthKind
from stream.models import registry
from stream.models.spec import ModelSpec
from stream.models.weights.claims import checked, twins
from stream.notes import Notes, collected

RELATIVE, METRIC = registry.find("depth_anything_v2_vits"), registry.find("depth_anything_v2_metric_hypersim_vits")
VERSION = (
    "{}: assumed to be of the version of depth_anything_v2_vits, for want of any information; a file of the other one "
    "has the same tensors and needs -m depth_anything_v1_vits"
)
LICENSED = replace(RELATIVE, name="mine", licence="CC-BY-NC-4.0")
TENSOR = {"pretrained.cls_token": torch.zeros(1, 1, 4)}


def hub(folder: Path, **config: object) -> Path:
    """A folder as Hugging Face's tools make it."""
    (folder / "config.json").write_text(json.dumps({"model_type": "depth_anything", **config}))
    save_file(TENSOR, folder / "model.safetensors")
    return folder / "model.safetensors"


def labelled(folder: Path, **metadata: str) -> Path:
    save_file(TENSOR, folder / "mine.safetensors", metadata=metadata)
    return folder / "mine.safetensors"


def named(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    torch.save(TENSOR, path)
    return path


@pytest.mark.parametrize(
    ("make", "fits"),
    [
        (lambda f: hub(f, depth_estimation_type="metric", max_depth=20), "depth_anything_v2_metric_hypersim_vits"),
        (lambda f: hub(f, depth_estimation_type="metric", max_depth=80), "depth_anything_v2_metric_vkitti_vits"),
        (lambda f: hub(f, depth_estimation_type="metric", max_depth=5), "hypersim_vits or -m depth_anything_v2_metric"),
        (
            lambda f: hub(f, depth_estimation_type="metric", max_depth=20).rename(f / "mine.safetensors"),
            "depth_anything_v2_metric_hypersim_vits",
        ),
        (lambda f: labelled(f, depth_estimation_type="metric", max_depth="80"), "depth_anything_v2_metric_vkitti_vits"),
        (lambda f: named(f, "depth_anything_v2_metric_hypersim_vits.pth"), "depth_anything_v2_metric_hypersim_vits"),
        (lambda f: named(f, "depth_anything_v2_metric_vkitti_vits-3.pt"), "depth_anything_v2_metric_vkitti_vits"),
        (lambda f: named(f, "Depth-Anything-V2-Metric-Outdoor-Small-hf/model.safetensors"), "metric_vkitti_vits"),
        (lambda f: named(f, "Depth-Anything-V2-Metric-Indoor-Small-hf/pytorch_model.bin"), "metric_hypersim_vits"),
    ],
)
def test_a_metric_file_in_a_relative_model_is_refused(tmp_path: Path, make: Callable[[Path], Path], fits: str) -> None:
    path = make(tmp_path)
    with pytest.raises(ModelError, match=r"is a metric model .* its depth would be inverted") as caught:
        checked(RELATIVE, path, max_depth_m=None)
    assert fits in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (
            lambda f: hub(f, depth_estimation_type="relative"),
            "v2_vits; if the file is metric, correct depth_estimation_type in config.json",
        ),
        (hub, "v2_vits; "),  # transformers writes no key that has its default
        (lambda f: labelled(f, depth_estimation_type="relative"), "v2_vits; if the file is metric, save it without"),
        (lambda f: named(f, "depth_anything_v2_vits.pth"), "v2_vits; if the file is metric, rename the file"),
        (lambda f: named(f, "depth_anything_vits14.pth"), "v1_vits; if the file is metric, rename the file"),
    ],
)
def test_a_relative_file_in_a_metric_model_is_refused(tmp_path: Path, make: Callable[[Path], Path], hint: str) -> None:
    path = make(tmp_path)
    with pytest.raises(ModelError, match=f"is a relative model .* use -m depth_anything_{hint}"):
        checked(METRIC, path, max_depth_m=None)
    own = registry.find(f"depth_anything_{hint.partition(';')[0]}")
    assert checked(own, path, max_depth_m=None) is own


@pytest.mark.parametrize("model", ["depth_anything_v2_vitl", "depth_anything_v1_vitl", "depth_anything_v2_vitg"])
def test_no_model_is_suggested_that_the_file_does_not_fit(tmp_path: Path, model: str) -> None:
    name, use = "depth_anything_metric_depth_indoor", "use -m depth_anything_v1_metric_indoor; "
    if model.endswith("g"):
        name, use = "depth_anything_v2_metric_x_vitg", ""
    with pytest.raises(ModelError, match=rf"inverted; {use}if the file is relative, rename the file$"):
        checked(registry.find(model), named(tmp_path, f"{name}.pt"), max_depth_m=None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("finetuned-vkitti-3.pt", "vkitti"),
        ("not-metric.pth", "metric"),
        ("metric_hypersim/model.safetensors", "metric and hypersim"),
        ("finetuned_hypersim_relative.pth", ""),
        ("depth_anything_v2_metric_to_relative.pth", ""),
    ],
)
def test_a_name_of_the_users_own_only_gives_a_note(tmp_path: Path, name: str, words: str) -> None:
    path = named(tmp_path, name)
    with collected(Notes()) as notes:
        assert checked(RELATIVE, path, max_depth_m=None) is RELATIVE
    says = (
        f"{path}: has {words} in its name; if it is a metric model, its depth is inverted here: "
        "say so with --kind metric --max-depth METRES"
    )
    assert notes.said == [*([says] if words else []), VERSION.format(path)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("metric-4.pth", ""),
        ("my-hypersim.pth", ""),
        ("my-vkitti.pth", "depth up to 20 m, although its name speaks of a file up to 80 m; if it is one, say so with "
         "--max-depth 80"),
        ("my_relative.pth", "has relative in its name; if it is a relative model, its depth is inverted here: say so "
         "with --kind disparity"),
        ("latest.pth", "assumed to give metres up to 20 m as depth_anything_v2_metric_hypersim_vits does, for want of "
         "any information; if that is wrong, say so with --kind disparity, or use -m with the file's own model"),
    ],
)  # fmt: skip
def test_what_is_assumed_of_a_file_in_a_metric_model_is_noted(tmp_path: Path, name: str, says: str) -> None:
    path = named(tmp_path, name)
    with collected(Notes()) as notes:
        assert checked(METRIC, path, max_depth_m=None) is METRIC
    assert notes.said == ([f"{path}: {says}"] if says else [])


def test_what_is_assumed_is_said_once_and_not_where_the_user_says_it(tmp_path: Path) -> None:
    path = named(tmp_path, "latest.pth")
    with collected(Notes()) as notes:
        assert checked(RELATIVE, path, max_depth_m=None) is RELATIVE
    assert notes.said == [
        f"{path}: assumed to give disparity as depth_anything_v2_vits does, for want of any information; if that is "
        "wrong, say so with --kind metric --max-depth METRES, or use -m with the file's own model",
        VERSION.format(path),
    ]
    with collected(Notes()) as notes:
        checked(RELATIVE, path, max_depth_m=None, kind=DepthKind.RELATIVE_DISPARITY)
    assert notes.said == [VERSION.format(path)]
    with collected(Notes()) as notes:
        checked(RELATIVE, path, max_depth_m=8.0, kind=DepthKind.METRIC_DEPTH)
        checked(registry.find("dpt_beit_large_512"), path, max_depth_m=None)  # nothing to be mixed up with
        checked(registry.find("starter"), path, max_depth_m=None)
    assert notes.said == []


def test_a_folder_that_cannot_be_listed_claims_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_folder: Path) -> None:
        raise PermissionError

    path = named(tmp_path, "mine.pth")
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert checked(RELATIVE, path, max_depth_m=None) is RELATIVE
    with pytest.raises(UsageError, match="this folder holds no weights of depth_anything_v2_vits"):
        registry.load(RELATIVE, weights=tmp_path)


@pytest.mark.parametrize(
    "make",
    [
        lambda f: named(f, "latest.pth"),
        lambda f: named(f, "metrics/latest.pth"),
        lambda f: named(f, "indoor.pth"),
        lambda f: named(f, "geometric.pth"),
        lambda f: [(f / "config.json").write_text("{"), named(f, "a.pth")][1],
        lambda f: [(f / "config.json").write_text('{"model_type": "bert", "max_depth": 3}'), named(f, "a.pth")][1],
        lambda f: labelled(f, format="pt"),
        lambda f: [hub(f, depth_estimation_type="metric"), named(f, "beside.pth")][1],
    ],
)
def test_what_claims_nothing_is_believed(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    assert checked(RELATIVE, path, max_depth_m=None) is RELATIVE
    assert checked(METRIC, path, max_depth_m=None) is METRIC


V1 = {"out_indices": [9, 10, 11, 12]}


@pytest.mark.parametrize(
    ("make", "model", "use"),
    [
        (lambda f: named(f, "depth_anything_vits14.pth"), "dav2-small", "use -m depth_anything_v1_vits; .*rename the"),
        (lambda f: named(f, "depth_anything_v2_vits (1).pth"), "dav1-small", "use -m depth_anything_v2_vits; "),
        (lambda f: named(f, "depth_anything_v2_vits_fp16.safetensors"), "dav1-small", "use -m depth_anything_v2_vits;"),
        (lambda f: named(f, "depth-anything-small-hf/model.safetensors"), "dav2-small", "depth_anything_v1_vits; "),
        (lambda f: named(f, "Depth-Anything-V2-Base-hf/model.safetensors"), "dav1-base", "depth_anything_v2_vitb; "),
        (lambda f: named(f, "depth_anything_v2_vitl.pth"), "dav2-small", "depth_anything_v2_vitl; "),
        (lambda f: hub(f, backbone_config=V1), "dav2-small", "use -m depth_anything_v1_vits; if it is one of"),
        (lambda f: hub(f, backbone_config={"out_indices": [3, 6, 9, 12]}), "dav1-small", "-m depth_anything_v2_vits; "),
        (
            lambda f: named(f, "models--depth-anything--Depth-Anything-V2-Small-hf/snapshots/0af/model.safetensors"),
            "dav1-small",
            "its name, Depth-Anything-V2-Small-hf.* use -m depth_anything_v2_vits; ",
        ),
    ],
)
def test_a_file_of_another_version_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], model: str, use: str
) -> None:
    path, spec = make(tmp_path), registry.find(model)
    with pytest.raises(ModelError, match=f"is not a file of {spec.name} .*{use}"):
        checked(spec, path, max_depth_m=None)


def test_a_version_says_nothing_of_a_file_that_has_the_right_one(tmp_path: Path) -> None:
    for model, config in (("dav1-small", V1), ("dav2-small", {"out_indices": [3, 6, 9, 12]}), ("dav2-small", {})):
        spec = registry.find(model)
        with collected(Notes()) as notes:
            assert checked(spec, hub(tmp_path, backbone_config=config), max_depth_m=None) is spec
        assert notes.said == []


def test_the_version_of_a_file_of_v1_is_assumed_too(tmp_path: Path) -> None:
    for size, letter in (("small", "s"), ("base", "b"), ("large", "l")):
        with collected(Notes()) as notes:
            checked(registry.find(f"dav1-{size}"), named(tmp_path, "mine.pth"), max_depth_m=None)
        assert notes.said[1].endswith(f" needs -m depth_anything_v2_vit{letter}")


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("model", ["dav2-small", "dav1-base", "dav2-metric-outdoor-small", "starter", "midas-small"])
def test_the_kind_is_the_users(tmp_path: Path, model: str, kind: DepthKind) -> None:
    spec, is_metric = registry.find(model), kind is DepthKind.METRIC_DEPTH
    scales = spec.architecture == "depth_anything"
    metres = 12.0 if is_metric and scales else None
    mine = checked(spec, named(tmp_path, "latest.pth"), max_depth_m=metres, kind=kind)
    assert (mine.output, mine.max_depth_m) == (kind, metres)
    if scales:
        assert dict(mine.options)["max_depth_m"] == metres


def test_the_user_knows_better_than_the_file_and_it_is_said(tmp_path: Path) -> None:
    path = hub(tmp_path, depth_estimation_type="metric", max_depth=20)
    with collected(Notes()) as notes:
        mine = checked(RELATIVE, path, max_depth_m=None, kind=DepthKind.RELATIVE_DISPARITY)
    assert mine is RELATIVE
    assert notes.said == [f"{path}: used as disparity (--kind), although it gives metres (config.json)"]
    (tmp_path / "config.json").unlink()
    path = named(tmp_path, "depth_anything_v2_vits.pth")
    with collected(Notes()) as notes:
        mine = checked(RELATIVE, path, max_depth_m=30, kind=DepthKind.METRIC_DEPTH)
    assert (mine.output, mine.max_depth_m) == (DepthKind.METRIC_DEPTH, 30)
    source = "its name, depth_anything_v2_vits"
    assert notes.said == [f"{path}: used as metres (--kind), although it gives disparity ({source})"]
    with collected(Notes()) as notes:
        checked(RELATIVE, path, max_depth_m=30, kind=DepthKind.METRIC_DEPTH, is_published=True)
    assert notes.said[0].endswith("although it gives disparity (it is the published file)")


def test_disparity_and_depth_are_kept_apart_too() -> None:
    with collected(Notes()) as notes:
        starter = registry.load("starter", kind=DepthKind.RELATIVE_DEPTH, build_now=False)
        starter.remark()
        registry.load("starter", kind=DepthKind.RELATIVE_DISPARITY, build_now=False).remark()
    assert starter.spec.output is DepthKind.RELATIVE_DEPTH
    (said,) = notes.said
    assert said.endswith(
        "starter.safetensors: used as relative depth (--kind), although it gives disparity (it is the published file)"
    )


def test_a_published_name_says_the_kind_of_a_file_that_has_no_twins(tmp_path: Path) -> None:
    path = named(tmp_path, "dpt_levit_224.pt")
    with collected(Notes()) as notes:
        checked(registry.find("dpt_levit_224"), path, max_depth_m=None, kind=DepthKind.METRIC_DEPTH)
        checked(registry.find("da3_small"), named(tmp_path, "DA3-SMALL/model.safetensors"), max_depth_m=None,
                kind=DepthKind.METRIC_DEPTH)  # fmt: skip
    assert [said.partition(": ")[2] for said in notes.said] == [
        "used as metres (--kind), although it gives disparity (its name, dpt_levit_224)",
        "used as metres (--kind), although it gives relative depth (its name, DA3-SMALL)",
    ]


@pytest.mark.parametrize("model", ["moge2-small", "da3mono_large", "da3_small", "depth_anything_v1_metric_indoor"])
def test_a_network_of_distances_cannot_give_disparity(model: str) -> None:
    with pytest.raises(UsageError, match=rf"--kind disparity: cannot be what {registry.find(model).name} gives"):
        registry.load(model, kind=DepthKind.RELATIVE_DISPARITY, offline=True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (TENSOR, "does not fit this model"),
    ],
)
@pytest.mark.parametrize("build_now", [True, False])
def test_nothing_is_said_of_what_is_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, says: str, build_now: bool
) -> None:
    monkeypatch.setattr(registry.catalog, "MODELS", (RELATIVE, METRIC, LICENSED))
    path = tmp_path / "mine.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with collected(Notes()) as notes, pytest.raises(ModelError, match=says):
        assert registry.load(LICENSED, weights=path, build_now=build_now).network
    assert all(": not the published file (sha256 " in said for said in notes.said)


def test_what_is_assumed_is_said_when_the_file_has_proved_to_fit(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file({key: torch.zeros(1).expand(value.shape).contiguous() for key, value in
               registry.build(RELATIVE).state_dict().items()}, path)  # fmt: skip
    for build_now in (True, False):
        with collected(Notes()) as notes:
            loaded = registry.load(RELATIVE, weights=path, build_now=build_now)
            assert (VERSION.format(path) in notes.said) == build_now
            loaded.remark()  # as an export from the cache does
            said = list(notes.said)
        assert said[0].startswith(f"{path}: not the published file (sha256 ")
        assert said[1].startswith(f"{path}: assumed to give disparity")
        assert said[2:] == [VERSION.format(path)]
        with collected(Notes()) as notes:
            assert loaded.network
        assert notes.said == []


def test_a_file_of_a_larger_network_is_not_used_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v1, zoe, other = (
        registry.find(name) for name in ("dav1-large", "dav1-metric-indoor", "depth_anything_v1_metric_outdoor")
    )
    monkeypatch.setattr(registry.catalog, "MODELS", (registry.find("dav2-small"), v1, zoe, other))
    tensors = {key: torch.zeros(1).expand(value.shape) for key, value in registry.build(zoe).state_dict().items()}
    for prefix in ("", "module.net."):
        torch.save({"model": {prefix + key: value for key, value in tensors.items()}}, tmp_path / "mine.pt")
        with pytest.raises(ModelError) as caught:
            registry.load(v1, weights=tmp_path / "mine.pt")
        says = f"of which {v1.name} is only a part ({prefix.removeprefix('module.')}core.core)"
        assert says in str(caught.value)
        assert f"use -m {zoe.name} or -m {other.name}" in str(caught.value)


def test_a_metric_kind_takes_the_largest_depth_from_the_file_or_asks_for_it(tmp_path: Path) -> None:
    with collected(Notes()) as notes:
        path = hub(tmp_path, depth_estimation_type="metric", max_depth=35)
        assert checked(RELATIVE, path, max_depth_m=None, kind=DepthKind.METRIC_DEPTH).max_depth_m == 35
    assert notes.said == [f"{path}: depth up to 35 m (config.json)"]
    with pytest.raises(UsageError, match=r"--kind metric: needs the largest depth .* add --max-depth METRES: 20 for"):
        checked(RELATIVE, named(tmp_path, "latest.pth"), max_depth_m=None, kind=DepthKind.METRIC_DEPTH)


@pytest.mark.parametrize(
    ("model", "kind", "says"),
    [
        ("dav2-small", DepthKind.RELATIVE_DEPTH, "--max-depth: only applies to metric models"),
        ("dav2-metric-indoor-small", DepthKind.RELATIVE_DISPARITY, "--max-depth: only applies to metric models"),
        ("dpt_levit_224", DepthKind.METRIC_DEPTH, "and dpt_levit_224 has none; leave it out"),
    ],
)
def test_a_largest_depth_without_use_is_refused_before_a_file_is_looked_for(
    model: str, kind: DepthKind, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        registry.load(model, kind=kind, max_depth_m=10, offline=True)


def test_rows_that_can_be_mixed_up_have_the_same_tensors() -> None:
    @cache
    def sizes(row: ModelSpec) -> dict[str, torch.Size]:
        return {key: value.shape for key, value in registry.build(row).state_dict().items()}

    for spec in registry.catalog.MODELS:
        others = [row for row in twins(spec) if row is not spec]
        if others and registry.runtime_of(spec) == "torch":
            assert all(sizes(row) == sizes(spec) for row in others), spec.name


def test_the_largest_depth_is_the_users_then_the_files_then_the_catalogs(tmp_path: Path) -> None:
    path = hub(tmp_path, depth_estimation_type="metric", max_depth=35)
    with collected(Notes()) as notes:
        spec = checked(METRIC, path, max_depth_m=None)
    assert (spec.max_depth_m, dict(spec.options)["max_depth_m"]) == (35, 35)
    assert notes.said == [f"{path}: depth up to 35 m (config.json) instead of 20 m"]
    with collected(Notes()) as notes:
        assert checked(METRIC, path, max_depth_m=10).max_depth_m == 10
        assert checked(METRIC, hub(tmp_path, depth_estimation_type="metric", max_depth=20), max_depth_m=None) is METRIC
    assert notes.said == []


def test_the_largest_depth_scales_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stream.models.depth_anything import dinov2

    monkeypatch.setattr(dinov2, "_GRID", 5)
    options = {**dict(METRIC.options), "width": 12, "depth": 4, "heads": 2, "taps": (0, 1, 2, 3), "channels": 8,
               "outputs": (4, 4, 4, 4)}  # fmt: skip
    small = replace(METRIC, options=tuple(options.items()), weights=replace(METRIC.weights, sha256=None))
    torch.manual_seed(0)
    tensors = {key: torch.randn(value.shape) * 0.1 for key, value in registry.build(small).state_dict().items()}
    save_file(tensors, tmp_path / "mine.safetensors")
    image = torch.randn(1, 3, 70, 70)
    depths = [
        registry.load(small, weights=tmp_path / "mine.safetensors", max_depth_m=metres).network(image)
        for metres in (None, 40.0)
    ]
    torch.testing.assert_close(2 * depths[0], depths[1])
    path, relative = tmp_path / "mine.safetensors", DepthKind.RELATIVE_DISPARITY
    disparity = registry.load(small, weights=path, kind=relative)
    assert disparity.spec.output is relative
    before = torch.logit(depths[0].double() / 20)  # the sigmoid undone
    torch.testing.assert_close(disparity.network(image), before.clamp(min=0).float(), atol=1e-4, rtol=1e-4)
    again = registry.load(disparity.spec, weights=path, kind=DepthKind.METRIC_DEPTH, max_depth_m=40)
    torch.testing.assert_close(again.network(image), depths[1])


@pytest.mark.parametrize(
    ("model", "lacks", "hint"),
    [
        ("depth_anything_v2_vits", "", ""),
        ("depth_anything_v2_vitb", "", "the file fits -m depth_anything_v2_vits or"),
        ("depth_anything_v2_vits", "pretrained.norm.weight", "it is nearly a file of this model"),
        ("depth_anything_v2_vitb", "pretrained.norm.weight", "the file fits best, but not entirely, -m depth_anything"),
        ("depth_anything_v2_vitb", "pretrained.", "its tensors are those of no model"),
    ],
)
def test_a_misfit_names_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, lacks: str, hint: str
) -> None:
    rows = [row for row in registry.catalog.MODELS if row.architecture == "depth_anything"]
    monkeypatch.setattr(registry.catalog, "MODELS", tuple(rows))
    tensors = {
        f"net.{key}": torch.zeros(1).expand(value.shape)
        for key, value in registry.build(RELATIVE).state_dict().items()
        if not lacks or not key.startswith(lacks)
    }
    torch.save({"state_dict": tensors}, tmp_path / "mine.ckpt")
    if not hint:
        assert registry.load(model, weights=tmp_path / "mine.ckpt").spec is RELATIVE
        return
    with pytest.raises(ModelError) as caught:
        registry.load(model, weights=tmp_path / "mine.ckpt")
    assert hint in str(caught.value)


def test_a_largest_depth_is_for_metric_models(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--max-depth: only applies to metric models, and starter is none"):
        registry.load("starter", max_depth_m=10)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("depth-anything/Depth-Anything-V2-Base-hf", "depth_anything_v2_vitb"),
        ("Depth-Anything-V2-Large-hf", "depth_anything_v2_vitl"),
        ("depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf", "depth_anything_v2_metric_hypersim_vitb"),
        ("Depth-Anything-V2-Metric-Outdoor-Large-hf", "depth_anything_v2_metric_vkitti_vitl"),
        ("LiheYoung/depth-anything-base-hf", "depth_anything_v1_vitb"),
        ("LiheYoung/depth_anything_vitl14", "depth_anything_v1_vitl"),
        ("depth-anything/Depth-Anything-V2-Base", "depth_anything_v2_vitb"),
        ("depth-anything/Depth-Anything-V2-Metric-Hypersim-Small", "depth_anything_v2_metric_hypersim_vits"),
        ("depth-anything/Depth-Anything-V2-Metric-VKITTI-Large", "depth_anything_v2_metric_vkitti_vitl"),
        ("depth-anything/Video-Depth-Anything-Small", "video_depth_anything_vits"),
        ("depth-anything/Metric-Video-Depth-Anything-Large", "metric_video_depth_anything_vitl"),
        ("depth-anything/DA3MONO-LARGE", "da3mono_large"),
        ("depth-anything/DA3-BASE", "da3_base"),
        ("Intel/dpt-large", "dpt_large_384"),
        ("Intel/dpt-hybrid-midas", "dpt_hybrid_384"),
        ("Intel/dpt-beit-base-384", "dpt_beit_base_384"),
        ("Intel/dpt-swinv2-tiny-256", "dpt_swin2_tiny_256"),
        ("Intel/dpt-swinv2-large-384", "dpt_swin2_large_384"),
    ],
)
def test_a_name_on_hugging_face_is_that_models(name: str, found: str) -> None:
    assert registry.find(name).name == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("DPT_BEiT_L_512", "dpt_beit_large_512"),
        ("DPT_BEiT_L_384", "dpt_beit_large_384"),
        ("DPT_BEiT_B_384", "dpt_beit_base_384"),
        ("DPT_SwinV2_L_384", "dpt_swin2_large_384"),
        ("DPT_SwinV2_B_384", "dpt_swin2_base_384"),
        ("DPT_SwinV2_T_256", "dpt_swin2_tiny_256"),
        ("DPT_Swin_L_384", "dpt_swin_large_384"),
        ("DPT_Next_ViT_L_384", "dpt_next_vit_large_384"),
        ("DPT_LeViT_224", "dpt_levit_224"),
        ("DPT_Large", "dpt_large_384"),
        ("DPT_Hybrid", "dpt_hybrid_384"),
        ("MiDaS", "midas_v21_384"),
        ("MiDaS_small", "midas_v21_small_256"),
    ],
)
def test_a_name_of_torch_hub_is_that_models(name: str, found: str) -> None:
    """Those of `hubconf.py` in https://github.com/isl-org/MiDaS."""
    assert registry.find(name).name == found
