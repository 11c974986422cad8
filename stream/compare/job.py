"""Several models on the same source: labelled sheets, a contact sheet, and numbers for how well they agree.

Invariant: all panes of a sheet show the same frame. Models that do not fit into memory together run one after the
other, and their maps are kept on the disk in between.
"""

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.capture.base import Source
from stream.compare.agreement import agreement
from stream.compare.inference import MultiModelInference, PrecomputedInference, precompute_maps
from stream.compare.outputs import AgreementSink, ContactSheetSink
from stream.compare.sheet import MAX_WIDTH_PX, SheetRenderer
from stream.config import Config
from stream.errors import ConfigError, OutputError, UsageError
from stream.files import check_partial
from stream.frames import ComparedDepth, Depth, DepthKind, SourceInfo, SourceKind
from stream.jobs.build import build_range, build_video_sink
from stream.jobs.models import find_weights, load_engine
from stream.jobs.plan import OutputKind, output_kind
from stream.jobs.report import Report
from stream.jobs.run import supervise
from stream.jobs.source import open_config_source
from stream.models.spec import ModelSpec
from stream.notes import Notes, OnNote, collected, note
from stream.pipeline.runner import Pipeline, ProgressHook, signals
from stream.render.range import displayed
from stream.sinks.base import Sink
from stream.sinks.images import ImageSink
from stream.sinks.naming import FrameNames, check_output

if TYPE_CHECKING:
    import torch

    from stream.infer.engine import Engine
    from stream.models.weights.fetch import OnTransfer

CONTACT_SHEET, NUMBERS = "contact_sheet.png", "compare.json"
_RESERVED = re.compile(r"contact_sheet(_\d+)?|compare", re.IGNORECASE)
_BYTES_PER_PARAMETER = 4
_SHARE_OF_MEMORY = 0.5
"""Share of the free memory that the weights of all models may take; the rest is for activations."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model to compare, and its weights file if it is not the published one."""

    spec: ModelSpec
    weights: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """Parse `NAME` or `NAME=FILE`. Raises `UsageError` for an unknown name."""
        from stream.models import registry

        name, _, file = text.partition("=")
        return cls(spec=registry.find(name), weights=Path(file) if file else None)


def compare_config(
    config: Config,
    models: Sequence[str],
    *,
    on_progress: ProgressHook | None = None,
    on_note: OnNote | None = None,
    on_download: "OnTransfer | None" = None,
) -> Report:
    """Compare `models` on `config.source`.

    Images give a folder with a sheet for each image, `contact_sheet.png` and `compare.json`. A video gives a video of
    sheets, and the numbers in NAME.json in the same folder.

    Args:
        config: as for a run; `model.name`, `model.weights`, `output.save` and `render.layout` have no effect.
        models: two or more of `NAME` or `NAME=FILE`; the others are aligned to the first.
        on_progress, on_note, on_download: as for `run_config`.

    Raises:
        StreamError: what went wrong, see `stream.errors`.
    """
    from stream.models import registry

    started = time.monotonic()
    candidates = _candidates(models)
    names = [candidate.spec.name for candidate in candidates]
    with collected(Notes(on_note)) as notes, ExitStack() as resources, ExitStack() as unless_running:
        if config.inference.backend in ("auto", "torch"):
            for candidate in candidates:
                registry.preload(candidate.spec)
        source = open_config_source(config)
        unless_running.callback(source.close)
        if source.info.is_live:
            raise UsageError("a live source cannot be compared", where=source.info.name, hint="record it first")
        output = config.output.path or _default_output(source.info)
        kind = _output_kind(output, source.info)
        sinks = _sinks(config, source, output, kind, names)
        device, threads = _device_and_threads(config, candidates)

        def load(candidate: Candidate) -> "Engine":
            wanted = _config_of(config, candidate, threads)
            return load_engine(wanted, exact=True, on_download=on_download)

        def keep(engine: "Engine") -> "Engine":
            unless_running.callback(engine.close)
            return engine

        renderer = SheetRenderer(
            names,
            colormap=config.render.colormap,
            range_policy=build_range(config, source.info, candidates[0].spec.output),
            max_width=MAX_WIDTH_PX if kind is OutputKind.VIDEO else None,
        )
        with signals(_raise_interrupt):  # so that a terminated program removes its temporary files too
            if _fit_into_memory(candidates, device):
                engines = [keep(load(candidate)) for candidate in candidates]
                inference = MultiModelInference(engines)
            else:
                note("the models do not fit into memory together; running them one after the other")
                for candidate in candidates:  # find or download all weights before hours of work
                    find_weights(_config_of(config, candidate, threads), on_download=on_download)
                folder = tempfile.TemporaryDirectory(prefix="depthstream-compare-", ignore_cleanup_errors=True)
                loaders = {candidate.spec.name: partial(load, candidate) for candidate in candidates[1:]}
                folders = precompute_maps(config, source.info, loaders, renderer, Path(resources.enter_context(folder)))
                engines = [keep(load(candidates[0]))]
                inference = PrecomputedInference(engines[0], folders)
        pipeline = Pipeline(source, inference, renderer, sinks)
        unless_running.pop_all()
        model = " | ".join(names)
        return supervise(pipeline, engines, config, started=started, notes=notes, on_progress=on_progress, model=model)


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


def _candidates(models: Sequence[str]) -> list[Candidate]:
    found = [Candidate.parse(text) for text in models]
    if len(found) < 2:
        raise UsageError("a comparison needs two models or more", where="-m", hint="e.g. -m starter -m dav2-small")
    if len({candidate.spec.name for candidate in found}) < len(found):
        raise UsageError("the same model is named twice", where="-m")
    return found


