"""A torch module of the user's own as a model: what the catalog states of its checkpoints, stated by keywords.

Invariant: the caller's module is copied, never changed; what it returns is checked at every call, and what it raises is
a `ModelError`, so that both are one line and not an error somewhere behind it.
"""

import copy
import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

import torch
from torch import Tensor, nn

from stream.errors import ModelError, StreamError, UsageError, printable
from stream.frames import DepthKind
from stream.models import catalog
from stream.models.memory import is_out_of_memory
from stream.models.registry import LoadedModel
from stream.models.spec import Fit, InputPolicy, ModelSpec, Resample, WeightsFile

OUTPUTS = {
    "disparity": DepthKind.RELATIVE_DISPARITY,
    "depth": DepthKind.RELATIVE_DEPTH,
    "metric": DepthKind.METRIC_DEPTH,
}
"""What the numbers of a module may mean, by the words for it."""
FITS = (Fit.AREA, Fit.UPPER_BOUND, Fit.LOWER_BOUND, Fit.MINIMAL, Fit.LONGER_SIDE, Fit.SHORTER_SIDE)
RESAMPLES = (Resample.BICUBIC, Resample.BILINEAR, Resample.BILINEAR_ANTIALIAS, Resample.OPENCV_LINEAR)
UPSAMPLES = (Resample.BICUBIC, Resample.BILINEAR, Resample.BILINEAR_CORNERS)
"""The choices of a module's description; what is missing belongs to one family's way of choosing sizes."""
Choice = TypeVar("Choice", bound=StrEnum)


class OwnNetwork(nn.Module):
    """Calls a module of the user's own and brings its output into the form of every network's: N×H×W.

    Args:
        module: float32 N×3×H×W → N×H×W or N×1×H×W.
        name: for errors.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W → N×H×W.

        Raises:
            ModelError: the module gave something else, or failed; its own error is the cause then.
            RuntimeError: the device has no memory for it; a smaller batch may fit.
        """
        try:
            output = self.module(x)
        except StreamError:
            raise
        except Exception as error:  # a module may raise anything
            if is_out_of_memory(error):
                raise
            said = next(iter(str(error).strip().splitlines()), "")
            what = f"{type(error).__name__}: {said}" if said else type(error).__name__
            size = "×".join(map(str, x.shape))
            hint = "the cause of this error has the module's traceback"
            raise ModelError(f"the module failed for an input of {size}: {what}", where=self.name, hint=hint) from error
        if isinstance(output, Tensor):
            shape = tuple(output.shape)
            if len(shape) == 4 and shape[1] == 1:
                output = output[:, 0]
            if output.dim() == 3 and len(output) == len(x) and output.numel():
                return output if output.is_floating_point() else output.float()
            given = f"a tensor of {'×'.join(map(str, shape)) or 'no shape'}"
        else:
            given = f"a {type(output).__name__}"
        raise ModelError(
            f"the module gave {given} for an input of {'×'.join(map(str, x.shape))}",
            where=self.name,
            allowed=f"one tensor of {len(x)}×H×W or {len(x)}×1×H×W",
            hint="wrap it in a module that returns that",
        )


def checked_name(name: object) -> str:
    """The name of a model that is not in the catalog.

    Raises:
        UsageError: it is a name of the catalog's, or would not do as part of a file's name.
    """
    allowed = "a name that is not in the catalog, without / \\ = and control characters"
    if not isinstance(name, str) or not name.strip() or name in (".", "..") or set(name) & set("/\\="):
        raise UsageError(f"{name!r} does not name a model", where="name", allowed=allowed)
    if printable(name) != name:
        raise UsageError(f"{name!r} has a character that cannot be shown", where="name", allowed=allowed)
    taken = {word for row in catalog.MODELS for word in (row.name, *row.aliases)} | set(catalog.CHOICES)
    if name.lower() in {key for word in taken for key in (word.lower(), word.lower().rpartition("/")[2])}:
        raise UsageError(f"{name!r} is a model of the catalog", where="name", allowed=allowed)
    return name


def own_model(
    module: object,
    *,
    name: str,
    output: str,
    size: int | tuple[int, int],
    multiple_of: int,
    mean: Sequence[float],
    std: Sequence[float],
    fit: str,
    resample: str,
    upsample: str,
    keep_aspect: bool,
) -> LoadedModel:
    """A module as a loaded model; the arguments are those of `stream.Model.from_module`.

    Raises:
        UsageError: an argument is not what it should be, or the module cannot be copied.
    """
    if not isinstance(module, nn.Module):
        given = type(module).__name__
        hint = "call the class to make a module" if isinstance(module, type) else ""
        raise UsageError(f"a {given} is no module", where="module", allowed="a torch.nn.Module", hint=hint)
    if output not in OUTPUTS:
        raise UsageError(f"{output!r} is no kind of depth", where="output", allowed=", ".join(OUTPUTS))
    policy = InputPolicy(
        size_hw=_size(size),
        multiple_of=_positive(multiple_of, "multiple_of"),
        fit=_chosen(FITS, fit, "fit"),
        resample=_chosen(RESAMPLES, resample, "resample"),
        mean=_three(mean, "mean"),
        std=_three(std, "std"),
        keep_aspect=keep_aspect,
    )
    if not all(policy.std):
        raise UsageError("must not be 0", where="std")
    try:
        module = copy.deepcopy(module).eval().requires_grad_(False)
    except Exception as error:  # a module may hold anything
        hint = "its tensors must be parameters or buffers"
        raise UsageError(f"cannot be copied: {error}", where="module", hint=hint) from error
    spec = ModelSpec(
        name=name,
        architecture="own",
        input=policy,
        output=OUTPUTS[output],
        upsample=_chosen(UPSAMPLES, upsample, "upsample"),
        weights=WeightsFile(file=""),
        parameters_m=sum(parameter.numel() for parameter in module.parameters()) / 1e6,
        licence="unknown",
        source="a module of the caller's own",
        summary="",
        backends=("torch",),
    )
    network = OwnNetwork(module, name).eval()
    return LoadedModel(spec=spec, weights_sha256=_digest(module), make_network=lambda: network)


def _digest(module: nn.Module) -> str:
    """Hex SHA-256 of a module's tensors and of the name of its class: tells what one module computed from another's."""
    found = hashlib.sha256(f"{type(module).__module__}.{type(module).__qualname__}".encode())
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):  # a module may add anything
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _chosen(words: Sequence[Choice], text: str, where: str) -> Choice:
    for word in words:
        if text == word.value:
            return word
    raise UsageError(f"{text!r} is not known", where=where, allowed=", ".join(word.value for word in words))


def _positive(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{value!r} is not a whole number of pixels", where=where, allowed="1 or more")
    return value


def _size(size: object) -> tuple[int, int]:
    if isinstance(size, tuple | list) and len(size) == 2:
        return _positive(size[0], "size"), _positive(size[1], "size")
    side = _positive(size, "size")
    return side, side


def _three(values: object, where: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(value) for value in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{values!r} is not three numbers", where=where, allowed="red, green, blue") from error
    if not torch.isfinite(torch.tensor((red, green, blue))).all():
        raise UsageError("must be finite", where=where)
    return red, green, blue
