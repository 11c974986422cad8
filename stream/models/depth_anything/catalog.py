"""Depth Anything's checkpoints, one row each; the facts are from the official repositories and download pages.

https://github.com/LiheYoung/Depth-Anything and https://github.com/DepthAnything/Depth-Anything-V2.
Invariant: see `stream.models.catalog`.
"""

from dataclasses import dataclass, replace

from stream.frames import DepthKind
from stream.models.spec import IMAGENET_MEAN, IMAGENET_STD, Fit, InputPolicy, ModelSpec, Resample, WeightsFile

FP32_KEYS = ("pretrained.pos_embed", "depth_head.scratch.output_conv2.2.*")
APACHE, NON_COMMERCIAL = "Apache-2.0", "CC-BY-NC-4.0"

INPUT = InputPolicy(
    size_hw=(518, 518),
    multiple_of=14,
    fit=Fit.LOWER_BOUND,
    resample=Resample.BICUBIC,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)


@dataclass(frozen=True, kw_only=True)
class EncoderSize:
    """One size of DINOv2 with its head."""

    width: int
    depth: int
    heads: int
    taps: tuple[int, ...]
    channels: int
    outputs: tuple[int, ...]
    gated: bool = False
    parameters_m: float

    def options(self, *, taps: tuple[int, ...], max_depth_m: float | None) -> tuple[tuple[str, object], ...]:
        """Keyword arguments of `network.DepthAnything`."""
        return (
            ("width", self.width),
            ("depth", self.depth),
            ("heads", self.heads),
            ("taps", taps),
            ("channels", self.channels),
            ("outputs", self.outputs),
            ("gated", self.gated),
            ("max_depth_m", max_depth_m),
        )


SMALL = EncoderSize(
    width=384, depth=12, heads=6, taps=(2, 5, 8, 11), channels=64, outputs=(48, 96, 192, 384), parameters_m=24.8
)
BASE = EncoderSize(
    width=768, depth=12, heads=12, taps=(2, 5, 8, 11), channels=128, outputs=(96, 192, 384, 768), parameters_m=97.5
)
LARGE = EncoderSize(
    width=1024,
    depth=24,
    heads=16,
    taps=(4, 11, 17, 23),
    channels=256,
    outputs=(256, 512, 1024, 1024),
    parameters_m=335.3,
)
GIANT = EncoderSize(
    width=1536,
    depth=40,
    heads=24,
    taps=(9, 19, 29, 39),
    channels=384,
    outputs=(1536, 1536, 1536, 1536),
    gated=True,
    parameters_m=1258.1,
)


def _v1(encoder: EncoderSize, letter: str, size: str, *, sha256: str) -> ModelSpec:
    last_four = tuple(range(encoder.depth - 4, encoder.depth))
    file = f"depth_anything_vit{letter}14.pth"
    return ModelSpec(
        name=f"depth_anything_v1_vit{letter}",
        aliases=(f"dav1-{size}", f"depth_anything_vit{letter}14", f"depth-anything-{size}-hf"),
        architecture="depth_anything",
        options=encoder.options(taps=last_four, max_depth_m=None),
        input=INPUT,
        output=DepthKind.RELATIVE_DISPARITY,
        upsample=Resample.BILINEAR,
        weights=WeightsFile(
            file=file,
            url=f"https://huggingface.co/spaces/LiheYoung/Depth-Anything/resolve/main/checkpoints/{file}",
            sha256=sha256,
        ),
        bf16_on_cpu=True,
        fp32_keys=FP32_KEYS,
        parameters_m=encoder.parameters_m,
        licence=APACHE,
        source="arXiv:2401.10891",
        summary=f"Depth Anything V1, {size}: robust on any photo; outlines softer than V2's.",
    )


