"""Data types of the model catalog: all the facts in which checkpoints differ. No torch.

Invariant: a new checkpoint of a known architecture is one `ModelSpec`, never an `elif`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from stream.frames import DepthKind


class Fit(StrEnum):
    """Rule for the network input size, given the picture and the inference size N (MiDaS's names)."""

    AREA = "area"
    """Width × height ≈ N × N·4/3, so N is the height of a 4:3 picture (`starter`)."""
    UPPER_BOUND = "upper_bound"
    """The picture fits inside the box (MiDaS)."""
    LOWER_BOUND = "lower_bound"
    """The shorter side is N (Depth Anything)."""
    MINIMAL = "minimal"
    """Scale as little as possible (DPT)."""


class Resample(StrEnum):
    """Method of resizing a picture or a depth map."""

    BICUBIC = "bicubic"
    BILINEAR = "bilinear"
    BILINEAR_ANTIALIAS = "bilinear_antialias"
    BILINEAR_CORNERS = "bilinear_align_corners"


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB, for values in [0, 1]; nearly every backbone was trained with them."""


@dataclass(frozen=True, kw_only=True)
class InputPolicy:
    """Network input size and normalisation.

    Attributes:
        size_hw: default inference size (height, width) in pixels.
        multiple_of: both sides of the network input are multiples of this.
        fit: rule for the network input size if the picture has another aspect ratio than `size_hw`.
        keep_aspect: False squeezes every picture to `size_hw`.
        resample: method of resizing the picture to the network input.
        mean, std: per channel, RGB, for values in [0, 1].
        fixed_size: True if the architecture accepts only `size_hw`.
    """

    size_hw: tuple[int, int]
    multiple_of: int
    fit: Fit
    resample: Resample
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    keep_aspect: bool = True
    fixed_size: bool = False


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Origin of a checkpoint.

    Attributes:
        file: the official file name.
        url: address of the published file; None if it is shipped in the package or not published.
        sha256: hex digest; None if unknown.
        packaged: True if the file is shipped in `stream/data`.
        ignored_keys: keys (fnmatch patterns) of structural buffers that a file may contain and the model does not need.
        companions: suffixes of further files of the model, published beside it under the same stem.
    """

    file: str
    url: str | None = None
    sha256: str | None = None
    packaged: bool = False
    ignored_keys: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One checkpoint of the catalog.

    Attributes:
        name: the value of `-m`; aliases are other unambiguous names.
        architecture: key of the builder in `registry`; `options` are its keyword arguments.
        input: see `InputPolicy`.
        output: meaning of the network's output.
        max_depth_m: scale of the metric head; None for relative models.
        upsample: method of resizing the network output to picture size.
        weights: see `WeightsFile`.
        precisions: safe precisions; always includes "fp32".
        bf16_on_cpu: True if `auto` may use bf16 on CPUs that support it: there it was measured to be much faster than
            fp32, and off by less than 4 % of a standard deviation (root mean square).
        devices: kinds of device that it runs on.
        fp32_keys: state-dict keys (fnmatch patterns) that stay fp32 when weights are cast to half: position tables, and
            the last layer, whose rounding would show as steps in the depth.
        parameters_m: millions of trainable parameters.
        licence: SPDX identifier of the weights.
        source: paper or official repository.
        recommended: suggested to users of the default model.
        summary: one line for users: strengths and weaknesses.
    """

    name: str
    architecture: str
    input: InputPolicy
    output: DepthKind
    upsample: Resample
    weights: WeightsFile
    parameters_m: float
    licence: str
    source: str
    summary: str
    options: tuple[tuple[str, object], ...] = ()
    aliases: tuple[str, ...] = ()
    max_depth_m: float | None = None
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    bf16_on_cpu: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    fp32_keys: tuple[str, ...] = ()
    recommended: bool = False

    @property
    def licence_note(self) -> str:
        """The note for a licence that forbids commercial use (Creative Commons' NC), else empty."""
        return (
            f"{self.weights.file}: its licence, {self.licence}, does not allow commercial use"
            if "-NC" in self.licence
            else ""
        )

    def parts(self) -> "Iterator[ModelSpec]":
        """This row with its weights file, then a copy of it for each companion file."""
        yield self
        for suffix in self.weights.companions:
            name, url = self.weights.file, self.weights.url
            stem = name[: name.rindex(".")]
            part = WeightsFile(file=stem + suffix, url=url and url[: url.rindex(".")] + suffix)
            yield replace(self, weights=part)

    def describe(self) -> dict[str, object]:
        """The facts that `depthstream models` lists, as plain values."""
        height, width = self.input.size_hw
        return {
            "name": self.name,
            "aliases": list(self.aliases),
            "parameters_m": self.parameters_m,
            "licence": self.licence,
            "output": self.output.value,
            "max_depth_m": self.max_depth_m,
            "input_size": f"{width}×{height}",
            "multiple_of": self.input.multiple_of,
            "keep_aspect": self.input.keep_aspect,
            "file": self.weights.file,
            "url": self.weights.url,
            "packaged": self.weights.packaged,
            "source": self.source,
            "summary": self.summary,
        }
