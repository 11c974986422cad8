"""ZipDepth's checkpoints, one row each; https://github.com/fabiotosi92/ZipDepth at a302e54.

Invariant: see `stream.models.catalog`.
"""

from stream.frames import DepthKind
from stream.models.spec import IMAGENET_MEAN, IMAGENET_STD, Fit, InputPolicy, ModelSpec, Resample, WeightsFile


def _row(
    name: str, *, convex: bool, sha256: str, git_blob: str, parameters_m: float, aliases: tuple[str, ...], summary: str
) -> ModelSpec:
    file = f"{name}.pth"
    return ModelSpec(
        name=name,
        aliases=aliases,
        architecture="zipdepth",
        options=(("convex", convex),),
        input=InputPolicy(
            size_hw=(384, 384),
            multiple_of=32,
            fit=Fit.SHORTER_SIDE,
            resample=Resample.OPENCV_LINEAR,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        output=DepthKind.RELATIVE_DISPARITY,
        upsample=Resample.BILINEAR_CORNERS,
        weights=WeightsFile(
            file=file,
            url=f"https://github.com/fabiotosi92/ZipDepth/raw/main/checkpoints/{file}",
            sha256=sha256,
            git_blob=git_blob,
            ignored_keys=("mean", "std"),  # ImageNet's; here the input is normalised before the network
        ),
        fp32_keys=("decoder.head_half.*", "decoder.convex_up.mask_pred.3.*", "decoder.convex_up.where_conv.6.*"),
        parameters_m=parameters_m,
        licence="MIT",
        source="https://github.com/fabiotosi92/ZipDepth",
        summary=summary,
    )


MODELS: tuple[ModelSpec, ...] = (
    _row(
        "zipdepth_base",
        convex=True,
        # Stated alike by several projects that pin the file; the publisher states the blob.
        sha256="a55910bb0b99c8c5e641cb9206e810b269690ad94e8a2ef08c827c4679391a65",
        git_blob="bc629a21c3e975fcbfc8cfc29b5179ca2cec8b06",
        parameters_m=6.8,
        aliases=("zipdepth",),
        summary="ZipDepth: small and convolutional, for a CPU and a webcam; learnt from Depth Anything V2 large.",
    ),
    _row(
        "zipdepth_base_npu",
        convex=False,
        sha256="627c04fda584133ead4310074884a4a037061b4c01ba86e73e492ea30fab570d",
        git_blob="5dbd1715b30f76d50c12db41e19e526fa3d7cdc7",
        parameters_m=6.8,
        aliases=("zipdepth-npu",),
        summary="ZipDepth for neural processors: the same but for its last layers, which use simpler operations.",
    ),
)
