"""From a model's name to a network with its weights.

Invariant: an architecture is looked up in one table; nothing else depends on a model's name.
"""

import difflib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stream.errors import ModelError, UsageError
from stream.models import catalog
from stream.models.spec import ModelSpec
from stream.models.weights.fetch import OnTransfer
from stream.models.weights.locate import Checked, find_file
from stream.notes import note

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT = catalog.STARTER.name
"""The model used when none is named: the one that needs no download."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model whose weights file has been found and hashed.

    Attributes:
        weights_sha256: hex digest of the weights file.
        make_network: makes `network`; called at most once.
    """

    spec: ModelSpec
    weights_sha256: str
    make_network: Callable[[], "nn.Module"]

    @cached_property
    def network(self) -> "nn.Module":
        """float32 N×3×H×W, resized and normalised as `spec.input` says → N×H×W, as `spec.output` says.

        In eval mode, fp32, on the CPU. Built and filled at the first access.

        Raises:
            ModelError: the weights file cannot be read or does not fit.
        """
        return self.make_network()


def names() -> list[str]:
    """Every catalog name, in the catalog's order."""
    return [spec.name for spec in catalog.MODELS]


def find(name: str) -> ModelSpec:
    """The catalog row called `name`, by name or alias; case does not matter.

    Raises:
        UsageError: there is none; the error suggests the closest name.
    """
    rows = {key.lower(): spec for spec in catalog.MODELS for key in (spec.name, *spec.aliases)}
    spec = rows.get(name.lower())
    if spec is None:
        near = difflib.get_close_matches(name.lower(), rows, n=3, cutoff=0.5)
        raise UsageError(
            f"unknown model {name!r}",
            hint=f"{f'did you mean {near[0]}? ' if near else ''}`depthstream models` lists all",
        )
    return spec


def load(
    model: str | ModelSpec,
    *,
    weights: Path | None = None,
    weights_dir: Path | None = None,
    offline: bool = False,
    commercial_only: bool = False,
    on_progress: OnTransfer | None = None,
    merge_norms: bool = True,
    build_now: bool = True,
) -> LoadedModel:
    """Find a model's weights file, build its network and fill it.

    Args:
        weights: a checkpoint to use instead of the catalog's.
        commercial_only: refuse weights whose licence forbids commercial use; otherwise it is noted.
        weights_dir, offline, on_progress: where to look for the catalog's file and how to download it; see
            `locate.find_file`.
        merge_norms: see `layers.fold_for_inference`.
        build_now: False builds the network when it is first used (a cached export never uses it); a file that cannot
            be read or does not fit is an error only then.

    Raises:
        UsageError: unknown name, no such weights file or folder, or the licence is refused.
        ModelError: the weights cannot be found, downloaded or read, or do not fit, or a file that was shipped or
            downloaded is not the published one.
    """
    spec = find(model) if isinstance(model, str) else model
    found = files(
        spec,
        weights=weights,
        weights_dir=weights_dir,
        offline=offline,
        commercial_only=commercial_only,
        on_progress=on_progress,
    )
    paths, runtime = [file.path for file in found], _RUNTIMES.get(spec.architecture)

    def make_network() -> "nn.Module":
        return runtime(spec, paths) if runtime else _filled(spec, paths[0], merge_norms=merge_norms)

    loaded = LoadedModel(spec=spec, weights_sha256=found[0].sha256, make_network=make_network)
    if build_now:
        _ = loaded.network
    return loaded


def files(
    spec: ModelSpec,
    *,
    weights: Path | None = None,
    weights_dir: Path | None = None,
    offline: bool = False,
    commercial_only: bool = False,
    on_progress: OnTransfer | None = None,
) -> list[Checked]:
    """The weights file and its companions, found or downloaded; arguments and errors as for `load`."""
    if spec.licence_note and commercial_only:
        hint = "`depthstream models` shows every licence"
        what = f"the licence of {spec.name} ({spec.licence}) forbids commercial use"
        raise UsageError(what, where="--commercial-only", hint=hint)
    if spec.licence_note:
        note(spec.licence_note)
    return [
        find_file(
            part,
            weights and weights.with_suffix(Path(part.weights.file).suffix) if part is not spec else weights,
            weights_dir=weights_dir,
            offline=offline,
            on_progress=on_progress,
        )
        for part in spec.parts()
    ]


def _filled(spec: ModelSpec, path: Path, *, merge_norms: bool) -> "nn.Module":
    """The network of a row with the tensors of its checkpoint."""
    from stream.models.weights.read import fill, read_state_dict

    state_dict = read_state_dict(path)
    network = build(spec)
    try:
        fill(network, state_dict, where=str(path), ignored_keys=spec.weights.ignored_keys)
    except ModelError as error:
        if not (others := fitting(state_dict)):
            raise
        hint = f"the file fits -m {' or -m '.join(others)}"
        raise ModelError(error.what, where=error.where, hint=hint) from error
    finish(network, merge_norms=merge_norms)
    return network


