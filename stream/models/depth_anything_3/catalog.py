"""Depth Anything 3's checkpoints for single pictures, one row each.

https://github.com/ByteDance-Seed/Depth-Anything-3. Its LARGE, GIANT and NESTED models, whose licence forbids commercial
use, have no row: there are no official numbers to check them against.
Invariant: see `stream.models.catalog`.
"""

from stream.frames import DepthKind
from stream.models.depth_anything.catalog import APACHE, BASE, LARGE, SMALL, EncoderSize
from stream.models.spec import IMAGENET_MEAN, IMAGENET_STD, Fit, InputPolicy, ModelSpec, Resample, WeightsFile

INPUT = InputPolicy(
    size_hw=(504, 504),
    multiple_of=14,
    fit=Fit.LONGER_SIDE,
    resample=Resample.OPENCV_TWICE,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
_LAST_LAYERS = ("backbone.pretrained.pos_embed", "head.scratch.*output_conv2.2.*", "cam_dec.*")
_ONLY_FOR_SEVERAL_PICTURES = ("cam_enc.*", "cam_dec.fc_t.*", "cam_dec.fc_qvec.*", "head.scratch.*_aux.*")
"""A quarter of the parameters in the files of SMALL and BASE; `parameters_m` counts the others."""


def _row(
    name: str,
    folder: str,
    encoder: EncoderSize,
    *,
    taps: tuple[int, ...],
    parameters_m: float,
    summary: str,
    is_metric: bool = False,
    sees_several: bool = False,
    sha256: str | None = None,
) -> ModelSpec:
    options = {
        "width": encoder.width,
        "depth": encoder.depth,
        "heads": encoder.heads,
        "taps": taps,
        "channels": encoder.channels,
        "outputs": encoder.outputs,
    }
    if sees_several:
        options["alternates_from"] = 4
    return ModelSpec(
        name=name,
        aliases=(folder.lower(),),
        architecture="depth_anything_3_any_view" if sees_several else "depth_anything_3",
        options=tuple(options.items()),
        input=INPUT,
        output=DepthKind.METRIC_DEPTH if is_metric else DepthKind.RELATIVE_DEPTH,
        upsample=Resample.BILINEAR_CORNERS,
        weights=WeightsFile(
            file=f"{folder}/model.safetensors",
            url=f"https://huggingface.co/depth-anything/{folder}/resolve/main/model.safetensors",
            sha256=sha256,
            ignored_keys=_ONLY_FOR_SEVERAL_PICTURES if sees_several else (),
        ),
        bf16_on_cpu=True,
        fp32_keys=_LAST_LAYERS,
        parameters_m=parameters_m,
        licence=APACHE,
        source="arXiv:2511.10647",
        uses_fov=is_metric,
        is_distance=True,
        summary=summary,
    )


MODELS: tuple[ModelSpec, ...] = (
    _row(
        "da3_small",
        "DA3-SMALL",
        SMALL,
        taps=(5, 7, 9, 11),
        parameters_m=26.2,
        sees_several=True,
        sha256="364492e38a3a06d221ac75da7f6621ada3f2361cd24fde11ba79091e9f40efcf",
        summary="Depth Anything 3, small: depth, how sure it is of it, and the camera's field of view.",
    ),
    _row(
        "da3_base",
        "DA3-BASE",
        BASE,
        taps=(5, 7, 9, 11),
        parameters_m=103.0,
        sees_several=True,
        summary="Depth Anything 3, base: the same, larger.",
    ),
    _row(
        "da3mono_large",
        "DA3MONO-LARGE",
        LARGE,
        taps=LARGE.taps,
        parameters_m=334.2,
        summary="Depth Anything 3 for single images: truer shapes than V2's, say its authors; it finds the sky.",
    ),
    _row(
        "da3metric_large",
        "DA3METRIC-LARGE",
        LARGE,
        taps=LARGE.taps,
        parameters_m=334.2,
        is_metric=True,
        summary="Depth Anything 3 in metres, which follow from the focal length (--fov); it finds the sky.",
    ),
)
