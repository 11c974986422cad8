"""Speed of the whole pipeline on a video, and what limits it.

Invariant: the pipeline and its parts are measured on the same clip with the same engine settings.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stream.bench.load import OtherPrograms, cores_in_use
from stream.bench.timing import Timing, timed
from stream.capture.base import Source
from stream.channel import Channel, Closed
from stream.config import Config
from stream.frames import Depth, DepthKind, Frame, Result
from stream.infer.base import Inference
from stream.infer.engine import Engine
from stream.jobs.build import build_renderer, build_sinks
from stream.jobs.models import engine_inference
from stream.jobs.plan import plan_outputs
from stream.jobs.source import open_config_source
from stream.machine import usable_cores
from stream.models.registry import LoadedModel
from stream.pipeline.runner import QUEUE, Pipeline

_TIMED_FRAMES = 12
"""Frames with which the CPU time of the parts is measured."""


@dataclass(frozen=True, kw_only=True)
class PipelineResult:
    """The pipeline's speed.

    Attributes:
        size: of the clip, "width×height".
        fps: results per second, from the first to the last one.
        network: one batch of the network alone.
        model_cpu_s: CPU seconds per frame of resizing to the network's input, the network, and resizing back.
        other_cpu_s: CPU seconds per frame of decoding, colouring and encoding.
        cores: logical cores that this process may use.
        limit_fps: a bound for any pipeline: the smaller of the network's rate and `cores` ÷ CPU seconds per frame.
        efficiency: `fps` ÷ `limit_fps`.
        stages: seconds that each stage was busy and waiting.
        cpu_s: CPU seconds per frame of the whole run.
        beside: busy processes that ran beside it on purpose.
        others_before, others: cores that other programs used before the measurement, those on purpose included, and
            during the run.
    """

    model: str
    backend: str
    precision: str
    size: str
    frames: int
    threads: int
    encoder: str
    fps: float
    network: Timing
    model_cpu_s: float
    other_cpu_s: float
    cores: int
    limit_fps: float
    efficiency: float
    stages: dict[str, dict[str, float]]
    cpu_s: float
    beside: int
    others_before: float
    others: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable values."""
        return asdict(self)


class _Precomputed(Inference):
    """An inference stage that computes nothing and repeats precomputed depth maps."""

    def __init__(self, depths: list[Depth]) -> None:
        self._depths = depths

    def stream(self, frames: Channel[Frame], on_skip: Callable[[Frame, str], None]) -> Iterator[Result]:  # noqa: ARG002
        """See `Inference`."""
        while True:
            try:
                frame = frames.get()
            except Closed:
                return
            yield frame, replace(self._depths[frame.index % len(self._depths)], index=frame.index)

    def close(self) -> None:
        """Release nothing."""


def measure(
    model: LoadedModel,
    clip: Path,
    folder: Path,
    *,
    make_engine: Callable[[LoadedModel], Engine],
    layout: str,
    batch: int,
    frames: int,
    temporal: str | None = None,
    beside: int = 0,
) -> PipelineResult:
    """Measure the network alone, the CPU time of the parts, and the whole pipeline on `clip`.

    Args:
        temporal: as `--temporal`; a model that sees several frames gets them, while its parts are measured with each
            frame alone.
        beside: busy processes that the caller keeps running, see `load.beside`.
    """
    others_before = cores_in_use()
    config = Config.model_validate(
        {
            "source": str(clip),
            "capture": {"max_frames": frames},
            "inference": {"batch": batch, "temporal": temporal},
            "render": {"layout": layout},
            "output": {"path": folder / "out.mp4", "overwrite": True},
        }
    )
    engine, kind = make_engine(model), model.spec.output
    first_frames = _first_frames(config, _TIMED_FRAMES)
    engine.prepare(first_frames[0].size)
    x = engine.network_input(first_frames[0], count=batch)
    network = timed(lambda: engine.run_network(x))
    depths, model_cpu_s = _with_cpu(lambda: [engine.infer([frame])[0] for frame in first_frames])
    _, other_cpu_s = _with_cpu(lambda: pipeline_of(config, lambda _: _Precomputed(depths), kind=kind).run())
    pipeline = pipeline_of(config, lambda source: engine_inference(config, source, engine), kind=kind)
    backend, precision, threads = engine.backend, engine.precision, engine.threads
    others = OtherPrograms()
    _, cpu_s = _with_cpu(pipeline.run)
    others_during = others.cores

    count = pipeline.metrics.written
    cores = usable_cores()
    model_cpu_s, other_cpu_s = model_cpu_s / len(first_frames), other_cpu_s / count
    limit_fps = min(batch / network.median_s, cores / (model_cpu_s + other_cpu_s))
    fps = pipeline.metrics.rates["output"]
    stages = {**pipeline.stages.times(), "output": pipeline.output_time}
    height, width = first_frames[0].size
    return PipelineResult(
        model=model.spec.name,
        backend=backend,
        precision=precision,
        size=f"{width}×{height}",
        frames=count,
        threads=threads,
        encoder="libx264 veryfast",
        fps=fps,
        network=network,
        model_cpu_s=model_cpu_s,
        other_cpu_s=other_cpu_s,
        cores=cores,
        limit_fps=limit_fps,
        efficiency=fps / limit_fps,
        stages={name: asdict(stage) for name, stage in stages.items()},
        cpu_s=cpu_s / count,
        beside=beside,
        others_before=others_before,
        others=others_during,
    )


def _first_frames(config: Config, count: int) -> list[Frame]:
    source = open_config_source(config)
    try:
        return [frame for frame, _ in zip(source, range(count), strict=False)]
    finally:
        source.close()


def pipeline_of(
    config: Config, inference: Callable[[Source], Inference], *, kind: DepthKind, queue: int = QUEUE
) -> Pipeline:
    """The pipeline of a run of `config`, with an inference, which gives depth of this kind, in place of its model."""
    source = open_config_source(config)
    plan = plan_outputs(config, source.info)
    renderer = build_renderer(config, plan, kind)
    return Pipeline(source, inference(source), renderer, build_sinks(config, plan), queue=queue)


def _with_cpu(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work`, and the CPU seconds that the whole process spent meanwhile."""
    before = time.process_time()
    result = work()
    return result, time.process_time() - before
