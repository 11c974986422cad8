"""Every checkpoint the program knows, one row each.

Invariant: names and aliases are unique, and a row holds every difference between its checkpoint and the others.
"""

from stream.frames import DepthKind
from stream.models.depth_anything import catalog as depth_anything
from stream.models.midas import catalog as midas
from stream.models.spec import Fit, InputPolicy, ModelSpec, Resample, WeightsFile

STARTER = ModelSpec(
    name="starter",
    architecture="starter",
    input=InputPolicy(
        size_hw=(192, 256),
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
        sha256="163335a0840599a24a3b9d32065d935eeb44cbec547fe61e9cd66960f869f679",
    ),
    parameters_m=3.2,
    licence="Apache-2.0",
    source="trained for this project on rendered rooms, people, streets and country, see NOTICE",
    summary="Built in: plausible depth at camera speed on a laptop. Soft on thin things and clutter, weak in the dark.",
)

MODELS: tuple[ModelSpec, ...] = (STARTER, *depth_anything.MODELS, *midas.MODELS)
"""In the order of `depthstream models`."""
