"""From a model's name to a network with its weights.

Invariant: an architecture is looked up in one table; nothing else depends on a model's name.
"""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.errors import ModelError, UsageError
from stream.frames import DepthKind
from stream.models import catalog
from stream.models.kinds import meant
from stream.models.spec import ModelSpec
from stream.models.suggest import nearest as nearest_names
from stream.models.suggest import without_row
from stream.models.weights.claims import checked
from stream.models.weights.fetch import OnTransfer
from stream.models.weights.locate import Checked, find_file
from stream.notes import Notes, collected, note

if TYPE_CHECKING:
    from torch import Size, Tensor, nn

    from stream.models.answer import AnswerOf

DEFAULT = catalog.STARTER.name
"""The model used when none is named: the one that needs no download."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model whose weights file has been found and hashed.

    Attributes:
        weights_sha256: hex digest of the weights file.
        make_network: makes `network`; called at most once.
        remarks: notes on the file; see `remark`.
        origin: arguments of `load` that load it in another process; None for what only this process has.
    """

    spec: ModelSpec
    weights_sha256: str
    make_network: Callable[[], "nn.Module"]
    remarks: tuple[str, ...] = ()
    origin: Mapping[str, Any] | None = None

    @cached_property
    def network(self) -> "nn.Module":
        """float32 N×3×H×W, resized and normalised as `spec.input` says → N×H×W, as `spec.output` says.

        In eval mode, fp32, on the CPU. Built and filled at the first access.

        Raises:
            ModelError: the weights file cannot be read or does not fit.
        """
        network = self.make_network()
        self.remark()
        return network

    def remark(self) -> None:
        """Note what is assumed about the file, once, when it has proved to fit: its network is built, or an export of
        it is used instead. About a file that cannot be used, only the error is of interest."""
        assert self._is_remarked

    @cached_property
    def _is_remarked(self) -> bool:
        for text in self.remarks:
            note(text)
        return True


def names() -> list[str]:
    """Every catalog name, in the catalog's order."""
    return [spec.name for spec in catalog.MODELS]


def find(name: str) -> ModelSpec:
    """The catalog row called `name`, by name or alias, or by its name on Hugging Face with or without its owner; case
    does not matter. What a word of `catalog.CHOICES` stands for is noted.

    Raises:
        UsageError: there is none; the error suggests the closest name, see `suggest`.
    """
    if (choice := catalog.CHOICES.get(name.lower())) is not None:
        note(f"-m {name.lower()}: {choice.model}")
        name = choice.model
    rows = {key.lower(): spec for spec in catalog.MODELS for key in (spec.name, *spec.aliases)}
    spec = rows.get(name.lower()) or rows.get(name.lower().rpartition("/")[2])
    if spec is None:
        if Path(name).suffix.lower() in _CHECKPOINT_SUFFIXES:
            hint = "a checkpoint is named with --weights FILE, or with its model as -m NAME=FILE"
        elif (missing := without_row(name)) is not None:
            what = f"the model {name!r} has no row: {missing.reason}"
            raise UsageError(what, hint=f"nearest: {' or '.join(missing.nearest)}; `depthstream models` lists all")
        else:
            near = nearest_names(name, rows)
            hint = f"{f'did you mean {near}? ' if near else ''}`depthstream models` lists all"
        raise UsageError(f"unknown model {name!r}", hint=hint)
    return spec


