"""Results as tables, JSON and a plot.

Invariant: the JSON states the machine, the versions and the settings of every number.
"""

import io
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stream.bench.baseline import BaselineResult
from stream.bench.latency import LatencyResult
from stream.bench.network import NetworkResult
from stream.bench.pipeline import PipelineResult
from stream.bench.quality import QualityResult
from stream.bench.steadiness import SteadinessResult
from stream.errors import MissingExtraError, SinkError
from stream.files import as_sink_error, json_text, write_file
from stream.machine import processor_name, system_name, usable_cores
from stream.version import __version__

_PACKAGES = ("torch", "numpy", "opencv-python", "av", "openvino", "onnxruntime", "nncf")


@dataclass(kw_only=True)
class Results:
    """All results of one `depthstream bench`.

    Attributes:
        settings: the options.
        loaded: the pipelines once more, beside busy processes; in the order of `pipelines`.
        synthetic_weights: models that were measured with synthetic weights, because the real ones are not installed.
        devices: where each model ran.
    """

    settings: dict[str, Any]
    networks: list[NetworkResult] = field(default_factory=list)
    pipelines: list[PipelineResult] = field(default_factory=list)
    loaded: list[PipelineResult] = field(default_factory=list)
    baselines: list[BaselineResult] = field(default_factory=list)
    steadiness: list[SteadinessResult] = field(default_factory=list)
    qualities: list[QualityResult] = field(default_factory=list)
    latencies: list[LatencyResult] = field(default_factory=list)
    synthetic_weights: list[str] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable values."""
        return {
            "machine": machine(),
            "versions": versions(),
            "settings": self.settings,
            "synthetic_weights": self.synthetic_weights,
            "devices": self.devices,
            "network": [result.to_dict() for result in self.networks],
            "pipeline": [result.to_dict() for result in self.pipelines],
            "loaded": [result.to_dict() for result in self.loaded],
            "baseline": [result.to_dict() for result in self.baselines],
            "steadiness": [result.to_dict() for result in self.steadiness],
            "quality": [result.to_dict() for result in self.qualities],
            "latency": [result.to_dict() for result in self.latencies],
        }

    def speedup(self, pipeline: PipelineResult) -> float | None:
        """The pipeline's rate ÷ the baseline's with the same model; None if that was not measured."""
        rates = [baseline.fps for baseline in self.baselines if baseline.model == pipeline.model]
        return pipeline.fps / rates[-1] if rates else None


def machine() -> dict[str, Any]:
    """Processor, usable cores and system."""
    return {"processor": processor_name(), "cores": usable_cores(), "system": system_name()}


def versions() -> dict[str, str]:
    """Versions of this program, Python and the packages that compute."""
    found = {"depthstream": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def save(results: Results, path: Path) -> None:
    """Write the results as JSON, atomically.

    Raises:
        SinkError: it cannot be written.
    """
    text = json_text(results.to_dict(), indent=1)
    with as_sink_error(path):
        write_file(path, f"{text}\n".encode(), may_be_pipe=True)


NETWORK_HEADER = (
    "model", "backend", "precision", "input", "batch", "ms a batch", "quartiles", "fps", "error (rms/std)"
)  # fmt: skip
PIPELINE_HEADER = (
    "model", "backend", "precision", "fps", "limit", "efficiency", "network fps", "CPU ms a frame", "× baseline",
    "others",
)  # fmt: skip

QUALITY_HEADER = (
    "model", "backend", "precision", "input", "photos", "AbsRel", "δ1", "ordinal", "flicker", "ms a photo", "fps"
)  # fmt: skip
LATENCY_HEADER = (
    "model", "backend", "precision", "display", "shown", "fps", "ms, median", "95 %", "worst", "program: median",
    "95 %", "first picture",
)  # fmt: skip


def network_line(result: NetworkResult) -> tuple[str, ...]:
    """Cells of `NETWORK_HEADER`'s table."""
    what = (result.model, result.backend, result.precision, result.size, str(result.batch))
    if result.timing is None or result.fps is None:
        return (*what, "", "", "", result.note)
    spread = f"{1000 * result.timing.low_s:.1f} to {1000 * result.timing.high_s:.1f}"
    rms = "" if result.rms is None else f"{result.rms:.1e}"
    return (*what, f"{1000 * result.timing.median_s:.1f}", spread, f"{result.fps:.1f}", result.note or rms)


