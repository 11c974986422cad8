"""What was measured, as a table for people, JSON for programs and a plot.

Invariant: every number comes with the machine, the versions and the settings it was measured with.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stream.bench.baseline import Plain
from stream.bench.network import Row
from stream.bench.pipeline import Whole
from stream.errors import MissingExtraError, SinkError
from stream.files import as_sink_error, write_file
from stream.version import __version__

_PACKAGES = ("torch", "numpy", "opencv-python", "av", "openvino", "onnxruntime", "nncf")


@dataclass(kw_only=True)
class Results:
    """Everything that one `depthstream bench` measured.

    Attributes:
        settings: what was asked for.
        stand_ins: models whose weights were made up, because the real ones are not here.
    """

    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    wholes: list[Whole] = field(default_factory=list)
    plains: list[Plain] = field(default_factory=list)
    stand_ins: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "machine": machine(),
            "versions": versions(),
            "settings": self.settings,
            "made_up_weights": self.stand_ins,
            "bare": [row.to_dict() for row in self.rows],
            "whole": [whole.to_dict() for whole in self.wholes],
            "plain": [plain.to_dict() for plain in self.plains],
        }

    def ratios(self) -> list[tuple[Whole, float]]:
        """Each pipeline's rate ÷ that of the plain loop with the same model."""
        loops = {plain.model: plain.fps for plain in self.plains}
        return [(whole, whole.fps / loops[whole.model]) for whole in self.wholes if whole.model in loops]


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": _processor(), "cores": cores, "system": f"{platform.system()} {platform.machine()}"}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of this program, Python and what computes."""
    found = {"depthstream": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def save(results: Results, path: Path) -> None:
    """Write JSON, atomically.

    Raises:
        SinkError: it cannot be written.
    """
    text = json.dumps(results.to_dict(), indent=1, ensure_ascii=False)
    with as_sink_error(path):
        write_file(path, f"{text}\n".encode())


def bare_line(row: Row) -> tuple[str, ...]:
    """Cells of a row: what, and how fast."""
    what = (row.model, row.backend, row.precision, row.size, str(row.batch))
    if row.timing is None or row.fps is None:
        return (*what, "", "", "", row.note)
    spread = f"{1000 * row.timing.low_s:.1f} to {1000 * row.timing.high_s:.1f}"
    rms = "" if row.rms is None else f"{row.rms:.1e}"
    return (*what, f"{1000 * row.timing.median_s:.1f}", spread, f"{row.fps:.1f}", row.note or rms)


BARE_HEADER = ("model", "backend", "precision", "input", "batch", "ms a batch", "quartiles", "fps", "off by (rms/std)")
WHOLE_HEADER = ("model", "backend", "precision", "fps", "limit", "efficiency", "bare fps", "CPU ms a frame", "× plain")


def whole_line(whole: Whole, results: Results) -> tuple[str, ...]:
    """Cells of a pipeline."""
    ratio = {id(other): found for other, found in results.ratios()}.get(id(whole))
    parts = f"{1000 * whole.model_cpu_s:.1f} + {1000 * whole.other_cpu_s:.1f}"
    return (
        whole.model, whole.backend, whole.precision, f"{whole.fps:.2f}", f"{whole.limit_fps:.2f}",
        f"{whole.efficiency:.2f}", f"{1 / whole.bare.median_s:.2f}", parts, "" if ratio is None else f"{ratio:.2f}",
    )  # fmt: skip


def table(header: Sequence[str], lines: Sequence[Sequence[str]], title: str) -> Any:
    """A table for rich."""
    from rich.box import SIMPLE
    from rich.table import Table

    made = Table(*header, title=title, box=SIMPLE, title_justify="left")
    for line in lines:
        made.add_row(*line)
    return made


def plot(results: Results, path: Path) -> None:
    """Bars of the bare rates, one panel for each model and input size; the format is the path's suffix.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SinkError: it cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = "pip install 'depthstream[plot]'"
        raise MissingExtraError("needs matplotlib, which is not installed", where="--plot", hint=hint) from error
    rows = [row for row in results.rows if row.fps is not None]
    panels = list(dict.fromkeys((row.model, row.size) for row in rows))
    figure = Figure(figsize=(7, 0.6 + sum(0.8 + 0.3 * _count(rows, panel) for panel in panels)), layout="constrained")
    heights = [1 + 0.4 * _count(rows, panel) for panel in panels]
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        shown = [row for row in rows if (row.model, row.size) == panel][::-1]
        labels = [f"{row.backend} {row.precision}" + (f" ×{row.batch}" if row.batch > 1 else "") for row in shown]
        bars = axis.barh(labels, [row.fps or 0.0 for row in shown], color="#5b3a8c")
        axis.bar_label(bars, fmt="%.1f", padding=3)
        axis.set_title(f"{panel[0]}, {panel[1]}", loc="left", fontsize=10)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(f"pictures a second, the network alone, {machine()['processor']}, {machine()['cores']} cores")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise SinkError(f"cannot be written: {error}", where=str(path)) from error


def _count(rows: Sequence[Row], panel: tuple[str, str]) -> int:
    return sum((row.model, row.size) == panel for row in rows)