_CHECKPOINT_SUFFIXES = frozenset((".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".onnx", ".xml"))


def load(
    model: str | ModelSpec,
    *,
    weights: Path | None = None,
    weights_dir: Path | None = None,
    offline: bool = False,
    commercial_only: bool = False,
    on_progress: OnTransfer | None = None,
    max_depth_m: float | None = None,
    kind: DepthKind | None = None,
    merge_norms: bool = True,
    build_now: bool = True,
) -> LoadedModel:
    """Find a model's weights file, build its network and fill it.

    Args:
        weights: a checkpoint to use instead of the catalog's.
        commercial_only: refuse weights whose licence forbids commercial use; otherwise it is noted.
        weights_dir, offline, on_progress: where to look for the catalog's file and how to download it; see
            `locate.find_file`.
        max_depth_m: scale of a metric model's depth, for a checkpoint that was trained with another than the catalog's.
        kind: what the values of the checkpoint mean, if not what the catalog's do; see `kinds`.
        merge_norms: see `layers.fold_for_inference`.
        build_now: False builds the network when it is first used (a cached export never uses it); a file that cannot
            be read or does not fit is an error only then.

    Raises:
        UsageError: unknown name, no such weights file or folder, the licence is refused, or `max_depth_m` is for a
            relative model or missing for a metric one.
        ModelError: the weights cannot be found, downloaded or read, or do not fit, or a file that was shipped or
            downloaded is not the published one; or the file says that it is metric and the model is relative.
    """
    spec = find(model) if isinstance(model, str) else model
    origin = {"model": spec, "weights": weights, "weights_dir": weights_dir, "max_depth_m": max_depth_m, "kind": kind}
    meant(spec, kind=kind, max_depth_m=max_depth_m)  # refused before anything is downloaded
    remarks = list[str]()
    found = files(
        spec,
        weights=weights,
        weights_dir=weights_dir,
        offline=offline,
        commercial_only=commercial_only,
        on_progress=on_progress,
        tell=note if weights is None else remarks.append,
    )
    paths, runtime = [file.path for file in found], _RUNTIMES.get(spec.architecture)
    is_published = found[0].sha256 == spec.weights.sha256 or (weights is None and spec.weights.sha256 is None)
    if not is_published or max_depth_m is not None or kind is not None:
        spec = checked(
            spec, paths[0], max_depth_m=max_depth_m, kind=kind, is_published=is_published, tell=remarks.append
        )

    def make_network() -> "nn.Module":
        return runtime(spec, paths) if runtime else _filled(spec, found[0], merge_norms=merge_norms)

    loaded = LoadedModel(
        spec=spec,
        weights_sha256=found[0].sha256,
        make_network=make_network,
        remarks=tuple(remarks),
        origin={**origin, "offline": True, "merge_norms": merge_norms},
    )
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
    tell: Callable[[str], None] = note,
) -> list[Checked]:
    """The weights file and its companions, found or downloaded; arguments and errors as for `load`.

    Args:
        tell: called with the note about the licence.
    """
    if spec.forbids_commerce and commercial_only:
        hint = "`depthstream models` shows every licence"
        what = f"the licence of {spec.name} ({spec.licence}) forbids commercial use"
        raise UsageError(what, where="--commercial-only", hint=hint)
    if spec.licence_note:
        tell(spec.licence_note)
    return [
        find_file(
            part,
            weights if part is spec or weights is None or weights.is_dir() else _beside(weights, part),
            weights_dir=weights_dir,
            offline=offline,
            on_progress=on_progress,
        )
        for part in spec.parts()
    ]


def _beside(weights: Path, part: ModelSpec) -> Path:
    return weights.with_suffix(Path(part.weights.file).suffix)


def _filled(spec: ModelSpec, file: Checked, *, merge_norms: bool) -> "nn.Module":
    """The network of a row with the tensors of its checkpoint."""
    from stream.models.weights.read import check_fit, fill, is_pickled, read_state_dict, wanted_of

    network, ignored, path = build(spec), spec.weights.ignored_keys, file.path

    def check(given: Mapping[str, "Tensor"]) -> None:
        try:
            check_fit(network, given, where=str(path), ignored_keys=ignored)
        except ModelError as error:
            raise _explained(error, spec, [given, *_whole(path)]) from error

    wanted = wanted_of(network)

    def check_part(sizes: Mapping[str, "Size | None"], prefix: str) -> None:
        if wholes := _wholes(sizes, prefix):
            what = f"is a file of another model, of which {spec.name} is only a part ({prefix.removesuffix('.')})"
            raise ModelError(what, where=str(path), hint=f"use -m {' or -m '.join(wholes)}")

    tensors = read_state_dict(path, wanted=wanted, check=check, check_part=check_part, stated=spec.weights.stated)
    if file.sha256 != spec.weights.sha256 and is_pickled(path):
        note(f"{path}: read as data, so that no code in it is run; it is not verified")
    fill(network, tensors, where=str(path), ignored_keys=ignored)
    finish(network, merge_norms=merge_norms)
    return network


def _whole(path: Path) -> list[Mapping[str, "Tensor"]]:
    """The tensors of a file as they are found when no model is wanted, if they can be read.

    What is found for a model may be a part only: Depth Anything 3 has in it the encoder of Depth Anything V2.
    """
    from stream.models.weights.read import read_state_dict

    found: list[Mapping[str, Tensor]] = []

    def keep(given: Mapping[str, "Tensor"]) -> None:
        found.append(given)
        raise ModelError("is not read further: its names and sizes are enough")

    with suppress(ModelError), collected(Notes()):  # what is chosen here is not used
        read_state_dict(path, check=keep)
    return found


def _explained(error: ModelError, spec: ModelSpec, readings: Sequence[Mapping[str, "Tensor"]]) -> ModelError:
    """The error about a file that does not fit, with the models that it does fit in one of the readings."""
    overlaps = _overlaps(*readings)
    fits = "fits" if (others := _fitting(overlaps)) else "fits best, but not entirely,"
    if not (others := others or _nearest(overlaps)):
        hint = "its tensors are those of no model of the catalog; `depthstream models` lists all"
    elif spec.name in others:
        hint = "it is nearly a file of this model: is it complete, and unchanged?"
    else:
        hint = f"the file {fits} -m {' or -m '.join(others)}"
    return ModelError(error.what, where=error.where, hint=hint)


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


def answer_of(spec: ModelSpec) -> "AnswerOf":
    """How the outputs of a row's network become depth."""
    from stream.models.answer import nowhere_negative, resized
    from stream.models.depth_anything_3 import answer as depth_anything_3
    from stream.models.moge.answer import answer as of_moge

    answers: dict[str, AnswerOf] = {
        "depth_anything_3": depth_anything_3.without_sky,
        "depth_anything_3_any_view": depth_anything_3.with_camera,
        "moge": of_moge,
        "own": nowhere_negative,
    }
    return answers.get(spec.architecture, resized)


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


def _fitting(overlaps: Sequence[tuple[str, float]]) -> list[str]:
    """Names of the models whose keys and shapes are those of a file."""
    return [name for name, share in overlaps if share == 1]


def _wholes(sizes: Mapping[str, "Size | None"], prefix: str) -> list[str]:
    """Names of the models whose whole network a file holds, and in it, under `prefix`, that of another model.

    Those that need timm contain no other model, and all of them together take 15 s to build.
    """
    from stream.models.weights.prefixes import shift
    from stream.models.weights.read import wanted_of

    found = []
    for spec in catalog.MODELS:
        if spec.architecture in _RUNTIMES or needs_timm(spec):
            continue
        wanted = wanted_of(build(spec))
        whole = shift(sizes, wanted)
        if whole.score == 2 * len(wanted) and not whole.added and whole.removed != prefix:
            found += [spec.name] if prefix.startswith(whole.removed) else []
    return found


def _nearest(overlaps: Sequence[tuple[str, float]]) -> list[str]:
    """Names of the models that share the most tensors, by key and shape, with a file; none below two thirds."""
    best = max((share for _, share in overlaps), default=0.0)
    return [name for name, share in overlaps if share == best >= _NEAR]


_NEAR = 2 / 3


def _overlaps(*readings: Mapping[str, "Tensor"]) -> list[tuple[str, float]]:
    """For each model the tensors that it shares with a reading of a file, as a fraction of those in either.

    Of several readings, the one that shares the most with the model counts.
    """
    found = []
    for spec in catalog.MODELS:
        if spec.architecture in _RUNTIMES:
            continue
        wanted = {(key, value.shape) for key, value in build(spec).state_dict().items() if "num_batches" not in key}
        shares = []
        for reading in readings:
            given = {
                (key, value.shape)
                for key, value in reading.items()
                if "num_batches" not in key and not is_ignored(spec, key)
            }
            shares.append(len(wanted & given) / len(wanted | given))
        found.append((spec.name, max(shares)))
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
    from stream.models.depth_anything.zoe import ZoeDepthAnything
    from stream.models.depth_anything_3.network import AnyView, Monocular
    from stream.models.midas.levit import Levit, stem_transpose
    from stream.models.midas.network import Midas
    from stream.models.midas.v21 import EfficientNetLite3
    from stream.models.moge.network import Moge
    from stream.models.starter import Starter
    from stream.models.video_depth_anything.network import VideoDepthAnything
    from stream.models.zipdepth.network import ZipDepth

    return {
        "starter": Starter,
        "depth_anything": DepthAnything,
        "depth_anything_3": Monocular,
        "depth_anything_3_any_view": AnyView,
        "video_depth_anything": VideoDepthAnything,
        "moge": Moge,
        "efficientnet_lite3": lambda: Midas(
            EfficientNetLite3(), channels=(64, 128, 256, 512), head=(64, 32), align_corners=False
        ),
        "levit": lambda: Midas(Levit(), before_head=stem_transpose(), head=(64, 8)),
        "zipdepth": ZipDepth,
        "zoe_depth_anything": ZoeDepthAnything,
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
