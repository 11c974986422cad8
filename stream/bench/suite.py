"""From what was asked for to everything measured.

Invariant: a model whose weights are not here is measured with made-up ones, and that is said.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from stream.bench import baseline as plain
from stream.bench import network as bare
from stream.bench import pipeline as whole
from stream.bench.clip import write_clip
from stream.bench.report import Results
from stream.bench.synthetic_weights import stand_in
from stream.errors import UsageError
from stream.frames import Frame
from stream.infer.backends.inductor import missing_tool
from stream.infer.device import bf16_is_faster, resolve_device
from stream.infer.engine import Engine
from stream.infer.executor import without_pool
from stream.models import registry
from stream.models.registry import LoadedModel
from stream.models.spec import ModelSpec
from stream.models.weights.locate import search

_CALIBRATION = 32
_BUDGET_S = 20.0
"""For each run of the pipeline and of the plain loop."""
_MOST_FRAMES, _FEWEST_FRAMES = 600, 6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        models: NAME or NAME=FILE.
        size_hw: of the clip.
        backends, precisions: empty for what is here.
        parts: of "bare", "whole" and "plain".
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
    weights_dir: Path | None = None


def run(plan: Plan, *, say: Callable[[str], None]) -> Results:
    """Measure everything; takes half a minute for each model and more for slow ones.

    Raises:
        UsageError: an unknown model, or options that are not possible.
    """
    wanted = [_Wanted.parse(text, plan.weights_dir) for text in plan.models]
    results = Results(settings={key: str(value) for key, value in vars(plan).items()})
    with tempfile.TemporaryDirectory(prefix="depthstream-bench-") as temporary:
        folder = Path(temporary)
        clip = folder / "clip.mp4"
        write_clip(clip, plan.size_hw, _MOST_FRAMES // 2)
        frames = _frames(clip)
        for one in wanted:
            _measure_model(plan, one, clip, frames, results, say)
    return results


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    spec: ModelSpec
    weights: Path | None
    weights_dir: Path | None

    @classmethod
    def parse(cls, text: str, weights_dir: Path | None) -> "_Wanted":
        name, _, file = text.partition("=")
        return cls(spec=registry.find(name), weights=Path(file) if file else None, weights_dir=weights_dir)

    @property
    def is_here(self) -> bool:
        return self.weights is not None or search(self.spec, weights_dir=self.weights_dir) is not None

    def loaded(self, *, merge_norms: bool = True) -> LoadedModel:
        with without_pool():
            if not self.is_here:
                return stand_in(self.spec, merge_norms=merge_norms)
            return registry.load(
                self.spec, weights=self.weights, weights_dir=self.weights_dir, offline=True, merge_norms=merge_norms
            )


def _frames(clip: Path) -> list[Frame]:
    from stream.capture.video.file import VideoSource

    source = VideoSource(clip)
    try:
        return [frame for frame, _ in zip(source, range(_CALIBRATION), strict=False)]
    finally:
        source.close()


def _measure_model(
    plan: Plan,
    wanted: _Wanted,
    clip: Path,
    frames: Sequence[Frame],
    results: Results,
    say: Callable[[str], None],
) -> None:
    spec = wanted.spec
    if not wanted.is_here:
        results.stand_ins.append(spec.name)
        say(f"{spec.name}: its weights are not here, made-up ones are used; speed does not depend on them")
    device = resolve_device(plan.device, spec)
    backends = list(plan.backends) or _backends(device, spec)
    precisions = list(plan.precisions) or _precisions(device, spec)
    model = wanted.loaded()

    def told(row: bare.Row) -> None:
        speed = row.note if row.timing is None else f"{1000 * row.timing.median_s:.1f} ms"
        say(f"{row.model} {row.backend} {row.precision} batch {row.batch}: {speed}")

    if "bare" in plan.parts:
        results.rows += bare.rows(
            model, frames, device=plan.device, backends=backends, precisions=precisions,
            input_sizes=plan.input_sizes, batches=plan.batches, threads=plan.threads, on_row=told,
        )  # fmt: skip
    made: list[whole.Whole] = []
    if "whole" in plan.parts:
        combinations = [(b, p) for b in backends for p in precisions if _is_possible(results, spec, b, p)]
        for backend, precision in combinations:

            def engine(loaded: LoadedModel, backend: str = backend, precision: str = precision) -> Engine:
                return Engine(
                    loaded, device=plan.device, backend=backend, precision=precision, threads=plan.threads,
                    batch=plan.batches[0], input_size=plan.input_sizes[0], calibration=lambda: frames,
                )  # fmt: skip

            count = _count(results, spec, backend, precision)
            found = whole.measure(
                model, clip, clip.parent, make_engine=engine, layout=plan.layout, batch=plan.batches[0], frames=count
            )
            made.append(found)
            say(f"{spec.name} {backend} {precision}, whole pipeline: {found.fps:.2f} fps of {found.limit_fps:.2f}")
        results.wholes += made
    if "plain" in plan.parts and device.type == "cpu" and registry.runtime_of(spec) == "torch":
        count = max(_FEWEST_FRAMES, min(whole_frames.frames for whole_frames in made) // 3 if made else 30)
        loop = plain.measure(
            wanted.loaded(merge_norms=False), clip, clip.parent, frames=count, layout=plan.layout,
            threads=plan.threads or torch.get_num_threads(), input_size=plan.input_sizes[0],
        )  # fmt: skip
        results.plains.append(loop)
        say(f"{spec.name}, plain loop: {loop.fps:.2f} fps")


def _is_possible(results: Results, spec: ModelSpec, backend: str, precision: str) -> bool:
    rows = [r for r in results.rows if (r.model, r.backend, r.precision) == (spec.name, backend, precision)]
    return not rows or any(row.fps is not None for row in rows)


def _count(results: Results, spec: ModelSpec, backend: str, precision: str) -> int:
    """Frames that take about `_BUDGET_S`."""
    known = [
        row.fps
        for row in results.rows
        if (row.model, row.backend, row.precision) == (spec.name, backend, precision) and row.fps is not None
    ]
    wanted = int(_BUDGET_S * known[0]) if known else 60
    return max(_FEWEST_FRAMES, min(wanted, _MOST_FRAMES // 2))


def _backends(device: torch.device, spec: ModelSpec) -> list[str]:
    """What is installed and worth measuring; `compile` takes minutes, and must be asked for."""
    if registry.runtime_of(spec) != "torch":
        return ["torch"]
    found = ["torch"]
    if device.type == "cpu" and find_spec("openvino"):
        found.append("openvino")
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        found.append("onnx")
    if device.type == "cuda" and missing_tool(device) is None:
        found.append("compile")
    return found


def _precisions(device: torch.device, spec: ModelSpec) -> list[str]:
    if device.type == "cpu":
        return ["fp32", "bf16"] if spec.bf16_on_cpu and bf16_is_faster() else ["fp32"]
    return [name for name in ("fp32", "fp16", "bf16") if name in spec.precisions]


def parse_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` → (height, width).

    Raises:
        UsageError: it is not, or a side is odd or beyond 16 to 8192.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"{text!r} is no size", where="--size", allowed="WIDTHxHEIGHT, such as 640x480")
    sides = int(height), int(width)
    if not all(16 <= side <= 8192 and side % 2 == 0 for side in sides):
        raise UsageError(f"{text} cannot be encoded", where="--size", allowed="even sides of 16 to 8192")
    return sides
