"""Data types of the model catalog: all the facts in which checkpoints differ. No torch.

Invariant: a new checkpoint of a known architecture is one `ModelSpec`, never an `elif`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
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
    LONGER_SIDE = "longer_side"
    """The longer side is N, then each side the nearest multiple (Depth Anything 3's `upper_bound_resize`)."""
    SHORTER_SIDE = "shorter_side"
    """The shorter side is about N, then each side the nearest multiple (ZipDepth)."""
    TOKENS = "tokens"
    """As many patches as an N × N picture has, in the picture's aspect ratio (MoGe)."""


class Resample(StrEnum):
    """Method of resizing a picture or a depth map."""

    BICUBIC = "bicubic"
    BILINEAR = "bilinear"
    BILINEAR_ANTIALIAS = "bilinear_antialias"
    BILINEAR_CORNERS = "bilinear_align_corners"
    OPENCV_LINEAR = "opencv_linear"
    """OpenCV's INTER_LINEAR on uint8, whose rounding some networks turn into 4 % of their output's deviation."""
    OPENCV_TWICE = "opencv_area_or_cubic_twice"
    """OpenCV on uint8, to the longer side and then to multiples: INTER_CUBIC where it enlarges, else INTER_AREA."""

    @property
    def is_on_host(self) -> bool:
        """Done by OpenCV before pictures are copied to the device."""
        return self in (Resample.OPENCV_LINEAR, Resample.OPENCV_TWICE)


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
        widest: largest ratio of the sides for which N holds; beyond it N is reduced, so that the longer side stays as
            it is at that ratio. None for no limit.
    """

    size_hw: tuple[int, int]
    multiple_of: int
    fit: Fit
    resample: Resample
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    keep_aspect: bool = True
    fixed_size: bool = False
    widest: float | None = None


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Origin of a checkpoint.

    Attributes:
        file: the official file name; with its folder in front (`NAME/model.safetensors`) if several models' files have
            that name.
        url: address of the published file; None if it is shipped in the package or not published.
        sha256: hex digest; None if unknown.
        git_blob: the hex name of the file's content in git, for one that is published in a repository: the SHA-1 of
            `blob LENGTH`, a zero byte and the content. Downloads are checked against it, too; None if unknown.
        packaged: True if the file is shipped in `stream/data`.
        ignored_keys: keys (fnmatch patterns) of structural buffers that a file may contain and the model does not need.
        stated: what the file says of itself and must say alike, if it says it: (keys joined by dots, value).
        companions: suffixes of further files of the model, published beside it under the same stem.
    """

    file: str
    url: str | None = None
    sha256: str | None = None
    git_blob: str | None = None
    packaged: bool = False
    ignored_keys: tuple[str, ...] = ()
    stated: tuple[tuple[str, object], ...] = ()
    companions: tuple[str, ...] = ()

    @property
    def is_verifiable(self) -> bool:
        """True if it is known what the published file holds."""
        return self.sha256 is not None or self.git_blob is not None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One checkpoint of the catalog.

    Attributes:
        name: the value of `-m`; aliases are other unambiguous names.
        architecture: key of the builder in `registry`; `options` are its keyword arguments.
        input: see `InputPolicy`.
        output: meaning of the network's output.
        max_depth_m: scale of the metric head; None for relative models, and metric ones without a limit.
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
        licence_stated: False if the authors state no licence for this file; `licence` is that of their other files of
            its size then.
        source: paper or official repository.
        backends: what can execute the network: names of `infer.backends.NAMES`.
        is_temporal: the network can see several frames of a clip at once, see `temporal.TemporalNetwork`.
        uses_fov: its depth depends on the camera: `--fov` counts, whatever is saved.
        needs_aspect: the network's second argument is the aspect ratio W / H of the picture.
        is_distance: its values are distances by the network's construction, so `--kind disparity` is refused.
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
    backends: tuple[str, ...] = ("torch", "compile", "onnx", "openvino")
    is_temporal: bool = False
    needs_aspect: bool = False
    uses_fov: bool = False
    is_distance: bool = False
    recommended: bool = False
    licence_stated: bool = True

    @property
    def network(self) -> tuple[object, ...]:
        """What becomes of a file's tensors; rows that are equal in it have different files for the same network."""
        return self.architecture, self.options, self.input, self.output, self.upsample

    @property
    def forbids_commerce(self) -> bool:
        """True if the licence does not allow commercial use (Creative Commons' NC)."""
        return "-NC" in self.licence

    @property
    def licence_text(self) -> str:
        """The licence, with a word on it if the authors do not state it."""
        return self.licence if self.licence_stated else f"{self.licence} (not stated)"

    @property
    def licence_note(self) -> str:
        """The note for a licence that forbids commercial use, or that the authors do not state; else empty."""
        if not self.licence_stated:
            then = ", which does not allow commercial use" if self.forbids_commerce else ""
            size = f"{self.licence}, that of its authors' other files of this size{then}"
            return f"{self.weights.file}: no licence is stated for it; assumed is {size}"
        if self.forbids_commerce:
            return f"{self.weights.file}: its licence, {self.licence}, does not allow commercial use"
        return ""

    def parts(self) -> "Iterator[ModelSpec]":
        """This row with its weights file, then a copy of it for each companion file."""
        yield self
        for suffix in self.weights.companions:
            name, url = self.weights.file, self.weights.url
            stem = name[: name.rindex(".")]
            part = WeightsFile(file=stem + suffix, url=url and url[: url.rindex(".")] + suffix)
            yield replace(self, weights=part)

    def describe(self) -> dict[str, object]:
        """Every fact of the row but those of its network, as plain values."""
        height, width = self.input.size_hw
        rows = {**_facts(self), **_facts(self.input), **_facts(self.weights)}
        return {
            **{name: value for name, value in rows.items() if name not in _OF_THE_NETWORK},
            "input_size": f"{width}×{height}",
            "allows_commercial_use": not self.forbids_commerce,
        }


_OF_THE_NETWORK = frozenset({"options", "input", "weights", "fp32_keys", "ignored_keys", "needs_aspect", "size_hw"})
"""Fields that `ModelSpec.describe` leaves out, or states in another form."""


def _facts(row: ModelSpec | InputPolicy | WeightsFile) -> dict[str, object]:
    found = ((field.name, getattr(row, field.name)) for field in fields(row))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found}