def pipeline_line(result: PipelineResult, results: Results) -> tuple[str, ...]:
    """Cells of `PIPELINE_HEADER`'s table."""
    speedup = results.speedup(result)
    parts = f"{1000 * result.model_cpu_s:.1f} + {1000 * result.other_cpu_s:.1f}"
    return (
        result.model, result.backend, result.precision, f"{result.fps:.2f}", f"{result.limit_fps:.2f}",
        f"{result.efficiency:.2f}", f"{1 / result.network.median_s:.2f}", parts,
        "" if speedup is None else f"{speedup:.2f}", f"{result.others:.1f}",
    )  # fmt: skip


def quality_line(result: QualityResult) -> tuple[str, ...]:
    """Cells of `QUALITY_HEADER`'s table."""
    return (
        result.model, result.backend, result.precision, result.size, str(result.photos), f"{result.abs_rel:.4f}",
        f"{result.delta_1_25:.4f}", "" if result.ordinal is None else f"{result.ordinal:.4f}",
        "" if result.flicker is None else f"{result.flicker:.2%}", f"{1000 * result.median_s:.1f}",
        f"{result.fps:.2f}",
    )  # fmt: skip


def latency_line(result: LatencyResult) -> tuple[str, ...]:
    """Cells of `LATENCY_HEADER`'s table."""
    seconds = (result.p50_s, result.p95_s, result.worst_s, result.program_p50_s, result.program_p95_s)
    return (
        result.model, result.backend, result.precision, result.display, str(result.shown), f"{result.fps:.2f}",
        *("" if one is None else f"{1000 * one:.0f}" for one in seconds), f"{result.first_picture_s:.2f} s",
    )  # fmt: skip


LOAD_HEADER = (
    "model", "backend", "precision", "beside", "idle fps", "loaded fps", "ratio", "CPU ms a frame",
)  # fmt: skip


def load_line(idle: PipelineResult, loaded: PipelineResult) -> tuple[str, ...]:
    """Cells of `LOAD_HEADER`'s table."""
    cpu = f"{1000 * idle.cpu_s:.1f}, {1000 * loaded.cpu_s:.1f} (×{loaded.cpu_s / idle.cpu_s:.2f})"
    return (
        idle.model, idle.backend, idle.precision, str(loaded.beside), f"{idle.fps:.2f}", f"{loaded.fps:.2f}",
        f"{loaded.fps / idle.fps:.2f}", cpu,
    )  # fmt: skip


def table(header: Sequence[str], lines: Sequence[Sequence[str]], title: str) -> Any:
    """A `rich` table."""
    from rich.box import SIMPLE
    from rich.table import Table

    made = Table(*header, title=title, box=SIMPLE, title_justify="left")
    for line in lines:
        made.add_row(*line)
    return made


def plot(results: Results, path: Path) -> None:
    """Draw the network's rates as bars, one panel per model and input size; the path's suffix is the format.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SinkError: it cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = "pip install 'depthstream[plot]'"
        raise MissingExtraError("matplotlib is not installed", where="--plot", hint=hint) from error
    measured = [result for result in results.networks if result.fps is not None]
    panels = list(dict.fromkeys((result.model, result.size) for result in measured))
    figure = Figure(
        figsize=(7, 0.6 + sum(0.8 + 0.3 * _count(measured, panel) for panel in panels)), layout="constrained"
    )
    heights = [1 + 0.4 * _count(measured, panel) for panel in panels]
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        shown = [result for result in measured if (result.model, result.size) == panel][::-1]
        labels = [f"{one.backend} {one.precision}" + (f" ×{one.batch}" if one.batch > 1 else "") for one in shown]
        bars = axis.barh(labels, [one.fps or 0.0 for one in shown], color="#5b3a8c")
        axis.bar_label(bars, fmt="%.1f", padding=3)
        axis.set_title(f"{panel[0]}, {panel[1]}", loc="left", fontsize=10)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(f"images per second, the network alone, {machine()['processor']}, {machine()['cores']} cores")
    try:
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix.removeprefix(".") or "png")
        write_file(path, content.getvalue(), may_be_pipe=True)
    except (OSError, ValueError) as error:
        raise SinkError(f"cannot be written: {error}", where=str(path)) from error


def _count(results: Sequence[NetworkResult], panel: tuple[str, str]) -> int:
    return sum((result.model, result.size) == panel for result in results)
