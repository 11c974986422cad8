"""What happened in a run, as numbers: the `Report`, and how one is made.

Invariant: on a clean end `captured == written + Σ dropped + Σ skipped`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.files import is_device_or_pipe, write_file
from stream.machine import peak_memory_bytes
from stream.metrics import Outcome, StageTime
from stream.pipeline.runner import Pipeline

if TYPE_CHECKING:
    from stream.infer.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Report:
    """What happened in a run, as numbers.

    Attributes:
        error: why it failed, None unless `outcome` is FAILED.
        captured: items attempted, undecodable ones included.
        inferred: frames that went through the model.
        written: frames that every lossless sink accepted.
        shown, not_shown: frames a preview showed, and those it skipped.
        dropped: frames lost on purpose, by cause (live sources; an interrupted run).
        skipped: inputs that could not be used: name and reason.
        fps: written per second, from the first frame captured to the last written.
        rates: frames per second that the source delivered (`capture`), the model computed (`model`) and that were
            written or shown (`output`), each from its first to its last; without those that have fewer than two.
        latency_p50_s, latency_p95_s: from capture to written or shown.
        stages: seconds busy and waiting of capture, inference and output.
        peak_memory_bytes: highest resident size of the process, None where the system does not tell.
        duration_s: wall time of the whole run, model loading included.
        outputs: final paths, or those of partial files if interrupted or failed.
        abandoned: threads that would not stop (stuck in a driver or network call).
    """

    outcome: Outcome
    error: str | None = None
    source: str
    model: str
    weights_sha256: str
    device: str
    precision: str
    backend: str
    captured: int
    inferred: int
    written: int
    shown: int
    not_shown: int
    dropped: dict[str, int]
    skipped: list[dict[str, str]]
    warnings: list[str]
    notes: list[str]
    counters: dict[str, int]
    fps: float | None
    rates: dict[str, float]
    latency_p50_s: float | None
    latency_p95_s: float | None
    stages: dict[str, StageTime]
    peak_memory_bytes: int | None
    duration_s: float
    outputs: list[str]
    abandoned: list[str]

    @classmethod
    def of_failure(cls, error: str, *, source: str, model: str, duration_s: float) -> "Report":
        """The report of a run that failed before its first frame."""
        return cls(
            outcome=Outcome.FAILED,
            error=error,
            source=source,
            model=model,
            weights_sha256="",
            device="",
            precision="",
            backend="",
            captured=0,
            inferred=0,
            written=0,
            shown=0,
            not_shown=0,
            dropped={},
            skipped=[],
            warnings=[],
            notes=[],
            counters={},
            fps=None,
            rates={},
            latency_p50_s=None,
            latency_p95_s=None,
            stages={},
            peak_memory_bytes=peak_memory_bytes(),
            duration_s=duration_s,
            outputs=[],
            abandoned=[],
        )

    @property
    def exit_code(self) -> int:
        """See `Outcome.exit_code`."""
        return self.outcome.exit_code

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"exit_code": self.exit_code, **asdict(self)}

    def save(self, path: Path) -> None:
        """Write as JSON, atomically; to a device or pipe as one line. Raises `OSError`."""
        is_stream = is_device_or_pipe(path)
        if not is_stream:
            path = path.resolve()  # a link keeps its place, the file behind it is replaced
            path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=None if is_stream else 2, ensure_ascii=False)
        write_file(path, f"{text}\n".encode())


def is_report(path: Path) -> bool:
    """True if the file is the report of an earlier run."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "exit_code" in content


def make_report(
    pipeline: Pipeline, engine: "Engine", outcome: Outcome, *, error: str | None, notes: list[str], duration_s: float
) -> Report:
    log, metrics, stages = pipeline.source.log, pipeline.metrics, pipeline.stages
    skipped = [*log.skipped, *stages.refused]
    captured = metrics.delivered + len(log.skipped)
    dropped = metrics.dropped + type(metrics.dropped)(log.dropped)
    captured += sum(log.dropped.values())
    left = captured - metrics.written - sum(dropped.values()) - len(skipped)
    if stages.stopped_early and left:
        dropped["stopped"] += left
    counters = {
        **engine.counters,
        "quality_changes": stages.inference.quality_changes,
        "decoder_fallbacks": log.decoder_fallbacks,
        "repaired_pts": log.repaired_pts,
        "ignored_files": log.ignored,
        "reconnects": log.reconnects,
        "scene_cuts": pipeline.scene_cuts,
    }
    return Report(
        outcome=outcome,
        error=error,
        source=pipeline.source.info.name,
        model=engine.spec.name,
        weights_sha256=engine.model.weights_sha256,
        device=str(engine.device),
        precision=str(engine.precision),
        backend=engine.backend,
        captured=captured,
        inferred=metrics.inferred,
        written=metrics.written,
        shown=metrics.shown,
        not_shown=metrics.not_shown,
        dropped=dict(dropped),
        skipped=[{"name": s.name, "reason": s.reason} for s in skipped],
        warnings=list(log.warnings),
        notes=notes,
        counters={name: count for name, count in counters.items() if count},
        fps=metrics.fps,
        rates={name: round(rate, 3) for name, rate in metrics.rates.items()},
        latency_p50_s=metrics.latency.percentile(50),
        latency_p95_s=metrics.latency.percentile(95),
        stages={**stages.times(), "output": pipeline.output_time},
        peak_memory_bytes=peak_memory_bytes(),
        duration_s=duration_s,
        outputs=list(dict.fromkeys(path for sink in pipeline.sinks for path in sink.outputs)),
        abandoned=list(stages.abandoned),
    )
