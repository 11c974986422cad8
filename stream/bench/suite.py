"""Runs the requested benchmarks.

Invariant: a model whose weights are not installed is measured with synthetic ones, and the results say so.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import torch

from stream.bench import LATENCY, QUALITY, baseline, latency, network, pipeline, quality, steadiness
from stream.bench.clip import write_clip
from stream.bench.load import QUIET_CORES, beside
from stream.bench.report import Results
from stream.bench.synthetic_weights import with_synthetic_weights
from stream.errors import UsageError
from stream.files import expanded
from stream.frames import DepthKind, Frame
from stream.infer.backends.inductor import missing_tool
from stream.infer.backends.int8 import CALIBRATION_IMAGES
from stream.infer.device import bf16_is_faster, hardware_id, resolve_device
from stream.infer.engine import Engine
from stream.infer.executor import without_pool
from stream.models import registry
from stream.models.kinds import KINDS
from stream.models.registry import LoadedModel
from stream.models.spec import ModelSpec
from stream.models.weights.locate import search
from stream.notes import note

_BUDGET_S = 20.0
"""Duration of each run of the pipeline."""
_CLIP_FRAMES = 300
_MIN_FRAMES = 6


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure.

    Attributes:
        models: NAME or NAME=FILE.
        size_hw: (height, width) of the clip.
        backends, precisions: empty for those that are available on this machine.
        input_sizes, batches: the pipeline uses the first one.
        beside: busy processes beside which the pipelines are measured once more; 0 for none.
        parts: some of `bench.PARTS`, `QUALITY` and `LATENCY`.
        truths: photos with their measured depth, for `QUALITY`.
        kind, max_depth_m: of the models with a FILE, see `registry.load`.
    """

    models: Sequence[str]
    size_hw: tuple[int, int]
    backends: Sequence[str]
    precisions: Sequence[str]
    input_sizes: Sequence[int | None]
    batches: Sequence[int]
    device: str
    threads: int | None
    layout: str
    parts: Sequence[str]
    beside: int = 0
    truths: quality.Truths | None = None
    weights_dir: Path | None = None
    kind: DepthKind | None = None
    max_depth_m: float | None = None


def run(options: BenchOptions) -> Results:
    """Measure everything; takes half a minute per model, and longer for slow models. Each result is noted.

    Raises:
        UsageError: a model is unknown, or an option is not possible.
    """
    models = [_Model.parse(text, options) for text in options.models]
    if options.truths is not None:
        options.truths.check()
    displays = latency.possible_displays() if LATENCY in options.parts else []
    results = Results(settings={key: str(value) for key, value in vars(options).items()})
    with tempfile.TemporaryDirectory(prefix="depthstream-bench-") as temporary:
        folder = Path(temporary)
        clip = folder / "clip.mp4"
        write_clip(clip, options.size_hw, _CLIP_FRAMES)
        frames = _frames(clip)
        for model in models:
            _measure_model(options, model, clip, frames, results)
        for model in models:
            _measure_latency(options, model, displays, results)
    return results


@dataclass(frozen=True, kw_only=True)
class _Model:
    spec: ModelSpec
    weights: Path | None
    weights_dir: Path | None
    kind: DepthKind | None
    max_depth_m: float | None

    @classmethod
    def parse(cls, text: str, options: BenchOptions) -> "_Model":
        name, _, file = text.partition("=")
        return cls(
            spec=registry.find(name),
            weights=Path(expanded(file)) if file else None,
            weights_dir=options.weights_dir,
            kind=options.kind if file else None,
            max_depth_m=options.max_depth_m if file else None,
        )

    @property
    def has_weights(self) -> bool:
        return self.weights is not None or search(self.spec, weights_dir=self.weights_dir) is not None

    @property
    def arguments(self) -> list[str]:
        """What `depthstream run` takes to find the same weights."""
        found = [] if self.weights is None else ["--weights", os.path.abspath(self.weights)]
        found += [] if self.weights_dir is None else ["--weights-dir", os.path.abspath(self.weights_dir)]
        found += [] if self.max_depth_m is None else ["--max-depth", str(self.max_depth_m)]
        return found + [word for name, kind in KINDS.items() if kind is self.kind for word in ("--kind", name)]

    def loaded(self, *, merge_norms: bool = True) -> LoadedModel:
        with without_pool():
            if not self.has_weights:
                return with_synthetic_weights(self.spec, merge_norms=merge_norms)
            return registry.load(
                self.spec,
                weights=self.weights,
                weights_dir=self.weights_dir,
                offline=True,
                merge_norms=merge_norms,
                kind=self.kind,
                max_depth_m=self.max_depth_m,
            )


