"""MiDaS's checkpoints, one row each; the facts are from https://github.com/isl-org/MiDaS and its releases.

Invariant: see `stream.models.catalog`.
"""

from dataclasses import replace

from stream.frames import DepthKind
from stream.models.spec import IMAGENET_MEAN, IMAGENET_STD, Fit, InputPolicy, ModelSpec, Resample, WeightsFile

_RELEASES = "https://github.com/isl-org/MiDaS/releases/download"
_V3_1, _V3, _V2_1 = "arXiv:2307.14460", "arXiv:2103.13413", "arXiv:1907.01341"

_FP32_KEYS = (
    "*.pos_embed",
    "pretrained.model.blocks.*.relative_position_bias_table",
    "*.attention_biases",
    "scratch.output_conv.4.*",
)
"""Of the relative position tables BEiT's only: timm's Swin computes with its tables in the precision of the input."""


def _input(size: int, *, fit: Fit = Fit.MINIMAL, is_fixed: bool = False, is_imagenet: bool = False) -> InputPolicy:
    return InputPolicy(
        size_hw=(size, size),
        multiple_of=32,
        fit=fit,
        keep_aspect=not is_fixed,
        fixed_size=is_fixed,
        resample=Resample.BICUBIC,
        mean=IMAGENET_MEAN if is_imagenet else (0.5,) * 3,
        std=IMAGENET_STD if is_imagenet else (0.5,) * 3,
    )


def _model(
    name: str,
    architecture: str,
    policy: InputPolicy,
    *,
    release: str,
    parameters_m: float,
    source: str,
    summary: str,
    sha256: str | None = None,
    aliases: tuple[str, ...] = (),
    options: tuple[tuple[str, object], ...] = (),
    ignored_keys: tuple[str, ...] = (),
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16"),
    bf16_on_cpu: bool = True,
) -> ModelSpec:
    file = f"{name}.pt"
    return ModelSpec(
        name=name,
        aliases=aliases,
        architecture=architecture,
        options=options,
        input=policy,
        output=DepthKind.RELATIVE_DISPARITY,
        upsample=Resample.BICUBIC,
        weights=WeightsFile(file=file, url=f"{_RELEASES}/{release}/{file}", sha256=sha256, ignored_keys=ignored_keys),
        precisions=precisions,
        bf16_on_cpu=bf16_on_cpu,
        fp32_keys=_FP32_KEYS,
        parameters_m=parameters_m,
        licence="MIT",
        source=source,
        summary=summary,
    )


_BEIT_LARGE: tuple[tuple[str, object], ...] = (
    ("width", 1024),
    ("depth", 24),
    ("heads", 16),
    ("taps", (5, 11, 17, 23)),
    ("channels", (256, 512, 1024, 1024)),
)
_BEIT_BASE: tuple[tuple[str, object], ...] = (
    ("width", 768),
    ("depth", 12),
    ("heads", 12),
    ("taps", (2, 5, 8, 11)),
    ("channels", (96, 192, 384, 768)),
)
_SWIN_LARGE: tuple[tuple[str, object], ...] = (
    ("size", 384),
    ("width", 192),
    ("depths", (2, 2, 18, 2)),
    ("heads", (6, 12, 24, 48)),
)
_SWIN2_384: tuple[tuple[str, object], ...] = (
    ("version", 2),
    ("window", 24),
    ("trained_windows", (12, 12, 12, 6)),
)
_SWIN2_BASE: tuple[tuple[str, object], ...] = (
    ("size", 384),
    ("width", 128),
    ("depths", (2, 2, 18, 2)),
    ("heads", (4, 8, 16, 32)),
)
_SWIN2_TINY: tuple[tuple[str, object], ...] = (
    ("version", 2),
    ("size", 256),
    ("width", 96),
    ("depths", (2, 2, 6, 2)),
    ("heads", (3, 6, 12, 24)),
    ("window", 16),
)
_SWIN_BUFFERS = ("*.attn_mask", "*.relative_position_index")
_BEIT_INDEX = ("*.relative_position_index",)

