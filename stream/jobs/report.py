"""What happened in a run, as numbers: the `Report`, and how one is made.

Invariant: on a clean end `captured == written + Σ dropped + Σ skipped`.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stream.errors import masked, redacted
from stream.files import is_device_or_pipe, json_text, read_json, write_file
from stream.infer.base import DepthChange
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
        carried: frames whose depth was carried from those (`--skip`). Of a file, the two add up to the frames that were
            computed; of a live source, a frame that goes through the model may be shown with carried depth, too.
        written: frames that every lossless sink accepted.
        shown, not_shown: frames a preview showed, and those it skipped.
        dropped: frames lost on purpose, by cause (live sources; an interrupted run).
        skipped: inputs that could not be used: name and reason.
        fps: written per second, from the first frame captured to the last written.
        rates: frames per second that the source delivered (`capture`), the model computed (`model`) and that were
            written or shown (`output`), each from its first to its last; without those that have fewer than two.
        latency_p50_s, latency_p95_s: from capture to written or shown.
        depth_change: how much depth changes along the motion of the picture, for each model, with `--steady` and in a
            comparison of videos; None where no two frames could be compared. See docs/depth-data.md.
        stages: seconds busy and waiting of capture, inference and output.
        peak_memory_bytes: highest resident size of the process, None where the system does not tell.
        duration_s: wall time of the whole run, model loading included.
        outputs: final paths, or those of partial files if interrupted or failed.
        abandoned: threads that would not stop (stuck in a driver or network call).
        hung_up: the terminal was closed (SIGHUP), which ended the run like Ctrl-C.
        clip_range: the ends of the whole clip, None if the run did not need them: `lo` and `hi` are what the ends of
            the colormap stand for (`percentiles` of what is displayed), `lowest` and `highest` all values, in the unit
            of the model.
        segments: into which the source was cut, as far as they are done; 0 for a run in one piece.
        reused: of the frames written, those of segments that an earlier run had done.
        refined: the depth of at least one frame follows its edges (`--refine`), so its values are not the official
            ones.
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
    hung_up: bool = False
    depth_change: tuple[DepthChange | None, ...] = ()
    clip_range: dict[str, Any] | None = None
    refined: bool = False
    segments: int = 0
    reused: int = 0
    carried: int = 0

    def __post_init__(self) -> None:
        """Mask what may be secret in every text, whoever wrote it; the names of files stay as they are."""
        object.__setattr__(self, "error", self.error and masked(self.error))
        object.__setattr__(self, "source", redacted(self.source))
        for name in ("warnings", "notes"):
            object.__setattr__(self, name, [masked(text) for text in getattr(self, name)])
        skipped = [{"name": redacted(one["name"]), "reason": masked(one["reason"])} for one in self.skipped]
        object.__setattr__(self, "skipped", skipped)
        object.__setattr__(self, "outputs", [redacted(output) for output in self.outputs])

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
        """See `Outcome.exit_code`; 129 instead of 130 after `hung_up`."""
        return 129 if self.hung_up and self.outcome is Outcome.INTERRUPTED else self.outcome.exit_code

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"exit_code": self.exit_code, **asdict(self)}

    def save(self, path: Path) -> None:
        """Write as JSON, atomically; to a device or pipe as one line. A link is replaced. Raises `OSError`."""
        _save(self.to_dict(), path)


@dataclass(frozen=True, kw_only=True)
class ReportOfSeveral:
    """What happened in a run of several live sources.

    Attributes:
        names: of the sources, each once.
        sources: the report of each, in order; what it counts of the model (`counters`) is that of all.
        largest_batch: most frames that the model has computed together.
        duration_s: wall time of the whole run, model loading included.
        error: what the run itself failed with; None if it went on until its sources had ended.
    """

    names: list[str]
    sources: list[Report]
    largest_batch: int
    duration_s: float
    error: str | None = None

    @property
    def exit_code(self) -> int:
        """0 if all went well, 1 if all or the run itself failed, 130 (129 after `hung_up`) if all were interrupted
        before they gave anything; otherwise 3."""
        if self.error is not None:
            return Outcome.FAILED.exit_code
        codes = {one.exit_code for one in self.sources}
        return codes.pop() if len(codes) == 1 else Outcome.DONE_WITH_SKIPS.exit_code

    def by_name(self) -> dict[str, Report]:
        """The report of each source."""
        return dict(zip(self.names, self.sources, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        about = {
            "error": self.error and masked(self.error),
            "largest_batch": self.largest_batch,
            "duration_s": self.duration_s,
        }
        return {
            "exit_code": self.exit_code,
            **about,
            "sources": [{"name": name} | one.to_dict() for name, one in self.by_name().items()],
        }

    def save(self, path: Path) -> None:
        """Write as JSON, see `Report.save`. Raises `OSError`."""
        _save(self.to_dict(), path)


def _save(content: dict[str, Any], path: Path) -> None:
    is_stream = is_device_or_pipe(path)
    if not is_stream:
        path.parent.mkdir(parents=True, exist_ok=True)
    text = json_text(content, indent=None if is_stream else 2)
    write_file(path, f"{text}\n".encode(), may_be_pipe=True)


def is_stdout(path: Path) -> bool:
    """True if the path is this process's stdout, whatever it is called."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def is_report(path: Path) -> bool:
    """True if the file is the report of an earlier run."""
    content = read_json(path)
    return isinstance(content, dict) and "exit_code" in content


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a report states of the model; the attributes are those of `Report`."""

    name: str
    weights_sha256: str = ""
    device: str = ""
    precision: str = ""
    backend: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)
    refined: bool = False

    @classmethod
    def of(cls, engine: "Engine", *others: "Engine") -> Self:
        """Those of an engine, which may have changed while it ran; `others` may have taken its place for a while."""
        return cls(
            name=engine.spec.name,
            weights_sha256=engine.model.weights_sha256,
            device=str(engine.device),
            precision=str(engine.precision),
            backend=engine.backend,
            counters=engine.counters,
            refined=any(one.has_refined for one in (engine, *others)),
        )


def make_report(
    pipeline: Pipeline, model: ModelFacts, outcome: Outcome, *, error: str | None, notes: list[str], duration_s: float
) -> Report:
    log, metrics, stages = pipeline.source.log, pipeline.metrics, pipeline.stages
    unwritten = pipeline.unwritten
    skipped = [*log.skipped, *stages.refused, *unwritten]
    written = metrics.written - len(unwritten)
    captured = metrics.delivered + len(log.skipped)
    dropped = metrics.dropped + type(metrics.dropped)(log.dropped)
    captured += sum(log.dropped.values())
    left = captured - written - sum(dropped.values()) - len(skipped)
    if stages.stopped_early and left:
        dropped["stopped"] += left
    counters = {
        **model.counters,
        "quality_changes": stages.inference.quality_changes,
        "decoder_fallbacks": log.decoder_fallbacks,
        "transport_fallbacks": log.transport_fallbacks,
        "repaired_pts": log.repaired_pts,
        "clock_jumps": log.clock_jumps,
        "size_changes": log.size_changes,
        "damaged_packets": log.damaged_packets,
        "damaged_frames": log.damaged_frames,
        "ignored_files": log.ignored,
        "ignored_images": log.further_images,
        "reconnects": log.reconnects,
        "scene_cuts": pipeline.scene_cuts,
    }
    for sink in pipeline.sinks:
        counters |= sink.counters
    return Report(
        outcome=outcome,
        error=error,
        source=pipeline.source.info.name,
        model=model.name,
        weights_sha256=model.weights_sha256,
        device=model.device,
        precision=model.precision,
        backend=model.backend,
        captured=captured,
        inferred=metrics.inferred,
        carried=metrics.carried,
        written=written,
        shown=metrics.shown,
        not_shown=metrics.not_shown,
        dropped=dict(dropped),
        skipped=[{"name": s.name, "reason": s.reason} for s in skipped],
        warnings=[*log.warnings, *(warning for sink in pipeline.sinks for warning in sink.warnings)],
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
        hung_up=pipeline.hung_up,
        depth_change=stages.inference.depth_changes,
        refined=model.refined,
    )