def _frames(clip: Path) -> list[Frame]:
    from stream.capture.video.file import VideoSource

    source = VideoSource(clip)
    try:
        return [frame for frame, _ in zip(source, range(CALIBRATION_IMAGES), strict=False)]
    finally:
        source.close()


def _measure_model(
    options: BenchOptions,
    chosen: _Model,
    clip: Path,
    frames: Sequence[Frame],
    results: Results,
) -> None:
    spec = chosen.spec
    if not chosen.has_weights:
        results.synthetic_weights.append(spec.name)
        note(f"{spec.name}: the weights are not installed; using synthetic ones, which does not affect speed")
    device = resolve_device(options.device, spec)
    results.devices[spec.name] = hardware_id(device) if device.type == "cuda" else device.type
    backends = list(options.backends) or _backends(device, spec)
    precisions = list(options.precisions) or _precisions(device, spec)
    model = chosen.loaded()

    def report(result: network.NetworkResult) -> None:
        speed = result.note if result.timing is None else f"{1000 * result.timing.median_s:.1f} ms"
        note(f"{result.model} {result.backend} {result.precision} batch {result.batch}: {speed}")

    if "network" in options.parts:
        results.networks += network.measure(
            model, frames, device=options.device, backends=backends, precisions=precisions,
            input_sizes=options.input_sizes, batches=options.batches, threads=options.threads, on_result=report,
        )  # fmt: skip
    pipelines: list[pipeline.PipelineResult] = []
    if "pipeline" in options.parts:
        combinations = [(b, p) for b in backends for p in precisions if _is_possible(results, spec, b, p)]
        for backend, precision in combinations:

            def engine(loaded: LoadedModel, backend: str = backend, precision: str = precision) -> Engine:
                return Engine(
                    loaded, device=options.device, backend=backend, precision=precision, threads=options.threads,
                    batch=options.batches[0], input_size=options.input_sizes[0], calibration=lambda: frames,
                )  # fmt: skip

            count = _count(results, spec, backend, precision)
            measure = partial(
                pipeline.measure, model, clip, clip.parent, make_engine=engine, layout=options.layout,
                batch=options.batches[0], frames=count,
            )  # fmt: skip
            measured = measure()
            pipelines.append(measured)
            most = max(measured.others_before, measured.others)
            if most > QUIET_CORES:
                note(f"other programs used {most:.1f} of {measured.cores} cores: this machine is not idle")
            if options.beside:
                with beside(options.beside):
                    results.loaded.append(measure(beside=options.beside))
            speed = f"{measured.fps:.2f} fps of at most {measured.limit_fps:.2f}"
            note(f"{spec.name} {backend} {precision}, pipeline: {speed}")
        results.pipelines += pipelines
    if "baseline" in options.parts and device.type == "cpu" and registry.runtime_of(spec) == "torch":
        count = max(_MIN_FRAMES, min(one.frames for one in pipelines) // 3 if pipelines else 30)
        loop = baseline.measure(
            chosen.loaded(merge_norms=False), clip, clip.parent, frames=count, layout=options.layout,
            threads=options.threads or torch.get_num_threads(), input_size=options.input_sizes[0],
        )  # fmt: skip
        results.baselines.append(loop)
        note(f"{spec.name}, baseline: {loop.fps:.2f} fps")
    possible = [(b, p) for b in backends for p in precisions if _is_possible(results, spec, b, p)]
    if "steadiness" in options.parts and chosen.has_weights and possible:  # synthetic weights see no depth
        backend, precision = possible[0]
        used = Engine(
            chosen.loaded(), device=options.device, backend=backend, precision=precision, threads=options.threads,
            input_size=options.input_sizes[0], calibration=lambda: frames,
        )  # fmt: skip
        if (change := steadiness.measure(used)) is not None:
            results.steadiness.append(change)

    if QUALITY in options.parts and options.truths is not None:
        _measure_quality(options, chosen, possible, frames, results)


def _measure_quality(
    options: BenchOptions,
    chosen: _Model,
    possible: Sequence[tuple[str, str]],
    frames: Sequence[Frame],
    results: Results,
) -> None:
    assert options.truths is not None
    if not chosen.has_weights:
        note(f"{chosen.spec.name}: synthetic weights see no depth, so there is no quality")
        return
    for input_size, (backend, precision) in product(options.input_sizes, possible):
        engine = Engine(
            chosen.loaded(), device=options.device, backend=backend, precision=precision, threads=options.threads,
            input_size=input_size, calibration=lambda: frames,
        )  # fmt: skip
        result = quality.measure(engine, options.truths, input_size=input_size)
        results.qualities.append(result)
        note(f"{result.model} {backend} {precision} {result.size}: AbsRel {result.abs_rel:.4f}, {result.fps:.2f} fps")


def _measure_latency(options: BenchOptions, chosen: _Model, displays: Sequence[str], results: Results) -> None:
    name = chosen.spec.name
    if displays and not chosen.has_weights:
        note(f"{name}: the weights are not installed, so a run cannot load it: no latency")
        return
    fixed = ["--device", options.device, *chosen.arguments]
    if options.threads is not None:
        fixed += ["--threads", str(options.threads)]
    if options.input_sizes[0] is not None:
        fixed += ["--input-size", str(options.input_sizes[0])]
    for backend, precision in product(options.backends or ("auto",), options.precisions or ("auto",)):
        arguments = [*fixed, "--backend", backend, "--precision", precision]
        for display in displays:
            result = latency.measure(name, display, size_hw=options.size_hw, arguments=arguments)
            results.latencies.append(result)
            note(f"{name} {result.backend} {result.precision}, {display}: {1000 * result.p50_s:.0f} ms")


def _is_possible(results: Results, spec: ModelSpec, backend: str, precision: str) -> bool:
    measured = _networks(results, spec, backend, precision)
    return not measured or any(result.fps is not None for result in measured)


def _count(results: Results, spec: ModelSpec, backend: str, precision: str) -> int:
    """Number of frames that take about `_BUDGET_S`."""
    rates = [one.fps for one in _networks(results, spec, backend, precision) if one.fps is not None]
    wanted = int(_BUDGET_S * rates[0]) if rates else 60
    return max(_MIN_FRAMES, min(wanted, _CLIP_FRAMES))


def _networks(results: Results, spec: ModelSpec, backend: str, precision: str) -> list[network.NetworkResult]:
    wanted = spec.name, backend, precision
    return [one for one in results.networks if (one.model, one.backend, one.precision) == wanted]


def _backends(device: torch.device, spec: ModelSpec) -> list[str]:
    """Installed backends that are worth measuring; on a CPU `compile` takes minutes and must be requested by name."""
    if registry.runtime_of(spec) != "torch":
        return ["torch"]
    found = ["torch"]
    if device.type == "cpu" and find_spec("openvino"):
        found.append("openvino")
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        found.append("onnx")
    if device.type == "cuda" and missing_tool(device) is None:
        found.append("compile")
    return [name for name in found if name in spec.backends]


def _precisions(device: torch.device, spec: ModelSpec) -> list[str]:
    if device.type == "cpu":
        return ["fp32", "bf16"] if spec.bf16_on_cpu and bf16_is_faster() else ["fp32"]
    return [name for name in ("fp32", "fp16", "bf16") if name in spec.precisions]


def parse_size(text: str) -> tuple[int, int]:
    """Parse `WIDTHxHEIGHT`; returns (height, width).

    Raises:
        UsageError: the text is something else, or a side is odd or not from 16 to 8192.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"{text!r} is not a size", where="--size", allowed="WIDTHxHEIGHT, such as 640x480")
    sides = int(height), int(width)
    if not all(16 <= side <= 8192 and side % 2 == 0 for side in sides):
        raise UsageError(f"{text} cannot be encoded", where="--size", allowed="even sides of 16 to 8192")
    return sides
