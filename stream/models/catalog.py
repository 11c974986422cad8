"""Every checkpoint the program knows, one row each.

Invariant: names and aliases are unique, and a row holds every difference between its checkpoint and the others.
"""

from dataclasses import dataclass
from enum import StrEnum

from stream.frames import DepthKind
from stream.models.depth_anything import catalog as depth_anything
from stream.models.depth_anything_3 import catalog as depth_anything_3
from stream.models.midas import catalog as midas
from stream.models.moge import catalog as moge
from stream.models.spec import Fit, InputPolicy, ModelSpec, Resample, WeightsFile
from stream.models.video_depth_anything import catalog as video_depth_anything
from stream.models.zipdepth import catalog as zipdepth

STARTER = ModelSpec(
    name="starter",
    architecture="starter",
    input=InputPolicy(
        size_hw=(224, 288),
        multiple_of=32,
        fit=Fit.AREA,
        resample=Resample.BILINEAR_ANTIALIAS,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    ),
    output=DepthKind.RELATIVE_DISPARITY,
    upsample=Resample.BILINEAR,
    fp32_keys=("head.2.*",),
    weights=WeightsFile(
        file="starter.safetensors",
        packaged=True,
        sha256="2d499050096b47d676131ff723a8368105fa25e85e71780a20ad276de7580232",
    ),
    parameters_m=3.2,
    licence="Apache-2.0",
    source="trained for this project on rendered rooms, people, streets and country, see NOTICE",
    summary="Built in: plausible depth at camera speed on a laptop. Soft on thin things and clutter, weak in the dark.",
)

FOR_CPUS = frozenset(
    {
        "starter",
        "zipdepth_base",
        "zipdepth_base_npu",
        "dpt_levit_224",
        "dpt_swin2_tiny_256",
        "midas_v21_small_256",
        "openvino_midas_v21_small_256",
    }
)
"""Models that their authors made for speed, and the built-in one."""


class Purpose(StrEnum):
    """What a model is for: the groups of `depthstream models`."""

    CPU = "For a webcam, or a computer without a GPU"
    VIDEO = "For video: steady from frame to frame"
    METRES = "For distances in metres"
    RELATIVE = "For images: relative depth"


def purpose(spec: ModelSpec) -> Purpose:
    """The group of a model."""
    if spec.is_temporal:
        return Purpose.VIDEO
    if spec.output is DepthKind.METRIC_DEPTH:
        return Purpose.METRES
    return Purpose.CPU if spec.name in FOR_CPUS else Purpose.RELATIVE


@dataclass(frozen=True)
class Choice:
    """A model that a word stands for, and what it is chosen for. Its licence has no restriction."""

    model: str
    reason: str


CHOICES = {
    "fast": Choice("zipdepth_base", "small, for a webcam or a CPU"),
    "balanced": Choice("depth_anything_v2_vits", "sharp outlines at the least cost"),
    "best": Choice("da3mono_large", "the truest shapes, by its authors' account; slow without a GPU"),
    "video": Choice("video_depth_anything_vits", "steady from frame to frame"),
    "metric": Choice("moge_2_vits_normal", "metres, and the camera's field of view, from any image"),
}
"""What `-m` takes instead of a name, for those who do not know the names; see docs/models.md."""

MODELS: tuple[ModelSpec, ...] = (
    STARTER,
    *zipdepth.MODELS,
    *depth_anything.MODELS,
    *depth_anything_3.MODELS,
    *moge.MODELS,
    *midas.MODELS,
    *video_depth_anything.MODELS,
)
"""In the order of `depthstream models`."""


@dataclass(frozen=True)
class WithoutRow:
    """Published models that the catalog has no row for.

    Attributes:
        names: patterns (fnmatch) of their names, in lower case, without the owner, with `-` between words.
        reason: why there is none.
        nearest: names of the rows to take instead.
    """

    names: tuple[str, ...]
    reason: str
    nearest: tuple[str, ...]


WITHOUT_ROW = (
    WithoutRow(
        ("da3-large*", "da3-giant*"),
        "its licence (CC-BY-NC-4.0) does not allow commercial use",
        ("da3_base", "da3mono_large"),
    ),
    WithoutRow(
        ("da3nested*",),
        "its licence (CC-BY-NC-4.0) does not allow commercial use",
        ("da3_base", "da3metric_large"),
    ),
    WithoutRow(
        ("distill-any-depth-base*", "distill-any-depth-large*", "distill-any-depth-vit[bl]*"),
        "it rests on weights whose licence (CC-BY-NC-4.0) does not allow commercial use",
        ("distill_any_depth_small",),
    ),
    WithoutRow(
        ("moge-vitl*", "moge-1", "moge-1-*", "moge1", "moge1-*"),
        "MoGe-1 has another network, and gives no metres",
        ("moge_2_vitl",),
    ),
    WithoutRow(
        ("moge-3*", "moge3*"),
        "of MoGe, only version 2 is supported",
        ("moge_2_vits_normal", "moge_2_vitb_normal", "moge_2_vitl_normal"),
    ),
)
"""What people know by name and look for here; see docs/models.md."""
