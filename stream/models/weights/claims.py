"""What a checkpoint says about itself: relative or metric depth, up to how many metres, which version.

Files of one architecture and size have the same tensors, by key and shape. A metric one in a relative model gives
inverted depth, and one of V1 in V2 a poor one; nothing in the tensors shows it. What does show it: the published
sha256 (see `locate`), the `config.json` that Hugging Face puts beside the file, the metadata of a safetensors file, and
the names under which the authors publish. They are asked in this order. The user's `--kind` goes before all.

Invariant: a claim is made only by what was written about this file; a file without any claims nothing, and what is
assumed then is noted. A name of the user's own is no claim: it only changes the note.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stream.errors import ModelError
from stream.files import read_json, real
from stream.frames import DepthKind
from stream.models import catalog
from stream.models.kinds import complete, has_scale, meant
from stream.models.spec import ModelSpec
from stream.notes import note

_GENERIC = frozenset({"model", "pytorch_model", "diffusion_pytorch_model", "model_state"})
"""Stems that say nothing, so the folder's name counts."""
_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".bin", ".ckpt"})
_MOST_HEADER_BYTES = 10_000_000
_PUBLISHED = re.compile(r"depth[_-]anything[_-](v2[_-])?metric[_-]", re.IGNORECASE)
"""The authors' names of metric checkpoints; without `v2`, those of ZoeDepth's architecture, of which none has twins."""
_PLACES = {"hypersim": 20.0, "indoor": 20.0, "vkitti": 80.0, "outdoor": 80.0}
"""Words in the names of the published metric checkpoints, and their maximum depth in metres."""
_COPY = re.compile(r"([ _.-](\d+|fp16|fp32|bf16|half|copy)| ?\(\d+\))$", re.IGNORECASE)
"""What browsers and converters append to a name."""
_HUB_FOLDER = re.compile(r"models--.*--(.+)")
"""A repository's folder in the cache of Hugging Face; the file lies in `snapshots/REVISION` in it."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is said about a checkpoint.

    Attributes:
        output: what its values mean.
        max_depth_m: the largest depth; None if that is not said.
        source: who says so: the name of a file, say.
        remedy: what to do if it is wrong.
        taps: the blocks that feed the head, which differ between V1 and V2; None if that is not said.
        models: the models whose file it can be; None if that is not said.
    """

    output: DepthKind
    max_depth_m: float | None
    source: str
    remedy: str
    taps: tuple[int, ...] | None = None
    models: tuple[str, ...] | None = None


def twins(spec: ModelSpec) -> list[ModelSpec]:
    """The rows whose files have the same tensors, the row itself among them: its architecture in its size.

    None where the architecture has only relative models, or only metric ones.
    """
    if not _is_ambiguous(spec):
        return []
    size = spec.architecture, spec.parameters_m
    return [row for row in catalog.MODELS if (row.architecture, row.parameters_m) == size]


def checked(
    spec: ModelSpec,
    path: Path,
    *,
    max_depth_m: float | None,
    kind: DepthKind | None = None,
    is_published: bool = False,
    tell: Callable[[str], None] = note,
) -> ModelSpec:
    """The row for this file: with the kind and the maximum depth that the user or the file states.

    Args:
        spec: the row that was chosen.
        path: its weights file.
        max_depth_m: `--max-depth`; None if it was not given.
        kind: `--kind`; None if it was not given.
        is_published: the file is the row's: by its sha256, or it was looked for as that and none is known.
        tell: called with each note, so that notes can wait until the file has proved to be one of weights.

    Raises:
        ModelError: the file is metric and the row relative, or the other way round, and the user does not say which;
            or it is of another version.
        UsageError: the user states a kind that needs a maximum depth, and none is stated.
    """
    claim: Claim | None = None
    if is_published:
        claim = _of_row(spec, "it is the published file", "")
    elif _is_ambiguous(spec) or kind is not None:
        claim = next(_claims(path, spec), None)
    output = kind or spec.output
    if claim is not None and claim.output is not output:
        if kind is None:
            wrong = "unit would be wrong" if spec.output is DepthKind.RELATIVE_DEPTH else "depth would be inverted"
            raise ModelError(
                f"is a {_class(claim.output)} model ({claim.source}), but {spec.name} is {_class(output)}: its {wrong}",
                where=str(path),
                hint=f"{_use(spec, claim)}if the file is {_class(output)}, {claim.remedy}",
            )
        although = f"although it gives {claim.output.quantity} ({claim.source})"
        tell(f"{path}: used as {kind.quantity} (--kind), {although}")
    if claim is not None and claim.taps not in (None, _taps_of(spec)):
        what = f"is not a file of {spec.name} ({claim.source}), but of another version or size with the same structure"
        raise ModelError(what, where=str(path), hint=f"{_use(spec, claim)}if it is one of {spec.name}, {claim.remedy}")
    if claim is None and kind is None and len(twins(spec)) > 1:
        for text in _assumption(spec, path):
            tell(text)
    if claim is None and (others := _other_versions(spec, output)):
        tell(
            f"{path}: assumed to be of the version of {spec.name}, for want of any information; a file of the other "
            f"one has the same tensors and needs -m {' or -m '.join(others)}"
        )
    is_scaled = output is DepthKind.METRIC_DEPTH and has_scale(spec)
    if max_depth_m is None and is_scaled and claim is not None and claim.max_depth_m is not None:
        if claim.max_depth_m != spec.max_depth_m:
            instead = "" if spec.max_depth_m is None else f" instead of {spec.max_depth_m:g} m"
            tell(f"{path}: depth up to {claim.max_depth_m:g} m ({claim.source}){instead}")
        max_depth_m = claim.max_depth_m
    return complete(meant(spec, kind=kind, max_depth_m=max_depth_m))