def finish(network: "nn.Module", *, merge_norms: bool = True) -> None:
    """Make a filled network ready for inference, in place; see `layers.fold_for_inference`.

    Raises:
        ModelError: a tensor of the network has no values.
    """
    from stream.models.layers import fold_for_inference
    from stream.models.weights.read import init_unsaved_buffers

    init_unsaved_buffers(network)
    network.eval().requires_grad_(False)
    fold_for_inference(network, merge_norms=merge_norms)


def _openvino(spec: ModelSpec, files: Sequence[Path]) -> "nn.Module":
    from stream.models.openvino_ir import OpenVinoIr

    return OpenVinoIr(*files, size_hw=spec.input.size_hw)


def runtime_of(spec: ModelSpec) -> str:
    """The runtime of a row's network: `torch`, or `openvino` for its own format."""
    return "openvino" if spec.architecture in _RUNTIMES else "torch"


_RUNTIMES: dict[str, Callable[[ModelSpec, Sequence[Path]], "nn.Module"]] = {"openvino_ir": _openvino}
"""Architectures that another runtime executes, with the function that loads their files; torch executes the others."""


def build(spec: ModelSpec) -> "nn.Module":
    """The network of a row on the meta device: keys and shapes, no memory."""
    import torch

    make = (_timm_architectures() if needs_timm(spec) else _architectures())[spec.architecture]
    with torch.device("meta"):
        return make(**dict(spec.options))


def is_ignored(spec: ModelSpec, key: str) -> bool:
    """True for keys of structural buffers that a row's file may hold and the network does not need."""
    return any(fnmatch(key, pattern) for pattern in spec.weights.ignored_keys)


def fitting(state_dict: Mapping[str, "Tensor"]) -> list[str]:
    """Names of the models whose keys and shapes are those of `state_dict`."""
    found = []
    for spec in catalog.MODELS:
        if spec.architecture in _RUNTIMES:
            continue
        wanted = {key: value.shape for key, value in build(spec).state_dict().items() if "num_batches" not in key}
        given = {
            key: value.shape
            for key, value in state_dict.items()
            if "num_batches" not in key and not is_ignored(spec, key)
        }
        if wanted == given:
            found.append(spec.name)
    return found


def needs_timm(spec: ModelSpec) -> bool:
    """True if the network of a row is built from timm's classes."""
    return spec.architecture in _NEED_TIMM


def preload(spec: ModelSpec) -> None:
    """Start importing timm in the background if the network of a row needs it: that takes 3 s.

    An import that fails in the background fails again, and is reported, when the network is built.
    """
    if needs_timm(spec) and "stream.models.backbones" not in sys.modules:
        threading.Thread(target=_import_timm, name="import timm", daemon=True).start()


def _import_timm() -> None:
    with suppress(Exception):  # `build` imports again
        import stream.models.backbones  # noqa: F401


def _architectures() -> dict[str, Callable[..., "nn.Module"]]:
    from stream.models.depth_anything.network import DepthAnything
    from stream.models.midas.levit import Levit, stem_transpose
    from stream.models.midas.network import Midas
    from stream.models.midas.v21 import EfficientNetLite3
    from stream.models.starter import Starter

    return {
        "starter": Starter,
        "depth_anything": DepthAnything,
        "efficientnet_lite3": lambda: Midas(
            EfficientNetLite3(), channels=(64, 128, 256, 512), head=(64, 32), align_corners=False
        ),
        "levit": lambda: Midas(Levit(), before_head=stem_transpose(), head=(64, 8)),
    }


_NEED_TIMM = frozenset({"beit", "next_vit", "resnext101", "swin", "vit_hybrid", "vit_large"})
"""The keys of `_timm_architectures`, without importing timm."""


def _timm_architectures() -> dict[str, Callable[..., "nn.Module"]]:
    from stream.models.midas.beit import BeitEncoder
    from stream.models.midas.network import Midas
    from stream.models.midas.next_vit import NextVit
    from stream.models.midas.resnext import ResNext101
    from stream.models.midas.swin import Swin
    from stream.models.midas.v21 import RectifiedFusion
    from stream.models.midas.vit import VitHybrid, VitLarge

    return {
        "beit": lambda **options: Midas(BeitEncoder(**options)),
        "next_vit": lambda: Midas(NextVit()),
        "resnext101": lambda: Midas(ResNext101(), fusion=RectifiedFusion, align_corners=False),
        "swin": lambda **options: Midas(Swin(**options)),
        "vit_hybrid": lambda: Midas(VitHybrid()),
        "vit_large": lambda: Midas(VitLarge()),
    }
