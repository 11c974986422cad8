"""Video-Depth-Anything's checkpoints, one row each; the facts are from the official repository and download pages.

https://github.com/DepthAnything/Video-Depth-Anything. It states licences for the sizes of the relative checkpoints and
none for the metric ones, which are taken to have the licence of their size.
Invariant: see `stream.models.catalog`.
"""

from dataclasses import replace

from stream.frames import DepthKind
from stream.models.depth_anything.catalog import APACHE, BASE, INPUT, LARGE, NON_COMMERCIAL, SMALL, EncoderSize
from stream.models.spec import ModelSpec, Resample, WeightsFile

_WIDEST = 1.78
"""Of the official script: wider frames than about 16:9 are computed at a smaller inference size."""


def _row(
    encoder: EncoderSize, letter: str, size: str, *, is_metric: bool, parameters_m: float, sha256: str | None = None
) -> ModelSpec:
    name = f"{'metric_' if is_metric else ''}video_depth_anything_vit{letter}"
    page = f"{'Metric-' if is_metric else ''}Video-Depth-Anything-{size.title()}"
    metres = " in metres" if is_metric else ""
    options = dict(encoder.options(taps=encoder.taps, max_depth_m=None))
    return ModelSpec(
        name=name,
        aliases=(f"vda-metric-{size}" if is_metric else f"vda-{size}", page.lower()),
        architecture="video_depth_anything",
        options=tuple((key, value) for key, value in options.items() if key not in ("gated", "max_depth_m")),
        input=replace(INPUT, widest=_WIDEST),
        output=DepthKind.METRIC_DEPTH if is_metric else DepthKind.RELATIVE_DISPARITY,
        upsample=Resample.BILINEAR_CORNERS,
        weights=WeightsFile(
            file=f"{name}.pth",
            url=f"https://huggingface.co/depth-anything/{page}/resolve/main/{name}.pth",
            sha256=sha256,
        ),
        bf16_on_cpu=True,
        fp32_keys=("pretrained.pos_embed", "head.scratch.output_conv2.2.*"),
        is_temporal=True,
        parameters_m=parameters_m,
        licence=APACHE if letter == "s" else NON_COMMERCIAL,
        licence_stated=not is_metric,
        source="arXiv:2501.12375",
        summary=f"Video-Depth-Anything{metres}, {size}: steady from frame to frame, sees up to 32 frames at once.",
    )


MODELS: tuple[ModelSpec, ...] = (
    _row(
        SMALL,
        "s",
        "small",
        is_metric=False,
        parameters_m=29.0,
        sha256="13379300b739e659f076a59d52e9801bd8d38c541a7e71f73bbca4dcfb013609",
    ),
    _row(
        BASE,
        "b",
        "base",
        is_metric=False,
        parameters_m=114.4,
        sha256="775e578e8f9431ec0496514aa466bd0a1f67c28d0f518267809f35a43c04329b",
    ),
    _row(LARGE, "l", "large", is_metric=False, parameters_m=384.4),
    _row(
        SMALL,
        "s",
        "small",
        is_metric=True,
        parameters_m=29.0,
        sha256="3c28432b4e1f0d7bb31cad5151b6313b49457db5aa58d82e85bfb0f8b1311b33",
    ),
    _row(BASE, "b", "base", is_metric=True, parameters_m=114.4),
    _row(LARGE, "l", "large", is_metric=True, parameters_m=384.4),
)