def _is_ambiguous(spec: ModelSpec) -> bool:
    """True if the architecture has relative and metric checkpoints."""
    return len({row.output for row in catalog.MODELS if row.architecture == spec.architecture}) > 1


def _class(output: DepthKind) -> str:
    return "metric" if output is DepthKind.METRIC_DEPTH else "relative"


def _other_versions(spec: ModelSpec, output: DepthKind) -> list[str]:
    """The models for `output` whose files have the tensors of this one, but whose networks use other blocks (taps)."""
    rows = [row for row in twins(spec) if row.output is output]
    others = {row.network: row.name for row in reversed(rows) if _taps_of(row) != _taps_of(spec)}
    return [row.name for row in rows if row.name in others.values()]


def _taps_of(row: ModelSpec) -> object:
    return dict(row.options).get("taps")


def _use(spec: ModelSpec, claim: Claim) -> str:
    """The beginning of a hint: the models to use instead of `spec`."""
    names = _fitting(spec, claim)
    return f"use -m {' or -m '.join(names)}; " if names else ""


def _fitting(spec: ModelSpec, claim: Claim) -> list[str]:
    if claim.models is not None:
        return list(claim.models)
    others = [
        row
        for row in twins(spec)
        if row.output is claim.output
        and claim.taps in (None, _taps_of(row))
        and (claim.taps is not None or _taps_of(row) == _taps_of(spec))
    ]
    exact = [row for row in others if claim.max_depth_m in (None, row.max_depth_m)] or others
    first = {row.network: row.name for row in reversed(exact)}  # of several files for one network
    return [row.name for row in exact if row.name in first.values()]


def _assumption(spec: ModelSpec, path: Path) -> Iterator[str]:
    """What is assumed about a file that says nothing, and how to say otherwise."""
    is_metric, words = spec.output is DepthKind.METRIC_DEPTH, _words(_name(path))
    is_called_relative, metric_words = "relative" in words, _metric_words(_name(path))
    other, says = ("relative", "--kind disparity") if is_metric else ("metric", "--kind metric --max-depth METRES")
    metres = f" up to {spec.max_depth_m:g} m" if spec.max_depth_m is not None else ""
    places = {_PLACES[word] for word in words if word in _PLACES} - {spec.max_depth_m}
    if against := ["relative"] * is_called_relative if is_metric else metric_words:
        what = f"has {' and '.join(against)} in its name; if it is a {other} model, its depth is inverted here"
        yield f"{path}: {what}: say so with {says}"
    elif is_metric and places:
        what = f"depth{metres}, although its name speaks of a file up to {max(places):g} m"
        yield f"{path}: {what}; if it is one, say so with --max-depth {max(places):g}"
    elif not (metric_words if is_metric else is_called_relative):
        what = f"assumed to give {spec.output.quantity}{metres} as {spec.name} does, for want of any information"
        yield f"{path}: {what}; if that is wrong, say so with {says}, or use -m with the file's own model"


def _claims(path: Path, spec: ModelSpec) -> Iterator[Claim]:
    config = _json(path.parent / "config.json") if _is_ambiguous(spec) and _is_alone(path) else {}
    if config.get("model_type") == "depth_anything":  # `relative` is the default of transformers' DepthAnythingConfig
        remedy = "correct depth_estimation_type in config.json"
        yield _claim({"depth_estimation_type": "relative", **config}, spec, "config.json", remedy)
    metadata = _metadata(path) if _is_ambiguous(spec) else {}
    if "depth_estimation_type" in metadata:
        yield _claim(metadata, spec, "its metadata", "save it without depth_estimation_type in its metadata")
    yield from _by_name(path, spec)