MODELS: tuple[ModelSpec, ...] = (
    _model(
        "dpt_beit_large_512",
        "beit",
        _input(512),
        aliases=("DPT_BEiT_L_512", "dpt-beit-large-512"),
        release="v3_1",
        sha256="9e9e900747e9e8b3112df716979219836a27716277b3d0dc53889cbba8b82328",
        options=(*_BEIT_LARGE, ("grid", 32)),
        ignored_keys=_BEIT_INDEX,
        parameters_m=345,
        source=_V3_1,
        summary="MiDaS 3.1's best; slow without a GPU.",
    ),
    _model(
        "dpt_beit_large_384",
        "beit",
        _input(384),
        aliases=("DPT_BEiT_L_384", "dpt-beit-large-384"),
        release="v3_1",
        sha256="9a86e82345dee25004eeacbc25db11fae827d32cd6939a9056eb7db6ef895413",
        options=(*_BEIT_LARGE, ("grid", 24)),
        ignored_keys=_BEIT_INDEX,
        parameters_m=344,
        source=_V3_1,
        summary="MiDaS 3.1, nearly the best at half the cost.",
    ),
    _model(
        "dpt_beit_base_384",
        "beit",
        _input(384),
        aliases=("DPT_BEiT_B_384", "dpt-beit-base-384"),
        release="v3_1",
        sha256="b8ae0dd5ac6e80d7fa8ab4d4a370b75a3094d7ca110e20596ec5f817a238900f",
        options=(*_BEIT_BASE, ("grid", 24)),
        ignored_keys=_BEIT_INDEX,
        parameters_m=112,
        source=_V3_1,
        summary="MiDaS 3.1, medium-sized.",
    ),
    _model(
        "dpt_large_384",
        "vit_large",
        _input(384),
        aliases=("DPT_Large", "dpt-large"),
        release="v3",
        sha256="2f21e586477d90cb9624c7eef5df7891edca49a1c4795ee2cb631fd4daa6ca69",
        parameters_m=344,
        source=_V3,
        summary="MiDaS 3.0 (DPT-Large).",
    ),
    _model(
        "dpt_hybrid_384",
        "vit_hybrid",
        _input(384),
        bf16_on_cpu=False,  # off by 0.3 standard deviations; other models are by at most 0.04 (deterministic weights)
        aliases=("DPT_Hybrid", "dpt-hybrid-midas"),
        release="v3",
        sha256="501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853",
        parameters_m=123,
        source=_V3,
        summary="MiDaS 3.0 (DPT-Hybrid): a ResNet before the transformer.",
    ),
    _model(
        "dpt_swin2_large_384",
        "swin",
        _input(384, is_fixed=True),
        aliases=("DPT_SwinV2_L_384", "dpt-swinv2-large-384"),
        release="v3_1",
        sha256="8820c77a09e6b1d4bf2bcf71d1f52509239aa07c5f51709d8eee95c8775d5ec8",
        options=(*_SWIN2_384, *_SWIN_LARGE),
        ignored_keys=_SWIN_BUFFERS,
        parameters_m=213,
        source=_V3_1,
        summary="MiDaS 3.1, a compromise between quality and speed; resizes images to a square.",
    ),
    _model(
        "dpt_swin2_base_384",
        "swin",
        _input(384, is_fixed=True),
        aliases=("DPT_SwinV2_B_384", "dpt-swinv2-base-384"),
        release="v3_1",
        options=(*_SWIN2_384, *_SWIN2_BASE),
        ignored_keys=_SWIN_BUFFERS,
        parameters_m=102,
        source=_V3_1,
        summary="MiDaS 3.1, medium-sized Swin 2.",
    ),
    _model(
        "dpt_swin2_tiny_256",
        "swin",
        _input(256, is_fixed=True),
        aliases=("DPT_SwinV2_T_256", "dpt-swinv2-tiny-256"),
        release="v3_1",
        options=_SWIN2_TINY,
        ignored_keys=_SWIN_BUFFERS,
        parameters_m=42,
        source=_V3_1,
        summary="MiDaS 3.1's fast transformer; resizes images to a square of 256.",
    ),
    _model(
        "dpt_swin_large_384",
        "swin",
        _input(384, is_fixed=True),
        aliases=("DPT_Swin_L_384",),
        release="v3_1",
        options=(("version", 1), ("window", 12), *_SWIN_LARGE),
        ignored_keys=_SWIN_BUFFERS,
        parameters_m=213,
        source=_V3_1,
        summary="Swin's first version; MiDaS 3.1 keeps it for comparison.",
    ),
    _model(
        "dpt_next_vit_large_384",
        "next_vit",
        _input(384),
        aliases=("DPT_Next_ViT_L_384",),
        release="v3_1",
        parameters_m=72,
        source=_V3_1,
        summary="MiDaS 3.1, convolutions and attention mixed: good for its cost.",
    ),
    _model(
        "dpt_levit_224",
        "levit",
        _input(224, is_fixed=True),
        release="v3_1",
        ignored_keys=("*.attention_bias_idxs",),
        parameters_m=51,
        source=_V3_1,
        summary="MiDaS 3.1's fastest; resizes images to a square of 224.",
    ),
    _model(
        "midas_v21_384",
        "resnext101",
        _input(384, fit=Fit.UPPER_BOUND, is_imagenet=True),
        aliases=("MiDaS",),
        release="v2_1",
        sha256="f6b980704cfd7259c7cc2b058c2f160159c55e84b3b6c08331b4156a84629f70",
        parameters_m=105,
        source=_V2_1,
        summary="MiDaS 2.1: convolutions only.",
    ),
    _model(
        "midas_v21_small_256",
        "efficientnet_lite3",
        _input(256, fit=Fit.UPPER_BOUND, is_imagenet=True),
        release="v2_1",
        sha256="70d6b9c891758c67f974a6097fb0c608c7ee67fb81ac3e5588847d5596d56fca",
        aliases=("midas-small", "MiDaS_small"),
        parameters_m=21,
        source=_V2_1,
        summary="MiDaS 2.1 small: for slow machines.",
    ),
    replace(
        _model(
            "openvino_midas_v21_small_256",
            "openvino_ir",
            _input(256, fit=Fit.UPPER_BOUND, is_fixed=True, is_imagenet=True),
            release="v3_1",
            parameters_m=21,
            source=_V2_1,
            precisions=("fp32",),
            summary="MiDaS 2.1 small in OpenVINO, for Intel CPUs; resizes images to a square. Needs the extra.",
        ),
        devices=("cpu",),
        weights=WeightsFile(
            file="openvino_midas_v21_small_256.xml",
            url=f"{_RELEASES}/v3_1/openvino_midas_v21_small_256.xml",
            companions=(".bin",),
        ),
    ),
)
