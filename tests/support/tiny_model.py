"""Networks of one layer and frames to go with them: real modules, so that engine tests take milliseconds."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

import stream
from stream.frames import Depth, DepthKind, Frame
from stream.jobs.loaded import Model
from stream.models.registry import LoadedModel
from stream.models.spec import Fit, InputPolicy, ModelSpec, Resample, WeightsFile
from tests.support.reference import image

torch.set_num_threads(1)  # torch's threads wait for one another at every layer: slow beside other tests

SPEC = ModelSpec(
    name="tiny",
    architecture="tiny",
    input=InputPolicy(
        size_hw=(24, 32),
        multiple_of=8,
        fit=Fit.AREA,
        resample=Resample.BILINEAR_ANTIALIAS,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.5),
    ),
    output=DepthKind.RELATIVE_DISPARITY,
    upsample=Resample.BILINEAR,
    weights=WeightsFile(file="tiny.safetensors"),
    parameters_m=0.0,
    licence="Apache-2.0",
    source="tests",
    summary="",
)


class Tiny(nn.Module):
    """A weighted sum of the channels and their neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)
        values = torch.linspace(-0.3, 0.4, 27).reshape(1, 3, 3, 3)
        self.conv.weight = nn.Parameter(values, requires_grad=False)
        self.conv.bias = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W."""
        y: Tensor = self.conv(x)
        return y[:, 0]


def loaded(network: nn.Module | None = None, **changes: object) -> LoadedModel:
    """A model around `network` whose spec has `changes`."""
    ready = (network or Tiny()).eval()
    return LoadedModel(
        spec=replace(SPEC, **changes),  # type: ignore[arg-type]
        make_network=lambda: ready,
        weights_sha256="0" * 64,
    )


def own() -> Model:
    """It as a model that runs are given: a run takes a tenth of what the starter's takes. Its numbers are in -3…3."""
    return Model.from_module(Tiny(), output="disparity", size=32, multiple_of=8, device="cpu", batch=1, threads=1)


def run(source: Any, **options: Any) -> stream.Report:
    """`stream.run` with a model of its own, which leaves no thread."""
    with own() as model:
        return stream.run(source, model=model, **options)


def depths(source: Any, **options: Any) -> list[tuple[Frame, Depth]]:
    """`stream.iter_depth` with that model, to its end."""
    with own() as model:
        return list(stream.iter_depth(source, model=model, **options))


def frame(index: int, width: int = 64, height: int = 48, name: str = "") -> Frame:
    """A frame that differs from its neighbours."""
    rgb = image(max(width, 2), max(height, 2))[:height, :width] ^ ((index * 37) % 256)
    return Frame(index=index, pts=index, time_base=Fraction(1, 30), captured_at=0.0, rgb=rgb.astype("uint8"), name=name)