def _claim(says: Mapping[str, object], spec: ModelSpec, source: str, remedy: str) -> Claim:
    is_metric = says.get("depth_estimation_type") == "metric"
    outputs = (row.output for row in catalog.MODELS if row.architecture == spec.architecture)
    relative = next(output for output in outputs if output is not DepthKind.METRIC_DEPTH)
    try:
        metres = float(str(says.get("max_depth")))
    except ValueError:
        metres = 0.0
    max_depth_m = metres if is_metric and 0 < metres < 1e6 else None
    output = DepthKind.METRIC_DEPTH if is_metric else relative
    return Claim(output=output, max_depth_m=max_depth_m, source=source, remedy=remedy, taps=_taps(says))


def _taps(config: Mapping[str, object]) -> tuple[int, ...] | None:
    """The blocks that feed the head, from 0 on, by transformers' configuration, which counts from 1 on."""
    backbone = config.get("backbone_config")
    indices = backbone.get("out_indices") if isinstance(backbone, dict) else None
    if not isinstance(indices, list) or len(indices) != 4 or not all(type(index) is int for index in indices):
        return None
    return tuple(index - 1 for index in indices)


def _of_row(row: ModelSpec, source: str, remedy: str) -> Claim:
    taps = _taps_of(row)
    return Claim(
        output=row.output,
        max_depth_m=row.max_depth_m,
        source=source,
        remedy=remedy,
        taps=taps if isinstance(taps, tuple) else None,
        models=(row.name,),
    )


def _by_name(path: Path, spec: ModelSpec) -> Iterator[Claim]:
    """The claim of a name under which the authors publish."""
    name = _name(path)
    source, remedy = f"its name, {name}", f"rename the {'file' if name == path.stem else 'folder'}"
    rows = [row for row in catalog.MODELS if row.architecture == spec.architecture]
    for known in (name, _COPY.sub("", name)):
        for row in rows:
            if known.lower() in _published_names(row):
                yield _of_row(row, source, remedy)
    if (published := _PUBLISHED.match(name)) and _metric_words(name):
        metres = next((metres for word, metres in _PLACES.items() if word in _words(name)), None)
        others = (row.name for row in catalog.MODELS if name.lower() in _published_names(row))
        models = None if published[1] else tuple(others)
        yield Claim(output=DepthKind.METRIC_DEPTH, max_depth_m=metres, source=source, remedy=remedy, models=models)


def _published_names(row: ModelSpec) -> set[str]:
    """Names of a row's file and of its folders on Hugging Face, in lower case."""
    stem, names = Path(row.weights.file).stem, {row.name, *(alias.rpartition("/")[2] for alias in row.aliases)}
    repository = row.weights.url.split("/")[4] if row.weights.url and "/resolve/" in row.weights.url else ""
    folder = {repository} if stem.lower() in _GENERIC and repository else set[str]()
    return {name.lower() for name in names | folder | ({stem} - _GENERIC)}


def _name(path: Path) -> str:
    """The name, or the repository's or folder's name if the file has one that says nothing."""
    if path.stem.lower() not in _GENERIC:
        return path.stem
    for folders in (path.absolute().parts, real(path).parts):
        if found := [match[1] for part in folders if (match := _HUB_FOLDER.fullmatch(part))]:
            return found[-1]
    return real(path).parent.name


def _words(name: str) -> list[str]:
    return re.split("[^a-z0-9]+", name.lower())


def _metric_words(name: str) -> list[str]:
    """The words of a name that speak of metric depth; none in the name of a file that is called relative."""
    words = _words(name)
    return [] if "relative" in words else [word for word in words if word in ("metric", "hypersim", "vkitti")]


def _is_alone(path: Path) -> bool:
    """True if a `config.json` beside the file is about it: it has Hugging Face's name for it, or is the only file."""
    if path.stem.lower() in _GENERIC:
        return True
    try:
        return [other for other in path.parent.iterdir() if other.suffix in _SUFFIXES] == [path]
    except OSError:  # the folder may be searched, but not listed
        return False


def _json(path: Path) -> dict[str, object]:
    content = read_json(path, most_bytes=_MOST_HEADER_BYTES)
    return content if isinstance(content, dict) else {}


def _metadata(path: Path) -> Mapping[str, object]:
    """The metadata of a safetensors file; empty for another file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size < _MOST_HEADER_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}
