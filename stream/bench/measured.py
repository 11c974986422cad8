"""The speeds that `depthstream bench` has measured on this machine, kept for `depthstream models`. No torch.

Invariant: a speed is given only on the machine that it was measured on, and with everything that it depends on.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.files import json_text, read_json, write_file
from stream.machine import processor_name, system_name, usable_cores
from stream.notes import note
from stream.version import __version__

if TYPE_CHECKING:
    from stream.bench.network import NetworkResult
    from stream.bench.pipeline import PipelineResult
    from stream.bench.report import Results


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One measured speed.

    Attributes:
        model: its catalog name.
        part: `pipeline`, from a video to a depth video, or `network`, alone.
        fps: frames per second.
        size: "width×height" of the video, or of the network's input.
        input_size: `--input-size`; None for the model's own.
        synthetic_weights: the model's weights were not there; this does not change its speed.
        measured_at: when, in UTC.
        version: of this program.
    """

    model: str
    part: str
    fps: float
    size: str
    input_size: int | None
    batch: int
    device: str
    backend: str
    precision: str
    threads: int
    synthetic_weights: bool
    processor: str
    cores: int
    system: str
    measured_at: str
    version: str

    @property
    def settings(self) -> tuple[object, ...]:
        """Everything but the result: a later measurement of the same replaces an earlier one."""
        return tuple(value for name, value in asdict(self).items() if name not in ("fps", "measured_at", "version"))

    def __str__(self) -> str:
        where = f"{self.size} video" if self.part == "pipeline" else f"the network alone at {self.size}"
        at = f" --input-size {self.input_size}" if self.input_size is not None else ""
        how = f"{self.backend} {self.precision} on {self.device}{at}"
        return f"{self.fps:.3g} fps ({where}, {how}, {self.measured_at[:10]})"


def measured_file() -> Path:
    """Where the speeds are kept, beside the exported models; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("depthstream", appauthor=False) / "measured.json"


def keep(results: "Results", *, input_size: int | None, batch: int) -> None:
    """Add the results of a benchmark to those that are kept.

    Args:
        input_size, batch: those of the pipelines.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = {speed.settings: speed for speed in _kept()}
    for speed in _speeds(results, input_size=input_size, batch=batch, now=now):
        known[speed.settings] = speed
    path = measured_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, f"{json_text([asdict(speed) for speed in known.values()], indent=1)}\n".encode())
    except OSError as error:
        note(f"{path} is not writable ({error.strerror}): `depthstream models` will not show these speeds")


def on_this_machine() -> dict[str, list[Speed]]:
    """The speeds by model, the one to show first: the fastest pipeline, then the fastest network alone."""
    found: dict[str, list[Speed]] = {}
    here = _machine()
    for speed in sorted(_kept(), key=lambda one: (one.part != "pipeline", -one.fps)):
        if (speed.processor, speed.cores, speed.system) == here:
            found.setdefault(speed.model, []).append(speed)
    return found


def _machine() -> tuple[str, int, str]:
    return processor_name(), usable_cores(), system_name()


def _speeds(results: "Results", *, input_size: int | None, batch: int, now: str) -> Iterable[Speed]:
    processor, cores, system = _machine()

    def speed(part: str, one: "PipelineResult | NetworkResult", fps: float, side: int | None, batch: int) -> Speed:
        return Speed(
            model=one.model, part=part, fps=fps, size=one.size, input_size=side, batch=batch,
            device=results.devices[one.model], backend=one.backend, precision=one.precision, threads=one.threads,
            synthetic_weights=one.model in results.synthetic_weights,
            processor=processor, cores=cores, system=system, measured_at=now, version=__version__,
        )  # fmt: skip

    for pipeline in results.pipelines:
        yield speed("pipeline", pipeline, pipeline.fps, input_size, batch)
    for network in results.networks:
        if network.fps is not None:
            yield speed("network", network, network.fps, network.input_size, network.batch)


def _kept() -> list[Speed]:
    """The speeds in the file; what is not one is left out."""
    content = read_json(measured_file())
    found = []
    for item in content if isinstance(content, list) else ():
        given: dict[str, Any] = {}
        if isinstance(item, dict):
            given = {field.name: item.get(field.name) for field in fields(Speed)}
        if given and all(isinstance(given[field.name], field.type) for field in fields(Speed)):  # type: ignore[arg-type]
            found.append(Speed(**given))
    return found