def _config_of(config: Config, candidate: Candidate, threads: int) -> Config:
    model = config.model.model_copy(update={"name": candidate.spec.name, "weights": candidate.weights})
    inference = config.inference.model_copy(update={"threads": threads})
    return config.model_copy(update={"model": model, "inference": inference})


def _device_and_threads(config: Config, candidates: Sequence[Candidate]) -> tuple["torch.device", int]:
    """The device that the models run on, and the number of threads: as many as the largest model would use alone.

    Raises:
        UsageError: a model does not support the device, precision or input size.
    """
    from stream.infer.device import resolve_device, resolve_precision, resolve_threads
    from stream.infer.geometry import network_size

    asked, threads = config.inference, 1
    for candidate in candidates:
        spec = candidate.spec
        device = resolve_device(asked.device, spec)
        resolve_precision(asked.precision, device, spec)
        network_size(spec.input, spec.input.size_hw, input_size=config.model.input_size, square=config.model.square)
        threads = max(threads, resolve_threads(asked.threads, device, spec))
    return device, threads


def _default_output(info: SourceInfo) -> Path:
    if info.kind is SourceKind.STILLS:
        source = Path(info.name)
        if source.is_dir():
            return Path(f"{source.resolve().name}_compare")
        return Path(f"{source.stem}_compare" if source.is_file() else "pictures_compare")
    return Path(f"{Path(info.name).stem}_compare.mp4")


def _output_kind(output: Path, info: SourceInfo) -> OutputKind:
    """The kind of output for this source. Raises `ConfigError` if `output` or an input name does not fit."""
    kind = output_kind(output)
    stills = info.kind is SourceKind.STILLS
    if stills and kind is not OutputKind.FOLDER:
        raise ConfigError("a comparison of images is a folder", where=str(output), hint="name a folder with -o")
    if not stills and kind is not OutputKind.VIDEO:
        raise ConfigError("a comparison of videos is a video", where=str(output), hint="name a video (.mp4) with -o")
    names = FrameNames(info.names)
    if taken := sorted(name for name in info.names if _RESERVED.fullmatch(names.stem_of(name, 0))):
        what = f"the output of {taken[0]} would have the name of the contact sheet or the numbers"
        raise ConfigError(what, where=info.name, hint="rename the input")
    return kind


def _sinks(config: Config, source: Source, output: Path, kind: OutputKind, names: Sequence[str]) -> list[Sink]:
    overwrite = config.output.overwrite
    info = source.info
    check_output(output, overwrite=overwrite, inputs=[Path(info.name), *info.files])
    numbers = output.with_suffix(".json") if kind is OutputKind.VIDEO else output / NUMBERS
    taken = {path.resolve() for path in (output, numbers, output / CONTACT_SHEET)}
    if config.output.report is not None and config.output.report.resolve() in taken:
        raise OutputError(
            "is an output of this run", where=f"--report {config.output.report}", hint="choose another name"
        )
    heading = {"source": info.name, "models": list(names), "definitions": _DEFINITIONS}
    if kind is OutputKind.VIDEO:
        check_partial(output, overwrite=overwrite)
        video = build_video_sink(config, output)
        check_output(numbers, overwrite=overwrite, inputs=info.files)
        check_partial(numbers, overwrite=overwrite)
        return [video, AgreementSink(numbers, heading=heading, measure=_measure(names), overwrite=overwrite)]
    image_format = "png" if config.output.picture == "none" else config.output.picture
    return [
        ImageSink(output, format=image_format, overwrite=overwrite, names=info.names),
        ContactSheetSink(output / CONTACT_SHEET, overwrite=overwrite),
        AgreementSink(numbers, heading=heading, measure=_measure(names), overwrite=overwrite),
    ]


_DEFINITIONS = {
    "A | B": "B is aligned to A (the reference) by a least-squares scale and shift in disparity",
    "abs_rel": "mean |z_B - z_A| / z_A, z = 1/disparity; 0 is best",
    "delta_1_25": "share of pixels with max(z_A/z_B, z_B/z_A) < 1.25; 1 is best",
    "spearman": "rank correlation of the disparities; 1 is best, negative means opposite polarity",
    "relative references": "their 1st and 99th percentile of disparity are set to 0.1 and 1, so the numbers compare "
    "pairs of models with each other, not with benchmarks",
}


def _measure(names: Sequence[str]) -> Callable[[Depth], dict[str, Any]]:
    def measure(depth: Depth) -> dict[str, Any]:
        if not isinstance(depth, ComparedDepth):
            raise TypeError(f"a comparison needs ComparedDepth, not {type(depth).__name__}")
        maps = {name: (displayed(one), one.kind) for name, one in zip(names, depth.all, strict=True)}
        return {
            f"{a} | {b}": asdict(agreement(maps[b][0], maps[a][0], is_metric=maps[a][1] is DepthKind.METRIC_DEPTH))
            for a, b in combinations(names, 2)
        }

    return measure


def _fit_into_memory(candidates: Sequence[Candidate], device: "torch.device") -> bool:
    from stream.infer.device import free_memory_bytes

    free = free_memory_bytes(device)
    needed = sum(candidate.spec.parameters_m for candidate in candidates) * 1e6 * _BYTES_PER_PARAMETER
    return free is None or needed <= _SHARE_OF_MEMORY * free