def _v2(
    encoder: EncoderSize,
    letter: str,
    size: str,
    *,
    sha256: str | None,
    licence: str,
    summary: str,
    url: str | None = "",
) -> ModelSpec:
    file = f"depth_anything_v2_vit{letter}.pth"
    published = f"https://huggingface.co/depth-anything/Depth-Anything-V2-{size.title()}/resolve/main/{file}"
    return ModelSpec(
        name=f"depth_anything_v2_vit{letter}",
        aliases=(f"dav2-{size}", f"depth-anything-v2-{size}", f"depth-anything-v2-{size}-hf"),
        architecture="depth_anything",
        options=encoder.options(taps=encoder.taps, max_depth_m=None),
        input=INPUT,
        output=DepthKind.RELATIVE_DISPARITY,
        upsample=Resample.BILINEAR_CORNERS,
        weights=WeightsFile(file=file, url=published if url == "" else url, sha256=sha256),
        bf16_on_cpu=True,
        fp32_keys=FP32_KEYS,
        parameters_m=encoder.parameters_m,
        licence=licence,
        source="arXiv:2406.09414",
        recommended=letter == "s",
        summary=f"Depth Anything V2, {size}: {summary}",
    )


def _metric(encoder: EncoderSize, letter: str, size: str, place: str, max_depth_m: float, *, sha256: str) -> ModelSpec:
    data = {"hypersim": "Hypersim", "vkitti": "VKITTI"}[place]
    file = f"depth_anything_v2_metric_{place}_vit{letter}.pth"
    page = f"https://huggingface.co/depth-anything/Depth-Anything-V2-Metric-{data}-{size.title()}"
    where = "indoors (Hypersim)" if place == "hypersim" else "outdoors (Virtual KITTI 2)"
    door = "indoor" if place == "hypersim" else "outdoor"
    return ModelSpec(
        name=f"depth_anything_v2_metric_{place}_vit{letter}",
        aliases=(
            f"dav2-metric-{door}-{size}",
            f"depth-anything-v2-metric-{place}-{size}",
            f"depth-anything-v2-metric-{door}-{size}-hf",
        ),
        architecture="depth_anything",
        options=encoder.options(taps=encoder.taps, max_depth_m=max_depth_m),
        input=INPUT,
        output=DepthKind.METRIC_DEPTH,
        max_depth_m=max_depth_m,
        upsample=Resample.BILINEAR_CORNERS,
        weights=WeightsFile(file=file, url=f"{page}/resolve/main/{file}", sha256=sha256),
        bf16_on_cpu=True,
        fp32_keys=FP32_KEYS,
        parameters_m=encoder.parameters_m,
        licence=APACHE if letter == "s" else NON_COMMERCIAL,
        licence_stated=False,
        source="arXiv:2406.09414",
        summary=f"Depth Anything V2 in metres, {size}: {where}, up to {max_depth_m:.0f} m.",
    )


_DISTILLED = replace(
    _v2(SMALL, "s", "small", sha256=None, licence=APACHE, summary=""),
    name="distill_any_depth_small",
    aliases=("distill-any-depth-small", "distill-any-depth-small-hf"),
    weights=WeightsFile(
        file="Distill-Any-Depth/small/model.safetensors",
        url="https://huggingface.co/xingyang1/Distill-Any-Depth/resolve/main/small/model.safetensors",
    ),
    source="arXiv:2502.19204",
    recommended=False,
    summary="Distill-Any-Depth, small: Depth Anything V2's network, learnt from several larger models.",
)
"""Keys, network and licence as the publisher's page, the authors' loader and transformers' converter say; there are no
reference numbers. Its base and large files rest on Depth Anything V2's, whose licence forbids commercial use."""

ZOE_FP32_KEYS = (
    *(f"core.core.{key}" for key in FP32_KEYS),
    "seed_bin_regressor._net.2.*",
    "attractors.*._net.2.*",
    "conditional_log_binomial.mlp.2.*",
)
"""The bins and their weights as well."""


