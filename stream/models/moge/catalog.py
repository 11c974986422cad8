"""MoGe-2's checkpoints, one row each; the facts are from https://github.com/microsoft/MoGe and the published files.

Parameters are counted without the heads of normals, which are left out. The published files are all called `model.pt`;
here each lies in a folder called like its repository.
Invariant: see `stream.models.catalog`.
"""

from collections.abc import Sequence

from stream.frames import DepthKind
from stream.models.spec import IMAGENET_MEAN, IMAGENET_STD, Fit, InputPolicy, ModelSpec, Resample, WeightsFile

INPUT = InputPolicy(
    size_hw=(840, 840),  # 3600 tokens, the authors' resolution level 9
    multiple_of=14,
    fit=Fit.TOKENS,
    resample=Resample.BILINEAR_ANTIALIAS,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
_FP32_KEYS = (
    "encoder.backbone.pos_embed",
    "neck.input_blocks.[1-4].*",  # they see positions only
    "*_head.output_blocks.*",
    "scale_head.*",
)
_IGNORED_KEYS = ("encoder.image_mean", "encoder.image_std", "normal_head.*")
_SIZES: dict[str, tuple[str, int, int, int, Sequence[int], tuple[int, ...]]] = {
    "s": ("small", 384, 12, 6, (5, 11), (0, 1, 1, 1, 0)),
    "b": ("base", 768, 12, 12, (5, 11), (0, 1, 1, 1, 0)),
    "l": ("large", 1024, 24, 16, (5, 11, 17, 23), (0, 2, 2, 2, 0)),
}
"""Name, width, depth and heads of the encoder, its tapped blocks, and the residual blocks of the neck at each level."""


def _row(
    letter: str, *, has_normals: bool, parameters_m: float, sha256: str, summary: str, aliases: tuple[str, ...] = ()
) -> ModelSpec:
    _, width, depth, heads, taps, blocks = _SIZES[letter]
    name = f"moge-2-vit{letter}{'-normal' if has_normals else ''}"
    return ModelSpec(
        name=name.replace("-", "_"),
        aliases=(*aliases, name),
        architecture="moge",
        options=(("width", width), ("depth", depth), ("heads", heads), ("taps", taps), ("blocks", blocks)),
        input=INPUT,
        output=DepthKind.METRIC_DEPTH,
        upsample=Resample.BILINEAR,
        weights=WeightsFile(
            file=f"{name}/model.pt",
            url=f"https://huggingface.co/Ruicheng/{name}/resolve/main/model.pt",
            sha256=sha256,
            ignored_keys=_IGNORED_KEYS,
            stated=(
                ("model_config.encoder.backbone", f"dinov2_vit{letter}14"),
                ("model_config.encoder.intermediate_layers", tuple(taps)),
                ("model_config.remap_output", "exp"),
                ("model_config.num_tokens_range", (1200, 3600)),
            ),
        ),
        fp32_keys=_FP32_KEYS,
        backends=("torch",),
        needs_aspect=True,
        uses_fov=True,
        is_distance=True,
        parameters_m=parameters_m,
        licence="MIT",
        source="arXiv:2507.02546",
        summary=summary,
    )


MODELS: tuple[ModelSpec, ...] = (
    _row(
        "s",
        has_normals=True,
        aliases=("moge2-small",),
        parameters_m=32.0,
        sha256="79a16621928c2bf0ed04659218c55c01075e950507f40bb3332fb4c873d3e1dc",
        summary="MoGe-2, small: metres, a mask and the camera's field of view, for points in space.",
    ),
    _row(
        "b",
        has_normals=True,
        aliases=("moge2-base",),
        parameters_m=100.8,
        sha256="16b8110e86d5dc5a849db120ca96ef3a223fd30b0c9146d1d81db504073da5f6",
        summary="MoGe-2, base: between small and large.",
    ),
    _row(
        "l",
        has_normals=True,
        aliases=("moge2-large",),
        parameters_m=326.2,
        sha256="280741fd09bc3f403ccff9967784c2a391b52d2c0742ae3efdb21d9f90cc1a01",
        summary="MoGe-2, large: the largest of them; slow without a GPU.",
    ),
    _row(
        "l",
        has_normals=False,
        parameters_m=326.2,
        sha256="3eefd4abb2102f38f12b2d1992e5ff15e4923e5431c67dd494afe157e0111cd5",
        summary="MoGe-2, large, trained without normals.",
    ),
)