def _v1_metric(place: str, data: str, most_m: int) -> ModelSpec:
    file = f"depth_anything_metric_depth_{place}.pt"
    last_four = tuple(range(LARGE.depth - 4, LARGE.depth))
    options = dict(LARGE.options(taps=last_four, max_depth_m=None))
    return ModelSpec(
        name=f"depth_anything_v1_metric_{place}",
        aliases=(f"dav1-metric-{place}", f"depth_anything_metric_depth_{place}"),
        architecture="zoe_depth_anything",
        options=tuple((key, value) for key, value in options.items() if key not in ("gated", "max_depth_m")),
        input=InputPolicy(
            size_hw=(392, 518),
            multiple_of=14,
            fit=Fit.MINIMAL,
            resample=Resample.BILINEAR_CORNERS,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            keep_aspect=False,
        ),
        output=DepthKind.METRIC_DEPTH,
        upsample=Resample.BILINEAR_CORNERS,
        weights=WeightsFile(
            file=file,
            url=f"https://huggingface.co/spaces/LiheYoung/Depth-Anything/resolve/main/checkpoints_metric_depth/{file}",
            # 0, 1, 2, … and the last of these, which the network computes
            ignored_keys=("conditional_log_binomial.log_binomial_transform.*",),
        ),
        fp32_keys=ZOE_FP32_KEYS,
        is_distance=True,
        parameters_m=335.8,
        licence=APACHE,
        source="arXiv:2401.10891, arXiv:2302.12288",
        summary=f"Depth Anything V1 in metres, {place}s ({data}, up to about {most_m} m); squeezes images to 518×392.",
    )


MODELS: tuple[ModelSpec, ...] = (
    _v2(
        SMALL,
        "s",
        "small",
        sha256="715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
        licence=APACHE,
        summary="sharp outlines and thin things at the least cost.",
    ),
    _v2(
        BASE,
        "b",
        "base",
        sha256="0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
        licence=NON_COMMERCIAL,
        summary="between small and large.",
    ),
    _v2(
        LARGE,
        "l",
        "large",
        sha256="a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
        licence=NON_COMMERCIAL,
        summary="the largest of the published files; slow without a GPU.",
    ),
    _v2(
        GIANT,
        "g",
        "giant",
        sha256=None,
        licence=NON_COMMERCIAL,
        url=None,
        summary="never released by its authors; needs your own file.",
    ),
    _metric(
        SMALL,
        "s",
        "small",
        "hypersim",
        20.0,
        sha256="b782898d8a3e8be1f639de33837ed85e9b4b73e40f8f5e5cd99067588d722545",
    ),
    _metric(
        BASE,
        "b",
        "base",
        "hypersim",
        20.0,
        sha256="9dc9e274c5eff55c6daf27b660c0ced0eca4e8593a6da90cdcb04d2b4d3f3fa2",
    ),
    _metric(
        LARGE,
        "l",
        "large",
        "hypersim",
        20.0,
        sha256="6f82ff2bc543ac02ddff4aa31fa363676a8305dd3ccf04e80e2af115a044cb6d",
    ),
    _metric(
        SMALL, "s", "small", "vkitti", 80.0, sha256="9203e538d35255c90dda4b7fedb47ff33fe725497bcca3b1e53b3a65ee63f0cb"
    ),
    _metric(
        BASE, "b", "base", "vkitti", 80.0, sha256="4dad67a7cc10b462bca48e6b8569c762b8eb3c1adada170a3851a6d3ba37bb3e"
    ),
    _metric(
        LARGE, "l", "large", "vkitti", 80.0, sha256="239b1054a369e66da2576e9a118d6d7c12d90dc8ebe609579a9a09cd8e05fe38"
    ),
    _DISTILLED,
    _v1(SMALL, "s", "small", sha256="59afe57cfd9f4284deaf5b753d954723d7136ae842fba3e068ba03537ca1e60e"),
    _v1(BASE, "b", "base", sha256="64ae214ae4e27424b644c49464c0aa243016f6f753d95097c8eb9ad0b9cb2d9b"),
    _v1(LARGE, "l", "large", sha256="6c6a383e33e51c5fdfbf31e7ebcda943973a9e6a1cbef1564afe58d7f2e8fe63"),
    _v1_metric("indoor", "NYU Depth V2", 10),
    _v1_metric("outdoor", "KITTI", 80),
)
